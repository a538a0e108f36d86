"""Random counts: how often each patient is drawn in each replicate of a bootstrap.

Shapes: N rows (or cells of alike rows), U units of resampling (patients), B replicates.

Drawing U units with replacement is drawing multinomial counts over them. Replicates come in blocks of a fixed size,
each with its own child of one SeedSequence, so the answer does not depend on who computes which block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sarc_ray.stats.arrays import FloatArray, IntArray

# Part of the definition of a result: another number draws other replicates from the same seed.
REPLICATES_PER_BLOCK = 50
# Counts of this many units fit the first-level cache; a power of two, so that masked random bits are uniform.
_UNITS_PER_BUCKET = 8192
# Replicates of one block are taken together while their counts stay below this many numbers.
_COUNTS_AT_ONCE = 2**18


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Some replicates with a random stream of their own; picklable."""

    n_replicates: int
    seed: np.random.SeedSequence


def plan_blocks(n_boot: int, *, seed: int | Sequence[int]) -> list[Block]:
    """Split replicates into blocks, each with a spawned child of the seed.

    Raises:
        ValueError: n_boot < 1.

    >>> [block.n_replicates for block in plan_blocks(120, seed=1)]
    [50, 50, 20]
    """
    if n_boot < 1:
        raise ValueError(f"n_boot: found {n_boot}; at least 1 replicate is needed (2000 in the paper)")
    sizes = [min(REPLICATES_PER_BLOCK, n_boot - done) for done in range(0, n_boot, REPLICATES_PER_BLOCK)]
    children = np.random.SeedSequence(seed).spawn(len(sizes))
    return [Block(n_replicates=size, seed=child) for size, child in zip(sizes, children, strict=True)]


def number_patients(patient: npt.ArrayLike | None, n_rows: int) -> tuple[IntArray | None, int]:
    """Number the patients of rows from 0; no numbers where every row is a patient of its own.

    Returns:
        The patient's number of each row, shape (N,), or None; and how many patients there are.

    Raises:
        ValueError: not one patient per row, or a missing one.

    >>> number_patients(["b", "a", "b"], 3)
    (array([1, 0, 1]), 2)
    """
    if patient is None:
        return None, n_rows
    patients: npt.NDArray[Any] = np.asarray(patient)
    if patients.shape != (n_rows,):
        raise ValueError(f"patient: expected shape ({n_rows},), found {patients.shape}")
    try:
        names, unit_N = np.unique(patients, return_inverse=True)
        missing = any(name is None for name in names[:1]) or bool((names != names).any())
    except TypeError as error:
        raise ValueError(f"patient: expected names of one kind, none of them missing: {error}") from error
    if missing:
        raise ValueError("patient: some are missing; all their rows would count as one patient's; name every patient")
    return (None, n_rows) if names.size == n_rows else (unit_N.astype(np.int64), int(names.size))


def draw_units(block: Block, n_units: int, *, n_rows: int) -> Iterator[FloatArray]:
    """Yield counts of U draws with replacement from U units of N rows, shape (B, U), few enough replicates at a time.

    The array that is yielded is filled anew for the next replicates: use it before asking for them.

    >>> [counts.sum(axis=1).tolist() for counts in draw_units(plan_blocks(3, seed=1)[0], 4, n_rows=4)]
    [[4.0, 4.0, 4.0]]
    """
    rng, at_once = np.random.default_rng(block.seed), max(1, _COUNTS_AT_ONCE // n_rows)
    counts_BU = np.empty((min(at_once, block.n_replicates), n_units))
    for done in range(0, block.n_replicates, at_once):
        part_BU = counts_BU[: block.n_replicates - done]
        if n_units <= _UNITS_PER_BUCKET:
            _fill_together(part_BU, rng=rng)
        else:
            for counts_U in part_BU:
                _fill_by_bucket(counts_U, rng=rng)
        yield part_BU


def draw_rows(block: Block, unit_N: IntArray | None, n_units: int, n_rows: int) -> Iterator[FloatArray]:
    """Yield how often each row is drawn, shape (B, N): as often as its patient (as :func:`draw_units`).

    >>> next(draw_rows(plan_blocks(1, seed=1)[0], np.array([0, 0, 1]), 2, 3)).tolist() in (
    ...     [[2.0, 2.0, 0.0]], [[1.0, 1.0, 1.0]], [[0.0, 0.0, 2.0]])
    True
    """
    for counts_BU in draw_units(block, n_units, n_rows=n_rows):
        yield counts_BU if unit_N is None else counts_BU.take(unit_N, axis=1)


def draw_cells(block: Block, size_N: IntArray) -> Iterator[FloatArray]:
    """Yield how many draws fall on each cell of alike patients, shape (B, N): multinomial, by the cells' sizes.

    For few cells of many patients each: the time depends on the number of cells alone.

    >>> next(draw_cells(plan_blocks(2, seed=1)[0], np.array([3, 1]))).sum(axis=1)
    array([4., 4.])
    """
    rng, n_units = np.random.default_rng(block.seed), int(size_N.sum())
    at_once = max(1, _COUNTS_AT_ONCE // size_N.size)
    for done in range(0, block.n_replicates, at_once):
        n_replicates = min(at_once, block.n_replicates - done)
        yield rng.multinomial(n_units, size_N / n_units, size=n_replicates).astype(np.float64)


def _fill_together(counts_BU: FloatArray, *, rng: np.random.Generator) -> None:
    n_replicates, n_units = counts_BU.shape
    drawn_BU = rng.integers(0, n_units, size=(n_replicates, n_units))
    drawn_BU += np.arange(n_replicates)[:, None] * n_units
    counts_BU[:] = np.bincount(drawn_BU.ravel(), minlength=counts_BU.size).reshape(counts_BU.shape)


def _fill_by_bucket(counts_U: FloatArray, *, rng: np.random.Generator) -> None:
    # The same distribution as one bincount over all units, but each bucket's counts stay in the cache: ten times
    # as fast at a million units.
    size, n_units = _UNITS_PER_BUCKET, counts_U.size
    n_full = n_units // size
    sizes = np.append(np.full(n_full, size), n_units - n_full * size)
    totals = rng.multinomial(n_units, sizes / n_units)
    ends = np.cumsum(totals[:-1])
    # Four draws of 16 bits from each number of 64: the sizes of full buckets divide 2^16.
    words = rng.integers(0, 2**64 - 1, endpoint=True, size=-(-int(ends[-1]) // 4), dtype=np.uint64)
    drawn = words.view(np.uint16)
    drawn &= np.uint16(size - 1)
    for bucket, (end, total) in enumerate(zip(ends.tolist(), totals.tolist(), strict=False)):
        counts_U[bucket * size : (bucket + 1) * size] = np.bincount(drawn[end - total : end], minlength=size)
    if sizes[-1]:
        last = rng.integers(0, sizes[-1], size=totals[-1])
        counts_U[n_full * size :] = np.bincount(last, minlength=sizes[-1])

"""Whether two ways of scoring gave the same answers; a run whose answers differ is refused, however fast it was."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pandas as pd
import pyarrow.parquet as pq

from sarc_ray import storage, tables
from sarc_ray.cohort.schema import read_manifest

# Ours decodes JPEG 2000 reduced, and resizes before it windows. What that may move of a probability, and how closely
# the predictions must follow each other from picture to picture.
SCORE_TOLERANCE = 0.1
MEAN_TOLERANCE = 0.025
CORRELATION_MIN = 0.99
# Made with keys and names that the tight loop does not have.
_OF_THE_RUN = ("run_id", "patient_key", "study_key")


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Between the scores of two ways, over the same pictures."""

    score_max: float
    score_mean: float
    correlation_min: float

    def words(self) -> str:
        """For a cell of a table."""
        return f"{self.score_max:.1g} (mean {self.score_mean:.1g}; correlation {self.correlation_min:.4f})"


def require_all_scored(table: str, *, n: int) -> None:
    """Every row of a sealed table has its score.

    Raises:
        SystemExit: some were refused, so that rates would count what was not done.
    """
    pointer = tables.read_pointer(table)
    assert pointer is not None
    if pointer.counts != {"scored": n}:
        raise SystemExit(f"{table}: {pointer.counts} of {n} rows; all should be scored")


def difference_to_script(table: str, written: str, manifest: str, *, n_distinct: int) -> Difference:
    """Our sealed table against the file of the plain script.

    Raises:
        SystemExit: they differ by more than the tolerance.
    """
    rows = read_manifest(manifest)[["row_id", "image_uri"]]
    ours = tables.read(table).merge(rows, on="row_id").set_index("image_uri").sort_index()
    theirs = pq.read_table(io.BytesIO(storage.read_bytes(written))).to_pandas().set_index("image_uri").sort_index()
    if list(ours.index) != list(theirs.index):
        raise SystemExit(f"{table}, {written}: not the same rows")
    away = (ours["score"] - theirs["score"]).abs()
    means = [name for name in ours.columns if name.endswith("_mu")]
    # Two pictures always correlate perfectly, or not at all.
    worst = min(ours[name].corr(theirs[name]) for name in means) if n_distinct > 2 else 1.0
    found = Difference(score_max=float(away.max()), score_mean=float(away.mean()), correlation_min=float(worst))
    near = found.score_max <= SCORE_TOLERANCE and found.score_mean <= MEAN_TOLERANCE
    if not (near and found.correlation_min >= CORRELATION_MIN):
        raise SystemExit(f"{manifest}: the answers differ: {found}")
    return found


def require_same_as_tight(table: str, folder: str) -> None:
    """Our sealed table against the files of the tight loop: the same numbers to the last bit.

    Raises:
        SystemExit: they differ.
    """
    parts = [pq.read_table(io.BytesIO(storage.read_bytes(uri))) for uri in storage.list_files(folder, ".parquet")]
    tight = pd.concat([part.to_pandas() for part in parts]).sort_values("row_id", ignore_index=True)
    ours = tables.read(table)
    shared = [name for name in tight.columns if name not in _OF_THE_RUN]
    try:
        pd.testing.assert_frame_equal(ours[shared], tight[shared], check_exact=True)
    except AssertionError as error:
        raise SystemExit(f"{table}: not what the tight loop made: {error}") from error

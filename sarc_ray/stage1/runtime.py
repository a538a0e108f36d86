"""Where and how torch computes: the device, a fixed number of threads, and random numbers that leave no trace.

Shapes: B pictures, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.utils.deterministic

from sarc_ray.stage1.settings import DEVICES

Device = Literal["auto", "cpu", "cuda"]
ByteArray = npt.NDArray[np.uint8]
IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureRows:
    """Some rows of a table of pictures that several members share; indexing copies the pictures asked for, no more.

    Args:
        table_NHW: uint8 pictures.
        rows_K: which of them, in which order.
    """

    table_NHW: ByteArray
    rows_K: IndexArray

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array that held the rows themselves."""
        return (len(self.rows_K), *self.table_NHW.shape[1:])

    def __len__(self) -> int:
        return len(self.rows_K)

    def __getitem__(self, picks: slice | IndexArray) -> ByteArray:
        return self.table_NHW[self.rows_K[picks]]


Pictures = ByteArray | PictureRows


def pick_device(name: str) -> torch.device:
    """Turn a configured device into one that exists.

    Raises:
        ValueError: an unknown name, or ``cuda`` where torch sees none.
    """
    if name not in DEVICES:
        raise ValueError(f"device: found {name!r}, allowed: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: found 'cuda', but torch sees no CUDA device here; use device: auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def reproducible(*, threads: int, device: torch.device) -> Iterator[None]:
    """Fix what a result depends on beside its inputs; put everything back afterwards.

    Sums over threads depend on their number (VGG16 differs by 5e-7 between one and two), so that number is
    an input. On a CPU results are then equal bit for bit; CUDA kernels are not held to that.
    """
    threads_before = torch.get_num_threads()
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    fill_before = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(device.type == "cpu")
        # Every new tensor would first be filled with NaN: a help for finding bugs that takes a sixth of the training.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.utils.deterministic.fill_uninitialized_memory = fill_before  # type: ignore[attr-defined]
            torch.use_deterministic_algorithms(deterministic_before)
            torch.set_num_threads(threads_before)


def derive_seed(*parts: int) -> int:
    """One seed from several whole numbers >= 0, so that each epoch or batch has a stream of its own."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_generator(seed: int, device: torch.device) -> torch.Generator:
    """A random generator on a device."""
    return torch.Generator(device=device).manual_seed(seed)


def to_grey(x_BHW: ByteArray, device: torch.device) -> torch.Tensor:
    """8-bit pictures to float grey levels in [0, 1], shape (B, 1, H, W), on the device.

    The copy lets the source be a read-only memory map or Arrow buffer.
    """
    bytes_BHW = torch.from_numpy(np.array(x_BHW))
    if device.type == "cuda":  # from pinned memory the copy runs while the GPU still works on the batch before
        bytes_BHW = bytes_BHW.pin_memory()
    return bytes_BHW.to(device, non_blocking=True).unsqueeze(1).float().div(255.0)


def check_pictures(x_NHW: Any, name: str) -> None:
    """Refuse anything but 8-bit pictures.

    Raises:
        ValueError: the array is not uint8 of shape (N, H, W) with N of at least 1.
    """
    table = x_NHW.table_NHW if isinstance(x_NHW, PictureRows) else x_NHW
    if not isinstance(table, np.ndarray) or table.dtype != np.uint8 or table.ndim != 3 or not len(x_NHW):
        found = f"{table.dtype} of shape {x_NHW.shape}" if isinstance(table, np.ndarray) else type(x_NHW).__name__
        raise ValueError(f"{name}: found {found}; expected uint8 pictures of shape (N, H, W), N of 1 or more")


def pictures_differ(x_NHW: Pictures) -> bool:
    """Whether any picture differs from the first one; looks at one after the other, and stops where one does."""
    first_1HW = x_NHW[slice(0, 1)]
    return any(bool((x_NHW[slice(row, row + 1)] != first_1HW).any()) for row in range(1, len(x_NHW)))

"""The machine in general words, and tables in Markdown."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch


def describe() -> str:
    """Cores, GPU and PyTorch; no names of machines."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{len(os.sched_getaffinity(0))} cores, {gpu}, PyTorch {torch.__version__.split('+')[0]}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])

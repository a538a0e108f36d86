"""One look for all figures: size, type, colours; and figures to SVG, the same bytes for the same numbers."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

# Okabe and Ito (2008): told apart with every common form of colour blindness. Marks differ in shape as well.
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
INK, GREY, LIGHT, PAPER = "#222222", "#6B6B6B", "#C9CDD2", "#FFFFFF"
SEQUENTIAL = "cividis"  # equal for colour-blind readers (Nunez, Anderton and Renslow 2018)
HEAT = "inferno"
WIDTH_IN = 5.2
# Above this many marks a layer is drawn as pixels: a vector file with more of them is slow to open.
MARKS_AS_VECTORS = 2000

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "savefig.dpi": 200,
    "svg.fonttype": "path",  # the same letters on every machine
    "svg.hashsalt": "sarc-ray",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A finished figure.

    Attributes:
        name: file stem, unique in a report.
        title: a few words.
        caption: what is seen, for the page and for readers who cannot see it.
        svg: the picture.
        numbers: what was drawn.
    """

    name: str
    title: str
    caption: str
    svg: bytes
    numbers: pd.DataFrame


@contextlib.contextmanager
def canvas(width_in: float, height_in: float) -> Iterator[Canvas]:
    """A figure in the house style; draws through matplotlib's objects, so that no global state is left behind."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield Canvas(figsize=(width_in, height_in), layout="constrained")


def to_svg(figure: Canvas) -> bytes:
    """The figure as SVG without dates, and without addresses that a browser could want to open."""
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return re.sub(rb"<!DOCTYPE[^>]*>\s*", b"", sink.getvalue())


def note(axes: Axes, text: str, *, corner: str = "upper left") -> None:
    """Write a few lines into a corner of a panel, on a ground that keeps them readable over marks."""
    x, left = (0.03, "left") if corner.endswith("left") else (0.97, "right")
    y, top = (0.97, "top") if corner.startswith("upper") else (0.03, "bottom")
    axes.text(
        x,
        y,
        text,
        transform=axes.transAxes,
        ha=left,
        va=top,
        fontsize=9,
        linespacing=1.35,
        bbox={"boxstyle": "round,pad=0.3", "facecolor": PAPER, "edgecolor": LIGHT, "alpha": 0.9},
        zorder=5,
    )


def as_pixels(n_marks: int) -> bool:
    """Whether a layer of this many marks is drawn as pixels."""
    return n_marks > MARKS_AS_VECTORS

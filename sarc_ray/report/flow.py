"""The study flow (the paper's Figure 1), drawn from the counts of the selection."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from sarc_ray.report import style, words
from sarc_ray.report.content import Cohort

# Page units are inches, y downwards from the top.
_BOX_WIDTH, _SIDE_WIDTH, _GAP, _LINE, _PAD = 2.85, 1.95, 0.34, 0.185, 0.12
_CHARACTERS_PER_INCH = 13.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Box:
    x: float
    y: float
    width: float
    lines: tuple[str, ...]
    colour: str

    @property
    def height(self) -> float:
        return _LINE * len(self.lines) + 2 * _PAD

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


def flow_figure(cohort: Cohort) -> style.Figure:
    """Boxes from top to bottom with what is left after each criterion; at the right what it excluded."""
    steps = cohort.flow
    boxes, sides, y = [], [], 0.05
    for number, step in enumerate(steps):
        label = step.label[:1].upper() + step.label[1:]
        counts = f"{words.count(step.n_patients, 'patient')}, {words.count(step.n_images, 'image')}"
        box = _box(0.05, y, _BOX_WIDTH, [label], counts)
        boxes.append(box)
        following = steps[number + 1] if number + 1 < len(steps) else None
        y += box.height + _GAP
        if following is not None and following.excluded_images:
            excluded = (
                f"{words.count(following.excluded_patients, 'patient')}, "
                f"{words.count(following.excluded_images, 'image')}"
            )
            side = _box(_BOX_WIDTH + 0.35, y - _GAP + 0.08, _SIDE_WIDTH, ["Excluded"], excluded, style.PAPER)
            sides.append(side)
            y = side.y + side.height + 0.1
    parts = _part_boxes(cohort, y)
    bottom = max([boxes[-1].y + boxes[-1].height, *(part.y + part.height for part in parts)])
    with style.canvas(style.WIDTH_IN, bottom + 0.45) as figure:
        axes = figure.subplots()
        axes.set(xlim=(0, style.WIDTH_IN), ylim=(bottom + 0.05, 0))
        axes.set_axis_off()
        axes.set_title(cohort.label)
        _draw(axes, boxes, sides, parts)
        svg = style.to_svg(figure)
    return style.Figure(
        name=f"flow-{cohort.name}",
        title=f"Study flow, {cohort.label.lower()}",
        caption=(
            f"From {words.count(steps[0].n_patients, 'patient')} screened to "
            f"{words.count(steps[-1].n_patients, 'patient')} in the study. A patient counts as excluded when the "
            "last image of that patient is."
        ),
        svg=svg,
        numbers=_numbers(cohort),
    )


def _numbers(cohort: Cohort) -> pd.DataFrame:
    parts = pd.DataFrame({"label": list(cohort.parts), "n_patients": list(cohort.parts.values())})
    counts = ["n_images", "n_patients", "excluded_images", "excluded_patients"]
    return pd.concat(
        [pd.DataFrame([dataclasses.asdict(step) for step in cohort.flow]), parts], ignore_index=True
    ).astype(dict.fromkeys(counts, "Int64"))


def _box(x: float, y: float, width: float, labels: Sequence[str], counts: str, colour: str = "#EEF3F8") -> _Box:
    characters = int(width * _CHARACTERS_PER_INCH)
    lines = [line for label in labels for line in textwrap.wrap(label, characters)]
    return _Box(x=x, y=y, width=width, lines=(*lines, *textwrap.wrap(counts, characters)), colour=colour)


def _part_boxes(cohort: Cohort, y: float) -> list[_Box]:
    n = len(cohort.parts)
    if not n:
        return []
    gap = 0.15
    width = (style.WIDTH_IN - 0.1 - gap * (n - 1)) / n
    return [
        _box(0.05 + k * (width + gap), y, width, [label], words.count(size, "patient"), "#E9F4EF")
        for k, (label, size) in enumerate(cohort.parts.items())
    ]


def _draw(axes: Axes, boxes: Sequence[_Box], sides: Sequence[_Box], parts: Sequence[_Box]) -> None:
    middle = boxes[0].centre[0]
    for upper, lower in itertools.pairwise(boxes):
        _arrow(axes, (middle, upper.y + upper.height), (middle, lower.y))
    for side in sides:
        _arrow(axes, (middle, side.centre[1]), (side.x, side.centre[1]))
    for part in parts:
        start = boxes[-1].y + boxes[-1].height
        bend = start + _GAP / 2
        axes.plot([middle, middle, part.centre[0]], [start, bend, bend], color=style.GREY, lw=1.1)
        _arrow(axes, (part.centre[0], bend), (part.centre[0], part.y))
    for box in (*boxes, *sides, *parts):
        axes.add_patch(
            FancyBboxPatch(
                (box.x, box.y),
                box.width,
                box.height,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor=box.colour,
                edgecolor=style.GREY,
                lw=0.9,
            )
        )
        axes.text(*box.centre, "\n".join(box.lines), ha="center", va="center", fontsize=9.5, linespacing=1.3)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=style.GREY, lw=1.1, shrinkA=0, shrinkB=0)
    )

"""Heat maps over radiographs: the paper's Figure 4, its numbers, and one picture of its own for ``sarc-ray explain``.

All maps of a figure share one colour scale, from 0 to the largest value drawn: mean of the members' maps (each divided
by its own maximum) and their standard deviation have one unit. H, W of a picture.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.report import style, words
from sarc_ray.report.content import Absent, Example, Float, Report
from sarc_ray.report.tabulate import Table

# Heat maps are drawn and written on a grid of at most this many cells a side; the networks' own are about as coarse.
HEAT_CELLS = 32
_OPACITY = 0.85
_PNG_DPI = 150
_LABEL_CHARACTERS = 20
Heat = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]


def grad_cam_figure(report: Report) -> style.Figure | None:
    """Figure 4: a row for each patient whose picture is there, the radiograph and one heat map per target.

    Returns:
        None where no picture is there; :func:`missing_examples` says why.
    """
    examples = _drawn(report)
    if not examples:
        return None
    top = max(_peak(example.heat_HW[target.name]) for example in examples for target in report.targets)
    parts = []
    with style.canvas(1.7 * (1 + len(report.targets)), 0.9 + 1.85 * len(examples)) as figure:
        panels_RK = figure.subplots(len(examples), 1 + len(report.targets), squeeze=False)
        for axes in panels_RK.ravel():
            _bare(axes)
        for axes, label in zip(panels_RK[0], ("Radiograph", *(t.label for t in report.targets)), strict=True):
            axes.set_title(textwrap.fill(label, _LABEL_CHARACTERS), fontsize=9, loc="center")
        for panels_K, example in zip(panels_RK, examples, strict=True):
            parts += _draw_row(panels_K, report, example, top)
        _scale(figure, panels_RK.ravel().tolist(), "Moves the prediction (mean of the members' maps)", top)
        svg = style.to_svg(figure)
    return style.Figure(
        name="grad-cam",
        title=f"Grad-CAM in women and men with and without {report.outcome}",
        caption=(
            "Brighter and yellower: the region moves the prediction more, up or down; the line is half of the map's "
            "maximum. Mean over the ensemble's members; one colour scale for all maps. Beneath each map the predicted "
            "value."
        ),
        svg=svg,
        numbers=pd.concat(parts, ignore_index=True),
    )


def examples_view(report: Report) -> Table | None:
    """The numbers beside Figure 4: score, predictions, and how far the members' maps disagree."""
    examples = _drawn(report)
    if not examples:
        return None
    rows, numbers = [], []
    for example in examples:
        who = words.person(example.sex, report.outcome, example.outcome)
        cells = [who, words.number(example.score)]
        for target in report.targets:
            mu, sigma = example.predicted[target.name]
            spread = float(example.disagreement_HW[target.name].mean())
            cells += [f"{words.number(mu, 1)} \u00b1 {words.number(sigma, 1)}", words.number(spread)]
            numbers.append(
                {"patient": who, "score": example.score, "target": target.name, "unit": target.unit}
                | {"mu": mu, "sigma": sigma, "disagreement": spread}
            )
        rows.append(tuple(cells))
    return Table(
        name="grad-cam-patients",
        title="The patients of the heat maps",
        groups=(("", 2), *((f"{target.label}, {target.unit}", 2) for target in report.targets)),
        columns=("", "Score", *("Predicted \u00b1 SD", "Disagreement") * len(report.targets)),
        rows=tuple(rows),
        note=(
            "Disagreement: standard deviation of the members' heat maps, mean over the picture; 0 where all members "
            "look at the same places."
        ),
        numbers=pd.DataFrame(numbers),
    )


def missing_examples(report: Report) -> tuple[Absent, ...]:
    """Why a group has no picture."""
    if isinstance(report.examples, Absent):
        return (report.examples,)
    return tuple(
        Absent(reason=f"{words.person(example.sex, report.outcome, example.outcome)}: {example.absent}.")
        for example in report.examples
        if example.image_HW is None
    )


def overlay_png(
    image_HW: Picture,
    mean_HW: Heat,
    disagreement_HW: Heat | None,
    *,
    target: TargetConfig,
    mu: float,
    sigma: float,
    note: str,
) -> bytes:
    """A radiograph, its heat map, and the members' disagreement side by side.

    Args:
        image_HW: preprocessed picture.
        mean_HW: in [0, 1].
        disagreement_HW: in [0, 0.5]; None of one network, which cannot disagree: its panel is left out.
        target: what was predicted.
        mu: predicted mean.
        sigma: predictive standard deviation.
        note: beneath the title: the score, or why there is none.

    Returns:
        A PNG file without date, program or other text fields.
    """
    value = f"{words.number(mu, 1)} \u00b1 {words.number(sigma, 1)} {target.unit}"
    heats = [(mean_HW, "What moves the prediction" if disagreement_HW is None else "What moves the prediction: mean")]
    if disagreement_HW is not None:
        heats.append((disagreement_HW, "Where the members disagree: SD"))
    top = max(_peak(heat_HW) for heat_HW, _ in heats)
    with style.canvas(7.6 if len(heats) > 1 else 5.2, 3.7) as figure:
        title = f"{target.label}: {value} predicted"
        figure.suptitle(f"{title}\n{note[:1].upper()}{note[1:]}", fontsize=10, x=0.01, ha="left")
        panels = figure.subplots(1, 1 + len(heats))
        for axes in panels:
            _bare(axes)
        panels[0].imshow(image_HW, cmap="gray", vmin=0, vmax=255)
        panels[0].set_title("As the networks see it", fontsize=9, fontweight="normal")
        for axes, (heat_HW, title) in zip(panels[1:], heats, strict=True):
            _overlay(axes, image_HW, coarse(heat_HW), top)
            axes.set_title(title, fontsize=9, fontweight="normal")
        label = "Mean and SD of the members' maps" if len(heats) > 1 else "The network's map"
        _scale(figure, panels.tolist(), label, top)
        sink = io.BytesIO()
        figure.savefig(sink, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return sink.getvalue()


def coarse(heat_HW: Heat) -> Float:
    """A heat map on a grid of at most :data:`HEAT_CELLS` cells a side: means over blocks as equal as can be."""
    heat: Float = heat_HW.astype(np.float64)
    for axis in (0, 1):
        size = heat.shape[axis]
        edges = np.linspace(0, size, min(size, HEAT_CELLS) + 1).round().astype(int)
        sums = np.add.reduceat(heat, edges[:-1], axis=axis)
        heat = sums / np.diff(edges).reshape((-1, 1) if axis == 0 else (1, -1))
    return heat


def _drawn(report: Report) -> list[Example]:
    examples = () if isinstance(report.examples, Absent) else report.examples
    return [example for example in examples if example.image_HW is not None]


def _peak(heat_HW: Heat) -> float:
    """Largest value as drawn; a map without signal gets a scale all the same."""
    return float(coarse(heat_HW).max()) or 1.0


def _draw_row(panels_K: npt.NDArray[np.object_], report: Report, example: Example, top: float) -> list[pd.DataFrame]:
    assert example.image_HW is not None
    who = words.person(example.sex, report.outcome, example.outcome)
    panels_K[0].imshow(example.image_HW, cmap="gray", vmin=0, vmax=255)
    panels_K[0].set_ylabel(who.replace(" with", "\nwith", 1), fontsize=9)
    panels_K[0].set_xlabel(f"score {words.number(example.score)}", fontsize=9)
    parts = []
    for axes, target in zip(panels_K[1:], report.targets, strict=True):
        cells = coarse(example.heat_HW[target.name])
        _overlay(axes, example.image_HW, cells, top)
        mu, sigma = example.predicted[target.name]
        axes.set_xlabel(f"{words.number(mu, 1)} \u00b1 {words.number(sigma, 1)} {target.unit}", fontsize=9)
        parts.append(_heat_numbers(cells, coarse(example.disagreement_HW[target.name]), who, target.name))
    return parts


def _bare(axes: Axes) -> None:
    """No ticks and no frame, but room for labels."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _overlay(axes: Axes, image_HW: Picture, cells: Float, top: float) -> None:
    """The picture with the heat laid over it, the more opaque the hotter."""
    height, width = image_HW.shape
    axes.imshow(image_HW, cmap="gray", vmin=0, vmax=255)
    axes.imshow(
        cells,
        cmap=style.HEAT,
        vmin=0,
        vmax=top,
        alpha=_OPACITY * np.clip(cells / top, 0, 1) ** 0.5,
        interpolation="bilinear",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    peak = float(cells.max())
    if peak > float(cells.min()):
        y_R = (np.arange(cells.shape[0]) + 0.5) * height / cells.shape[0] - 0.5
        x_C = (np.arange(cells.shape[1]) + 0.5) * width / cells.shape[1] - 0.5
        axes.contour(x_C, y_R, cells, levels=[peak / 2], colors=[style.ORANGE], linewidths=0.9)


def _scale(figure: Canvas, axes: Sequence[Axes], label: str, top: float) -> None:
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, top), style.HEAT), ax=list(axes), location="bottom", aspect=45, pad=0.03, shrink=0.7
    )
    bar.set_label(label, fontsize=9)
    bar.outline.set_visible(False)


def _heat_numbers(cells: Float, disagreement: Float, patient: str, target: str) -> pd.DataFrame:
    row, column = np.indices(cells.shape)
    return pd.DataFrame(
        {
            "patient": patient,
            "target": target,
            "row": row.ravel(),
            "column": column.ravel(),
            "heat": cells.ravel().round(4),
            "disagreement": disagreement.ravel().round(4),
        }
    )

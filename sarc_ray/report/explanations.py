"""What the score uses: SHAP summary (the paper's Figure 5), and whose heat maps are shown. N patients."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from sarc_ray.evaluation.rows import numbers
from sarc_ray.report import style, words
from sarc_ray.report.content import Absent, Float, Report, ShapValues

_ROW_WIDTH = 0.78  # share of a feature's band that its swarm may fill
_LABEL_CHARACTERS = 24


def choose_examples(frame: pd.DataFrame) -> list[tuple[str, int, int | None]]:
    """Choose a typical patient of each sex with and without the outcome.

    Args:
        frame: a test set with ``sex``, ``outcome``, ``score`` and ``row_id``.

    Returns:
        Sex, outcome and ``row_id`` of the scored patient with the median score (the lower of two; ties by
        ``row_id``); None where a group has nobody. Women first, with the outcome first.
    """
    scored = frame.assign(score=numbers(frame, "score"), outcome=numbers(frame, "outcome"))
    scored = scored[scored["score"].notna()].sort_values(["score", "row_id"])
    chosen: list[tuple[str, int, int | None]] = []
    for sex in ("F", "M"):
        for outcome in (1, 0):
            group = scored.loc[(scored["sex"] == sex) & (scored["outcome"] == outcome), "row_id"]
            chosen.append((sex, outcome, None if group.empty else int(group.iloc[(len(group) - 1) // 2])))
    return chosen


def shap_figure(report: Report) -> style.Figure | Absent:
    """A swarm per feature, the most important on top: one mark per patient, coloured by the feature's own value."""
    shap = report.shap
    if isinstance(shap, Absent):
        return shap
    importance = np.abs(shap.values_NF).mean(axis=0)
    order = np.argsort(-importance, kind="stable")
    names = [str(shap.features.columns[k]) for k in order]
    parts = []
    with style.canvas(6.0, 0.9 + 0.52 * len(names)) as figure:
        axes = figure.subplots()
        for place, k in enumerate(order):
            parts.append(_swarm(axes, shap, int(k), place))
        axes.axvline(0, color=style.GREY, lw=0.9, zorder=0)
        labels = [textwrap.fill(words.feature(name, report.targets), _LABEL_CHARACTERS) for name in names]
        axes.set_yticks(range(len(names)), labels)
        axes.tick_params(axis="y", length=0)
        axes.set(ylim=(len(names) - 0.4, -0.6), xlabel=shap.label, title="SHAP summary of stage 2")
        axes.grid(axis="y", color=style.LIGHT, lw=0.5)
        bar = figure.colorbar(ScalarMappable(Normalize(0, 1), style.SEQUENTIAL), ax=axes, aspect=35, pad=0.02)
        bar.set_ticks([0, 1], labels=["low", "high"])
        bar.set_label("Feature value (rank)", labelpad=-12)
        bar.outline.set_visible(False)
        svg = style.to_svg(figure)
    return style.Figure(
        name="shap-summary",
        title="SHAP summary",
        caption=(
            f"What each feature adds to the raw score, before calibration, of {shap.patients}; one mark per patient. "
            "Features stand by mean absolute SHAP value. Calibration is increasing: it keeps signs and order, not "
            "amounts. In the CSV each feature is sorted by itself, so that no line describes a patient."
        ),
        svg=svg,
        numbers=pd.concat(parts, ignore_index=True),
    )


def _swarm(axes: Axes, shap: ShapValues, k: int, place: int) -> pd.DataFrame:
    """Draw one feature's swarm around y = place; gives its numbers, sorted by the feature's value."""
    name = str(shap.features.columns[k])
    rows = pd.DataFrame({"value": shap.features.iloc[:, k].to_numpy(), "shap": shap.values_NF[:, k]})
    rows = rows.sort_values(["value", "shap"], ignore_index=True)
    rank = rows["value"].rank(method="average")
    colour = (rank - rank.min()) / (np.ptp(rank) or 1)
    height_N = swarm_heights(rows["shap"].to_numpy(dtype=np.float64))
    axes.scatter(
        rows["shap"],
        place + _ROW_WIDTH / 2 * height_N,
        c=colormaps[style.SEQUENTIAL](colour),
        s=9,
        lw=0,
        alpha=0.9,
        rasterized=style.as_pixels(len(rows) * shap.values_NF.shape[1]),
        zorder=3,
    )
    return rows.assign(feature=name, mean_abs_shap=float(rows["shap"].abs().mean()))[
        ["feature", "mean_abs_shap", "value", "shap"]
    ]


def swarm_heights(x_N: Float, *, n_bins: int = 80) -> Float:
    """Offsets in [-1, 1] that spread marks with like x to both sides of the line, in turn; no chance involved.

    Args:
        x_N: positions along the line.
        n_bins: marks within one of so many bins of the range are taken for neighbours.
    """
    span = float(np.ptp(x_N)) or 1.0
    bin_N = np.minimum(((x_N - x_N.min()) / span * n_bins).astype(int), n_bins - 1)
    layer_N = pd.Series(bin_N).groupby(bin_N).cumcount().to_numpy()
    side_N = np.where(layer_N % 2 == 0, 1.0, -1.0) * ((layer_N + 1) // 2)
    deepest = max(float(np.abs(side_N).max()), 6.0)
    return side_N / deepest

"""A comparison with a reference in one picture: the stability index of every variable in every group."""

from __future__ import annotations

import pandas as pd
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch

from sarc_ray.report import style

# Beside these the text is too small to read; the table has all.
_GROUPS_MAX = 48
_COLOURS = {"stable": style.PAPER, "watch": style.ORANGE, "drifted": style.VERMILION}
_CELL_IN = 0.34


def drift_svg(comparison: pd.DataFrame) -> bytes | None:
    """Cells with the index, coloured by verdict; groups in the order of the table, variables from top to bottom.

    Args:
        comparison: as :func:`sarc_ray.drift.comparison.compare` gives it. Of more than 48 groups those with the
            largest index are drawn.

    Returns:
        SVG; None where no group was judged.
    """
    judged = comparison[comparison["status"].isin(list(_COLOURS))]
    if judged.empty:
        return None
    judged = judged.assign(group=judged["grouping"].where(judged["grouping"] == "all", _names(judged)))
    order = list(dict.fromkeys(judged["group"]))
    if len(order) > _GROUPS_MAX:
        largest = judged.groupby("group")["psi"].max().drop("all", errors="ignore").nlargest(_GROUPS_MAX - 1)
        order = [name for name in order if name == "all" or name in largest.index]
    variables = list(dict.fromkeys(judged["variable"]))
    index_VG = judged.pivot(index="variable", columns="group", values="psi").reindex(index=variables, columns=order)
    status = judged.pivot(index="variable", columns="group", values="status").reindex_like(index_VG)
    code_VG = status.apply(lambda column: column.map({name: place for place, name in enumerate(_COLOURS)}))
    width, height = 2.2 + _CELL_IN * len(order), 1.4 + 0.26 * len(variables)
    with style.canvas(max(width, style.WIDTH_IN), height) as figure:
        axes = figure.subplots()
        axes.imshow(
            code_VG.astype(float).to_numpy(),
            cmap=ListedColormap(list(_COLOURS.values())),
            norm=BoundaryNorm([-0.5, 0.5, 1.5, 2.5], 3),
            aspect="auto",
        )
        for row, values in enumerate(index_VG.to_numpy(dtype=float)):
            for column, value in enumerate(values):
                if value == value:  # NaN where a variable was not judged in a group
                    axes.text(column, row, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=6.5)
        axes.set_xticks(range(len(order)), order, rotation=90, parse_math=False)
        axes.set_yticks(range(len(variables)), variables)
        axes.set_title("Population stability index against the reference")
        handles = [Patch(facecolor=colour, edgecolor=style.GREY, label=name) for name, colour in _COLOURS.items()]
        figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
        return style.to_svg(figure)


def _names(judged: pd.DataFrame) -> pd.Series:
    return judged["grouping"].astype(str) + " " + judged["level"].astype(str)

"""``sarc-ray report --verify``: every number of a finished report computed again from the run's tables, and compared.

Two steps. The tables in ``results/`` are computed again from scores and labels by the plan that lies beside them. Then
the report is drawn again into a scratch folder, and all its files are compared with those that are shown: numbers,
texts, lineage, and the lines of its pictures. Layers of pixels in a picture (heat maps, thousands of marks) are not.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sarc_ray import evaluating, intake, ladder, reporting, sensitivity, stages, storage
from sarc_ray.errors import StorageError
from sarc_ray.evaluation.plan_file import write_plan
from sarc_ray.evaluation.results import by_plan, headline_table
from sarc_ray.evaluation.table_one import table_one
from sarc_ray.plans import PLAN, plan_in_force
from sarc_ray.report.html import ASSETS, MANUSCRIPT, PAGE, TRIPOD_PAGE, write_report
from sarc_ray.run import Run
from sarc_ray.run_stage2 import finalists_table

# Sums in another order, and numbers that went through a CSV file.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12
_SAID_IN_PICTURE = re.compile(r"<title>.*?</desc>", re.DOTALL)
_PIXELS = re.compile(r"data:image/[^\"]*")
# Names that follow from what is drawn, to the last digit.
_MADE_NAME = re.compile(r"\b[a-zA-Z]{1,8}[0-9a-f]{10}\b")
_COORDINATE = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
# Points of a picture within which lines are in the same place.
_PLACE_TOLERANCE = 0.01
_LINEAGE = re.compile(r"[Ll]ineage ([0-9a-f]{16})")
_SHOWN, _LINES = 60, 5
Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What came of it.

    Attributes:
        tables: tables that were compared.
        cells: cells in them.
        lineage: that the run's tables have now.
        differences: in words, where a shown value is another one; empty where all agree.
    """

    tables: int
    cells: int
    lineage: str
    differences: tuple[str, ...]


def verify(run: Run, tell: evaluating.Tell) -> Verification:
    """Compute again and compare.

    Args:
        run: with a report.
        tell: progress.

    Raises:
        ConfigError: settings or data have changed since the run was evaluated, or its plan is of another version.
        StorageError: there is no report, or a table or picture that it was drawn from cannot be read.
    """
    stages.finished(run, "evaluate")
    drawn = run.finished("report")["facts"]
    pairs = list(_results(run, tell))
    content = reporting.gather(run)
    unread = reporting.unread(content) - drawn["pictures_unread"]
    if unread > 0:
        raise StorageError(
            f"{unread} pictures of the report cannot be read any more, and it cannot be drawn again; bring them back"
        )
    with tempfile.TemporaryDirectory(prefix="sarc-ray-verify-") as scratch:
        write_report(scratch, content)
        tell("report", 1, 1)
        pairs += _numbers(run, scratch)
        names = [PAGE, TRIPOD_PAGE, *_below(scratch, ASSETS), *_below(scratch, MANUSCRIPT, ".svg")]
        found = [*_plan_as_written(run), *_texts(run, scratch, names), *_not_of_the_report(run, scratch)]
    for name, (shown, again) in pairs:
        found += differences(name, shown, again)
    return Verification(
        tables=len(pairs),
        cells=sum(again.size for _, (_, again) in pairs),
        lineage=content.lineage.hash,
        differences=tuple([*_lineages(run, content.lineage.hash, names), *found]),
    )


Pair = tuple[str, tuple[pd.DataFrame | None, pd.DataFrame]]


def _results(run: Run, tell: evaluating.Tell) -> Iterator[Pair]:
    """Tables of ``results/`` as they lie there, and made again from scores and labels."""
    datasets = stages.labelled_datasets(run.config)
    plan = plan_in_force(run)
    frames = {dataset: intake.labelled_scores(run, dataset) for dataset in datasets}
    results = evaluating.results_of(run, plan, frames, tell)
    made: dict[str, Callable[[], pd.DataFrame]] = {
        "results": lambda: results,
        "headline": lambda: headline_table(results, interval_level=plan.config.interval_level),
        "algorithms": lambda: finalists_table(run, datasets, plan.config),
        "ladder": lambda: ladder.climb(run, datasets, plan.config),
    }
    for name, make in made.items():
        again = by_plan(make(), plan)
        for ending in ("parquet", "csv"):
            yield f"results/{name}.{ending}", (_if_there(run.path("results", f"{name}.{ending}")), again)
    for dataset, frame in frames.items():
        name = f"table_one_{dataset}.csv"
        yield f"results/{name}", (_if_there(run.path("results", name)), by_plan(table_one(frame), plan))
    for uri, again in sensitivity.compared_again(run):
        yield f"results/{uri.rsplit('/', 1)[-1]}", (_if_there(uri), again)


def _if_there(uri: str) -> pd.DataFrame | None:
    return storage.read_table(uri) if storage.exists(uri) else None


def _below(report: str, folder: str = "", ending: str = "") -> list[str]:
    """Paths within a report of its files, or of those in one of its folders."""
    root = storage.canonical_uri(report)
    uris = storage.list_files(storage.join(report, folder) if folder else report, ending)
    return [storage.canonical_uri(uri).removeprefix(f"{root}/") for uri in uris]


def _not_of_the_report(run: Run, scratch: str) -> Iterator[str]:
    """Files beside the report's own, which a reader would take for some of them."""
    for name in sorted(set(_below(run.path("report"))) - set(_below(scratch))):
        yield f"report/{name}: not part of the report"


def _plan_as_written(run: Run) -> Iterator[str]:
    """The plan beside the results says all that was in force, and its hash; nobody has written into it since."""
    uri = run.path("results", PLAN)
    if not storage.exists(uri):
        yield f"results/{PLAN}: missing"
    elif storage.read_text(uri) != write_plan(plan_in_force(run)):
        yield f"results/{PLAN}: is not as it was written"


def _said(name: str, text: str) -> str:
    """What a page says; of a picture its title and caption."""
    return "\n".join(_SAID_IN_PICTURE.findall(text)) if name.endswith(".svg") else text


def drawn_alike(shown: str, again: str) -> bool:
    """Whether two pictures (SVG) have the same lines in the same places, whatever their layers of pixels hold."""
    first, second = (_MADE_NAME.sub("", _PIXELS.sub("", text)) for text in (shown, again))
    if _COORDINATE.sub("#", first) != _COORDINATE.sub("#", second):
        return False
    place_a, place_b = (np.array(_COORDINATE.findall(text), dtype=np.float64) for text in (first, second))
    return bool(np.allclose(place_a, place_b, rtol=0, atol=_PLACE_TOLERANCE))


def _numbers(run: Run, scratch: str) -> Iterator[Pair]:
    """The numbers behind every table and figure: of the report, and of the one that was drawn now."""
    for uri in storage.list_files(storage.join(scratch, MANUSCRIPT), ".csv"):
        name = uri.rsplit("/", 1)[-1]
        known = _if_there(run.path("report", MANUSCRIPT, name))
        yield f"report/{MANUSCRIPT}/{name}", (known, storage.read_table(uri))


def _texts(run: Run, scratch: str, names: Sequence[str]) -> Iterator[str]:
    """Where a page, or a picture's caption, says something else than the one that was drawn now."""
    for name in names:
        uri = run.path("report", name)
        if not storage.exists(uri):
            yield f"report/{name}: missing"
            continue
        whole = [storage.read_text(page) for page in (uri, storage.join(scratch, name))]
        shown, again = (_said(name, text) for text in whole)
        lines = zip(shown.splitlines(), again.splitlines(), strict=False)
        for before, after in itertools.islice((pair for pair in lines if pair[0] != pair[1]), _LINES):
            alike = sum(
                1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))
            )
            start = max(0, alike - _SHOWN // 3)
            yield f"report/{name}: shows {before[start : start + _SHOWN]!r}, is {after[start : start + _SHOWN]!r}"
        if len(shown.splitlines()) != len(again.splitlines()):
            yield f"report/{name}: has {len(shown.splitlines())} lines, is {len(again.splitlines())}"
        if name.endswith(".svg") and shown == again and not drawn_alike(*whole):
            yield f"report/{name}: what is drawn is not what the numbers give (or another matplotlib drew it)"


def _lineages(run: Run, lineage: str, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        uri = run.path("report", name)
        text = storage.read_text(uri) if storage.exists(uri) else ""
        for other in sorted(set(_LINEAGE.findall(text)) - {lineage}):
            yield f"report/{name}: lineage {other}, is {lineage}"


def differences(name: str, shown: pd.DataFrame | None, again: pd.DataFrame) -> Iterator[str]:
    """Where a table that is shown is another one than that made again, in words.

    Args:
        name: of the table.
        shown: None where it is missing.
        again: made again.
    """
    if shown is None:
        yield f"{name}: missing"
        return
    if list(shown.columns) != list(again.columns) or len(shown) != len(again):
        yield (
            f"{name}: has {len(shown)} rows of {', '.join(map(str, shown.columns))}; is {len(again)} rows of "
            f"{', '.join(map(str, again.columns))}"
        )
        return
    for column in again.columns:
        differs_N = _differs(shown[column], again[column])
        for row in np.flatnonzero(differs_N)[:3]:
            yield f"{name}: row {row + 1}, {column}: shows {shown[column].iloc[row]}, is {again[column].iloc[row]}"
        if differs_N.sum() > 3:
            yield f"{name}: {column}: {int(differs_N.sum())} rows differ"


def _differs(shown: pd.Series, again: pd.Series) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Numbers beyond rounding, texts that are not the same; missing equals missing, and an empty text.

    A CSV file's numbers come as texts. Only those with a point may be rounded: digits alone may be an identifier.
    """
    if all(pd.api.types.is_numeric_dtype(part) and not pd.api.types.is_bool_dtype(part) for part in (shown, again)):
        a_N, b_N = (part.to_numpy(dtype=np.float64, na_value=np.nan) for part in (shown, again))
        return ~np.isclose(a_N, b_N, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
    a_N, b_N = (part.astype(object).where(part.notna(), "").astype(str).to_numpy() for part in (shown, again))
    with_point_N = np.array(["." in a or "." in b for a, b in zip(a_N, b_N, strict=True)], dtype=bool)
    value_a_N, value_b_N = (pd.to_numeric(pd.Series(text_N), errors="coerce").to_numpy() for text_N in (a_N, b_N))
    close_N = np.isclose(value_a_N, value_b_N, rtol=_RELATIVE, atol=_ABSOLUTE) & with_point_N
    return np.asarray((a_N != b_N) & ~close_N)

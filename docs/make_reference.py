"""Write the generated tables of the reference into its pages: ``python docs/make_reference.py``.

A page holds its own text, and tables between two marker lines that name them. The tables come from the code: the
configuration's dataclasses with their docstrings, the presets, the manifest's columns, the reason codes, the schemas
of the tables; what no code says of a column or metric comes from ``reference_meanings.py``.
``tests/docs/test_reference.py`` makes them again and compares, so that no page can go stale.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from reference_meanings import (
    HEADLINE_MEANINGS,
    INVENTORY_MEANINGS,
    KEY_MEANINGS,
    LADDER_MEANINGS,
    METRIC_MEANINGS,
    RESULT_MEANINGS,
    SCORE_MEANINGS,
    TABLE_ONE_MEANINGS,
)

from sarc_ray.cohort.definitions import DEFINITIONS, GUIDELINES, QUANTITIES, OutcomeConfig, outcome_columns
from sarc_ray.cohort.schema import COLUMNS, REQUIRED_COLUMNS, TargetConfig
from sarc_ray.config import PRESETS, from_mapping, load_preset
from sarc_ray.errors import REASONS
from sarc_ray.evaluation import ladder, table_one
from sarc_ray.evaluation.plan import (
    COMPARISONS,
    EXTERNAL_METRICS,
    OUTCOME_METRICS,
    TARGET_METRICS,
    EvaluationConfig,
    make_plan,
)
from sarc_ray.evaluation.results import headline_table
from sarc_ray.evaluation.rows import Sheet
from sarc_ray.imaging.heads import HEAD_SCHEMA
from sarc_ray.inventory.take import MANIFEST_COLUMNS
from sarc_ray.run import RunConfig
from sarc_ray.scoring import score_schema
from sarc_ray.stage2.algorithms import ALGORITHMS, Choice, Integer, Real

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "sarc_ray"
_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end of \2 -->\n)", re.DOTALL)
_DEFAULT_CLINICAL = ("age_years", "sex", "bmi_kg_m2")


def update(text: str) -> str:
    """A page's text with its generated tables made anew; text without markers comes back unchanged.

    Raises:
        KeyError: a marker names a table that does not exist.
    """
    return _BLOCK.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}", text)


def write(folder: Path = DOCS) -> None:
    """Make the tables of every page below ``folder`` anew."""
    for page in sorted(folder.rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = update(before)
        if after != before:
            page.write_text(after, encoding="utf-8")


def describe_attributes(cls: type) -> dict[str, str]:
    """What the ``Args`` or ``Attributes`` section of a class's docstring says of each name."""
    found: dict[str, str] = {}
    name, inside = "", False
    for line in inspect.getdoc(cls).splitlines() if cls.__doc__ else ():  # type: ignore[union-attr]
        if line and not line.startswith(" "):
            inside = line in ("Args:", "Attributes:")
        elif inside and line.startswith("        "):
            found[name] += f" {line.strip()}"
        elif inside and line:
            name, _, meaning = line.strip().partition(": ")
            found[name] = meaning
    return {name: meaning.replace("``", "`").rstrip(".") for name, meaning in found.items()}


def describe_type(hint: Any) -> str:
    """A field's type in the words of YAML."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return ", or ".join("null" if part is type(None) else describe_type(part) for part in arguments)
    if origin is tuple:
        return f"list of {describe_type(arguments[0])}"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}.get(hint, "mapping")


def describe_value(value: Any) -> str:
    """A preset's value as YAML would have it; a key that a run must give itself is ``(yours)``."""
    if value is dataclasses.MISSING:
        return "(yours)"
    if isinstance(value, list):
        return f"`[{', '.join(_scalar(item) for item in value)}]`"
    return f"`{_scalar(value)}`"


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def config_table() -> str:
    """One table for each section of the configuration: key, type, meaning, value in each preset."""
    presets = {name: load_preset(name) for name in PRESETS}
    unused = dict(KEY_MEANINGS)
    parts, plain = [], []
    for section, hint in typing.get_type_hints(RunConfig).items():
        if not dataclasses.is_dataclass(hint):
            values = ["see below"] * len(presets) if section == "targets" else _values(presets, section)
            plain.append([f"`{section}`", describe_type(hint), unused.pop(section), *values])
            continue
        documented = describe_attributes(typing.cast(type, hint))
        rows = []
        for key, key_hint in typing.get_type_hints(hint).items():
            path = f"{section}.{key}"
            meaning = documented[key] if key in documented else unused.pop(path)
            rows.append([f"`{path}`", describe_type(key_hint), meaning, *_values(presets, section, key)])
        parts.append(f"### {section}\n\n" + _table(("key", "type", "meaning", *PRESETS), rows))
    if unused:
        raise KeyError(f"KEY_MEANINGS: {', '.join(unused)} are documented by their dataclass, or are no keys")
    parts.append("### Keys without a section\n\n" + _table(("key", "type", "meaning", *PRESETS), plain))
    return "\n".join(parts)


def _values(presets: Mapping[str, Any], section: str, key: str | None = None) -> list[str]:
    found = []
    for preset in presets.values():
        value = preset.get(section, dataclasses.MISSING)
        if key is not None and value is not dataclasses.MISSING:
            value = value.get(key, dataclasses.MISSING)
        found.append(describe_value(value))
    return found


def target_table() -> str:
    """Keys of one entry of ``targets``, then the entries of each preset."""
    hints, documented = typing.get_type_hints(TargetConfig), describe_attributes(TargetConfig)
    keys = [[f"`{key}`", describe_type(hint), documented[key]] for key, hint in hints.items()]
    entries = [
        [name, *(describe_value(target[key]) for key in hints)]
        for name in PRESETS
        for target in load_preset(name)["targets"]
    ]
    return _table(("key", "type", "meaning"), keys) + "\n" + _table(("preset", *hints), entries)


def manifest_table() -> str:
    """The manifest's columns: what a cell may hold, and what it means."""
    rows = [
        [
            f"`{spec.name}`",
            spec.describe_allowed(),
            "yes" if spec.name in REQUIRED_COLUMNS else "",
            spec.meaning,
        ]
        for spec in COLUMNS
    ]
    return _table(("column", "a cell holds", "required", "meaning"), rows)


def definition_table() -> str:
    """Published definitions of the outcome: which low quantities meet it, and the manifest's columns that it needs."""
    rows = []
    for name, definition in DEFINITIONS.items():
        groups = [[QUANTITIES[quantity].label for quantity in group] for group in definition.all_of]
        met = " and ".join(f"({' or '.join(group)})" if len(group) > 1 else group[0] for group in groups)
        columns = outcome_columns(OutcomeConfig(definition=name, column=None))  # type: ignore[arg-type]
        needs = ", ".join(f"`{column}`" for column in columns)
        title = GUIDELINES[definition.guideline].title
        rows.append([f"`{name}`", f"{definition.outcome.replace('_', ' ')}, {title}", met, needs])
    return _table(("`outcome.definition`", "outcome", "what must be low", "columns"), rows)


def cutoff_table() -> str:
    """Published cut-offs with their sources."""
    rows = []
    for guideline in GUIDELINES.values():
        for cutoff in guideline.cutoffs:
            quantity = QUANTITIES[cutoff.quantity]
            method = f" by {cutoff.method.upper()}" if cutoff.method else ""
            numbers = (f"{cutoff.relation} {number:g} {quantity.unit}" for number in (cutoff.women, cutoff.men))
            rows.append([guideline.title, f"{quantity.label}{method}", *numbers])
    sources = "".join(f"- {guideline.title}: {guideline.reference}.\n" for guideline in GUIDELINES.values())
    return _table(("guideline", "quantity", "low in women", "low in men"), rows) + "\n" + sources


def reason_table() -> str:
    """The reason codes, and the room of the package that gives each."""
    rooms = _reasons_by_room()
    rows = [
        [
            f"`{reason}`" if reason else "(empty)",
            str(facts.outcome),
            "yes" if facts.retryable else "no",
            facts.meaning,
            ", ".join(f"`{room}`" for room, names in rooms.items() if reason.name in names) or "none yet",
        ]
        for reason, facts in REASONS.items()
    ]
    return _table(("reason", "outcome", "retryable", "meaning", "given by"), rows)


def _reasons_by_room() -> dict[str, set[str]]:
    """Names of the reasons that each room uses, the table of reasons itself left out."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "errors":
            names = re.findall(r"\bReason\.([A-Z_]+)", path.read_text(encoding="utf-8"))
            found.setdefault(room, set()).update(names)
    return found


def score_table() -> str:
    """Columns of the score table with the default clinical features, for a target ``<t>`` and a reason ``<k>``."""
    types = {f.name.replace("_1", "_<k>"): str(f.type) for f in score_schema(_DEFAULT_CLINICAL, ["<t>"], n_reasons=1)}
    _check_meanings("SCORE_MEANINGS", SCORE_MEANINGS, list(types))
    rows = [[f"`{name}`", kind, SCORE_MEANINGS[name]] for name, kind in types.items()]
    return _table(("column", "type", "meaning"), rows)


def inventory_table() -> str:
    """Columns of the manifest that an inventory writes."""
    _check_meanings("INVENTORY_MEANINGS", INVENTORY_MEANINGS, MANIFEST_COLUMNS)
    types = {field.name: str(field.type) for field in HEAD_SCHEMA} | {"eligible": "int64", "patient_known": "int64"}
    kinds = {"int64": "whole number", "double": "number", "string": "text"}
    rows = [[f"`{name}`", kinds[types[name]], INVENTORY_MEANINGS[name]] for name in MANIFEST_COLUMNS]
    return _table(("column", "type", "meaning"), rows)


def results_table() -> str:
    """Columns of the results table."""
    empty = _empty_results()
    _check_meanings("RESULT_MEANINGS", RESULT_MEANINGS, list(empty.columns))
    kinds = {"str": "text", "Int64": "whole number", "float64": "number"}
    rows = [[f"`{name}`", kinds[str(dtype)], RESULT_MEANINGS[str(name)]] for name, dtype in empty.dtypes.items()]
    return _table(("column", "type", "meaning"), rows)


def metric_table() -> str:
    """The planned metrics, their definition in a line, and how their interval is made."""
    groups = {
        "Of the outcome's score": OUTCOME_METRICS,
        "Of a target's prediction": TARGET_METRICS,
        "Of a comparison": COMPARISONS,
        "Of a data set from elsewhere": EXTERNAL_METRICS,
    }
    _check_meanings("METRIC_MEANINGS", METRIC_MEANINGS, [name for group in groups.values() for name in group])
    parts = []
    for title, group in groups.items():
        rows = [[f"`{name}`", METRIC_MEANINGS[name], method] for name, method in group.items()]
        parts.append(f"### {title}\n\n" + _table(("metric", "meaning", "interval or test"), rows))
    return "\n".join(parts)


def search_space_table() -> str:
    """Every hyper-parameter of every algorithm: range, scale, and why so far."""
    rows = []
    for algorithm in ALGORITHMS.values():
        for number, (name, parameter) in enumerate(algorithm.space.items()):
            label = algorithm.label if number == 0 else ""
            rows.append([label, f"`{name}`", *_range(parameter), parameter.why])
    return _table(("algorithm", "hyper-parameter", "range", "scale", "why"), rows)


def _range(parameter: Integer | Real | Choice) -> tuple[str, str]:
    if isinstance(parameter, Choice):
        return ", ".join(parameter.options), ""
    step = f", step {parameter.step}" if isinstance(parameter, Integer) and parameter.step > 1 else ""
    if parameter.low == parameter.high:
        return f"{parameter.low:g}", "-"
    return f"{parameter.low:g} to {parameter.high:g}{step}", "log" if parameter.log else "linear"


def headline_columns() -> str:
    """Columns of the headline table."""
    empty = headline_table(_empty_results(), interval_level=0.9)
    _check_meanings("HEADLINE_MEANINGS", HEADLINE_MEANINGS, list(empty.columns))
    return _table(("column", "meaning"), [[f"`{name}`", meaning] for name, meaning in HEADLINE_MEANINGS.items()])


def ladder_columns() -> str:
    """Columns of the ladder's table."""
    _check_meanings("LADDER_MEANINGS", LADDER_MEANINGS, list(ladder.COLUMNS))
    return _table(("column", "meaning"), [[f"`{name}`", LADDER_MEANINGS[name]] for name in ladder.COLUMNS])


def table_one_columns() -> str:
    """Columns of Table 1, those of both groups in one line."""
    suffix = re.compile(rf"_({'|'.join(table_one.GROUPS)})$")
    names = list(dict.fromkeys(suffix.sub("_<group>", name) for name in table_one.COLUMNS))
    _check_meanings("TABLE_ONE_MEANINGS", TABLE_ONE_MEANINGS, names)
    return _table(("column", "meaning"), [[f"`{name}`", TABLE_ONE_MEANINGS[name]] for name in names])


def _empty_results() -> pd.DataFrame:
    config = from_mapping(EvaluationConfig, load_preset("paper")["evaluation"])
    return Sheet(dataset="", plan=make_plan(config, []), run_id="", seed=0).to_frame()


def _check_meanings(where: str, meanings: Mapping[str, str], names: Sequence[str]) -> None:
    if set(meanings) != set(names):
        raise KeyError(
            f"docs/reference_meanings.py, {where}: {sorted(set(meanings) ^ set(names))} differ from the code"
        )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


TABLES: dict[str, Callable[[], str]] = {
    "config": config_table,
    "targets": target_table,
    "manifest": manifest_table,
    "definitions": definition_table,
    "cut-offs": cutoff_table,
    "reasons": reason_table,
    "scores": score_table,
    "inventory": inventory_table,
    "results": results_table,
    "metrics": metric_table,
    "search-space": search_space_table,
    "headline": headline_columns,
    "ladder": ladder_columns,
    "table-one": table_one_columns,
}

if __name__ == "__main__":
    write()

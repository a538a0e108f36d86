"""Write the generated tables of the reference into its pages: ``python docs/make_reference.py``.

A page holds its own text, and tables between two marker lines that name them. The tables come from the code: the
configuration's dataclasses with their docstrings, the presets, the manifest's columns, the reason codes, the schemas
of the tables. ``tests/docs/test_reference.py`` makes them again and compares, so that no page can go stale.
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

from sarc_ray.cohort.definitions import DEFINITIONS, GUIDELINES, QUANTITIES, OutcomeConfig, outcome_columns
from sarc_ray.cohort.schema import COLUMNS, REQUIRED_COLUMNS, TargetConfig
from sarc_ray.config import PRESETS, load_preset
from sarc_ray.errors import REASONS
from sarc_ray.evaluation import ladder, table_one
from sarc_ray.evaluation.plan import COMPARISONS, OUTCOME_METRICS, TARGET_METRICS, EvaluationConfig, make_plan
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

# Keys whose dataclass says in one sentence what they are, without a list of them.
KEY_MEANINGS = {
    "run.name": "name of the run; part of `run_id` in every table",
    "run.directory": "folder of the run's results, any fsspec URL",
    "run.seed": "seed of everything random: split, simulation, training, search, bootstrap",
    "targets": "what stage 1 predicts; see below",
    "clinical_features": "manifest columns that stage 2 uses beside the predictions; never a target",
}
SCORE_MEANINGS = {
    "row_id": "identity of the manifest row: 63 bits of SHA-256 of the image's canonical URI",
    "patient_key": "keyed hash (HMAC-SHA256, 128 bits) of `patient_id`",
    "study_key": "keyed hash of `study_id`; null where the manifest has none",
    "image_sha256": "SHA-256 of the object's bytes; null where there were none",
    "outcome": "`scored`, `abstained` or `rejected`",
    "reason": "why the row was not scored; empty for scored rows",
    "retryable": "true where fetching the object again may help",
    "acquired_month": "year and month of the radiograph, from the DICOM header",
    "site": "as in the manifest",
    "device": "as in the manifest",
    "view": "as in the manifest, else the DICOM header's",
    "gate_flags": "what the gate remarked in the DICOM header, with commas between; see below",
    "age_years": "the manifest's value, else the DICOM header's",
    "sex": "F or M; the manifest's value, else the DICOM header's",
    "bmi_kg_m2": "the manifest's value, or computed from its height and weight",
    "<t>_mu": "predicted mean, in the target's unit",
    "<t>_sigma": "predicted standard deviation: root of the two variances' sum",
    "<t>_var_aleatoric": "mean over members of their variances",
    "<t>_var_epistemic": "variance over members of their means (ddof 0)",
    "<t>_uncertainty_pct": "100 sigma / mu with the epistemic part at ddof 1, at most 1000; the stage-2 feature",
    "ood_distance": "distance from the training pictures; about 1 is ordinary. Also where it was the reason to abstain",
    "raw_score": "probability of the outcome before calibration",
    "score": "probability of the outcome: the raw score after calibration, where the bundle has one in force",
    "flag": "score >= the bundle's threshold",
    "reason_<k>": "where asked for: the feature that moves this row's raw score most (k = 1), next to most (2), ...",
    "reason_<k>_shap": "its SHAP value: what it adds to the raw score, up or down; see below",
    "model_id": "of the bundle",
    "run_id": "name of the run and a hash of its configuration",
}
INVENTORY_MEANINGS = {
    "image_uri": "the object: relative to the manifest's folder where it lies below it, else its URL",
    "patient_id": "keyed hash of Patient ID; where there is none, of the object's URL: a patient of its own",
    "study_id": "keyed hash of Study Instance UID",
    "eligible": "1 where nothing in the header speaks against a score",
    "reason": "else why not, as in [outcomes](outcomes.md)",
    "gate_flags": "remarks on the header that refuse nothing, with commas between",
    "bytes": "size of the object",
    "patient_known": "1 where the header has a Patient ID",
    "age_years": "Patient's Age, else from Patient's Birth Date and the day of the radiograph, in whole years",
    "sex": "Patient's Sex, F or M",
    "bmi_kg_m2": "from Patient's Size and Patient's Weight, where both are plausible",
    "view": "View Position, or where else the header tells the view",
    "device": "Manufacturer and Manufacturer's Model Name",
    "acquired_on": "month of Acquisition Date, else of Study Date",
    "modality": "Modality",
    "body_part": "Body Part Examined",
    "photometric": "Photometric Interpretation",
    "rows": "Rows",
    "columns": "Columns",
    "bits_stored": "Bits Stored",
    "transfer_syntax": "UID of the transfer syntax",
}
RESULT_MEANINGS = {
    "dataset": "`test_internal` or `test_external`",
    "outcome": "what is predicted: `sarcopenia`, or a target's name",
    "score": "what predicts it: `score`, `<t>_mu`, `sarc_f` or `ideal`",
    "comparator": "what it is compared with; empty for a figure of its own",
    "metric": "see below",
    "subgroup": "`all`, or `column=value`",
    "estimate": "the figure; missing where `na_reason` says why",
    "ci_low": "lower end of the confidence interval",
    "ci_high": "upper end of the confidence interval",
    "confidence_level": "of the interval, from `evaluation.confidence_level`",
    "p_value": "two-sided, where the method has a test",
    "n": "rows that the figure rests on",
    "n_events": "of these, rows with the outcome",
    "n_boot": "bootstrap replicates drawn",
    "n_degenerate": "of these, replicates without a defined value, which the interval leaves out",
    "method": "how interval or p-value were made",
    "na_reason": "why a figure, or its interval, is missing",
    "plan_hash": "SHA-256 of the evaluation plan",
    "run_id": "of the evaluating run",
}
METRIC_MEANINGS = {
    "auroc": "area under the ROC curve; ties count half",
    "auprc": "step-wise average precision; chance level is the prevalence",
    "f1": "2 TP / (2 TP + FP + FN) at the flag",
    "mcc": "Matthews correlation coefficient at the flag",
    "sensitivity": "TP / (TP + FN) at the flag",
    "specificity": "TN / (TN + FP) at the flag",
    "ppv": "TP / (TP + FP) at the flag",
    "npv": "TN / (TN + FN) at the flag",
    "brier": "mean squared difference of score and outcome",
    "auroc_delong": "the same area, with DeLong's interval",
    "prevalence": "share of rows with the outcome",
    "scaled_brier": "1 - Brier / (q (1 - q)), q the prevalence",
    "citl": "calibration-in-the-large: intercept with the slope fixed at 1; 0 is perfect",
    "cal_slope": "calibration slope; 1 is perfect, below 1 scores are too extreme",
    "ici": "mean distance of the score from the smoothed observed share",
    "e50": "median of these distances",
    "e90": "90th percentile of these distances",
    "emax": "largest of these distances",
    "spiegelhalter_z": "Spiegelhalter's z of calibration",
    "hosmer_lemeshow": "Hosmer and Lemeshow's chi-square",
    "ccc": "Lin's concordance correlation coefficient, variances with the n denominator",
    "pearson": "Pearson's correlation",
    "bias_correction": "Cb = CCC / Pearson's correlation",
    "explained_variance": "1 - MSE / variance of the measured values; bias is penalised",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "bias": "mean of predicted - measured",
    "loa_low": "bias - 1.96 SD of the differences",
    "loa_high": "bias + 1.96 SD of the differences",
    "coverage": "share of measured values within the predictive interval; named `coverage_90` at level 0.9",
    "nll": "mean negative log density of N(mu, sigma^2), in nats",
    "crps": "mean continuous ranked probability score of N(mu, sigma^2), in the target's unit",
    "sharpness": "root of the mean predictive variance",
    "sharpness_aleatoric": "root of its aleatoric part's mean: noise within the pictures",
    "sharpness_epistemic": "root of its epistemic part's mean: disagreement of the members",
    "interval_calibration_error": "mean of |coverage - level| of central intervals at 5%, 10%, ... 95%",
    "aurc": "area under the risk-coverage curve: mean absolute error of the k most certain rows, averaged over k",
    "aurc_gain": "that area between a sigma without information (0) and a perfect ranking of the errors (1)",
    "auroc_difference": "AUROC of the score - AUROC of SARC-F, or of the ideal's Bayes score",
    "explained_variance_ratio": "explained variance over the ideal's",
    "nll_difference": "NLL - the ideal's",
    "sigma_spearman": "Spearman's correlation of sigma with the ideal's sigma, image by image",
}
HEADLINE_MEANINGS = {
    "dataset": "as in the results table",
    "quantity": "the results table's `outcome`",
    "metric": "the metric; `auroc_difference vs <comparator>` for a comparison",
    "n": "rows",
    "attained": "the estimate, three decimals",
    "ci_low": "lower end of its interval",
    "ci_high": "upper end of its interval",
    "p_value": "where there is a test",
    "ideal": "the same metric of the simulator's ideal; missing without truth",
    "attained_over_ideal": "the ratio, for metrics where larger is better",
}
LADDER_MEANINGS = {
    "dataset": "`test_internal` or `test_external`",
    "learner": "`chosen`: the bundle's algorithm and hyper-parameters; `ridge`: logistic regression, not searched",
    "algorithm": "of the learner",
    "rung": "`sarc_f` (as recorded), `clinical`, `means` (with the predictions), `uncertainties` (with all features)",
    "comparator": "the rung that it is compared with; empty for an AUROC of its own",
    "metric": "`auroc`, or `auroc_difference` (rung - comparator)",
    "estimate": "the figure; missing where `na_reason` says why",
    "ci_low": "lower end of the interval",
    "ci_high": "upper end of the interval",
    "confidence_level": "of the interval, from `evaluation.confidence_level`",
    "p_value": "of a difference, two-sided",
    "n": "scored rows with a label, and with both scores where two are compared",
    "n_events": "of these, rows with the outcome",
    "method": "`DeLong`, or `DeLong paired, two-sided`",
    "na_reason": "why a figure, or its interval, is missing",
    "run_id": "of the evaluating run",
}
TABLE_ONE_MEANINGS = {
    "variable": "label and unit",
    "with": "summary of patients with the outcome, as printed",
    "without": "summary of patients without it",
    "p": "p-value as printed",
    "p_value": "p-value as a number",
    "test": "name of the test",
    "smd": "standardised difference, with - without",
    "n_missing": "rows without a value",
    "n_<group>": "rows with a value",
    "n_missing_<group>": "rows without a value",
    "mean_<group>": "mean",
    "sd_<group>": "standard deviation (ddof 1)",
    "median_<group>": "median",
    "q1_<group>": "lower quartile, linear interpolation",
    "q3_<group>": "upper quartile, linear interpolation",
    "count_<group>": "number of rows that meet the level",
    "percent_<group>": "their percentage",
}


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
    config = EvaluationConfig(
        n_boot=1,
        confidence_level=0.95,
        interval_level=0.9,
        coverage_levels=(),
        min_cell_size=1,
        subgroups=(),
        age_band_edges_years=(),
    )
    return Sheet(dataset="", plan=make_plan(config, []), run_id="", seed=0).to_frame()


def _check_meanings(where: str, meanings: Mapping[str, str], names: Sequence[str]) -> None:
    if set(meanings) != set(names):
        raise KeyError(f"docs/make_reference.py, {where}: {sorted(set(meanings) ^ set(names))} differ from the code")


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

"""TRIPOD+AI filled from the run's own records; what they do not hold is left to the authors, and nothing is invented.

Every answer is a sentence made of settings and figures that stand in this report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sarc_ray.cohort import definitions
from sarc_ray.evaluation.external_rows import RECALIBRATED
from sarc_ray.report import words
from sarc_ray.report.content import ALL_ROWS, Absent, Report
from sarc_ray.report.external import MAPS
from sarc_ray.report.tabulate import Table
from sarc_ray.report.tripod_items import ITEMS, Item

AUTHORS = "To be written by the authors."
FULL, PART, OPEN = "from the records", "in part from the records", "to be written by the authors"
_ORDINALS = {"imagenet": "pre-trained on ImageNet", "random": "not pre-trained"}
_RECALIBRATION = {"citl": "calibration in the large", "cal_slope": "slope", "brier": "Brier score"}
_CLUSTERS = ("site", "device", "view")
_NO_CLUSTERS = "No site, device or view of the plan has figures of its own."
# Metric of the results that shows that a figure of the report was there to be drawn.
_CURVES = {"auroc": "ROC", "auprc": "precision-recall", "brier": "calibration and decision"}
_CALIBRATED = {"citl": "calibration in the large", "cal_slope": "calibration slope", "ici": "ICI"}
_AGREED = {"ccc": "concordance (CCC)", "bias": "Bland-Altman limits"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the records say of an item, and what they leave to the authors (empty: nothing)."""

    said: str
    left: str = ""

    @property
    def status(self) -> str:
        """``FULL``, ``PART`` or ``OPEN``."""
        if not self.said:
            return OPEN
        return PART if self.left else FULL


def answers(report: Report) -> dict[str, Answer]:
    """The answer to every item by its number."""
    known = {
        **_opening(report),
        **_participants(report),
        **_variables(report),
        **_building(report),
        **_judging(report),
        **_results(report),
        **_use(report),
    }
    return {item.number: known.get(item.number, Answer("", AUTHORS)) for item in ITEMS}


def tripod_view(report: Report) -> Table:
    """All items as a table with a heading for each section of the manuscript."""
    found = answers(report)
    rows: list[tuple[str, ...]] = []
    section = ""
    for item in ITEMS:
        if item.section != section:
            section = item.section
            rows.append((section,))
        answer = found[item.number]
        rows.append((item.number, item.topic, item.asks, answer.said or words.DASH, answer.left or words.DASH))
    count = {status: sum(answer.status == status for answer in found.values()) for status in (FULL, PART, OPEN)}
    return Table(
        name="tripod-ai",
        title="TRIPOD+AI",
        groups=(),
        columns=("Item", "Topic", "What it asks for", "From this run's records", "Left to the authors"),
        rows=tuple(rows),
        note=(
            f"Of {len(ITEMS)} items and parts of items {count[FULL]} are filled from the records, {count[PART]} in "
            f"part, and {count[OPEN]} are to be written by the authors. The items are told in our own words; the "
            "statement's wording is binding: Collins et al., BMJ 2024;385:e078378."
        ),
        numbers=pd.DataFrame([_line(item, found[item.number]) for item in ITEMS]),
    )


def _line(item: Item, answer: Answer) -> dict[str, str]:
    return {
        "item": item.number,
        "section": item.section,
        "topic": item.topic,
        "study": item.study,
        "asks": item.asks,
        "status": answer.status,
        "from_the_records": answer.said,
        "left_to_the_authors": answer.left,
    }


def _opening(report: Report) -> dict[str, Answer]:
    names = " and ".join(test_set.label.lower() for test_set in report.test_sets) or "no test set"
    both = f"Development of a model for {report.outcome}, and its evaluation in the {names}."
    plan = report.results.table["plan_hash"].iloc[0]
    lineage = f"lineage {report.lineage.hash}"
    ethics = Answer("No person took part: all patients are simulated.") if report.simulated else Answer("", AUTHORS)
    data = (
        Answer(f"Simulated by this software from seed {report.lineage.settings['run']['seed']}; made again at will.")
        if report.simulated
        else Answer("", AUTHORS)
    )
    return {
        "4": Answer(both, "The study's aims."),
        "17": ethics,
        "18c": Answer(
            f"Results follow one plan (hash {plan}), which lies beside them.", "When it was fixed; the study protocol."
        ),
        "18e": data,
        "18f": Answer(
            f"SARC-Ray {report.lineage.facts['SARC-Ray']}; configuration and {lineage} in this report.",
            "Where readers find the code.",
        ),
    }


def _participants(report: Report) -> dict[str, Answer]:
    eligibility = report.lineage.settings["eligibility"]
    gap = eligibility["gap_max_days"]
    criteria = [f"age {eligibility['age_min_years']:g} years or more"]
    criteria += [] if gap is None else [f"radiograph within {gap:g} days of the measurement"]
    criteria += ["grip strength or chair rise test measured"] if eligibility["require_muscle_function"] else []
    criteria += [f"view {', '.join(eligibility['views'])}"] if eligibility["views"] else []
    one = eligibility["one_image_per_patient"]
    index = "one radiograph per patient, the nearest to the measurement" if one else "all radiographs of a patient"
    sizes = "; ".join(_flow_said(cohort) for cohort in report.cohorts)
    kind = "Simulated cohorts" if report.simulated else "Cohorts given as manifests"
    return {
        "5a": Answer(f"{kind}: {sizes}.", "Sources, why they were chosen, and whom they stand for."),
        "5b": Answer(_dates(report), "First and last participant; there is no follow-up.")
        if _dates(report)
        else Answer("", AUTHORS),
        "6a": Answer(_levels_said(report, "site"), "Setting and places.") if _levels_said(report, "site") else _open(),
        "6b": Answer(f"{'; '.join(criteria)}; {index}. Counts stand in the study flow."),
        "10": Answer(_sizes(report), "Why these sizes suffice."),
        "16": Answer(
            "Same criteria, outcome and predictors for all; Table 1 sets the cohorts side by side."
            if len(report.cohorts) > 1
            else "One cohort, divided by patient; Table 1 describes it.",
            "Differences of setting.",
        ),
        "20a": Answer(f"{sizes}. {_with_and_without(report)} Figure 1 shows the flow. There is no follow-up."),
        "20b": Answer(
            "Table 1, with standardised differences and missing values.", "Dates, treatments, groups of people."
        ),
        "20c": Answer("Table 1 of the derivation cohort beside the test sets; scores in Distribution of the score.")
        if report.table_one
        else _open(),
        "21": Answer(_sizes(report)),
    }


def _variables(report: Report) -> dict[str, Answer]:
    settings = report.lineage.settings
    pictures = settings["preprocess"]
    targets = ", ".join(words.with_unit(target) for target in report.targets)
    clinical = words.clinical_features(report.clinical_features) if report.clinical_features else "none"
    reading = (
        f"Radiographs to {pictures['size_px']} x {pictures['size_px']} pixels, contrast equalised locally (CLAHE, clip "
        f"limit {pictures['clahe_clip_limit']:g}, {pictures['clahe_tiles']} tiles a side)"
    )
    gate = "; a gate refuses pictures that are no usable frontal chest radiograph, with a reason for each"
    gate = gate if pictures["pixel_gate"] else ""
    return {
        "7": Answer(f"{reading}{gate}. The same for everybody.", "Whether quality differs between groups of people."),
        "8a": Answer(_outcome_said(report), "Why this outcome, when it was assessed, whether alike for all groups."),
        "9a": Answer(
            f"Clinical: {clinical}; from the radiograph: {targets}, each as predicted mean and relative uncertainty. "
            "All of them enter; none was selected by the data before modelling."
        ),
        "9b": Answer(
            f"Predicted values come from the radiograph alone. Clinical: {clinical}, as in the manifest or, where "
            "absent there, in the picture's header.",
            "How and when the clinical predictors were measured.",
        ),
        "9c": Answer("Nobody reads the radiograph: networks do.", "Who measured the clinical predictors."),
        "11": Answer(
            "Nothing is imputed. A patient without a clinical predictor gets no score and is counted by reason; one "
            "without a label is left out of that figure and counted; Table 1 counts missing values.",
        ),
    }


def _building(report: Report) -> dict[str, Answer]:
    settings = report.lineage.settings
    network, fit, ensemble, stage2 = (settings[name] for name in ("network", "fit", "ensemble", "stage2"))
    weights = _ORDINALS.get(str(network["weights"]), "pre-trained on other pictures")
    # A report of a run from before there was a choice has no such setting.
    joint = ensemble.get("heads") == "all_targets"
    whose = "for all targets together" if joint else "for each target"
    logs = [target.label for target in report.targets if target.transform == "log"]
    as_logarithm = f" ({', '.join(logs).lower()} as logarithm)" if logs else ""
    algorithms = ", ".join(name.replace("_", " ") for name in stage2["algorithms"])
    return {
        "12a": Answer(f"{_sizes(report)} Divided by patient, stratified by {settings['split']['stratify_by']}."),
        "12b": Answer(
            f"Targets standardised by the training patients{as_logarithm}; clinical predictors as they are, "
            "standardised within folds for logistic regression."
        ),
        "12c": Answer(
            f"Stage 1: {whose} {ensemble['members']} networks ({network['backbone']}, {weights}), at most "
            f"{fit['epochs']} epochs, training features by {ensemble['training_features'].replace('_', ' ')}. Stage 2: "
            f"{algorithms}; {stage2['trials_per_algorithm']} trials each by {stage2['n_splits']}-fold "
            f"{stage2['n_repeats']}-repeat cross-validation grouped by patient; "
            f"{report.lineage.facts['Stage 2']} was chosen by {str(stage2['choice']).replace('_', ' ')}.",
            "Why this kind of model.",
        )
        if "Stage 2" in report.lineage.facts
        else _open(),
        "13": _imbalance(report),
        "14": Answer(
            f"No method of fairness took part in training. Performance is reported by {_subgroups(report)}.",
            "Which groups matter here, and why.",
        ),
        "15": Answer(
            f"A probability of {report.outcome}, and a flag at {words.number(report.threshold, 4)} or more. "
            f"{_threshold_said(report)}"
        ),
    }


def _judging(report: Report) -> dict[str, Answer]:
    rows = report.results.table
    own = rows[(rows["score"] == "score") & (rows["subgroup"] == ALL_ROWS) & (rows["comparator"] == "")]
    clusters = [name for name in _examined(report) if name in _CLUSTERS]
    grouped = Answer(f"Performance by {', '.join(clusters)}; see Subgroups.") if clusters else None
    resampled = own.loc[own["n_boot"].notna(), "method"]
    method = str(resampled.iloc[0]) if len(resampled) else "bootstrap"
    return {
        "12d": grouped or Answer(_NO_CLUSTERS, "Whether clusters matter here."),
        "12e": Answer(_measures_said(report, f"{method} with {report.evaluation.n_boot:,} replicates")),
        "12f": Answer(_updating_said(report)),
        "12g": Answer("By the bundle, with the command sarc-ray score; the same code for every data set."),
        "23b": grouped or Answer(f"Not examined. {_NO_CLUSTERS}", "Whether clusters matter."),
    }


def _results(report: Report) -> dict[str, Answer]:
    parts = []
    for test_set in report.test_sets:
        figures = [
            f"{label} {words.estimate(report.results.row(test_set.name, metric))}"
            for metric, label in (("auroc", "AUROC"), ("cal_slope", "calibration slope"), ("citl", "CITL"))
        ]
        parts.append(f"{test_set.label}: {', '.join(figures)}.")
    judged = report.operating.calibration
    raw = f"Brier {words.number(_known(judged['brier']))}, ICI {words.number(_known(judged['ici']))}"
    return {
        "22": Answer(
            f"The whole model is the bundle {report.lineage.facts['Model']}: weights, trees, threshold and "
            "preprocessing, each file with its hash, and a model card.",
            "Who may have it, and on which terms.",
        ),
        "23a": Answer(f"{' '.join(parts)} All of them in Table 2; subgroups in their own table."),
        "24": Answer(" ".join([f"{_updating_said(report)} Raw scores out of fold: {raw}.", *_recalibrated(report)])),
    }


def _use(report: Report) -> dict[str, Answer]:
    said = (
        "Pictures that cannot be read, fail the gate or lie beyond the bundle's limit from the training pictures, and "
        "patients without a clinical predictor, get no score but a reason from a closed list."
    )
    if not isinstance(report.archive, Absent):
        counts = report.archive.counts
        by = counts.groupby("outcome")["n"].sum()
        said += f" In the archive: {', '.join(f'{n:,} {name}' for name, n in by.items())}."
    return {"27a": Answer(said, "What clinical staff do with such patients.")}


def _updating_said(report: Report) -> str:
    """What the evaluation did to the scores, and what the training patients had done before."""
    updated = "None in this run."
    if _recalibrated(report):
        updated = (
            "Recalibration by intercept, and by intercept and slope, was tried on other patients of the same test set "
            "(cross-fitted); the model and the scores of every other figure stay as they were."
        )
    return f"{updated} By the training patients: {report.operating.said}."


def _recalibrated(report: Report) -> list[str]:
    """For each test set on which recalibration was tried, its calibration as scored and after it."""
    table, said = report.results.table, []
    for test_set in report.test_sets:
        after = (table["dataset"] == test_set.name) & table["score"].isin(RECALIBRATED) & table["estimate"].notna()
        metrics = [name for name in _RECALIBRATION if name in set(table.loc[after, "metric"])]
        figures = []
        for metric in metrics:
            rows = {label: report.results.row(test_set.name, metric, score=name) for name, label in MAPS.items()}
            values = "; ".join(f"{label.lower()} {words.estimate(row)}" for label, row in rows.items())
            figures.append(f"{_RECALIBRATION[metric]}: {values}")
        said += [f"{test_set.label}, {', '.join(figures)}."] if figures else []
    return said


def _open() -> Answer:
    return Answer("", AUTHORS)


def _known(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _flow_said(cohort: Any) -> str:
    return (
        f"{cohort.label.lower()}, {cohort.flow[0].n_patients:,} screened, {cohort.flow[-1].n_patients:,} in the study"
    )


def _dates(report: Report) -> str:
    """First and last month of the radiographs of the test sets, where they are recorded."""
    months: list[str] = []
    for test_set in report.test_sets:
        if "acquired_month" in test_set.frame:
            months += [str(month) for month in test_set.frame["acquired_month"].dropna() if str(month)]
    return f"Radiographs of the test sets: {min(months)} to {max(months)}." if months else ""


def _levels_said(report: Report, column: str) -> str:
    found = {
        str(value)
        for test_set in report.test_sets
        if column in test_set.frame
        for value in test_set.frame[column].dropna()
    }
    return f"{words.count(len(found), column)} in the test sets." if found - {""} else ""


def _sizes(report: Report) -> str:
    parts = [f"{label.lower()} {n:,}" for cohort in report.cohorts for label, n in cohort.parts.items()]
    tested = []
    for test_set in report.test_sets:
        row = report.results.row(test_set.name, "auroc")
        if row is not None and not pd.isna(row["n"]):
            tested.append(
                f"{test_set.label.lower()} {row['n']} scored and labelled, {row['n_events']} with the outcome"
            )
    return f"Patients: {', '.join(parts) or 'not divided'}. Of them {'; '.join(tested) or 'none was evaluated'}."


def _with_and_without(report: Report) -> str:
    said = []
    for label, table in report.table_one.items():
        first = table.iloc[0]
        said.append(f"{label}: {first['n_with']:.0f} with and {first['n_without']:.0f} without the outcome")
    return f"{'; '.join(said)}." if said else ""


def _outcome_said(report: Report) -> str:
    outcome: Mapping[str, Any] = report.lineage.settings["outcome"]
    name = str(outcome["definition"])
    if name not in definitions.DEFINITIONS:
        return f"The manifest's column {outcome['column']}, 0 or 1."
    definition = definitions.DEFINITIONS[name]
    guideline = definitions.GUIDELINES[definition.guideline]
    wanted = {quantity for group in definition.all_of for quantity in group}
    cutoffs = [
        f"{definitions.QUANTITIES[c.quantity].label} {c.relation} {c.men:g} (men), {c.women:g} (women) "
        f"{definitions.QUANTITIES[c.quantity].unit}{f' by {c.method.upper()}' if c.method else ''}"
        for c in guideline.cutoffs
        if c.quantity in wanted
    ]
    groups = [[definitions.QUANTITIES[quantity].label for quantity in group] for group in definition.all_of]
    needs = " and ".join(f"({' or '.join(labels)})" if len(labels) > 1 else labels[0] for labels in groups)
    return (
        f"{report.outcome.capitalize()} by {guideline.title}: low {needs}. Low is {'; '.join(cutoffs)}. As measured; "
        f"no horizon. {guideline.reference}."
    )


def _imbalance(report: Report) -> Answer:
    if isinstance(report.search, Absent):
        return _open()
    table = report.search.algorithms
    chosen = table.loc[table["chosen"].astype(bool), "params"].astype(str)
    chosen = chosen[chosen.str.contains("class_weight")]
    if chosen.empty:
        return _open()
    balanced = "balanced" in chosen.iloc[0]
    used = (
        "The chosen model weights both classes equally; the search chose that"
        if balanced
        else "The search tried weights that balance the classes; the chosen model has none"
    )
    return Answer(f"{used}. {report.operating.said}.")


def _measures_said(report: Report, method: str) -> str:
    """What was computed, and nothing that the plan left out or the data did not allow."""
    rows = report.results.table
    rows = rows[rows["estimate"].notna() & (rows["subgroup"] == ALL_ROWS)]
    computed = set(rows.loc[rows["comparator"] == "", "metric"])
    parts = [
        ", ".join(label for name, label in labels.items() if name in computed)
        for labels in (words.METRICS, _CALIBRATED, _AGREED)
    ]
    if any(str(name).startswith("coverage_") for name in computed):
        parts.append("interval coverage of the predicted values")
    parts.append(method)
    curves = [label for name, label in _CURVES.items() if name in computed]
    parts.append(f"{', '.join(curves)} curves" if curves else "")
    compared = (rows["metric"] == "auroc_difference") & (rows["comparator"] == "sarc_f")
    by_delong = ["SARC-F"] * bool(compared.any())
    by_delong += ["the ladder of models"] * (not isinstance(report.ladder, Absent))
    parts.append(f"{' and '.join(by_delong)} by DeLong's test" if by_delong else "")
    return f"{'; '.join(part for part in parts if part)}."


def _examined(report: Report) -> list[str]:
    """The plan's subgroup columns by which a figure of the score was computed."""
    rows = report.results.table
    rows = rows[(rows["score"] == "score") & rows["estimate"].notna() & rows["subgroup"].str.contains("=")]
    found = {str(name).partition("=")[0] for name in rows["subgroup"].unique()}
    return [name for name in report.evaluation.subgroups if name in found]


def _subgroups(report: Report) -> str:
    return ", ".join(name.replace("_", " ") for name in _examined(report)) or "no subgroup"


def _threshold_said(report: Report) -> str:
    points = report.operating.points
    said = points.loc[points["in_force"].astype(bool), "said"]
    rule = str(said.iloc[0]) if len(said) else "a rule that the bundle does not name"
    return f"The threshold was found by {rule} on out-of-fold scores of the training patients."

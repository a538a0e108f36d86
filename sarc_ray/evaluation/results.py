"""The results table of a data set, and its headline figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.comparison_rows import add_comparator_rows, add_gap_rows
from sarc_ray.evaluation.external_rows import Reference, add_external_rows
from sarc_ray.evaluation.outcome_rows import add_count_rows, add_outcome_rows
from sarc_ray.evaluation.plan import IDEAL, EvaluationConfig, EvaluationPlan, coverage_name, make_plan
from sarc_ray.evaluation.rows import ALL_ROWS, Key, Sheet, Stratum, absent_subgroups, empty_bands, numbers, strata
from sarc_ray.evaluation.target_rows import add_target_rows
from sarc_ray.stats.bootstrap import MapBlocks

if TYPE_CHECKING:
    from sarc_ray.cohort.schema import TargetConfig

_HEADLINE_OUTCOME = (
    "auroc",
    "auprc",
    "f1",
    "mcc",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "brier",
    "citl",
    "cal_slope",
)
_HEADLINE_TARGET = ("ccc", "explained_variance", "mae", "nll")
_DECIMALS = 3
# The metric of a row that says of a planned subgroup why it is not there.
SUBGROUP = "subgroup"
LEFT_OUT = "the evaluation plan left it out"


def evaluate_dataset(
    frame: pd.DataFrame,
    *,
    dataset: str,
    targets: Sequence[TargetConfig],
    config: EvaluationConfig,
    seed: int,
    truth: pd.DataFrame | None = None,
    run_id: str,
    outcome_name: str = "sarcopenia",
) -> pd.DataFrame:
    """Compute every figure of one data set that the configuration stands for; see :func:`evaluate_by_plan`."""
    plan = make_plan(config, [target.name for target in targets], outcome_name=outcome_name)
    return evaluate_by_plan(frame, plan, dataset=dataset, seed=seed, truth=truth, run_id=run_id)


def evaluate_by_plan(
    frame: pd.DataFrame,
    plan: EvaluationPlan,
    *,
    dataset: str,
    seed: int,
    run_id: str,
    truth: pd.DataFrame | None = None,
    reference: Reference | None = None,
    map_blocks: MapBlocks = map,
) -> pd.DataFrame:
    """Compute every planned figure of one data set.

    Args:
        frame: one row per index image: ``patient_id``, ``outcome`` (0, 1 or missing), ``score`` (probability; missing
            where the image was not scored), ``flag``, and per target ``<t>`` (measured or missing), ``<t>_mu``,
            ``<t>_sigma``; optionally ``<t>_var_aleatoric``, ``<t>_var_epistemic``, comparators, subgroup columns, and
            ``row_id`` where ``truth`` is given.
        plan: what to compute.
        dataset: name in the results.
        seed: of the bootstrap; equal seeds give equal tables.
        run_id: of the run that made the scores.
        truth: the simulator's, one row per image: ``row_id``, ``<t>_ideal_mu``, ``<t>_ideal_sigma``, ``bayes_score``.
        reference: patients from where the model comes, where this data set is from elsewhere.
        map_blocks: spreads the bootstrap; as :func:`map`. Changes no figure.

    Returns:
        Long form with the columns ``rows.COLUMNS``. Figures that cannot be computed are rows with ``na_reason``.
        Where patients repeat, analytic intervals and p-values are left out; bootstrap intervals resample patients.

    Raises:
        EvaluationError: a column is absent or holds values that are not allowed; no row was scored; truth lacks rows.
    """
    for column in ("patient_id", "outcome", "score", "flag"):
        if column not in frame:
            raise EvaluationError(f"column {column}: missing; evaluation needs it; found: {list(frame.columns)}")
    sheet = Sheet(dataset=dataset, plan=plan, run_id=run_id, seed=seed, map_blocks=map_blocks)
    scored = frame[~np.isnan(numbers(frame, "score"))]
    if scored.empty:
        raise EvaluationError(
            f"data set {dataset}: none of {len(frame)} rows was scored; see the score table's reasons"
        )
    scored = scored if truth is None else _join_truth(scored, truth)
    add_count_rows(sheet, frame, scored, plan.outcome_name)
    parts = list(strata(scored, plan.config))
    if plan.with_outcome:
        _add_outcome(sheet, parts, with_truth=truth is not None)
        if reference is not None:
            add_external_rows(sheet, parts[0], plan.outcome_name, reference)
    _add_targets(sheet, parts, with_ideal=IDEAL in plan.comparators and truth is not None)
    _add_absent(sheet, scored)
    return sheet.to_frame()


def _add_absent(sheet: Sheet, scored: pd.DataFrame) -> None:
    """Say why planned subgroups are not there."""
    config = sheet.plan.config
    for n, reasons in ((None, absent_subgroups(scored, config)), (0, empty_bands(scored, config))):
        for name, reason in reasons.items():
            key = Key(outcome=sheet.plan.outcome_name, score="score", subgroup=name, n=n, n_events=n)
            sheet.add(key, SUBGROUP, na_reason=reason)


def _add_targets(sheet: Sheet, parts: Sequence[Stratum], *, with_ideal: bool) -> None:
    for stratum in parts:
        for name in sheet.plan.target_names:
            add_target_rows(sheet, stratum, name, with_ideal=with_ideal and stratum.name == ALL_ROWS)


def _add_outcome(sheet: Sheet, parts: Sequence[Stratum], *, with_truth: bool) -> None:
    """The score in every stratum; what it is compared with on all rows; the strata with each other."""
    outcome = sheet.plan.outcome_name
    for stratum in parts:
        add_outcome_rows(sheet, stratum, outcome)
    for comparator in sheet.plan.comparators:
        if comparator != IDEAL or with_truth:
            add_comparator_rows(sheet, parts[0], outcome, comparator)
    add_gap_rows(sheet, parts, outcome)


def with_unplanned(results: pd.DataFrame, plan: EvaluationPlan, whole: EvaluationPlan) -> pd.DataFrame:
    """Results with a row for each figure that the plan left out, which says so; for readers that look for all of them.

    Args:
        results: tables of :func:`evaluate_by_plan`, concatenated.
        plan: that made them.
        whole: the plan that leaves nothing out.
    """
    if plan.outcomes == whole.outcomes and plan.metrics == whole.metrics:
        return results
    parts = [results]
    for dataset, rows in results.groupby("dataset", sort=False):
        sheet = Sheet(dataset=str(dataset), plan=plan, run_id=str(rows["run_id"].iloc[0]), seed=0)
        known = set(zip(rows["outcome"], rows["score"], rows["metric"], rows["subgroup"], strict=True))
        asked = {(whole.outcome_name, "score"): whole.outcome_metrics}
        asked |= {(name, f"{name}_mu"): whole.target_metrics for name in whole.target_names}
        for subgroup in map(str, rows.loc[rows["metric"] != SUBGROUP, "subgroup"].unique()):
            for (outcome, score), methods in asked.items():
                key = _sized_key(rows, outcome, score, subgroup)
                left_out = {
                    name: method for name, method in methods.items() if (outcome, score, name, subgroup) not in known
                }
                sheet.add_missing(key, left_out, LEFT_OUT)
        parts.append(sheet.to_frame())
    return pd.concat(parts, ignore_index=True)


def _sized_key(rows: pd.DataFrame, outcome: str, score: str, subgroup: str) -> Key:
    """The key of a score's figures, with the sizes that its own rows state; none where the plan left all of it out."""
    same = (rows["outcome"] == outcome) & (rows["score"] == score) & (rows["subgroup"] == subgroup)
    sizes = rows.loc[same & (rows["comparator"] == "") & (rows["method"] != "count"), ["n", "n_events"]]
    if sizes.empty:
        return Key(outcome=outcome, score=score, subgroup=subgroup, n=None, n_events=None)
    n, n_events = sizes.iloc[0]
    return Key(
        outcome=outcome, score=score, subgroup=subgroup, n=int(n), n_events=None if pd.isna(n_events) else int(n_events)
    )


def by_plan(table: pd.DataFrame, plan: EvaluationPlan) -> pd.DataFrame:
    """A table of figures with the hash of the plan that they follow as its last column, as the results table has it."""
    return table.assign(plan_hash=plan.plan_hash)


def headline_table(results: pd.DataFrame, *, interval_level: float) -> pd.DataFrame:
    """Pick the main figures of all rows of each data set, attained beside ideal, rounded for the screen.

    Args:
        results: one or more tables of :func:`evaluate_dataset`, concatenated.
        interval_level: of the plan; the coverage at further levels is no headline.

    Returns:
        Columns ``dataset, quantity, metric, n, attained, ci_low, ci_high, p_value, ideal, attained_over_ideal``.
        ``ideal`` is missing without truth; the ratio is given for metrics where larger is better and the ideal is
        above zero.
    """
    overall = results[results["subgroup"] == ALL_ROWS]
    lines: list[dict[str, Any]] = []
    for dataset in overall["dataset"].unique():
        rows = overall[overall["dataset"] == dataset]
        attained = rows[(rows["score"] == "score") | rows["score"].str.endswith("_mu")]
        ideal = rows[rows["score"] == "ideal"].set_index(["outcome", "metric"])["estimate"]
        for _, row in attained.iterrows():
            if _is_headline(row, coverage_name(interval_level)):
                lines.append(_headline_line(row, ideal.get((row["outcome"], row["metric"]), np.nan)))
    columns = ("dataset", "quantity", "metric", "n", "attained", "ci_low", "ci_high", "p_value", "ideal")
    return pd.DataFrame(lines, columns=[*columns, "attained_over_ideal"])


def _is_headline(row: pd.Series, coverage_metric: str) -> bool:
    if row["comparator"]:
        return bool(row["metric"] == "auroc_difference" and not np.isnan(row["estimate"]))
    if row["score"] == "score":
        return row["metric"] in _HEADLINE_OUTCOME
    return row["metric"] in (coverage_metric, *_HEADLINE_TARGET)


def _headline_line(row: pd.Series, ideal: float) -> dict[str, Any]:
    larger_is_better = row["metric"] in ("auroc", "auprc", "ccc", "explained_variance")
    ratio = row["estimate"] / ideal if larger_is_better and ideal > 0 else np.nan
    metric = f"{row['metric']} vs {row['comparator']}" if row["comparator"] else row["metric"]
    return {
        "dataset": row["dataset"],
        "quantity": row["outcome"],
        "metric": metric,
        "n": row["n"],
        "attained": round(row["estimate"], _DECIMALS),
        "ci_low": round(row["ci_low"], _DECIMALS),
        "ci_high": round(row["ci_high"], _DECIMALS),
        "p_value": round(row["p_value"], _DECIMALS + 1),
        "ideal": round(ideal, _DECIMALS),
        "attained_over_ideal": round(ratio, _DECIMALS),
    }


def _join_truth(scored: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    for name, table in (("scores", scored), ("truth", truth)):
        if "row_id" not in table:
            raise EvaluationError(f"{name}: column row_id is missing; truth and scores are joined by it")
        if table["row_id"].duplicated().any():
            raise EvaluationError(f"{name}: a row_id occurs twice; give one row per image")
    wanted = [
        name
        for name in map(str, truth.columns)
        if name == "bayes_score" or name.endswith(("_ideal_mu", "_ideal_sigma"))
    ]
    n_lost = int((~scored["row_id"].isin(truth["row_id"])).sum())
    if n_lost:
        raise EvaluationError(
            f"truth: {n_lost} of {len(scored)} scored rows are not in it; is it another simulation's?"
        )
    own = [name for name in scored if name not in wanted]
    return scored[own].merge(truth[["row_id", *wanted]], on="row_id", how="left", validate="one_to_one")

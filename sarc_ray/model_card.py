"""The bundle's model card, generated from what the bundle knows; it states nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sarc_ray.bundle import BundleSpec

# Metrics that have a section of their own.
_TOLD_APART = ("recalibration", "local_recalibration", "distillation")
_LOCAL = {"none": "none", "intercept": "intercept", "intercept_and_slope": "intercept and slope"}
_REBASED = "prevalence"
_RULES = {
    "youden": "Youden's index",
    "f1": "largest F1",
    "sensitivity": "sensitivity of {} or more",
    "specificity": "specificity of {} or more",
    "alerts_per_10000": "at most {:g} flagged of 10,000",
    "cost_ratio": "least cost, a missed patient costing {:g} false alarms",
}


def model_card(manifest: Mapping[str, Any], spec: BundleSpec) -> str:
    """The card as Markdown.

    Args:
        manifest: what ``bundle.json`` holds.
        spec: what the score is defined on.
    """
    outcome = spec.outcome.column if spec.outcome.definition == "column" else spec.outcome.definition
    targets = [
        f"- `{t.name}`: {t.label} ({t.unit}); {_recalibrated(scale)}"
        for t, scale in zip(spec.targets, spec.sigma_scale, strict=True)
    ]
    lines = [
        f"# Model card: {manifest['model_id']}",
        "",
        "**Not a medical device.** For research; not for the diagnosis or treatment of any patient.",
        "",
        "## Intended use",
        "",
        f"Estimates the probability of the outcome `{outcome}` from one frontal chest radiograph and the clinical",
        f"features {', '.join(f'`{name}`' for name in spec.clinical_features) or 'none'}, for patients aged",
        f"{spec.age_min_years:g} years or more. Made to rank and count patients in archives for research.",
        "",
        "## How it works",
        "",
        *_stage1(spec, manifest["lineage"]),
        "",
        *targets,
        "",
        *_refused(spec, manifest["metrics"]),
        f"Stage 2: {manifest['stage2']['algorithm'].replace('_', ' ')}.",
        f"{said_of_calibration(manifest['calibration'])}.",
        f"A score of {manifest['threshold']:.4f} or more is flagged ({said_of_threshold(manifest['thresholds'])}).",
        f"Pictures: {spec.preprocess.size_px} x {spec.preprocess.size_px} px, CLAHE clip limit",
        f"{spec.preprocess.clahe_clip_limit:g}, {spec.preprocess.clahe_tiles} tiles per side; others are refused.",
        "Method: Ryu et al., J Cachexia Sarcopenia Muscle 2023;14:418-428, doi 10.1002/jcsm.13144.",
        "",
        "## Figures at training",
        "",
        "Cross-validated on the training patients, not on a test set.",
        "",
        *_table({key: value for key, value in manifest["metrics"].items() if key not in _TOLD_APART}),
        "",
        *_thresholds(manifest["thresholds"], rebased=manifest["calibration"]["method"] == _REBASED),
        *_decisions(manifest["metrics"]),
        "## Lineage",
        "",
        *_table(manifest["lineage"]),
        "",
        "## Limits",
        "",
        *_limits(manifest["lineage"]),
        "",
    ]
    return "\n".join(lines)


def said_of_calibration(decision: Mapping[str, Any]) -> str:
    """One sentence without its full stop: what was asked for, which way it went, on which figures.

    Args:
        decision: ``calibration`` of ``bundle.json``.
    """
    if decision["method"] == "none":
        figures = f"; out of fold Brier {decision['brier']:.4f}, ICI {decision['ici']:.4f}"
        return f"No calibration was asked for{figures}: scores are raw scores"
    if decision["method"] == _REBASED:
        return f"Scores are re-based to another prevalence ({decision['why']})"
    if decision["method"] in _LOCAL:
        return (
            f"Scores are recalibrated on a local sample ({_LOCAL[decision['method']]}): of its patients who were not "
            f"drawn, Brier {decision['brier']:.4f} without and {decision['brier_calibrated']:.4f} with it, ICI "
            f"{decision['ici']:.4f} and {decision['ici_calibrated']:.4f}"
        )
    name = str(decision["method"]).capitalize()
    state = "in force" if decision["kept"] else "not in force, scores are raw scores"
    if decision["brier_calibrated"] is None:
        return f"{name} calibration is {state} ({decision['why']})"
    figures = ", ".join(
        f"{label} {decision[key]:.4f} without and {decision[f'{key}_calibrated']:.4f} with it"
        for key, label in (("brier", "Brier"), ("ici", "ICI"))
    )
    return f"{name} calibration is {state}: out of fold it {decision['why']} ({figures})"


def said_of_threshold(thresholds: Sequence[Mapping[str, Any]]) -> str:
    """The rule in force, and its aim, in words.

    Args:
        thresholds: of ``bundle.json``.
    """
    point = next(point for point in thresholds if point["in_force"])
    return f"{said_of_rule(point)}, on out-of-fold scores"


def said_of_rule(point: Mapping[str, Any]) -> str:
    """A threshold's rule, and its aim, in words.

    Args:
        point: one of ``thresholds`` of ``bundle.json``.
    """
    return _RULES[str(point["rule"])].format(point["aim"])


def _thresholds(thresholds: Sequence[Mapping[str, Any]], *, rebased: bool) -> list[str]:
    """Every rule's threshold, and what it does."""
    names = ("threshold", "sensitivity", "specificity", "ppv", "npv", "f1")
    rows = []
    for point in thresholds:
        figures = "".join(f"{'-' if point[name] is None else format(point[name], '.4f')} | " for name in names)
        alerts = "-" if point["alerts_per_10000"] is None else f"{point['alerts_per_10000']:.0f}"
        chosen = "in force" if point["in_force"] else ""
        rows.append(f"| {said_of_rule(point)} | {figures}{alerts} | {chosen} |")
    prevalence = "the prevalence above" if rebased else "their prevalence"
    return [
        "## Thresholds",
        "",
        f"What each would do to patients like the training patients, at {prevalence}. Counted on the out-of-fold",
        "scores on which it was chosen, so that the figures are a little too good.",
        "",
        "| rule | score | sensitivity | specificity | PPV | NPV | F1 | flagged of 10,000 | |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _decisions(metrics: Mapping[str, Any]) -> list[str]:
    """Sections on what was decided on figures, as far as there is anything."""
    return [
        *_recalibrations(metrics.get("recalibration", {})),
        *_distillation(metrics.get("distillation")),
        *_local(metrics.get("local_recalibration")),
    ]


def _stage1(spec: BundleSpec, lineage: Mapping[str, Any]) -> list[str]:
    if spec.stage1 == "ensemble":
        return ["Stage 1: ensembles of neural networks predict from the radiograph, each with its uncertainty:"]
    told = [
        "stage1: distilled. Stage 1 is one network, taught what the ensembles of bundle",
        f"`{lineage.get('distilled_from_model_id', 'unknown')}` say of patients whom their members had not seen. It",
        "answers for these with mean, aleatoric and epistemic variance. A factor of sigma that was fitted for it comes",
        "on top of that bundle's. Stage 2 and the figures at training are that bundle's,",
    ]
    if lineage.get("stage") == "distill":
        return [*told, "and so are calibration and thresholds, all unchanged:"]
    return [*told, "but not the probabilities, which have been put right since:"]


def _distillation(found: Mapping[str, Any] | None) -> list[str]:
    """How far a distilled network says what its parent says."""
    if not found:
        return []
    agreed = ("mu_explained", "sigma_spearman", "sigma_ratio", "epistemic_spearman", "epistemic_ratio")
    names = (*agreed, "nll_parent", "nll")
    rows = [
        f"| {target} | "
        + " | ".join("-" if facts[name] is None else format(facts[name], ".4f") for name in names)
        + " |"
        for target, facts in found["targets"].items()
    ]
    score = found["score"]
    told = "-" if score["spearman"] is None else format(score["spearman"], ".4f")
    return [
        "## Beside the ensembles",
        "",
        f"On {found['images']} pictures of tuning patients, whom neither learned from: share of the variance of the",
        "ensemble's means that is met; rank correlation and ratio of sigma, and of the epistemic variance; NLL, nats.",
        "",
        "| target | mean met | sigma: rank | ratio | epistemic: rank | ratio | NLL, ensemble | NLL |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Scores, as distilled: rank correlation {told}, mean",
        f"absolute difference {score['mean_difference']:.4f}.",
        "",
    ]


def _recalibrated(scale: float) -> str:
    return "sigma as the networks say" if scale == 1.0 else f"sigma x {scale:.3f}, recalibrated on the tuning patients"


def _limits(lineage: Mapping[str, Any]) -> list[str]:
    """What to mind; with a warning where stage 2 learned as some studies have it learn, from memorised predictions."""
    in_sample = [
        "- Stage 2 learned from predictions for patients whom the networks had learned from (`in_sample`): the",
        "  cross-validated figures above are too good, and scores of new patients may be badly calibrated.",
    ]
    on_test = [
        "- The algorithm was chosen by F1 in the internal test set, as the paper did (`internal_test_as_paper`): the",
        "  figures of that test set are too good.",
    ]
    return [
        "- It knows the patients, devices and views that it was trained on; evaluate it locally before any use.",
        "- Missing clinical features are not imputed: such patients get no score.",
        *(in_sample if lineage.get("training_features") == "in_sample" else []),
        *(on_test if lineage.get("choice") == "internal_test_as_paper" else []),
        "- An association with the outcome, not a cause; the threshold fits the training prevalence.",
        "- This card is generated: what it does not say about the training patients, the bundle does not know.",
    ]


def _refused(spec: BundleSpec, metrics: Mapping[str, Any]) -> list[str]:
    """What becomes of pictures unlike the training pictures, and how many ordinary ones that costs."""
    asked, held, n = (
        metrics.get(f"ood_{name}") for name in ("false_alarm_rate_asked", "false_alarm_rate", "tuning_images")
    )
    about = "`ood_distance` tells how unlike the training pictures a picture is"
    if spec.ood_threshold is None:
        why = f" {n} tuning pictures are too few for a threshold at a false-alarm rate of {asked:.2%}." if asked else ""
        return [f"{about}; none is refused for it.{why}", ""]
    lines = [f"{about} (about 1 is ordinary);", f"above {spec.ood_threshold:.3f} it gets no score."]
    if held:
        lines.append(f"Of pictures like the {n} tuning pictures at most {held:.2%} are expected beyond it")
        lines[-1] += f" ({asked:.2%} was asked for, and takes more of them)." if held > asked else "."
    return [*lines, ""]


def _recalibrations(decisions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was decided about each target's sigma, and on which figures."""
    if not decisions:
        return []
    names = ("fitted_scale", "nll", "nll_recalibrated", "calibration_error", "calibration_error_recalibrated")
    rows = [
        f"| {target} | {facts['why']} | "
        + "".join(f"{'-' if facts[name] is None else format(facts[name], '.4f')} | " for name in names)
        + f"{facts['patients']} |"
        for target, facts in decisions.items()
    ]
    return [
        "## Recalibration of sigma",
        "",
        "One factor per target, in force only where it improves both figures on the tuning patients, each judged with",
        "a factor fitted on the others. Before and after: NLL in nats; distance of interval coverage from its level.",
        "",
        "| target | decision | factor | NLL | after | distance | after | patients |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _local(decision: Mapping[str, Any] | None) -> list[str]:
    """What was decided about the scores on a local sample, and on which figures."""
    if decision is None:
        return []
    rows = [
        f"| {_LOCAL[one['method']]} | {one['slope']:.4f} | {one['intercept']:.4f} | {one['brier']:.4f} | "
        f"{one['ici']:.4f} | {'kept' if one['method'] == decision['kept'] else ''} |"
        for one in decision["candidates"]
    ]
    return [
        "## Local recalibration",
        "",
        f"On {decision['n_patients']} patients, {decision['n_patients_with']} with `{decision['label']}`; mean score",
        f"{decision['mean_score']:.4f}, share with the outcome {decision['prevalence']:.4f}. Brier and ICI are of",
        f"patients who were not among those drawn for the fit, means of {decision['n_boot']} draws.",
        "",
        "| candidate | slope | intercept | Brier | ICI | |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _table(facts: Mapping[str, Any]) -> list[str]:
    if not facts:
        return ["None recorded."]
    rows = [f"| {key} | {value if isinstance(value, str) else json.dumps(value)} |" for key, value in facts.items()]
    return ["| what | value |", "|---|---|", *rows]

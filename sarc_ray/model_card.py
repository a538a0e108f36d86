"""The bundle's model card, generated from what the bundle knows; it states nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sarc_ray.bundle import BundleSpec


def model_card(manifest: Mapping[str, Any], spec: BundleSpec) -> str:
    """The card as Markdown.

    Args:
        manifest: what ``bundle.json`` holds.
        spec: what the score is defined on.
    """
    outcome = spec.outcome.column if spec.outcome.definition == "column" else spec.outcome.definition
    targets = [f"- `{t.name}`: {t.label} ({t.unit})" for t in spec.targets]
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
        "Stage 1: ensembles of neural networks predict from the radiograph, each with its uncertainty:",
        "",
        *targets,
        "",
        f"Stage 2: {manifest['stage2']['algorithm'].replace('_', ' ')}, sigmoid calibration. A score of",
        f"{manifest['threshold']:.4f} or more is flagged (Youden's threshold on out-of-fold predictions).",
        f"Pictures: {spec.preprocess.size_px} x {spec.preprocess.size_px} px, CLAHE clip limit",
        f"{spec.preprocess.clahe_clip_limit:g}, {spec.preprocess.clahe_tiles} tiles per side; others are refused.",
        "Method: Ryu et al., J Cachexia Sarcopenia Muscle 2023;14:418-428, doi 10.1002/jcsm.13144.",
        "",
        "## Figures at training",
        "",
        "Cross-validated on the training patients, not on a test set.",
        "",
        *_table(manifest["metrics"]),
        "",
        "## Lineage",
        "",
        *_table(manifest["lineage"]),
        "",
        "## Limits",
        "",
        "- It knows the patients, devices and views that it was trained on; evaluate it locally before any use.",
        "- Missing clinical features are not imputed: such patients get no score.",
        "- An association with the outcome, not a cause; the threshold fits the training prevalence.",
        "- This card is generated: what it does not say about the training patients, the bundle does not know.",
        "",
    ]
    return "\n".join(lines)


def _table(facts: Mapping[str, Any]) -> list[str]:
    if not facts:
        return ["None recorded."]
    rows = [f"| {key} | {value if isinstance(value, str) else json.dumps(value)} |" for key, value in facts.items()]
    return ["| what | value |", "|---|---|", *rows]

"""Write tests/golden/bundle: a small bundle, pictures, and the scores that it must give on every machine.

Run once, by hand, where the model or the file formats change on purpose:  python -m tests.golden.make_bundle
The weights are random and the outcome is simulated: the numbers mean nothing but themselves.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sarc_ray.bundle import load_bundle, write_bundle
from sarc_ray.stage2.features import build_features
from tests.bundle_factory import SPEC, TARGETS, make_members, make_ood, make_pictures, make_stage2

FOLDER = Path(__file__).parent / "bundle"
SEED = 20230210
# A forest jumps where a feature crosses a cut. Nothing may lie this near a cut (relatively), or rounding would show:
# single precision rounds at 6e-8, and a network's own rounding is a small part of the target's mean.
MARGIN = 1e-5


def main() -> None:
    """Write the bundle, twelve pictures with clinical features, and their scores."""
    members = make_members(SEED)
    write_bundle(
        str(FOLDER / "model"),
        members=members,
        ood=make_ood(members, SEED),
        stage2=make_stage2(members, SEED),
        spec=SPEC,
        metrics={},
        lineage={"source": "tests/golden/make_bundle.py", "seed": SEED, "data": "simulated; untrained networks"},
    )
    images_NSS, clinical = make_pictures(12, rng=np.random.default_rng(SEED + 1))
    bundle = load_bundle(str(FOLDER / "model"))
    scores = bundle.score(images_NSS, clinical, device="cpu")
    X = build_features(clinical.join(scores), SPEC.clinical_features, [target.name for target in TARGETS])
    for factor in (1 - MARGIN, 1 + MARGIN):
        moved = X.assign(**{name: X[name] * factor for name in X.columns if name.startswith(("alm", "crt"))})
        if not np.array_equal(bundle.stage2.predict(moved)[0], scores["raw_score"]):
            raise SystemExit(f"a feature lies within {MARGIN} of a cut; choose another SEED than {SEED}")
    np.save(FOLDER / "images.npy", images_NSS)
    clinical.to_csv(FOLDER / "clinical.csv", index=False)
    scores.to_csv(FOLDER / "scores.csv", index=False, float_format="%.17g")


if __name__ == "__main__":
    main()

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from sarc_ray.errors import BundleError, SchemaVersionError
from sarc_ray.stage2.algorithms import ALGORITHMS
from sarc_ray.stage2.calibration import UNJUDGED, Beta, Isotonic, Sigmoid, Unchanged
from sarc_ray.stage2.persist import TRUSTED, content_hash, from_bytes, to_bytes
from tests.stage2.cohort import fitted_model


@pytest.mark.parametrize("name", ALGORITHMS)
def test_round_trip(name):
    model, X, _ = fitted_model(name)
    archive = to_bytes(model)
    again = from_bytes(archive)
    for before, after in zip(model.predict(X), again.predict(X), strict=True):
        np.testing.assert_array_equal(before, after)
    assert (again.threshold, again.params, again.feature_names) == (model.threshold, model.params, model.feature_names)
    assert again.stated() == model.stated()
    assert (again.thresholds, again.decision, again.in_force) == (model.thresholds, model.decision, model.in_force)
    assert content_hash(again) == content_hash(model)
    assert content_hash(from_bytes(to_bytes(again))) == content_hash(model)


GOLDEN = Path(__file__).parents[1] / "golden"
ISOTONIC = Isotonic(np.array([0.1, 0.4, 0.8]), np.array([0.05, 0.05, 0.7]))


@pytest.mark.parametrize("calibration", [Unchanged(), Sigmoid(1.5, -0.3), Beta(0.4, 1.7, 0.2), ISOTONIC])
def test_every_calibration_comes_back(calibration):
    model = dataclasses.replace(fitted_model("logistic_regression")[0], calibration=calibration)
    again = from_bytes(to_bytes(model))
    raw_N = np.linspace(0.0, 1.0, 101)
    assert type(again.calibration) is type(calibration)
    np.testing.assert_array_equal(again.calibration.apply(raw_N), calibration.apply(raw_N))
    assert content_hash(again) == content_hash(model)


def _as_version_1(model) -> bytes:
    """The archive as it was before calibration was judged, and with one threshold."""
    state = {
        "schema_version": 1,
        "algorithm": model.algorithm,
        "params": dict(model.params),
        "feature_names": list(model.feature_names),
        "slope": 1.2,
        "intercept": -0.4,
        "raw_threshold": model.raw_threshold,
        "threshold": model.threshold,
        "form": "linear",
        "fitted": model.fitted.to_state(),
    }
    return skops.io.dumps(state)


def test_an_archive_that_was_written_by_the_version_before_keeps_its_hash():
    """tests/golden/stage2_schema_1.skops and its hash are of commit 7c5f4c0, by tests/golden/make_bundle.py."""
    old = from_bytes((GOLDEN / "stage2_schema_1.skops").read_bytes())
    assert old.decision == UNJUDGED
    assert content_hash(old) == "c330de8b24474a5e2cdff1323e9a7ec6a0d6a3e059c7fddfe567c44deed44ad8"


def test_archives_of_the_version_before_are_read():
    model, X, _ = fitted_model("logistic_regression")
    old = from_bytes(_as_version_1(model))
    assert old.calibration == Sigmoid(1.2, -0.4)
    assert (old.threshold, old.raw_threshold, old.in_force) == (model.threshold, model.raw_threshold, "youden")
    assert old.decision == UNJUDGED
    np.testing.assert_array_equal(old.predict(X)[0], model.predict(X)[0])
    rewritten = from_bytes(to_bytes(old))
    assert content_hash(rewritten) == content_hash(old)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"calibration": Sigmoid(1.0, 0.0), "slope": "Infinity"}, "is not finite"),
        ({"calibration": Beta(1.0, 1.0, 0.0), "a": "-1.0"}, "no increasing map"),
        ({"calibration": Sigmoid(1.0, 0.0), "map": '"linear"'}, "cannot be read"),
    ],
)
def test_an_altered_calibration_is_refused(change, message):
    model = dataclasses.replace(fitted_model("logistic_regression")[0], calibration=change.pop("calibration"))
    ((key, value),) = change.items()

    def alter(schema):
        schema["content"]["calibration"]["content"][key]["content"] = value

    with pytest.raises(BundleError, match=message):
        from_bytes(_rewrite(to_bytes(model), alter))


def test_a_threshold_in_force_that_is_not_there_is_refused(archive):
    def alter(schema):
        schema["content"]["in_force"]["content"] = '"kappa"'

    with pytest.raises(BundleError, match="'kappa', which is in force, among them"):
        from_bytes(_rewrite(archive, alter))


def test_hash_is_of_the_content_not_of_the_archive():
    model, _, _ = fitted_model("random_forest")
    same, _, _ = fitted_model("random_forest")
    assert content_hash(same) == content_hash(model)
    unjudged = dataclasses.replace(model, decision=UNJUDGED, thresholds=(model.point,))
    assert content_hash(unjudged) == content_hash(model)  # neither decides a score
    point = model.point
    share = model.fitted.share.copy()
    share[-1] = 1.0 - share[-1]
    for change in (
        {"thresholds": (dataclasses.replace(point, threshold=float(np.nextafter(point.threshold, 1.0))),)},
        {"in_force": "specificity"},
        {"calibration": Sigmoid(2.0, 0.0)},
        {"calibration": Beta(1.0, 1.0, 0.0)},
        {"calibration": ISOTONIC},
        {"feature_names": model.feature_names[::-1]},
        {"fitted": dataclasses.replace(model.fitted, share=share)},
    ):
        assert content_hash(dataclasses.replace(model, **change)) != content_hash(model)


def _rewrite(archive: bytes, change) -> bytes:
    """The archive with its schema passed through ``change``."""
    source, sink = zipfile.ZipFile(io.BytesIO(archive)), io.BytesIO()
    with zipfile.ZipFile(sink, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "schema.json":
                schema = json.loads(data)
                change(schema)
                data = json.dumps(schema).encode()
            target.writestr(name, data)
    return sink.getvalue()


@pytest.fixture(scope="module")
def archive() -> bytes:
    return to_bytes(fitted_model("logistic_regression")[0])


class Foreign:
    """Leaves a mark when it is made from a file."""

    made = False

    def __setstate__(self, state):
        type(self).made = True


def test_a_foreign_type_is_refused_before_anything_is_made():
    foreign = Foreign()
    foreign.x = 1
    with pytest.raises(BundleError, match=r"Foreign'.*which no model has"):
        from_bytes(skops.io.dumps({"fitted": foreign}))
    assert not Foreign.made


@pytest.mark.parametrize("content", [LogisticRegression(), np.exp, {1, 2}, (1, 2), np.float32, slice(1)])
def test_types_that_skops_itself_trusts_are_refused_too(content):
    assert skops.io.get_untrusted_types(data=skops.io.dumps(content)) == []
    with pytest.raises(BundleError, match="which no model has"):
        from_bytes(skops.io.dumps({"fitted": content}))


@pytest.mark.parametrize(
    "node",
    [
        {"__class__": "methodcaller", "__module__": "operator", "__loader__": "OperatorFuncNode", "attrs": {}},
        {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"},
        {"__class__": "str", "__module__": "builtins", "__loader__": "ObjectNode"},
        {"__class__": "str", "__module__": "builtins"},
    ],
)
def test_a_node_slipped_into_the_schema_is_refused(archive, node):
    def slip_in(schema):
        schema["content"]["params"]["content"]["C"] = node

    with pytest.raises(BundleError, match="which no model has"):
        from_bytes(_rewrite(archive, slip_in))


def test_a_pickled_array_is_refused(archive):
    source, sink = zipfile.ZipFile(io.BytesIO(archive)), io.BytesIO()
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(sink, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickled.getvalue() if name.endswith(".npy") else source.read(name))
    with pytest.raises(BundleError, match="Object arrays cannot be loaded"):
        from_bytes(sink.getvalue())


def test_damage_is_refused_and_a_newer_schema_is_named(archive):
    with pytest.raises(BundleError, match="not a skops archive"):
        from_bytes(b"no archive")
    with pytest.raises(BundleError, match="stage2/model"):
        from_bytes(archive[: len(archive) // 2])

    def newer(schema):
        schema["content"]["schema_version"]["content"] = "3"

    with pytest.raises(SchemaVersionError, match="schema version 3, this release reads up to 2"):
        from_bytes(_rewrite(archive, newer))

    def nameless(schema):
        schema["content"]["feature_names"]["content"].pop()

    with pytest.raises(BundleError, match="8 feature names for a model of 9"):
        from_bytes(_rewrite(archive, nameless))


def test_the_list_of_types_holds_no_code():
    assert {loader for loader, _ in TRUSTED} == {"DictNode", "ListNode", "JsonNode", "TypeNode", "NdArrayNode"}
    assert {name.split(".")[0] for _, name in TRUSTED} == {"builtins", "numpy"}

import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from sarc_ray.errors import BundleError, SchemaVersionError
from sarc_ray.stage2.algorithms import ALGORITHMS
from sarc_ray.stage2.calibration import Beta, CalibrationDecision, Isotonic, Sigmoid, Unchanged
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


ISOTONIC = Isotonic(np.array([0.1, 0.4, 0.8]), np.array([0.05, 0.05, 0.7]))


@pytest.mark.parametrize("calibration", [Unchanged(), Sigmoid(1.5, -0.3), Beta(0.4, 1.7, 0.2), ISOTONIC])
def test_every_calibration_comes_back(calibration):
    model = dataclasses.replace(fitted_model("logistic_regression")[0], calibration=calibration)
    again = from_bytes(to_bytes(model))
    raw_N = np.linspace(0.0, 1.0, 101)
    assert type(again.calibration) is type(calibration)
    np.testing.assert_array_equal(again.calibration.apply(raw_N), calibration.apply(raw_N))
    assert content_hash(again) == content_hash(model)


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
    other = CalibrationDecision(
        method="beta", kept=True, why="", brier=0.2, brier_calibrated=0.1, ici=0.2, ici_calibrated=0.1
    )
    assert other != model.decision
    assert len(model.thresholds) > 1
    said_otherwise = dataclasses.replace(model, decision=other, thresholds=(model.point,))
    assert content_hash(said_otherwise) == content_hash(model)  # neither decides a score
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


@pytest.mark.parametrize(("version", "remedy"), [(1, "write the bundle anew"), (3, "install a newer sarc-ray")])
def test_archives_of_other_schema_versions_are_refused(archive, version, remedy):
    def alter(schema):
        schema["content"]["schema_version"]["content"] = str(version)

    with pytest.raises(SchemaVersionError, match=f"schema version {version}, this release reads 2 alone; {remedy}"):
        from_bytes(_rewrite(archive, alter))


def test_damage_is_refused(archive):
    with pytest.raises(BundleError, match="not a skops archive"):
        from_bytes(b"no archive")
    with pytest.raises(BundleError, match="stage2/model"):
        from_bytes(archive[: len(archive) // 2])

    def nameless(schema):
        schema["content"]["feature_names"]["content"].pop()

    with pytest.raises(BundleError, match="8 feature names for a model of 9"):
        from_bytes(_rewrite(archive, nameless))


def test_the_list_of_types_holds_no_code():
    assert {loader for loader, _ in TRUSTED} == {"DictNode", "ListNode", "JsonNode", "TypeNode", "NdArrayNode"}
    assert {name.split(".")[0] for _, name in TRUSTED} == {"builtins", "numpy"}

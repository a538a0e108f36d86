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
from sarc_ray.stage2.calibration import Sigmoid
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
    assert content_hash(again) == content_hash(model)
    assert content_hash(from_bytes(to_bytes(again))) == content_hash(model)


def test_hash_is_of_the_content_not_of_the_archive():
    model, _, _ = fitted_model("random_forest")
    same, _, _ = fitted_model("random_forest")
    assert content_hash(same) == content_hash(model)
    share = model.fitted.share.copy()
    share[-1] = 1.0 - share[-1]
    for change in (
        {"threshold": np.nextafter(model.threshold, 1.0)},
        {"sigmoid": Sigmoid(model.sigmoid.slope, 0.0)},
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
        schema["content"]["schema_version"]["content"] = "2"

    with pytest.raises(SchemaVersionError, match="schema version 2, this release reads up to 1"):
        from_bytes(_rewrite(archive, newer))

    def nameless(schema):
        schema["content"]["feature_names"]["content"].pop()

    with pytest.raises(BundleError, match="8 feature names for a model of 9"):
        from_bytes(_rewrite(archive, nameless))


def test_the_list_of_types_holds_no_code():
    assert {loader for loader, _ in TRUSTED} == {"DictNode", "ListNode", "JsonNode", "TypeNode", "NdArrayNode"}
    assert {name.split(".")[0] for _, name in TRUSTED} == {"builtins", "numpy"}

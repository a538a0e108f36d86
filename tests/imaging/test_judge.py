import hashlib
import subprocess
import sys

import numpy as np
import pytest

from sarc_ray.imaging import judge
from sarc_ray.imaging.judge import CLASSES, SIZE_PX, judge_from_bytes, shipped_judge, standardise
from sarc_ray.judging.sources import phantoms


@pytest.fixture(scope="module")
def chest() -> np.ndarray:
    return phantoms(1, seed=99)[0]


def test_probabilities_are_probabilities(chest):
    found = shipped_judge().probabilities(chest)
    assert tuple(found) == CLASSES
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)
    assert found["upright"] > 0.9


def test_tone_curves_and_windows_change_little(chest):
    before = shipped_judge().probabilities(chest)["upright"]
    for change in (np.sqrt, np.square, lambda x: 0.2 + 0.5 * x):
        assert shipped_judge().probabilities(change(chest).astype(np.float32))["upright"] == pytest.approx(
            before, abs=0.05
        )


@pytest.mark.parametrize("side", [16, 64, 96, 300])
def test_any_size_is_brought_to_one(side):
    grey_HW = np.random.default_rng(0).random((side, side), dtype=np.float32)
    ranks_HW = standardise(grey_HW)
    assert ranks_HW.shape == (SIZE_PX, SIZE_PX)
    assert abs(float(ranks_HW.mean())) < 0.1
    assert 0.8 < float(ranks_HW.std()) < 1.1


def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setattr(judge, "WEIGHTS_SHA256", hashlib.sha256(b"other").hexdigest())
    with pytest.raises(RuntimeError, match="expected sha256"):
        shipped_judge.__wrapped__()


def test_numpy_computes_what_torch_does(chest):
    torch = pytest.importorskip("torch")
    from sarc_ray.judging.train import Network, to_bytes

    torch.manual_seed(0)
    network = Network()
    with torch.no_grad():  # as after some training: running statistics that are not those of the start
        for norm in network.norms:
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2.0)
            norm.weight.uniform_(0.5, 1.5)
    network.eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(standardise(chest)[None, None]))
        expected = torch.softmax(logits, dim=1)[0].numpy()
    found = judge_from_bytes(to_bytes(network)).probabilities(chest)
    # Half-precision weights.
    np.testing.assert_allclose(list(found.values()), expected, atol=2e-3)


def test_weights_are_read_when_they_are_wanted():
    code = (
        "import sys\nfrom sarc_ray.imaging import preprocess, judge\n"
        "assert judge.shipped_judge.cache_info().currsize == 0\njudge.warm_up()\n"
        "assert judge.shipped_judge.cache_info().currsize == 1\nassert 'torch' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

"""The adjusted teacher, and the map of logits, as measurements."""

import pytest
import torch
import torch.nn.functional as F

from ddcore.lab.experiment import Experiment
from ddcore.lab.measurement import Measurement
from ddcore.lab.measurements.adjusted_teacher import adjusted_teacher
from ddcore.lab.measurements.logit_map import LogitMap
from ddcore.lab.runner import Runner
from ddcore.methods.squeeze import Squeeze, squeeze
from ddcore.random import stream
from ddcore.settings import build

TEACHER = {"network": "convnet2-bn", "width": 6, "epochs": 2, "crop": 1, "flip": False}
ASKED = {
    "teacher": TEACHER,
    "rhos": (1e-6, 1e-3),
    "directions": ("ascent", "descent", "gaussian"),
    "steps": 3,
    "batches": 3,
    "images": 10**6,
}

pytestmark = pytest.mark.usefixtures("teachers")


@pytest.fixture(scope="module")
def found(digits, teachers):
    return {(row["direction"], row["rho"]): row for row in adjusted_teacher(digits, seed=1, **ASKED)}


def test_a_vanishing_adjustment_is_the_teacher(digits, found):
    network = squeeze(digits, build(Squeeze, TEACHER))
    index = digits.sample(3, stream(1, "adjusted_teacher"))
    with torch.no_grad():
        right = 100 * (network(digits.x_test[:]).argmax(1) == digits.y_test).double()
        loss = F.cross_entropy(network(digits.x_train[index]), digits.y_train[index]).item()
    for direction in ASKED["directions"]:
        assert found[direction, 1e-6]["accuracy"] == pytest.approx(right.mean().item(), abs=1e-3)
        assert found[direction, 1e-6]["batch_loss"] == pytest.approx(loss, abs=1e-4)
    ends = adjusted_teacher(
        digits, seed=1, **ASKED | {"images": 2, "batches": 1, "rhos": (1e-6,), "directions": ("ascent",)}
    )
    assert ends[0]["accuracy"] == right[[0, -1]].mean().item(), (
        "at even distances: of two the first and the last"
    )


def test_a_small_step_changes_the_loss_by_its_length_times_the_gradient(digits, found):
    """To first order: rho |g| up, as much down, and hardly anything across."""
    network = squeeze(digits, build(Squeeze, TEACHER)).requires_grad_()
    norms, ways = [], []
    for rows in digits.sample(3, stream(1, "adjusted_teacher")).unflatten(0, (10, 3)).T:
        g = torch.autograd.grad(
            F.cross_entropy(network(digits.x_train[rows]), digits.y_train[rows]), list(network.parameters())
        )
        ways.append(torch.cat([one.flatten() for one in g]).double())
        norms.append(ways[-1].norm().item())
    rise = {
        name: found[name, 1e-3]["batch_loss"] - found[name, 1e-6]["batch_loss"]
        for name in ASKED["directions"]
    }
    expected = 1e-3 * sum(norms) / 3
    assert rise["ascent"] == pytest.approx(expected, rel=0.05)
    assert rise["descent"] == pytest.approx(-expected, rel=0.05)
    assert abs(rise["gaussian"]) < expected / 4
    pairs = [torch.cosine_similarity(ways[a], ways[b], 0).item() for a in range(3) for b in range(a)]
    assert found["ascent", 1e-6]["cosine"] == pytest.approx(sum(pairs) / 3, abs=1e-3)


def test_opposite_ways_agree_among_batches_alike_and_noise_does_not(found):
    assert found["ascent", 1e-3]["cosine"] == pytest.approx(found["descent", 1e-3]["cosine"], abs=1e-2)
    assert found["ascent", 1e-3]["cosine"] > 0.1 > abs(found["gaussian", 1e-3]["cosine"])


def test_one_batch_has_no_cosine_and_no_batch_is_refused(digits, refuses):
    assert (
        adjusted_teacher(digits, seed=0, **ASKED | {"batches": 1, "rhos": (0.1,), "images": 20})[0]["cosine"]
        is None
    )
    for wrong in ({"batches": 0}, {"images": 0}, {"rhos": (0.1, 0.0)}, {"directions": ("up",)}):
        with refuses(next(iter(wrong)).removesuffix("s").removesuffix("[1]")):
            adjusted_teacher(digits, seed=0, **ASKED | wrong)
    with refuses("rho"):
        Measurement("adjusted_teacher", "digits", {"teacher": TEACHER, "rho": 0.1})


@pytest.fixture(scope="module")
def made(teachers):
    runner = Runner("smoke", None, device="cpu")
    how = {
        "protocol": "relabel",
        "network": "convnet2-bn",
        "width": 5,
        "epochs": 1,
        "crop": 1,
        "flip": False,
        "teacher": TEACHER,
    }
    experiment = Experiment("digits", 2, {"kind": "pixels", "init": "real"}, evaluate=how)
    return runner, runner.run(experiment), experiment.start(runner.data("digits"))


@pytest.mark.usefixtures("untouched")
def test_a_map_places_every_image_and_is_the_same_again(made):
    runner, record, synthetic = made
    one = LogitMap("digits", [("random", record, synthetic)], images=6, perplexity=8.0)
    first, again = (one.make(runner.data("digits"), None)[0]["rows"] for _ in range(2))
    assert first == again
    assert [row["set"] for row in first] == ["real"] * 60 + ["random"] * 20
    assert [row["label"] for row in first[60:]] == synthetic.labels.tolist()
    apart = [
        sum((a[axis] - b[axis]) ** 2 for axis in "xy")
        for a in first[:60]
        for b in first[:60]
        if a["label"] == b["label"]
    ]
    whole = [sum((a[axis] - b[axis]) ** 2 for axis in "xy") for a in first[:60] for b in first[:60]]
    assert sum(apart) / len(apart) < sum(whole) / len(whole)


def test_the_scale_of_a_logit_does_not_move_the_map(made, monkeypatch):
    """They are standardised, each by its own deviation: to the bit for powers of two."""
    runner, record, synthetic = made
    one = LogitMap("digits", [("random", record, synthetic)], images=2, perplexity=5.0)
    before = one.make(runner.data("digits"), None)

    def scaled(*how):
        network = squeeze(*how)
        network.classifier.requires_grad_(False).weight *= 2.0 ** torch.arange(10)[:, None]
        network.classifier.bias *= 2.0 ** torch.arange(10)
        return network

    monkeypatch.setattr("ddcore.lab.measurements.logit_map.squeeze.squeeze", scaled)
    assert one.make(runner.data("digits"), None) == before


def test_a_map_of_no_set_or_of_another_dataset_is_refused(made, refuses):
    _, record, synthetic = made
    with refuses("0 sets"):
        LogitMap("digits", [])
    with refuses("set random", "fashion_mnist"):
        LogitMap("fashion_mnist", [("random", record, synthetic)])
    with refuses("perplexity"):
        LogitMap("digits", [("random", record, synthetic)], perplexity=0.0)

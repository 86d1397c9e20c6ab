"""Subspaces against closed forms, first-layer gradients against autograd and by hand, the measurement of distilled sets."""

import dataclasses
import math

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import ddcore
from ddcore import networks
from ddcore.lab.experiment import Experiment
from ddcore.lab.measurements.mechanism import Mechanism
from ddcore.lab.runner import Runner
from ddcore.random import stream
from ddcore.theory.subspaces import (
    effective_rank,
    energy_share,
    first_layer_gradients,
    principal_angles,
    principal_directions,
)


def normal(*shape, name):
    return torch.randn(*shape, generator=stream(0, "test", name), dtype=torch.float64)


def rotation(d, name="rotation"):
    return torch.linalg.qr(normal(d, d, name=name)).Q


# Effective rank


@given(st.integers(1, 12), st.integers(0, 8), st.floats(1e-3, 1e3))
def test_rank_of_equal_orthogonal_rows_is_their_number(count, more, scale):
    rows = scale * rotation(count + more)[:count]
    assert effective_rank(rows) == pytest.approx(count, rel=1e-12)


def test_rank_of_one_direction_is_one():
    assert effective_rank(torch.outer(normal(7, name="a"), normal(5, name="b"))) == pytest.approx(
        1, abs=1e-12
    )


def test_rank_of_two_known_energies():
    rows = torch.diag(torch.tensor([3.0, 1.0, 0.0]))
    assert effective_rank(rows) == pytest.approx(math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1)))


@given(st.integers(1, 9), st.integers(1, 9))
def test_rank_does_not_change_under_rotation_of_either_side_and_scale(n, d):
    rows = normal(n, d, name="rows")
    found = effective_rank(rows)
    assert 1 - 1e-12 <= found <= min(n, d) + 1e-9
    assert effective_rank(3 * rotation(n, "left") @ rows @ rotation(d, "right")) == pytest.approx(
        found, rel=1e-9
    )


def test_rank_of_nothing_is_refused(refuses):
    with refuses("effective rank", "4 rows", "zero"):
        effective_rank(torch.zeros(4, 3))


# Directions and energies


@given(st.integers(1, 10), st.integers(2, 10))
def test_energies_of_orthogonal_parts_sum_to_one(n, d):
    rows, basis = normal(n, d, name="rows"), rotation(d)
    parts = [energy_share(rows, basis[:, place : place + 1]) for place in range(d)]
    assert sum(parts) == pytest.approx(1, rel=1e-12)
    assert energy_share(rows, basis[:, : d // 2]) == pytest.approx(sum(parts[: d // 2]), rel=1e-12)
    turn = rotation(d, "turn")
    assert energy_share(rows @ turn, turn.mT @ basis[:, :1]) == pytest.approx(parts[0], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (4, 9), (9000, 5)])
def test_principal_directions_keep_the_largest_energies(n, d):
    rows = normal(n, d, name="rows") * torch.arange(d, 0, -1.0)
    energies = torch.linalg.svdvals(rows).square()
    for count in range(1, d + 1):
        basis = principal_directions(rows, count)
        assert basis.shape == (d, count)
        torch.testing.assert_close(
            basis.mT @ basis, torch.eye(count, dtype=torch.float64), rtol=0, atol=1e-10
        )
        assert energy_share(rows, basis) == pytest.approx(
            float(energies[:count].sum() / energies.sum()), rel=1e-9
        )


def test_share_of_isotropic_rows_is_k_over_d():
    assert energy_share(normal(20000, 12, name="isotropic"), rotation(12)[:, :3]) == pytest.approx(
        3 / 12, abs=0.005
    )


@pytest.mark.parametrize("count", [0, 6])
def test_more_directions_than_dimensions_are_refused(refuses, count):
    with refuses("principal directions", f"{count} of rows in 5 dimensions", "1 to 5"):
        principal_directions(normal(9, 5, name="rows"), count)


# Angles


@given(st.lists(st.floats(0, 90), min_size=1, max_size=3))
def test_angles_of_known_planes(degrees):
    count = len(degrees)
    one, angle = (
        torch.eye(2 * count + 1, dtype=torch.float64)[:, :count],
        torch.deg2rad(torch.tensor(degrees, dtype=torch.float64)),
    )
    other = torch.zeros_like(one)
    other[torch.arange(count), torch.arange(count)] = angle.cos()
    other[count + torch.arange(count), torch.arange(count)] = angle.sin()
    turn, mix = rotation(len(one)), rotation(count, "mix")
    found = principal_angles(turn @ one, turn @ other @ mix)
    torch.testing.assert_close(found, torch.tensor(sorted(degrees), dtype=one.dtype), rtol=0, atol=1e-6)


def test_small_angles_are_exact():
    one, other = (
        torch.tensor([[1.0, 0.0]], dtype=torch.float64).mT,
        torch.tensor([[1.0, 1e-9]], dtype=torch.float64).mT,
    )
    assert float(principal_angles(one, other)) == pytest.approx(math.degrees(1e-9), rel=1e-9)


def test_angles_of_a_line_in_a_plane_and_of_one_across_it():
    axes = torch.eye(3, dtype=torch.float64)
    for plane_first in (True, False):
        for line, angle in ((axes[:, 1:2], 0), (axes[:, 2:], 90)):
            found = principal_angles(*((axes[:, :2], line) if plane_first else (line, axes[:, :2])))
            torch.testing.assert_close(found, torch.tensor([float(angle)], dtype=torch.float64))


# First-layer gradients


def made(name, digits, **settings):
    return networks.build(
        name, digits.shape, digits.classes, generator=stream(0, "test", name), dtype=torch.float64, **settings
    )


@pytest.fixture
def some(digits):
    index = digits.sample(3, stream(0, "test", "images"))
    return digits.x_train[index].double(), digits.y_train[index]


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_gradients_are_those_of_autograd(digits, some, name):
    network, (images, labels) = made(name, digits, width=6), some
    found = first_layer_gradients(network, images, labels).unflatten(0, (10, 6))
    for label in range(10):
        network.zero_grad()
        F.cross_entropy(network(images[labels == label]), labels[labels == label]).backward()
        first = network.blocks[0][1 if name == "mlp" else 0]
        torch.testing.assert_close(found[label], first.weight.grad.flatten(1))


def test_gradient_of_one_hidden_layer_by_hand(digits, some):
    """delta = A'(softmax - onehot) on the active units; the gradient is its outer product with the image, a mean over the class."""
    (images, labels), generator = some, stream(0, "test", "hand")
    first, classifier = torch.nn.Linear(64, 5), torch.nn.Linear(5, 10)
    network = networks.Network(
        [torch.nn.Sequential(torch.nn.Flatten(), first, torch.nn.ReLU())], classifier
    ).double()
    networks.initialise(network, generator)
    x = images.flatten(1)
    hidden = x @ first.weight.mT + first.bias
    wrong = (hidden.relu() @ classifier.weight.mT + classifier.bias).softmax(1) - F.one_hot(labels, 10)
    delta = (wrong @ classifier.weight) * (hidden > 0)
    byhand = torch.stack([delta[labels == label].mT @ x[labels == label] / 3 for label in range(10)])
    torch.testing.assert_close(
        first_layer_gradients(network, images, labels), byhand.flatten(0, 1).detach(), rtol=1e-10, atol=1e-14
    )


def test_gradients_lie_in_the_span_of_the_images(digits, some):
    images, labels = some
    span = torch.linalg.qr(images.flatten(1).mT).Q
    assert energy_share(
        first_layer_gradients(made("mlp", digits, width=8), images, labels), span
    ) == pytest.approx(1, rel=1e-12)


# The measurement

PROBE = {
    "network": "convnet",
    "width": 8,
    "inits": 3,
    "network_inits": 2,
    "batch": 20,
    "directions": [4, 10],
    "draws": 2,
}


@pytest.fixture(scope="module")
def ran():
    """A runner, two distilled sets with their records, the record of their measurement."""
    runner = Runner("smoke", device="cpu")
    data, sets = runner.data("digits"), []
    for name, synthetic in (("DM", {"kind": "pixels"}), ("LoDM", {"kind": "lowrank", "rank": 1})):
        one = Experiment(
            "digits",
            1,
            synthetic,
            {"name": "dm", "width": 8, "batch_real": 16},
            {"steps": 3, "lr_img": 10.0},
            {"epochs": 2, "width": 8},
        )
        record = runner.run(one)
        sets.append((name, record, one.start(data), runner.synthetic(record)))
    return runner, sets, runner.run(Mechanism("digits", sets, PROBE))


def test_rows_of_sets_and_controls(ran, digits):
    _, sets, record = ran
    frame = pd.DataFrame(record.result["rows"])
    assert set(zip(frame.set, frame.state, strict=True)) == {
        *((name, state) for name in ("DM", "LoDM") for state in ("before", "after", "change")),
        ("noise", "control"),
        *((name, state) for name in ("random real", "class means") for state in ("control", "change")),
    }
    assert set(frame[frame.ipc == 0].images_per_class) == {1, 4, 20}
    assert not frame.duplicated(["set", "ipc", "images_per_class", "state", "k"]).any()
    wide = frame.set_index(["set", "state", "images_per_class", "k"])
    for name in ("image_share", "image_pca", "average_share", "average_pca", "gradient_share"):
        steps = wide[name].dropna().unstack("k")
        assert (steps[10] > steps[4]).all()
        assert steps.stack().between(0, 1).all()
    of_sets = [one.images().detach() for one in sets[0][2:]]
    before, after, mean = (x.flatten(1).double() for x in (*of_sets, digits.x_train[:].mean(0)[None]))
    keep = torch.eye(64, dtype=torch.float64) - mean.mT @ mean / mean.square().sum()
    components = (
        torch.linalg.svd(digits.x_train[:].flatten(1).double() @ keep, full_matrices=False).Vh[:10].mT
    )
    for state, images in (("before", before), ("after", after), ("change", after - before)):
        row = wide.loc[("DM", state, 1, 10)]
        assert row["rank"] == pytest.approx(effective_rank(images @ keep), abs=1e-5)
        assert row.image_pca == pytest.approx(energy_share(images @ keep, components), abs=1e-6)
        assert row.norm == pytest.approx(float((images @ keep).square().sum(1).mean().sqrt()), abs=1e-5)
    one_each = frame[(frame.images_per_class == 1) & (frame.set != "LoDM")]
    assert one_each.image_share.equals(one_each.average_share), "an image is the average of itself"


def test_more_contrast_is_no_move_into_the_subspace(ran, digits):
    name, record, before, _ = ran[1][0]
    brighter = ddcore.Pixels(digits, 1, seed=0)
    with torch.no_grad():
        brighter.tensors["pixels"].mul_(3).add_(2 * digits.x_train[:].mean(0))
    rows = pd.DataFrame(
        Mechanism("digits", [(name, record, before, brighter)], PROBE).make(digits, None)[0]["rows"]
    )
    found = {
        state: rows[(rows.ipc > 0) & (rows.state == state)].reset_index()
        for state in ("before", "after", "change")
    }
    for column in ("image_share", "average_share", "image_pca", "average_pca", "rank"):
        for state in ("after", "change"):
            assert found[state][column].tolist() == pytest.approx(found["before"][column].tolist(), abs=1e-5)


def test_controls_are_what_they_are_named(digits):
    drawn = dict(
        Mechanism(
            "digits", [("a", *[type("R", (), {"experiment": {"dataset": "digits"}})] * 3)], PROBE
        )._controls(digits, 3, 0)
    )
    rows = {
        tuple(image.flatten().tolist()): int(label)
        for image, label in zip(digits.x_train, digits.y_train, strict=True)
    }
    for name in ("random real", "others"):
        assert [rows[tuple(image.flatten().tolist())] for image in drawn[name]] == [
            label for label in range(10) for _ in range(3)
        ]
    mean = digits.x_train[:].mean(0)
    norms = {name: (images - mean).flatten(1).norm(dim=1) for name, images in drawn.items()}
    torch.testing.assert_close(norms["noise"], norms["random real"])
    class_means = torch.stack([digits.class_images(label)[:].mean(0) for label in range(10)])
    near = torch.cdist(drawn["class means"].flatten(1), class_means.flatten(1)).argmin(1)
    assert near.tolist() == [label for label in range(10) for _ in range(3)]


def test_class_means_lie_in_the_gradient_subspace_and_noise_does_not(ran):
    frame = pd.DataFrame(ran[2].result["rows"])
    at = (
        frame[(frame.k == 10) & (frame.images_per_class == 4) & (frame.state == "control")]
        .set_index("set")
        .image_share
    )
    assert at["class means"] > 0.9 > at["random real"] > 2 * at["noise"]
    assert at["noise"] == pytest.approx(10 / 64, abs=0.05)


def test_the_hash_covers_the_sets_and_the_probe(ran, digits):
    runner, sets, record = ran
    same = Mechanism("digits", sets, PROBE | {"directions": (4, 10)})
    assert runner.run(same).result == record.result
    assert runner.key(same) == record.hash
    assert [record.hash for _, record, *_ in sets] == [value for _, value in record.experiment["sets"]]
    other = dataclasses.replace(sets[0][1], hash="0" * 16)
    exchanged = [("DM", other, *sets[0][2:]), sets[1]]
    for changed in ((sets[:1], PROBE), (sets, PROBE | {"draws": 3}), (sets, PROBE, 1), (exchanged, PROBE)):
        assert runner.key(Mechanism("digits", *changed)) != record.hash


@pytest.mark.parametrize(("probe", "words"), [
    ({"inits": 0}, ("inits=0", "above 0")), ({"directions": [10, 0]}, ("directions[1]=0", "above 0")),
    ({"widht": 8}, ("'widht'", "did you mean 'width'")), ({"draws": 2.5}, ("draws=2.5", "int")),
], ids=str)  # fmt: skip
def test_a_bad_probe_is_refused_when_it_is_made(ran, refuses, probe, words):
    with refuses("probe", *words):
        Mechanism("digits", ran[1], PROBE | probe)


def test_other_bad_input_is_refused(ran, refuses, digits):
    with refuses("mechanism", "no set"):
        Mechanism("digits", [], PROBE)
    with refuses("set DM", "digits", "cifar10"):
        Mechanism("cifar10", ran[1], PROBE)
    with refuses("digits", "mechanism with batch=90"):
        Mechanism("digits", ran[1], PROBE | {"batch": 90}).make(digits, None)
    with refuses("principal directions", "65", "64"):
        Mechanism("digits", ran[1], PROBE | {"directions": [65]}).make(digits, None)


def test_nothing_global_is_touched(ran, digits, untouched):
    Mechanism("digits", ran[1], PROBE | {"inits": 1, "network_inits": 1, "draws": 1}).make(digits, None)


def test_a_set_that_did_not_move_has_no_change_to_speak_of(ran, refuses, digits):
    name, record, before, _ = ran[1][0]
    with refuses("effective rank", "zero"):
        Mechanism("digits", [(name, record, before, ddcore.Pixels(digits, 1, seed=0))], PROBE).make(
            digits, None
        )

"""Measures of diversity against their closed forms, in float64; and the measurement of a recorded set."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddcore.lab.experiment import Experiment
from ddcore.lab.measurements.batch_variance import norm_inputs
from ddcore.lab.measurements.diversity import (
    Diversity,
    coverage,
    median_distance,
    mmd2,
    similarity,
    variances,
    vendi,
)
from ddcore.lab.runner import Runner
from ddcore.lab.tables import rows
from ddcore.methods.squeeze import Squeeze, squeeze
from ddcore.random import stream

TEACHER = {"network": "convnet2-bn", "width": 6, "epochs": 2, "crop": 1, "flip": False}
HOW = {
    "protocol": "relabel",
    "network": "convnet2-bn",
    "width": 5,
    "epochs": 2,
    "crop": 1,
    "flip": False,
    "teacher": TEACHER,
}
seeds = st.integers(0, 10**6)


def normal(seed, *shape):
    return torch.randn(*shape, generator=stream(seed, "rows"), dtype=torch.float64)


def rotation(seed, size):
    return torch.linalg.qr(normal(seed, size, size))[0]


# closed forms


@given(seeds, st.integers(2, 9))
def test_similarity_is_the_mean_over_pairs(seed, n):
    x = normal(seed, n, 4)
    pairs = [torch.cosine_similarity(x[i], x[j], dim=0) for i in range(n) for j in range(i)]
    assert similarity(x).item() == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-12)


@given(seeds, st.integers(2, 9))
def test_rows_that_point_one_way_have_similarity_one_and_vendi_one(seed, n):
    x = normal(seed, 1, 5) * (1 + normal(seed + 1, n, 1).abs())
    assert similarity(x).item() == pytest.approx(1, abs=1e-12)
    assert vendi(x).item() == pytest.approx(1, abs=1e-6)


@given(seeds, st.integers(2, 8))
def test_orthogonal_rows_have_similarity_zero_and_vendi_n(seed, n):
    x = rotation(seed, n) * (1 + torch.arange(n))[:, None]
    assert similarity(x).item() == pytest.approx(0, abs=1e-12)
    assert vendi(x).item() == pytest.approx(n, rel=1e-10)


@given(st.floats(0, 1))
def test_vendi_of_two_rows_is_that_of_the_eigenvalues_of_their_cosine(cosine):
    x = torch.tensor([[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]], dtype=torch.float64)
    values = [(1 + cosine) / 2, (1 - cosine) / 2]
    assert vendi(x).item() == pytest.approx(
        math.exp(-sum(v * math.log(v) for v in values if v > 0)), abs=1e-6
    )


@given(seeds, st.integers(1, 5), st.integers(1, 4))
def test_vendi_of_groups_of_copies_is_that_of_the_groups(seed, n, copies):
    x = normal(seed, n, 6)
    assert vendi(x.repeat(copies, 1)).item() == pytest.approx(vendi(x).item(), rel=1e-6)


def test_coverage_on_a_line():
    real, synthetic = (
        torch.tensor([[0.0], [1.0], [3.0], [7.0]]).double(),
        torch.tensor([[0.5], [9.0]]).double(),
    )
    assert coverage(real, synthetic, 1).item() == 0.75  # radii 1, 1, 2, 4; nearest 0.5, 0.5, 2.5, 2
    assert coverage(real, synthetic, 2).item() == 1.0  # radii 3, 2, 3, 6
    assert coverage(real, synthetic[1:], 1).item() == 0.25
    assert (
        coverage(real, real[1:2], 1).item() == 0.25
    )  # nearest 1, 0, 2, 6: as near as the neighbour is not nearer


@pytest.mark.parametrize(("many", "few", "neighbours"), [(60, 6, 5), (30, 30, 3), (40, 2, 20)])
def test_coverage_of_the_same_law_has_the_published_expectation(many, few, neighbours):
    draws = torch.stack(
        [coverage(normal(seed, many, 3), normal(seed + 10**7, few, 3), neighbours) for seed in range(400)]
    )
    expected = 1 - math.prod((many - i) / (many + few - i) for i in range(1, neighbours + 1))
    assert abs(draws.mean().item() - expected) < 4 * draws.std().item() / 20


@given(seeds, st.integers(2, 6), st.integers(2, 6), st.floats(0.3, 3))
def test_mmd2_is_the_double_sum_without_the_diagonals(seed, n, m, bandwidth):
    x, y = normal(seed, n, 3), normal(seed + 1, m, 3) + 1

    def kernel(a, b):
        return math.exp(-float((a - b).square().sum()) / (2 * bandwidth**2))

    same = sum(
        sum(kernel(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j)
        / (len(a) * (len(a) - 1))
        for a in (x, y)
    )
    cross = sum(kernel(a, b) for a in x for b in y) / (n * m)
    assert mmd2(x, y, bandwidth).item() == pytest.approx(same - 2 * cross, abs=1e-12)


@given(seeds)
def test_mmd2_of_two_points_far_apart_is_two_and_of_one_point_zero(seed):
    x, y = normal(seed, 1, 3).repeat(4, 1), normal(seed, 1, 3).repeat(3, 1) + 1e4
    assert mmd2(x, y, 1.0).item() == pytest.approx(2, abs=1e-12)
    assert mmd2(x, x[:2], 1.0).item() == pytest.approx(0, abs=1e-12)


def test_mmd2_of_the_same_law_is_zero_in_the_mean():
    draws = torch.stack([mmd2(normal(seed, 8, 3), normal(seed + 10**7, 5, 3), 1.0) for seed in range(1000)])
    assert abs(draws.mean().item()) < 4 * draws.std().item() / math.sqrt(1000)
    assert (draws < 0).any()


def test_the_median_distance_is_that_of_different_rows():
    assert median_distance(torch.tensor([[0.0], [1.0], [5.0]])).item() == 4  # of 1, 4 and 5


@given(seeds)
def test_all_measures_are_those_of_the_rotated_and_reordered_rows(seed):
    x, y, turn = normal(seed, 7, 4), normal(seed + 1, 9, 4), rotation(seed, 4)
    order = torch.randperm(7, generator=stream(seed, "order"))
    other, far = (x @ turn)[order], y @ turn
    assert similarity(x).item() == pytest.approx(similarity(other).item(), abs=1e-12)
    assert vendi(x).item() == pytest.approx(vendi(other).item(), rel=1e-9)
    assert coverage(y, x, 2).item() == coverage(far, other, 2).item()
    assert mmd2(x, y, median_distance(y)).item() == pytest.approx(
        mmd2(other, far, median_distance(far)).item(), abs=1e-12
    )


@pytest.mark.usefixtures("teachers")
def test_the_variances_add_up_to_those_of_the_batch(digits):
    """Within images and between them, batch by batch: the law of total variance; and once more through the class."""
    network = squeeze(digits, Squeeze(**TEACHER)).double()
    images = digits.x_train[digits.sample(3, stream(0, "some"))].double()
    found = variances(network, images, 10)
    for layer, (x, *_) in zip(found, norm_inputs(network, images), strict=True):
        batches = x.unflatten(0, (10, 3)).var((0, 3, 4), unbiased=False).mean(0)
        torch.testing.assert_close(layer["within"] + layer["between"], batches, rtol=1e-9, atol=1e-12)
        classes = x.unflatten(0, (10, 3)).var((1, 3, 4), unbiased=False).mean(0)
        torch.testing.assert_close(layer["within"] + layer["of a class"], classes, rtol=1e-9, atol=1e-12)


# bad input


def test_what_has_no_pair_or_no_neighbour_is_refused(refuses):
    one, some = normal(0, 1, 3), normal(0, 4, 3)
    with refuses("similarity", "at least two"):
        similarity(one)
    for neighbours in (0, 4):
        with refuses("coverage", f"neighbours={neighbours}", "4 real"):
            coverage(some, one, neighbours)
    with refuses("mmd2", "1 and 4"):
        mmd2(one, some, 1.0)
    with refuses("bandwidth"):
        mmd2(some, some, 0.0)


# of a record


@pytest.fixture(scope="module")
def made(teachers):
    runner = Runner("smoke", None, device="cpu")
    undistilled = runner.run(
        Experiment("digits", 3, {"kind": "pixels", "init": "real"}, evaluate=HOW, seed=1)
    )
    distilled = Experiment(
        "digits",
        3,
        {"kind": "pixels", "init": "noise"},
        {"name": "sre2l", "teacher": TEACHER},
        {"steps": 2},
        HOW,
    )
    return runner, undistilled, runner.run(distilled)


def quantities(record):
    found = rows([record])
    return found[found.layer == 0].set_index("quantity").value


def test_a_distilled_set_and_an_undistilled_one_are_measured_alike(made):
    runner, undistilled, distilled = made
    real = Experiment("digits", 3, {"kind": "pixels", "init": "real"}, evaluate=HOW, seed=1).start(
        runner.data("digits")
    )
    one, other = (
        runner.run(Diversity(record, synthetic, images=40, neighbours=8))
        for record, synthetic in ((undistilled, real), (distilled, runner.synthetic(distilled)))
    )
    assert quantities(one)["coverage"] > quantities(other)["coverage"]
    assert quantities(one)["mmd2"] < quantities(other)["mmd2"]
    assert 1 <= quantities(one)["vendi"] <= 3
    assert rows([one]).groupby("layer").size().to_dict() == {0: 4, 1: 3, 2: 3}
    assert (one.experiment["of"], one.experiment["seed"]) == (undistilled.hash, 1)


def test_the_real_images_themselves_are_covered_and_have_their_variance(made):
    runner, undistilled, _ = made
    data = runner.data("digits")
    same = Experiment("digits", 40, {"kind": "pixels", "init": "real"}, evaluate=HOW, seed=1).start(data)
    with torch.no_grad():
        same.tensors["pixels"].copy_(data.x_train[data.sample(40, stream(1, "diversity"))])
    found = rows([runner.run(Diversity(undistilled, same, images=40, neighbours=1))])
    values = found.set_index(["quantity", "layer"]).value
    assert values["coverage", 0] == 1
    assert [values["within", layer] + values["between", layer] for layer in (1, 2)] == pytest.approx(
        [1, 1], abs=1e-5
    )
    with torch.no_grad():
        same.tensors["pixels"].mul_(2)
    values = (
        rows([runner.run(Diversity(undistilled, same, images=40, neighbours=1))])
        .set_index(["quantity", "layer"])
        .value
    )
    assert values["within", 1] + values["between", 1] == pytest.approx(4, abs=1e-4), (
        "through a convolution, of the real images'"
    )


def test_copies_of_one_image_have_no_diversity(made):
    """Nor a median distance: the bandwidth is that of the real images."""
    runner, undistilled, _ = made
    copies = Experiment("digits", 3, {"kind": "pixels", "init": "real"}, evaluate=HOW, seed=1).start(
        runner.data("digits")
    )
    with torch.no_grad():
        copies.tensors["pixels"].copy_(copies.tensors["pixels"][::3].repeat_interleave(3, 0))
    values = (
        rows([runner.run(Diversity(undistilled, copies, images=40, neighbours=8))])
        .set_index(["quantity", "layer"])
        .value
    )
    assert [values[name, 0] for name in ("similarity", "vendi")] == pytest.approx([1, 1], abs=1e-5)
    assert 0 < values["mmd2", 0] < 2
    assert [values["of a class", layer] for layer in (1, 2)] == [0, 0]


def test_a_set_without_pairs_or_teacher_is_refused(made, refuses):
    runner, undistilled, _ = made
    single = Experiment("digits", 1, {"kind": "pixels", "init": "real"}).start(runner.data("digits"))
    with refuses("1 image a class", "at least two"):
        Diversity(undistilled, single)
    bare = runner.run(
        Experiment("digits", 2, evaluate={"network": "mlp", "width": 4, "epochs": 1, "strategy": "none"})
    )
    with refuses(bare.hash, "relabel"):
        Diversity(bare, Experiment("digits", 2).start(runner.data("digits")))
    with refuses("images=0"):
        Diversity(undistilled, single, images=0)

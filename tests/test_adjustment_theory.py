"""Each statement of `ddcore.theory.adjustment` against brute force or against the kernels, and the measurements of notebook 40."""

import itertools

import pandas as pd
import pytest
import sympy
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sympy import Matrix, Rational

from ddcore import networks
from ddcore.evaluation.relabel import soft_loss
from ddcore.kernels.statistics import channel_moments, statistics_loss
from ddcore.lab.measurement import Measurement
from ddcore.lab.measurements.batch_variance import _arrows, batch_variance, image_moments, norm_inputs, pushes
from ddcore.lab.measurements.leave_out import SoftmaxRegression, ascend, leave_out, regression
from ddcore.random import stream
from ddcore.theory import adjustment as theory
from ddcore.theory.low_rank import value

seeds = st.integers(0, 10**6)
TEACHER = {"network": "convnet2-bn", "width": 6, "epochs": 2, "crop": 1, "flip": False}
FLOORS = theory.share_floor(), theory.cosine_floor()


def normal(seed, *shape):
    return torch.randn(shape, generator=stream(seed, "adjustment theory", *shape), dtype=torch.float64)


def numbers(matrix):
    return torch.tensor(matrix.evalf(30).tolist(), dtype=torch.float64)


def rationals(tensor):
    return Matrix([[Rational(one).limit_denominator(100) for one in row] for row in tensor.tolist()])


def two_channels(seed, images=3, places=2):
    """Rational z (2, n), its targets, and the same as tensors: x (images, 2, places, 1), mean, variance."""
    z, mean, var = (
        rationals(one)
        for one in (normal(seed, 2, images * places), normal(seed, 1, 2), normal(seed, 1, 2).square())
    )
    x = numbers(z).view(2, images, places, 1).movedim(0, 1).contiguous()
    return (z, list(mean), list(var)), (x, numbers(mean)[0], numbers(var)[0])


def by_channel(x):
    return x.movedim(1, 0).flatten(1)


# The two statistics of a batch


@pytest.mark.parametrize(("images", "places"), [(1, 3), (2, 2), (3, 2)])
def test_variance_is_within_plus_between(images, places):
    z = Matrix(images, places, sympy.symbols(f"z:{images * places}"))
    whole = sum((one - sum(z) / len(z)) ** 2 for one in z) / len(z)
    assert sympy.expand(whole - theory.within(z) - theory.between(z)) == 0


@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_the_kernel_obeys_the_law_in_every_group(seed, groups, images, channels):
    x = normal(seed, groups * images, channels, 2, 3)
    _, var = channel_moments(x, groups)
    for group, channel in itertools.product(range(groups), range(channels)):
        z = x[group::groups, channel].flatten(1)
        law = z.var(1, unbiased=False).mean() + z.mean(1).var(unbiased=False)
        assert var[group, channel].item() == pytest.approx(law.item(), rel=1e-12, abs=1e-14)


def test_the_moments_of_images_add_up_to_those_of_the_batch(digits):
    network = networks.build(
        "convnet2-bn", digits.shape, 10, width=4, generator=stream(0, "net"), dtype=torch.float64
    ).eval()
    images = digits.x_train[::5].double()
    for (mean, inside), (x, *_) in zip(
        image_moments(network, images), norm_inputs(network, images), strict=True
    ):
        expected = channel_moments(x)
        torch.testing.assert_close(mean.mean(0), expected[0][0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            inside.mean(0) + mean.var(0, unbiased=False), expected[1][0], rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("seed", range(3))
def test_the_gradients_are_a_translation_and_a_dispersion(seed):
    (z, mean, var), (x, mu, sigma2) = two_channels(seed)
    found = pushes(x, mu, sigma2)
    for name, formula in (("mean", theory.translation(z, mean)), ("variance", theory.dispersion(z, var))):
        torch.testing.assert_close(by_channel(found[name]), -numbers(formula), rtol=1e-12, atol=1e-14)
    assert statistics_loss(x, mu, sigma2, r_var=3.0).item() == pytest.approx(
        float(theory.mean_loss(z, mean) + 3 * theory.variance_loss(z, var)), rel=1e-12
    )


@given(seeds)
def test_one_moves_the_mean_alone_and_the_other_the_spread_alone(seed):
    x, mu, sigma2 = normal(seed, 4, 3, 2, 2), normal(seed, 3), normal(seed, 3).square()
    translation, dispersion = (by_channel(one) for one in pushes(x, mu, sigma2).values())
    assert (translation - translation[:, :1]).abs().max() < 1e-15
    assert dispersion.sum(1).abs().max() < 1e-14
    assert (translation * dispersion).sum(1).abs().max() < 1e-15
    step, n = 0.7, translation.shape[1]
    moved, spread = (x + step * one for one in pushes(x, mu, sigma2).values())
    torch.testing.assert_close(channel_moments(moved)[1], channel_moments(x)[1], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(channel_moments(spread)[0], channel_moments(x)[0], rtol=1e-12, atol=1e-14)
    shares = (channel_moments(x)[1][0] - sigma2) / (channel_moments(x)[1][0] - sigma2).norm()
    for channel, share in enumerate(shares.tolist()):
        factor = float(theory.dispersion_factor(share, step).subs(theory.n, n)) ** 2
        for part in (
            lambda one, c=channel: one[:, c].flatten(1).var(1, unbiased=False).mean(),
            lambda one, c=channel: one[:, c].flatten(1).mean(1).var(unbiased=False),
        ):
            assert part(spread).item() == pytest.approx(factor * part(x).item(), rel=1e-10)


@given(seeds, st.floats(0.1, 10))
def test_the_pushes_do_not_weaken_near_their_targets(seed, far):
    x, towards = normal(seed, 5, 3, 2, 2), normal(seed, 3)
    mean, var = (one[0] for one in channel_moments(x))
    found = pushes(x, mean + far * towards, var + far * towards.abs())
    n, shares = x[:, 0].numel(), towards.abs() / towards.norm()
    assert found["mean"].norm().item() == pytest.approx(value(theory.translation_size(), n=n), rel=1e-9)
    assert found["variance"].norm().item() == pytest.approx(
        float(theory.dispersion_size(shares.tolist(), var.tolist()).subs(theory.n, n)), rel=1e-9
    )


@given(seeds)
def test_through_a_circular_convolution_the_pixel_gradients_are_orthogonal_too(seed):
    images, weight = normal(seed, 4, 2, 5, 5).requires_grad_(), normal(seed, 3, 2, 3, 3)
    x = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="circular"), weight)
    mean, var = normal(seed, 3), normal(seed, 3).square()
    one, both = (
        torch.autograd.grad(statistics_loss(x, mean, var, r_var=r_var), images, retain_graph=True)[0]
        for r_var in (0.0, 1.0)
    )
    assert torch.cosine_similarity(one.flatten(), (both - one).flatten(), 0).abs() < 1e-12


def test_expected_variance_between_images_by_enumeration():
    classes = [[0, 1, 5], [2, 2, 8], [-3, 0, 4]]  # image means
    of_means = [Rational(sum(one), 3) for one in classes]

    def variance(values):
        return sum((one - Rational(sum(values), 1) / len(values)) ** 2 for one in values) / len(values)

    def average(draws):
        draws = list(draws)
        return sum(map(variance, draws)) / len(draws)

    b, w = variance(of_means), sum(map(variance, classes)) / 3
    assert average(itertools.product(*classes)) == theory.expected_between(b, w, sympy.Integer(3))
    assert average(itertools.product(itertools.chain(*classes), repeat=2)) == theory.expected_between(
        0, b + w, sympy.Integer(2)
    )
    assert sum(average(itertools.product(one, repeat=2)) for one in classes) / 3 == theory.expected_between(
        0, w, sympy.Integer(2)
    )


def test_batches_that_repeat_each_other_match_as_well_as_different_ones():
    x, mean, var = normal(0, 4, 3, 2, 2), normal(0, 3), normal(0, 3).square()
    alike = x.repeat_interleave(5, 0)  # five identical batches
    assert statistics_loss(alike, mean, var, groups=5).item() == pytest.approx(
        5 * statistics_loss(x, mean, var).item(), rel=1e-12
    )


@given(seeds, st.integers(1, 30))
def test_the_response_of_pixels_to_weights(seed, steps):
    """Gradient descent on |A s - M theta|^2 / 2, in the eigenvectors of A'A; in the end s = A^+ M theta."""
    a, m, displacement, rate = normal(seed, 6, 3), normal(seed, 6, 4), normal(seed, 4), 0.05
    s = torch.zeros(3, dtype=torch.float64)
    for _ in range(steps):
        s = s - rate * a.T @ (a @ s - m @ displacement)
    values, vectors = torch.linalg.eigh(a.T @ a)
    pull = vectors.T @ (-a.T @ m @ displacement)
    formula = sympy.lambdify((theory.h, theory.j, theory.eta), theory.response(sympy.Integer(steps)))
    torch.testing.assert_close(s, vectors @ formula(values, pull, rate), rtol=1e-9, atol=1e-12)
    in_the_end = vectors @ formula(values, pull, 1 / values)  # eta h = 1 arrives in one step
    torch.testing.assert_close(in_the_end, torch.linalg.pinv(a) @ m @ displacement, rtol=1e-7, atol=1e-9)


# Where the adjustment leads


@pytest.fixture(scope="module")
def problem(digits):
    return regression(digits, images=100, components=5, decay=0.01, seed=0)


def test_the_regression_is_what_it_says(problem):
    theta, w = normal(1, 9 * 6), (normal(1, 100) > 0).double()
    frame = problem._frame()
    torch.testing.assert_close(frame.T @ frame, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-14)
    assert frame.sum(0).abs().max() < 1e-14
    by_autograd = torch.autograd.functional.jacobian(lambda at: problem.loss(at, w), theta)
    torch.testing.assert_close(
        w @ problem.gradients(theta) + 100 * problem.decay * theta, by_autograd, rtol=1e-10, atol=1e-12
    )
    torch.testing.assert_close(
        problem.hessian(theta, w),
        torch.autograd.functional.hessian(lambda at: problem.loss(at, w), theta),
        rtol=1e-9,
        atol=1e-11,
    )
    assert torch.bincount(problem.y).tolist() == [10] * 10


def test_its_features_are_principal_components_and_a_constant(digits, problem):
    """Uncorrelated, their variances those of the images over the largest."""
    images = digits.x_train[digits.sample(10, stream(0, "leave_out"))].double().flatten(1)
    values = torch.linalg.eigvalsh(torch.cov(images.T)).flip(0)[:5]
    moments = problem.x.T @ problem.x / 100
    torch.testing.assert_close(
        moments, torch.cat([values / values[0], values.new_ones(1)]).diag(), rtol=1e-9, atol=1e-12
    )


def test_the_minimum_is_the_same_from_any_start(problem):
    """The loss is convex; where it is nearly linear a full step of Newton's goes too far."""
    w, far = torch.ones(100, dtype=torch.float64), 30 * normal(2, 9 * 6)
    torch.testing.assert_close(problem.minimum(w, far), problem.minimum(w), rtol=0, atol=1e-6)


def test_the_rest_and_the_batch_pull_against_each_other(problem):
    everything = torch.ones(100, dtype=torch.float64)
    theta = problem.minimum(everything)
    of_images, regulariser = problem.gradients(theta), 100 * problem.decay * theta
    batch = torch.arange(0, 100, 10)
    g, others = of_images[batch].sum(0), of_images.sum(0) - of_images[batch].sum(0)
    assert theory.rest_gradient() == -sympy.Symbol("g")
    torch.testing.assert_close(others + regulariser, -g, rtol=0, atol=1e-6)
    assert (others + g).norm() > 0.1, "without the weight decay there is no such identity"


def test_the_floors_are_kantorovichs():
    kappa = theory.kappa
    assert sympy.simplify(FLOORS[0] - 4 * kappa / (1 + kappa) ** 2) == 0
    assert sympy.simplify(FLOORS[1] - 2 * sympy.sqrt(kappa) / (1 + kappa)) == 0


def test_the_safe_step_of_a_quadratic():
    assert sympy.simplify(theory.rest_change(theory.safe_length())) == 0
    assert theory.safe_length() == 2 * theory.best_length()
    root = normal(0, 6, 6)
    hessian, g = root @ root.T + torch.eye(6, dtype=torch.float64), normal(0, 6)
    at = {"slope": float(g.norm()), "curvature": float(g @ hessian @ g / g.norm() ** 2)}

    def change(length):
        step = length * g / g.norm()
        return float(-g @ step + step @ hessian @ step / 2)

    safe = value(theory.safe_length(), **at)
    assert safe == pytest.approx(float(2 * g.norm() ** 3 / (g @ hessian @ g)))
    for share in (0.3, 0.5, 1.0, 1.3):
        assert change(share * safe) == pytest.approx(
            value(theory.rest_change(), rho=share * safe, **at), abs=1e-12
        )
    assert change(0.99 * safe) < 0 < change(1.01 * safe)


def test_a_fixed_length_is_unsafe_for_small_gradients():
    """However short rho, L_rest rises once |g| < rho curvature / 2."""
    edge = sympy.solve(sympy.Eq(theory.rest_change(), 0), theory.slope)[0]
    assert edge == theory.rho * theory.curvature / 2
    assert theory.rest_change().subs(theory.slope, edge / 2).is_positive


def test_newton_is_exact_in_least_squares():
    x, y, decay = normal(0, 20, 4), normal(0, 20, 1), 0.3
    identity = torch.eye(4, dtype=torch.float64)

    def fitted(rows):
        return torch.linalg.solve(x[rows].T @ x[rows] + decay * identity, x[rows].T @ y[rows])

    every, rest = torch.arange(20), torch.arange(3, 20)
    theta = fitted(every)
    g = x[:3].T @ (x[:3] @ theta - y[:3])
    step = torch.linalg.solve(x[3:].T @ x[3:] + decay * identity, g)
    torch.testing.assert_close(fitted(rest) - theta, step, rtol=1e-10, atol=1e-12)
    small = Matrix([[2, 1], [1, 3]])
    assert small * theory.newton(small, Matrix([1, 5])) == Matrix([1, 5])


@given(seeds, st.floats(1.01, 1e4))
def test_no_hessian_is_worse_than_the_floors_and_some_are_as_bad(seed, kappa):
    vectors = torch.linalg.qr(normal(seed, 5, 5))[0]
    values = torch.cat(
        [torch.tensor([1.0, kappa], dtype=torch.float64), 1 + (kappa - 1) * normal(seed, 3).sigmoid()]
    )
    hessian = vectors @ values.diag() @ vectors.T
    floors = [float(floor.subs(theory.kappa, kappa)) for floor in FLOORS]

    def found(g):
        newton = torch.linalg.solve(hessian, g)
        share = float((g @ g) ** 2 / ((g @ hessian @ g) * (g @ newton)))
        return share, float(torch.cosine_similarity(g, newton, 0))

    assert all(one >= floor * (1 - 1e-9) for one, floor in zip(found(normal(seed, 5)), floors, strict=True))
    low, high = vectors[:, 0], vectors[:, 1]
    assert found(low + high)[0] == pytest.approx(floors[0], rel=1e-7)
    assert found(low + kappa**0.5 * high)[1] == pytest.approx(floors[1], rel=1e-7)


def test_the_share_is_that_of_the_best_point_of_the_line():
    hessian, g = Matrix([[2, 1, 0], [1, 3, 1], [0, 1, 5]]), Matrix([1, -2, 3])
    along = {theory.slope: g.norm(), theory.curvature: g.dot(hessian * g) / g.dot(g)}
    reached = theory.rest_change(theory.best_length()).subs(along)
    step = theory.newton(hessian, g)
    possible = -g.dot(step) + step.dot(hessian * step) / 2
    assert sympy.simplify(reached / possible - theory.share(hessian, g)) == 0


@given(seeds, st.integers(1, 12))
def test_the_length_of_the_adjustment(seed, steps):
    units = F.normalize(normal(seed, steps, 7), dim=1)
    pairs = [float(units[a] @ units[b]) for a, b in itertools.permutations(range(steps), 2)]
    cosine = sum(pairs) / len(pairs) if pairs else 0.0
    rho = 0.015
    length = float((units * rho / steps).sum(0).norm())
    assert length == pytest.approx(
        value(theory.adjustment_length(), K=steps, rho=rho, cosine=cosine), rel=1e-6
    )
    assert length <= rho * (1 + 1e-12)
    assert theory.adjustment_length(sympy.Integer(1)).equals(theory.rho)


def test_dwas_steps_are_no_longer_than_rho_and_climb(problem):
    theta, rows = problem.minimum(torch.ones(100, dtype=torch.float64)), torch.arange(0, 100, 10)
    of_batch = torch.zeros(100, dtype=torch.float64).index_fill(0, rows, 1)
    for steps in (1, 12):
        step = ascend(lambda at: of_batch @ problem.gradients(at), theta, 0.5, steps)
        assert 0.49 < step.norm() <= 0.5 + 1e-12
        bare = SoftmaxRegression(problem.x, problem.y, 10, 0.0)
        assert bare.loss(theta + step, of_batch) > bare.loss(theta, of_batch)


def test_an_ascent_goes_on_from_where_it_is():
    """One step and then two are three."""
    turn, theta = normal(0, 4, 4), normal(1, 4)
    first = ascend(turn.mv, theta, 0.3, 1)
    torch.testing.assert_close(
        ascend(turn.mv, theta, 0.9, 3), first + ascend(turn.mv, theta + first, 0.6, 2), rtol=1e-12, atol=1e-14
    )


def stationary(seed, images, dims=3):
    gradients = normal(seed, images, dims)
    return gradients - gradients.mean(0)


@pytest.mark.parametrize("batch", range(1, 7))
def test_batch_gradients_have_the_covariance_of_the_images_by_enumeration(batch):
    gradients = stationary(0, 6)
    sums = torch.stack([gradients[list(rows)].sum(0) for rows in itertools.combinations(range(6), batch)])
    assert sums.mean(0).abs().max() < 1e-14
    factor = float(theory.batch_covariance().subs({theory.N: 6, theory.B: batch}))
    torch.testing.assert_close(
        sums.T @ sums / len(sums), factor * gradients.T @ gradients / 6, rtol=1e-12, atol=1e-14
    )


def test_one_image_a_class_has_the_covariance_within_classes_alone():
    by_class = stationary(1, 9).unflatten(0, (3, 3))
    sums = torch.stack(
        [sum(by_class[c, i] for c, i in enumerate(rows)) for rows in itertools.product(range(3), repeat=3)]
    )
    assert sums.mean(0).abs().max() < 1e-14
    inside = sum(torch.cov(one.T, correction=0) for one in by_class)
    torch.testing.assert_close(sums.T @ sums / len(sums), inside, rtol=1e-12, atol=1e-14)


def test_how_alike_two_adjustments_are():
    gradients = stationary(2, 7)
    values = torch.linalg.eigvalsh(gradients.T @ gradients / 7).tolist()
    products = (gradients @ gradients.T).square().mean() / gradients.square().sum(1).mean() ** 2
    assert products.item() == pytest.approx(theory.square_cosine(values), rel=1e-10)
    assert theory.square_cosine([Rational(3)] * 8) == Rational(1, 8)


@given(seeds)
def test_stale_statistics_of_a_convolution(seed):
    x, weight, delta = normal(seed, 5, 2, 6, 6), normal(seed, 1, 2, 3, 3), 0.1 * normal(seed + 1, 1, 2, 3, 3)
    patches = F.unfold(x, 3).movedim(1, 2).flatten(0, 1)
    arguments = [
        weight.view(-1, 1),
        delta.view(-1, 1),
        patches.mean(0)[:, None],
        torch.cov(patches.T, correction=0),
    ]
    found = theory.stale_statistics(*(Matrix(one.tolist()) for one in arguments))
    before, after = (channel_moments(F.conv2d(x, one)) for one in (weight, weight + delta))
    for formula, first, second in zip(found, before, after, strict=True):
        assert float(formula) == pytest.approx((second - first).item(), rel=1e-8, abs=1e-10)


# Labels and cost


@pytest.mark.parametrize("temperature", [1, 4, 30])
def test_the_gradient_of_the_soft_loss(temperature):
    student, teacher = (rationals(3 * normal(seed, 5, 1)) for seed in (0, 1))
    logits = numbers(student).T.requires_grad_()
    found = torch.autograd.grad(soft_loss(logits, numbers(teacher).T, temperature), logits)[0]
    formula = theory.soft_gradient(student, teacher).subs(theory.T, temperature)
    torch.testing.assert_close(found.T, numbers(formula), rtol=1e-10, atol=1e-12)


def test_at_high_temperature_it_is_the_centred_difference():
    student, teacher = (rationals(3 * normal(seed, 5, 1)) for seed in (0, 1))
    limit = numbers(theory.hot_gradient(student, teacher))
    soft = theory.soft_gradient(student, teacher)
    errors = [(t**2 * numbers(soft.subs(theory.T, t)) - limit).norm() / limit.norm() for t in (30, 300, 3000)]
    assert errors[0] < 0.3
    assert [float(one / two) for one, two in itertools.pairwise(errors)] == pytest.approx([10, 10], rel=0.15)
    assert abs(sum(theory.hot_gradient(student, teacher))) == 0


@pytest.mark.parametrize(("ipc", "gib"), [(10, 5.59), (20, 11.18), (50, 27.94), (100, 55.88), (200, 111.76)])
def test_the_labels_of_imagenet(ipc, gib):
    stored = value(theory.label_bytes(), ipc=ipc, C=1000, epochs=300)
    assert stored / 2**30 == pytest.approx(gib, abs=0.005)
    assert value(theory.label_share(), C=1000, epochs=300, H=224, W=224) == pytest.approx(
        stored / (ipc * 1000 * 3 * 224**2)
    )


def test_label_bytes_are_those_of_a_tensor():
    labels = torch.zeros(2 * 5, 3, 5, dtype=torch.float16)  # two images a class of five, three epochs
    assert value(theory.label_bytes(), ipc=2, C=5, epochs=3) == labels.nbytes
    images = torch.zeros(2 * 5, 3, 4, 7, dtype=torch.uint8)
    assert value(theory.label_share(), C=5, epochs=3, H=4, W=7) == pytest.approx(
        labels.nbytes / images.nbytes
    )


@pytest.mark.parametrize(
    ("K", "iterations", "percent"), [(12, 1000, 1.8), (12, 2000, 0.9), (15, 2000, 1.125)]
)
def test_overheads(K, iterations, percent):
    assert 100 * value(theory.adjustment_overhead(), K=K, iterations=iterations) == pytest.approx(percent)
    assert 100 * value(theory.adjustment_overhead(frozen=False), K=K, iterations=iterations) == pytest.approx(
        50 + percent
    )


# Measurements


@pytest.mark.usefixtures("teachers")
def test_measured_variances_are_the_expected_ones(digits, untouched):
    settings = {"teacher": TEACHER, "images": 300, "sizes": (1, 2, 10), "draws": 2000, "points": 7}
    frame = pd.DataFrame(batch_variance(digits, seed=0, **settings))
    table = frame[frame.layer.notna()].pivot_table(
        index=["layer", "law", "size"], columns="quantity", values="value"
    )
    assert set(table.index.get_level_values("layer")) == {1, 2}
    assert (table.between - table.expected).abs().max() < 0.02
    assert (table.between.loc[:, ["any class", "one class"], 1] == 0).all()
    whole = table.xs("any class", level="law").drop(index=1, level="size").reset_index("size")
    assert (whole.within + whole.expected / (1 - 1 / whole["size"])).tolist() == pytest.approx(
        [1] * 4, abs=0.02
    ), "the total variance"
    each = table.expected.unstack("law").xs(10, level="size")
    assert (each["one class"] < each["any class"]).all()
    assert (each["any class"] < each["one a class"]).all()
    arrows = frame[frame.layer.isna()]
    assert arrows.groupby("quantity").size().tolist() == [7, 7]
    translation = arrows[arrows.quantity == "mean"]
    assert translation[["dx", "dy"]].nunique().tolist() == [1, 1]
    assert frame.equals(pd.DataFrame(batch_variance(digits, seed=0, **settings)))


def test_arrows_are_in_standard_deviations_of_the_two_channels_that_vary_most():
    x, mean, var = (
        normal(0, 4, 3, 2, 2) * torch.tensor([5.0, 0.1, 2.0]).view(3, 1, 1),
        normal(0, 3),
        normal(1, 3).square(),
    )
    frame, at = pd.DataFrame(_arrows(x, mean, var, 16)), (x - mean.view(3, 1, 1)) / var.sqrt().view(3, 1, 1)
    for (name, push), columns in itertools.product(pushes(x, mean, var).items(), (["x", "y"], ["dx", "dy"])):
        shown = at if "x" in columns else push / var.sqrt().view(3, 1, 1)
        found = torch.tensor(frame.loc[frame.quantity == name, columns].to_numpy().tolist(), dtype=x.dtype).T
        torch.testing.assert_close(found, shown[:, [0, 2]].movedim(1, 0).flatten(1), rtol=1e-5, atol=1e-9)


def test_where_the_decay_outweighs_the_images_the_rest_is_a_bowl(digits):
    """H is N decay times the identity, nearly: the gradient is the way to the minimum, and on any way of length l and cosine c to it
    L_rest changes by l^2 - 2 l c of its fall."""
    frame = pd.DataFrame(
        leave_out(
            digits, seed=0, images=50, components=3, decays=(1e4,), batches=2, steps=3, lengths=(0.5, 2.0)
        )
    )
    of_gradient = frame[frame.arm == "gradient"].groupby("quantity").value.mean()
    expected = {"safe": 2, "share": 1, "floor": 1, "condition": 1}
    assert of_gradient[list(expected)].to_dict() == pytest.approx(expected, abs=1e-3)
    cosine = frame[frame.quantity == "cosine"].groupby("arm").value.mean()
    assert cosine[["retrained", "Newton", "gradient", "ascent"]].tolist() == pytest.approx([1] * 4, abs=1e-3)
    changes = frame[frame.quantity == "change"]
    assert changes.value.tolist() == pytest.approx(
        (changes.length**2 - 2 * changes.length * changes.arm.map(cosine)).tolist(), abs=2e-3
    )


def test_measured_directions(digits, untouched):
    settings = {
        "images": 200,
        "components": 8,
        "decays": (0.1, 0.001),
        "batches": 3,
        "steps": 12,
        "lengths": (0.5, 1.0),
    }
    frame = pd.DataFrame(leave_out(digits, seed=0, **settings))
    cosines = frame[frame.quantity == "cosine"].pivot_table(index="arm", columns="decay", values="value")
    assert cosines.loc["retrained"].tolist() == [1, 1]
    assert (cosines.loc["Newton"] > 0.95).all()
    assert (cosines.loc["gradient"] > cosines.loc["other batch"].abs() + 0.2).all()
    assert cosines.loc["gradient", 0.1] > cosines.loc["gradient", 0.001]
    arrived = frame[(frame.quantity == "change") & (frame.arm == "retrained") & (frame.length == 1)]
    assert arrived.value.tolist() == pytest.approx([-1] * 2)
    assert frame[(frame.quantity == "change")].value.min() > -1 - 1e-9, "no direction beats the minimum"
    by_batch = frame.pivot_table(index=["decay", "batch"], columns="quantity", values="value")
    assert (by_batch.share > by_batch.floor).all()
    assert (by_batch.condition > 1).all()


@pytest.mark.parametrize(("name", "wrong", "word"), [
    ("leave_out", {"decays": [0.1, 0.0]}, "decays[1]=0.0"), ("leave_out", {"components": 65}, "components=65"),
    ("leave_out", {"batches": 0}, "batches=0"), ("leave_out", {"images": 10**5}, "images=100000"),
    ("batch_variance", {"draws": 0}, "draws=0"), ("batch_variance", {"sizes": [1, 0]}, "sizes[1]=0"),
    ("batch_variance", {"teacher": {"epoch": 1}}, "'epoch'"), ("batch_variance", {"images": 10**5}, "images=100000"),
])  # fmt: skip
def test_measurements_refuse_bad_settings(digits, refuses, name, wrong, word):
    good = {
        "leave_out": {
            "images": 100,
            "components": 4,
            "decays": [0.1],
            "batches": 1,
            "steps": 1,
            "lengths": [1.0],
        },
        "batch_variance": {"teacher": TEACHER, "images": 100, "sizes": [1], "draws": 1, "points": 1},
    }[name]
    with refuses(word):
        Measurement(name, "digits", good | wrong).make(digits, None)

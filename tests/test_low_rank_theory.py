"""The symbolic statements of ddcore.theory.low_rank against numbers, and the measurements of notebook 10 against brute force."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import sympy
import torch

import ddcore
from ddcore import figures
from ddcore.lab.measurement import Measurement
from ddcore.lab.measurements.spectra import gradient_geometry, spectra, step_gains
from ddcore.lab.runner import Runner
from ddcore.lab.tables import rows
from ddcore.random import stream
from ddcore.synthetic import images_per_class
from ddcore.theory import low_rank as theory


def normal(*shape, name):
    return torch.randn(*shape, generator=stream(0, "test", name), dtype=torch.float64)


# Budgets


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (32, 32), (64, 64), (48, 20)])
def test_images_per_class_is_the_formula(height, width):
    for rank, ipc in itertools.product(range(1, 20), (1, 3, 10, 50)):
        size = {"H": height, "W": width, "r": rank, "ipc": ipc}
        count = theory.value(theory.images_per_class(), **size)
        assert images_per_class(ipc, rank, height, width) == count
        used, one_more = (
            theory.value(theory.budget_used(sympy.Integer(images)), **size) for images in (count, count + 1)
        )
        assert used <= 1 < one_more
        assert theory.value(theory.images_per_class_of_the_scripts(), **size) <= count


@pytest.mark.parametrize(
    ("side", "rank", "readme", "scripts"),
    [
        (28, 1, (14, 140, 700), (14, 140, 700)),
        (28, 2, (7, 70, 350), (7, 70, 350)),
        (28, 3, (4, 46, 233), (4, 40, 200)),
        (28, 4, (3, 35, 175), (3, 30, 150)),
        (28, 8, (1, 17, 87), (1, 10, 50)),
        (32, 2, (8, 80, 400), (8, 80, 400)),
        (32, 8, (2, 20, 100), (2, 20, 100)),
        (64, 4, (8, 80, 400), (8, 80, 400)),
    ],
)
def test_both_rounding_rules(side, rank, readme, scripts):
    for place, ipc in enumerate((1, 10, 50)):
        size = {"H": side, "W": side, "r": rank, "ipc": ipc}
        assert theory.value(theory.images_per_class(), **size) == readme[place]
        assert theory.value(theory.images_per_class_of_the_scripts(), **size) == scripts[place]


def test_break_even_rank():
    assert [theory.value(theory.break_even_rank(), H=side, W=side) for side in (28, 32, 64)] == [14, 16, 32]
    assert sympy.simplify(theory.multiplier().subs(theory.r, theory.break_even_rank())) == 1


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_storage_is_that_of_the_set(digits, rank):
    found = ddcore.LowRank(digits, 1, rank=rank)
    assert found.stored_numbers == len(found.labels) * theory.value(theory.factor_storage(), H=8, W=8, r=rank)


# Gauge


@pytest.mark.parametrize(("height", "width", "rank"), [(8, 8, 1), (8, 8, 2), (7, 5, 3), (5, 9, 5)])
def test_degrees_of_freedom_are_the_rank_of_the_map(height, width, rank):
    u, v = normal(height, rank, name="u"), normal(rank, width, name="v")
    by_u, by_v = torch.autograd.functional.jacobian(torch.matmul, (u, v))
    whole = torch.cat([by_u.reshape(height * width, -1), by_v.reshape(height * width, -1)], dim=1)
    size = {"H": height, "W": width, "r": rank}
    assert torch.linalg.matrix_rank(whole).item() == theory.value(theory.degrees_of_freedom(), **size)
    assert whole.shape[1] - torch.linalg.matrix_rank(whole).item() == theory.value(
        theory.gauge_dimension(), **size
    )


# One step


def numbers(expression, **matrices):
    """A matrix expression at numpy matrices and eta, by walking its tree."""
    if isinstance(expression, sympy.MatrixSymbol):
        return matrices[expression.name]
    if isinstance(expression, sympy.Transpose):
        return numbers(expression.arg, **matrices).T
    parts = [
        numbers(part, **matrices) if part.is_Matrix else float(part.subs(theory.eta, matrices["eta"]))
        for part in expression.args
    ]
    if expression.is_MatAdd:
        return sum(parts)
    scale = np.prod([part for part in parts if isinstance(part, float)])
    return scale * np.linalg.multi_dot([part for part in parts if not isinstance(part, float)])


@pytest.mark.parametrize(("height", "width", "rank"), [(8, 8, 2), (7, 5, 3)])
def test_step_against_autograd(height, width, rank):
    u, v = normal(height, rank, name="u").requires_grad_(), normal(rank, width, name="v").requires_grad_()
    x, target = (u @ v).detach().requires_grad_(), normal(height, width, name="target")
    g = torch.autograd.grad((x.sin() - target).square().sum(), x)[0]
    found = torch.autograd.grad(((u @ v).sin() - target).square().sum(), (u, v))
    at = {"U": u.detach().numpy(), "V": v.detach().numpy(), "G": g.numpy(), "eta": 0.05}
    for gradient, formula in zip(found, theory.factor_gradients(), strict=True):
        np.testing.assert_allclose(gradient.numpy(), numbers(formula, **at), rtol=0, atol=1e-12)
    moved = (u - 0.05 * found[0]) @ (v - 0.05 * found[1]) - u @ v
    np.testing.assert_allclose(
        moved.detach().numpy(), numbers(theory.image_change(), **at), rtol=0, atol=1e-12
    )
    velocity = torch.autograd.functional.jvp(torch.matmul, (u.detach(), v.detach()), (-found[0], -found[1]))[
        1
    ]
    np.testing.assert_allclose(velocity.numpy(), numbers(theory.image_step(), **at), rtol=0, atol=1e-12)


def test_step_entry_by_entry():
    """The matrix calculus once more, from derivatives of scalars."""
    h, w, k = 3, 2, 2
    u, v, g = (
        sympy.Matrix(a, b, sympy.symbols(f"{name}:{a * b}"))
        for name, a, b in (("u", h, k), ("v", k, w), ("g", h, w))
    )
    through = sum(g.multiply_elementwise(u * v))
    by_u, by_v = (
        u.applyfunc(lambda entry: through.diff(entry)),
        v.applyfunc(lambda entry: through.diff(entry)),
    )
    change = ((u - theory.eta * by_u) * (v - theory.eta * by_v) - u * v).expand()
    assert change.diff(theory.eta).subs(theory.eta, 0).expand() == (-(g * v.T * v + u * u.T * g)).expand()
    assert theory.image_step() == -theory.G * theory.V.T * theory.V - theory.U * theory.U.T * theory.G
    assert change.applyfunc(lambda entry: entry.coeff(theory.eta, 2)) == (g * v.T * u.T * g).expand()


@pytest.mark.parametrize(("height", "width", "rank"), [(8, 8, 1), (28, 28, 2), (6, 11, 4)])
def test_expected_gains_by_monte_carlo(height, width, rank):
    draws, g = 3000, normal(height, width, name="g")
    u, v = normal(draws, height, rank, name="mc u"), normal(draws, rank, width, name="mc v")
    step = g @ v.mT @ v + u @ u.mT @ g
    gain, square = ((step * other).sum((1, 2)) / g.square().sum() for other in (g, step))
    for values, formula in ((gain, theory.expected_gain()), (square, theory.expected_square_gain())):
        expected = theory.value(formula, H=height, W=width, r=rank)
        assert abs(values.mean() - expected) < 4 * values.std() / draws**0.5
        assert values.std() / draws**0.5 < 0.05 * expected
    assert theory.value(theory.alignment(), H=height, W=width, r=rank) == pytest.approx(
        float(gain.mean() / square.mean().sqrt()), rel=0.05
    )


@pytest.mark.parametrize(("height", "width", "rank"), [(6, 6, 2), (5, 7, 1), (4, 6, 8)])
def test_gains_are_the_eigenvalues_of_the_kronecker_map(height, width, rank):
    u, v = normal(3, height, rank, name="u"), normal(3, rank, width, name="v")
    found = step_gains(u, v)
    for gains, left, right in zip(found, u, v, strict=True):
        whole = torch.kron(left @ left.mT, torch.eye(width, dtype=u.dtype)) + torch.kron(
            torch.eye(height, dtype=u.dtype), right.mT @ right
        )
        g = normal(height, width, name="g")
        torch.testing.assert_close(
            (whole @ g.flatten()).view(height, width),
            g @ right.mT @ right + left @ left.mT @ g,
            rtol=0,
            atol=1e-12,
        )
        torch.testing.assert_close(gains, torch.linalg.eigvalsh(whole).flip(-1), rtol=1e-12, atol=1e-12)
    if rank < min(height, width):
        moved = theory.value(theory.degrees_of_freedom(), H=height, W=width, r=rank)
        assert ((found > 0).sum(-1) == moved).all()


@pytest.mark.filterwarnings("ignore:LowRank. an image of rank 8")
@pytest.mark.parametrize(("budget", "rank"), [(1, 1), (1, 2), (1, 4), (2, 1), (2, 3), (3, 8)])
def test_class_means_reach_the_bound(digits, budget, rank):
    found = ddcore.LowRank(digits, budget, rank=rank)
    products = found.tensors["u"].detach().double() @ found.tensors["v"].detach().double()
    means = products.unflatten(0, (digits.classes, found.per_class)).mean(1)
    bound = theory.value(theory.class_mean_rank(), n=found.per_class, r=rank, H=8, W=8)
    assert (torch.linalg.matrix_rank(means) == bound).all()


# Measurements


def test_spectra_against_brute_force(digits):
    ranks = [1, 3, 8, 20]
    frame = pd.DataFrame(spectra(digits, seed=3, ranks=ranks, images=40))
    index = digits.sample(4, stream(3, "spectra"))
    for label, name in enumerate((*digits.class_names, "all")):
        chosen = index if name == "all" else index[4 * label : 4 * label + 4]
        for rank in ranks:
            shares, pixel_shares, errors = [], [], []
            for image in digits.x_train[chosen][:, 0].double().numpy():
                pixels = np.clip(image * digits.std[0] + digits.mean[0], 0, 1)
                for one, into in ((image, shares), (pixels, pixel_shares)):
                    a, s, b = np.linalg.svd(one)
                    best = (a[:, :rank] * s[:rank]) @ b[:rank]
                    into.append(1 - ((one - best) ** 2).sum() / (one**2).sum())
                errors.append(((pixels - best) ** 2).mean())
            row = frame[(frame["class"] == name) & (frame["rank"] == rank)].iloc[0]
            assert row.energy == pytest.approx(np.mean(shares), abs=1e-6)
            assert row.energy_pixels == pytest.approx(np.mean(pixel_shares), abs=1e-6)
            if rank < 8:
                assert row.psnr == pytest.approx(-10 * np.log10(np.mean(errors)), abs=1e-3)
            else:
                assert np.isnan(row.psnr)
                assert row.energy == 1


def test_spectra_of_colour_images_and_of_black_ones(digits):
    colour = dataclasses.replace(
        digits, x_train=digits.x_train[:].repeat(1, 3, 1, 1), mean=digits.mean * 3, std=digits.std * 3
    )
    grey = spectra(digits, seed=0, ranks=[1, 2], images=20)
    assert spectra(colour, seed=0, ranks=[1, 2], images=20) == grey
    black = dataclasses.replace(
        digits, x_train=torch.full_like(digits.x_train[:], -digits.mean[0] / digits.std[0])
    )
    found = pd.DataFrame(spectra(black, seed=0, ranks=[1, 2], images=20))
    assert found.energy.eq(1).all()
    assert found.energy_pixels.between(0, 1).all()


def test_geometry_against_brute_force(digits):
    frame = pd.DataFrame(gradient_geometry(digits, seed=5, ranks=[1, 3], draws=6))
    for rank in (1, 3):
        generator = stream(5, "gradient_geometry", rank)
        u = torch.randn(6, 8, rank, generator=generator, dtype=torch.float64)
        v = torch.randn(6, rank, 8, generator=generator, dtype=torch.float64)
        eye = torch.eye(8, dtype=torch.float64)
        gains = torch.stack(
            [
                torch.linalg.eigvalsh(torch.kron(a @ a.mT, eye) + torch.kron(eye, b.mT @ b)).flip(-1)
                for a, b in zip(u, v, strict=True)
            ]
        ).mean(0)
        found = frame[frame["rank"] == rank]
        places = (found.position * 64 - 0.5).round().astype(int).to_numpy()
        assert (places == np.arange(64)).all()
        np.testing.assert_allclose(found.gain, gains.clamp(min=0), atol=2e-6)
        np.testing.assert_allclose(found.mean_gain, gains.mean(), atol=2e-6)


def test_geometry_is_thinned(digits):
    large = dataclasses.replace(digits, x_train=torch.zeros(10, 1, 28, 28))
    frame = pd.DataFrame(gradient_geometry(large, seed=0, ranks=[2], draws=50))
    assert len(frame) <= 200
    assert frame.position.is_monotonic_increasing
    assert frame.gain.is_monotonic_decreasing
    assert 0 < frame.position.min() < frame.position.max() < 1
    assert frame.mean_gain[0] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("bad", [{"images": 0}, {"images": 10**6}, {"ranks": [1, 0]}])
def test_measurements_refuse_bad_settings(digits, bad):
    with pytest.raises(ddcore.BadInput, match=r"must be above 0|training images, but"):
        spectra(digits, **({"seed": 0, "ranks": [1], "images": 20} | bad))


def test_measurements_depend_on_their_seed_alone(digits, untouched):
    first = (
        spectra(digits, seed=0, ranks=[1], images=20),
        gradient_geometry(digits, seed=0, ranks=[1], draws=2),
    )
    assert first == (
        spectra(digits, seed=0, ranks=[1], images=20),
        gradient_geometry(digits, seed=0, ranks=[1], draws=2),
    )
    assert first[0] != spectra(digits, seed=1, ranks=[1], images=20)


@pytest.mark.parametrize(
    ("key", "name", "settings"),
    [
        ("lodc-spectra", "spectra", {"ranks": [1, 2, 4], "images": 20}),
        ("lodc-gradient-geometry", "gradient_geometry", {"ranks": [1, 3], "draws": 3}),
    ],
)
def test_figures_are_drawn_from_records(tmp_path, key, name, settings):
    runner = Runner("smoke", tmp_path / "records", device="cpu")
    found = runner.run_all([Measurement(name, "digits", settings, seed) for seed in (0, 1)])
    frame = rows(found)
    assert set(frame.seed) == {0, 1}
    sidecar = figures.save(key, frame, found, folder=tmp_path / "figures")
    assert sidecar["wasDerivedFrom"] == sorted(record.hash for record in found)
    assert figures.save(key, frame, found, folder=tmp_path / "figures") == sidecar


# The committed figures say what notebook 10 says of them.


def recorded(key):
    path = figures.FOLDER / f"{key}.csv"
    if not path.is_file():
        pytest.skip(f"{key} is not recorded")
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def test_recorded_spectra():
    frame = recorded("lodc-spectra")
    assert set(frame.dataset) == {"fashion_mnist"}
    whole = frame[frame["class"] == "all"].set_index("rank")
    for rank, energy in ((1, 0.73), (2, 0.87), (4, 0.95)):
        assert whole.energy[rank] == pytest.approx(energy, abs=0.005)
    at = frame[(frame["rank"] == 2) & (frame["class"] != "all")].set_index("class").energy
    assert (at.idxmin(), at.idxmax()) == ("5", "1")


def test_recorded_geometry():
    frame = recorded("lodc-gradient-geometry")
    two = frame[frame["rank"] == 2]
    assert two.gain.max() == pytest.approx(70, abs=2)
    assert two[two.gain > 0].position.max() == pytest.approx(1 - 0.86, abs=0.01)

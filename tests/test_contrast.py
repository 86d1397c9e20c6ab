"""The contrast of MIM4DD: the definition by hand, its facts, and the chunked form against it (Triton's is in test_kernels_triton.py)."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from ddcore.kernels.contrast import BLOCK, CRITICS, contrast, contrast_chunked, contrast_reference
from ddcore.random import stream

critics = pytest.mark.parametrize("critic", CRITICS)
negatives = pytest.mark.parametrize("own", [False, True])


def sides(layers=2, fakes=5, reals=12, width=4, classes=3, dtype=torch.float64):
    """Labels in no order, those of the real side balanced where `classes` divides `reals`."""
    fake, real = (
        torch.randn(layers, rows, width, generator=stream(0, "contrast", name), dtype=torch.float64).to(dtype)
        for name, rows in (("fake", fakes), ("real", reals))
    )
    return fake, torch.arange(fakes) * 2 % classes, real, torch.arange(reals) % classes, classes


def on_the_sphere(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


@critics
@negatives
def test_the_definition_by_hand(critic, own):
    fake, fake_labels, real, real_labels, classes = sides()
    found = contrast_reference(
        fake,
        fake_labels,
        real,
        real_labels,
        classes,
        temperature=0.5,
        critic=critic,
        own=own,
        log_z=torch.tensor([0.3, -1.0], dtype=torch.float64),
    )
    for layer, log_z in enumerate((0.3, -1.0)):
        losses, log_hs, exps = [], [], []
        for u, label in zip(fake[layer], fake_labels, strict=True):
            s = [float(u @ v) / 0.5 for v in real[layer]]
            positive = [j for j in range(12) if real_labels[j] == label]
            negative = [j for j in range(12) if own or real_labels[j] != label]
            if critic == "nce":
                h = [math.exp(one) / (math.exp(one) + len(negative) * math.exp(log_z)) for one in s]
            else:
                h = [math.exp(one) / sum(math.exp(s[j]) for j in negative) for one in s]
            log_hs.append(sum(math.log(h[j]) for j in positive) / len(positive))
            losses.append(-log_hs[-1] - (sum(math.log(1 - h[j]) for j in negative) if critic == "nce" else 0))
            exps += [math.exp(s[j]) for j in negative]
        by_hand = [sum(losses) / 5, sum(log_hs) / 5, math.log(sum(exps) / len(exps))]
        assert [float(one[layer]) for one in found] == pytest.approx(by_hand, rel=1e-12)


@given(
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(1, 5),
    st.sampled_from(CRITICS),
    st.booleans(),
    st.sampled_from([1e-4, 0.1, 1.0, 1e4]),
)
@example(2, 3, 4, 2, 1, "infonce", False, 1.0)
def test_chunked_is_the_reference(layers, fakes, reals, width, classes, critic, own, temperature):
    """One row, one class and hence no negatives, a class without real rows: all come up."""
    fake, *others = sides(layers, fakes, reals, width, classes)
    fake.requires_grad_()
    how = {
        "temperature": temperature,
        "critic": critic,
        "own": own,
        "log_z": torch.linspace(-1, 2, layers, dtype=torch.float64),
    }
    found, expected = (op(fake, *others, **how) for op in (contrast_chunked, contrast_reference))
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(
            x, y, rtol=1e-12, atol=1e-12 * max(1, 1 / temperature)
        )  # logits are as large
    weights = torch.linspace(1, 2, layers, dtype=torch.float64)
    for x, y in zip(grad(found.loss @ weights, fake), grad(expected.loss @ weights, fake), strict=True):
        assert float((x - y).norm()) <= 1e-12 * max(1 / temperature, float(y.norm()))


@critics
@negatives
def test_gradients_are_those_of_the_loss(critic, own):
    fake, *others = sides()
    fake.requires_grad_()
    how = {"temperature": 0.7, "critic": critic, "own": own}
    assert gradcheck(lambda fake: contrast_chunked(fake, *others, **how).loss, fake)
    assert gradgradcheck(lambda fake: contrast_reference(fake, *others, **how).loss, fake)


@critics
@negatives
def test_many_blocks_are_as_one(critic, own):
    """More rows of both sides than a block has, and more real ones of a class; classes begin and end anywhere in a block."""
    fake, fake_labels, real, real_labels, classes = sides(2, 700, 1600, 3, 3)
    how = {"temperature": 0.2, "own": own, "critic": critic}
    whole = contrast_chunked(fake.requires_grad_(), fake_labels, real, real_labels, classes, **how)
    expected = contrast_reference(fake, fake_labels, real, real_labels, classes, **how)
    for x, y in zip(whole, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        grad(whole.loss.sum(), fake)[0], grad(expected.loss.sum(), fake)[0], rtol=1e-10, atol=1e-14
    )


class Largest(TorchDispatchMode):
    """The most numbers of any tensor that an operation returns."""

    numbers = 0

    def __torch_dispatch__(self, function, kinds, arguments=(), keywords=None):
        out = function(*arguments, **(keywords or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            self.numbers = max(self.numbers, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
        return out


@critics
def test_nothing_of_size_m_times_n_is_made(critic):
    fake, *others = sides(2, 600, 3000, 2, 3, dtype=torch.float32)
    fake.requires_grad_()
    for op, within in ((contrast_chunked, True), (contrast_reference, False)):
        with Largest() as largest:
            grad(op(fake, *others, temperature=0.1, critic=critic).loss.sum(), fake)
        assert (largest.numbers <= BLOCK) == within
    assert largest.numbers >= 600 * 3000


@pytest.mark.parametrize("reals", [12, 120, 1200])
def test_a_normalised_critic_that_knows_nothing_has_the_loss_of_a_guess(reals):
    """Where all s are equal, h = 1 / (N + 1): the negatives weigh log(1 + 1/N)^N, nearly 1, whatever N."""
    fake, *others = sides(1, 6, reals)
    fake = fake * 0
    log_z = contrast(fake, *others, temperature=0.1).log_mean_exp
    found = contrast(fake, *others, temperature=0.1, log_z=log_z)
    many = reals * 2 // 3
    assert float(log_z) == pytest.approx(0, abs=1e-12)
    assert float(found.log_h) == pytest.approx(-math.log(many + 1), rel=1e-12)
    assert float(found.loss + found.log_h) == pytest.approx(many * math.log1p(1 / many), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_negative_costs_log_of_one_plus_exp_to_rounding(dtype):
    """log(1 + e^s) of every s, to the last digits of the smallest too, which 1 + e^s has lost."""
    s = torch.linspace(-80, 80, 321, dtype=dtype)
    found = contrast(
        s[:, None, None],
        torch.tensor([0]),
        torch.ones(321, 1, 1, dtype=dtype),
        torch.tensor([1]),
        2,
        temperature=1.0,
    )
    expected = torch.tensor(
        [max(one, 0) + math.log1p(math.exp(-abs(one))) for one in s.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(found.loss.double(), expected, rtol=8 * torch.finfo(dtype).eps, atol=0)


@given(st.integers(2, 6), st.integers(1, 5), st.floats(0.02, 5))
def test_infonce_on_balanced_classes_tells_no_more_than_log_classes(classes, each, temperature):
    """log N + mean log h <= log N - log P by Jensen's inequality: it can't exceed the entropy of the label."""
    fake, fake_labels, real, real_labels, _ = sides(2, 7, classes * each, 3, classes)
    found = contrast(
        fake, fake_labels, real, real_labels, classes, temperature=temperature, critic="infonce", own=True
    )
    assert float(found.log_h.max()) + math.log(len(real_labels)) <= math.log(classes) + 1e-9
    torch.testing.assert_close(found.loss, -found.log_h)
    onto = torch.eye(classes, dtype=torch.float64)
    sure = contrast(
        onto[None, fake_labels],
        fake_labels,
        onto[None, real_labels],
        real_labels,
        classes,
        temperature=1e-3,
        critic="infonce",
        own=True,
    )
    assert float(sure.log_h) + math.log(len(real_labels)) == pytest.approx(math.log(classes), rel=1e-9)


def test_infonce_sees_no_shift_of_all_real_features():
    fake, fake_labels, real, real_labels, classes = sides()
    how = {"temperature": 0.5, "critic": "infonce"}
    moved = contrast(
        fake, fake_labels, real + torch.ones(4, dtype=torch.float64), real_labels, classes, **how
    )
    torch.testing.assert_close(
        moved.loss,
        contrast(fake, fake_labels, real, real_labels, classes, **how).loss,
        rtol=1e-12,
        atol=1e-12,
    )


@critics
def test_rows_are_a_set(critic):
    fake, fake_labels, real, real_labels, classes = sides()
    order, others = (
        torch.randperm(12, generator=stream(0, "order")),
        torch.randperm(5, generator=stream(1, "order")),
    )
    one = contrast(fake, fake_labels, real, real_labels, classes, temperature=0.3, critic=critic)
    two = contrast(
        fake[:, others],
        fake_labels[others],
        real[:, order],
        real_labels[order],
        classes,
        temperature=0.3,
        critic=critic,
    )
    for x, y in zip(one, two, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@critics
def test_sums_are_at_least_float32_and_the_gradient_of_the_dtype_of_the_features(dtype, critic):
    fake, *others = sides(dtype=dtype)
    fake.requires_grad_()
    for op in (contrast, contrast_reference):
        found = op(fake, *others, temperature=0.5, critic=critic)
        assert {one.dtype for one in found} == {torch.promote_types(dtype, torch.float32)}
        assert grad(found.loss.sum(), fake)[0].dtype == dtype


@critics
def test_float32_is_as_near_to_float64_as_the_reference_is(critic):
    fake, fake_labels, real, real_labels, classes = sides(1, 40, 900, 64, 10, torch.float32)
    fake, real = on_the_sphere(fake).requires_grad_(), on_the_sphere(real)
    how = {"temperature": 0.07, "critic": critic}

    def gradient(op, kind):
        given = fake.detach().to(kind).requires_grad_()
        return grad(op(given, fake_labels, real.to(kind), real_labels, classes, **how).loss.sum(), given)[
            0
        ].double()

    exact = gradient(contrast_reference, torch.float64)
    ours, theirs = (
        float((gradient(op, torch.float32) - exact).norm()) for op in (contrast_chunked, contrast_reference)
    )
    assert ours <= 2 * theirs


def test_what_is_not_computed_is_refused(refuses):
    fake, fake_labels, real, real_labels, classes = sides()
    fake.requires_grad_()
    with pytest.raises(
        NotImplementedError, match=r"contrast_chunked has no second derivative.*contrast_reference"
    ):
        grad(
            contrast(fake, fake_labels, real, real_labels, classes, temperature=1.0).loss.sum(),
            fake,
            create_graph=True,
        )
    with refuses("contrast_chunked", "`real`", "contrast_reference"):
        contrast(fake, fake_labels, real.requires_grad_(), real_labels, classes, temperature=1.0)


def test_ill_input_is_refused(refuses):
    fake, fake_labels, real, real_labels, classes = sides()
    for wrong in [
        (fake[0], fake_labels, real, real_labels),
        (fake, fake_labels[:2], real, real_labels),
        (fake, fake_labels, real[:1], real_labels),
        (fake, fake_labels, real[..., :2], real_labels),
        (fake, fake_labels, real[:, :0], real_labels[:0]),
        (fake, fake_labels, real.float(), real_labels),
    ]:
        with refuses("contrast: shapes", "(K, M, D)"):
            contrast(*wrong, classes, temperature=1.0)
    for temperature in (0.0, -1.0, math.nan):
        with refuses("temperature", "above 0"):
            contrast(fake, fake_labels, real, real_labels, classes, temperature=temperature)
    with refuses("critic", "'softmax'", "infonce"):
        contrast(fake, fake_labels, real, real_labels, classes, temperature=1.0, critic="softmax")

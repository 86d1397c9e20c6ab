"""The ops of ddcore.kernels: the references are the published formulas; Triton's kernels equal them and load only when needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import grad, gradcheck, gradgradcheck

from ddcore.kernels.class_means import class_mean_distance_reference
from ddcore.kernels.root import root
from ddcore.kernels.row_cosine import row_cosine_distance, row_cosine_distance_reference
from ddcore.kernels.statistics import (
    channel_moments,
    channel_moments_explicit,
    channel_moments_reference,
    statistics_loss,
)
from ddcore.random import stream

HERE = Path(__file__).parent


def draw(name: str, *shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=stream(0, "kernels", name), dtype=torch.float64).to(dtype)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=3))
def test_row_cosine_distance_is_the_sum_over_rows(shapes):
    real, fake = ([draw(f"{side}{i}", *shape) for i, shape in enumerate(shapes)] for side in ("real", "fake"))
    by_hand = sum(
        1 - a @ b / (a.norm() * b.norm() + 1e-6)
        for side in zip(real, fake, strict=True)
        for a, b in zip(*(layer.flatten(0, 1) for layer in side), strict=True)
    )
    torch.testing.assert_close(row_cosine_distance(real, fake), by_hand, rtol=1e-12, atol=1e-12)


def test_row_cosine_distance_is_twice_differentiable_in_both_arguments():
    layers = [draw(f"layer{i}", 2, 2, width).requires_grad_() for i, width in enumerate((3, 1, 3, 1))]
    assert gradcheck(lambda *layers: row_cosine_distance_reference(layers[:2], layers[2:]), layers)
    assert gradgradcheck(lambda *layers: row_cosine_distance_reference(layers[:2], layers[2:]), layers)


def test_row_cosine_distance_at_zero_rows_has_the_slope_of_a_over_epsilon_and_finite_derivatives():
    real, fake = draw("real", 1, 3, 4), draw("fake", 1, 3, 4)
    real[0, 1] = fake[0, 0] = fake[0, 1] = 0
    real.requires_grad_(), fake.requires_grad_()
    once = grad(row_cosine_distance([real], [fake]), (real, fake), create_graph=True)
    torch.testing.assert_close(once[1][0, 0], -real[0, 0] / 1e-6)
    assert not once[1][0, 1].any()
    assert all(
        torch.isfinite(second).all() for second in grad(sum((one * one).sum() for one in once), (real, fake))
    )


def test_a_root_has_all_derivatives_zero_at_zero():
    x = torch.tensor([0.0, 4.0], dtype=torch.float64, requires_grad=True)
    (once,) = grad(root(x).sum(), x, create_graph=True)
    (twice,) = grad(once.sum(), x)
    assert (root(x).tolist(), once.tolist(), twice.tolist()) == ([0, 2], [0, 0.25], [0, -1 / 32])


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.lists(st.integers(1, 4), max_size=3))
def test_group_j_is_the_jth_image_of_every_class(classes, groups, channels, space):
    x = draw("x", classes * groups, channels, *space)
    mean, var = channel_moments(x, groups)
    for j in range(groups):
        rows = torch.stack([x[label * groups + j] for label in range(classes)], 1).flatten(1)
        torch.testing.assert_close(mean[j], rows.mean(1), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(var[j], rows.var(1, correction=0), rtol=1e-12, atol=1e-12)


def test_statistics_loss_is_the_sum_of_norms():
    x, mean, var = draw("x", 6, 4, 3, 2), draw("mean", 4), draw("var", 4).square()
    by_hand = sum(
        (part.mean((0, 2, 3)) - mean).norm() + 0.01 * (part.var((0, 2, 3), correction=0) - var).norm()
        for part in (x[::2], x[1::2])
    )
    torch.testing.assert_close(
        statistics_loss(x, mean, var, groups=2, r_var=0.01), by_hand, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(("shape", "groups"), [((4, 3, 2, 1), 2), ((3, 2), 1)])
def test_statistics_are_twice_differentiable(shape, groups):
    x, mean, var = draw("x", *shape).requires_grad_(), draw("mean", shape[1]), draw("var", shape[1]).square()
    for op in (
        lambda x: channel_moments_reference(x, groups),
        lambda x: statistics_loss(x, mean, var, groups, 0.5, moments=channel_moments_reference),
    ):
        assert gradcheck(op, x)
        assert gradgradcheck(op, x)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.lists(st.integers(1, 4), max_size=3))
def test_the_explicit_gradient_of_the_moments_is_that_of_the_reference(classes, groups, channels, space):
    x = draw("x", classes * groups, channels, *space).requires_grad_()
    weights = draw("weights", 2, groups, channels)
    found = [op(x, groups) for op in (channel_moments_explicit, channel_moments_reference)]
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    ours, theirs = (grad((torch.stack(moments) * weights).sum(), x)[0] for moments in found)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_the_explicit_gradient_is_of_the_type_of_x_keeps_little_and_has_no_derivative():
    x, kept = draw("x", 4, 3, 5, 6, dtype=torch.bfloat16).requires_grad_(), {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda one: kept.setdefault(one.untyped_storage().data_ptr(), one), lambda one: one
    ):
        mean, var = channel_moments(x, 2)
    assert (
        sum(one.untyped_storage().nbytes() for one in kept.values())
        <= x.untyped_storage().nbytes() + mean.untyped_storage().nbytes()
    )
    ours, theirs = (
        grad(moments[1].sum(), x)[0] for moments in ((mean, var), channel_moments_reference(x, 2))
    )
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs)
    with pytest.raises(NotImplementedError, match="channel_moments_explicit has no second derivative"):
        grad(channel_moments(x)[1].sum(), x, create_graph=True)


def test_statistics_loss_at_equality_has_derivatives_zero():
    x = draw("x", 4, 3, 2, 2).requires_grad_()
    mean, var = (moment[0].detach() for moment in channel_moments_reference(x))
    (once,) = grad(statistics_loss(x, mean, var, moments=channel_moments_reference), x, create_graph=True)
    assert not once.any()
    assert not grad(once.sum(), x)[0].any()


def test_class_mean_distance_has_a_gradient_for_both_sides():
    fake, real = draw("fake", 5, 3).requires_grad_(), draw("real", 4, 3).requires_grad_()
    labels, others = torch.tensor([2, 0, 2, 1, 1]), torch.tensor([0, 2, 2, 0])
    assert gradcheck(lambda x, y: class_mean_distance_reference(x, labels, y, others, 4), (fake, real))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_losses_are_at_least_float32(dtype):
    x, labels, wide = (
        draw("x", 4, 3, 2, dtype=dtype),
        torch.arange(4),
        torch.promote_types(dtype, torch.float32),
    )
    losses = (
        row_cosine_distance([x], [x + 1]),
        class_mean_distance_reference(x[:, 0], labels, x[:, 1], labels, 4),
        *channel_moments(x, 2),
    )
    assert {loss.dtype for loss in losses} == {wide}


def test_ill_shapes_are_refused(refuses):
    x = draw("x", 4, 3, 2)
    with refuses("row_cosine_distance", "(4, 3, 2)", "(4, 3, 1)", "equal shapes"):
        row_cosine_distance([x], [x[..., :1]])
    with refuses("row_cosine_distance", "not empty"):
        row_cosine_distance([], [])
    for wrong, groups in ((x, 3), (x, 0), (x[0, 0], 1), (x[:0], 1)):
        with refuses("channel_moments", tuple(wrong.shape), f"in {groups} groups", "multiple"):
            channel_moments(wrong, groups)


def test_ddcore_does_not_import_triton():
    program = (
        "import ddcore, sys, ddcore.kernels.contrast, ddcore.kernels.row_cosine, ddcore.kernels.statistics\n"
        "sys.exit(int('triton' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_under_torch_compile_the_moments_are_one_graph():
    """On a GPU that is not here: its compiler can't look into a kernel."""
    graphs = []
    with FakeTensorMode():
        x = torch.empty(4, 3, 8, 8, device="cuda", requires_grad=True)
        torch.compile(
            lambda x: statistics_loss(x, x[0, :, 0, 0], x[1, :, 0, 0], 2),
            fullgraph=True,
            backend=lambda graph, inputs: graphs.append(graph) or graph,
        )(x)
    assert len(graphs) == 1


def test_triton_kernels_equal_the_references_in_the_interpreter():
    """In a process of its own: the variable has to be set before Triton is imported and changes all of its functions."""
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")} | {
        "TRITON_INTERPRET": "1"
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        HERE / "test_kernels_triton.py",
    ]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, cwd=HERE.parent)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed" in run.stdout
    assert "skipped" not in run.stdout

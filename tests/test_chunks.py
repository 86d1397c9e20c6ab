"""Images pass a network in chunks: the loss, the image gradient and what plugins read are those of all at once, whatever the chunk."""

import dataclasses
import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ddcore
from ddcore import compute, networks
from ddcore.data import Dataset
from ddcore.evaluation import Protocol
from ddcore.methods import match as contract
from ddcore.methods import squeeze, unrolling
from ddcore.optim import training
from ddcore.random import stream

WHOLE = 10**6
FEW = {"width": 4, "batch_real": 6}
TEACHER = ddcore.Squeeze(network="convnet1-bn", width=3, epochs=1, batch=8, crop=1)
EXPERTS = ddcore.Experts(network="convnet1", width=3, experts=1, epochs=2, lr=0.05)
METHODS = {"dm": ddcore.DM(network="convnet1", **FEW), "dc": ddcore.DC(network="convnet1", **FEW),
           "dc of an mlp": ddcore.DC(network="mlp", **FEW), "dsa": ddcore.DSA(network="convnet1", **FEW),
           "dc, statistics held": ddcore.DC(network="convnet1-nonorm", **FEW),
           "mtt": ddcore.MTT(experts=EXPERTS, expert_epochs=1, max_start_epoch=1, syn_steps=3, batch_real=5),
           "tesla": ddcore.MTT(experts=EXPERTS, expert_epochs=1, max_start_epoch=1, syn_steps=3, batch_real=5, gradient="tesla"),
           "sre2l": ddcore.SRe2L(teacher=TEACHER, batch_real=5)}  # fmt: skip
PLUGINS = {"none": (), "mim": (ddcore.MutualInformation(width=5),), "mim, infonce": (ddcore.MutualInformation(width=5, critic="infonce"),),
           "dwa": (ddcore.WeightAdjustment(rho=0.3, steps=2),)}  # fmt: skip

pytestmark = pytest.mark.usefixtures("teachers")


@pytest.fixture(scope="module")
def unequal() -> Dataset:
    """Three classes of 4, 9 and 13 images in float64: one has fewer than a batch."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat_interleave(torch.tensor([4, 9, 13]))
    x = torch.randn(len(y), 3, 8, 6, generator=generator, dtype=torch.float64)
    return Dataset("unequal", x, y, x[::2], y[::2], (0.5,) * 3, (0.25,) * 3, "0" * 64, ("a", "b", "c"))


def found(data, method, plugins, chunk, ipc, soft):
    """Loss, plugins' terms and the gradients of both in what is stored."""
    how = {"step": 0.02} if isinstance(method, ddcore.MTT) else {}
    how |= {"soft": 2.0} if soft else {}
    synthetic = ddcore.Pixels(data, ipc, **how)
    method = dataclasses.replace(method, chunk=chunk)
    adjusting = [plugin for plugin in plugins if hasattr(plugin, "adjust")]
    look = adjusting[0].adjust if adjusting else contract.unadjusted
    reads = [plugin.read for plugin in plugins if hasattr(plugin, "read")]
    match = next(method.matches(data, synthetic, seed=1, look=look, memory={}, reads=reads))
    terms = [match.loss, *(plugin.loss(match, {}) for plugin in plugins if hasattr(plugin, "loss"))]
    gradients = [
        torch.autograd.grad(term, synthetic.parameters(), retain_graph=True, allow_unused=True)
        for term in terms
    ]
    return [
        *(term.detach() for term in terms),
        *(one for each in gradients for one in each if one is not None),
        *match.real_features,
        *(one.detach() for one in match.synthetic_features),
    ]


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("name", METHODS)
def test_any_chunk_is_the_whole(unequal, name, plugin):
    if (name, plugin) == ("dc of an mlp", "dwa"):
        pytest.skip("an MLP of one block and no norm: nothing that the others do not have")

    @given(st.integers(1, 9), st.sampled_from([1, 3]), st.booleans())
    def check(chunk, ipc, soft):
        soft = soft and ipc > 1 and (name.startswith("dc") or name in ("dsa", "mtt", "tesla"))
        whole, parts = (
            found(unequal, METHODS[name], PLUGINS[plugin], size, ipc, soft) for size in (WHOLE, chunk)
        )
        assert len(whole) == len(parts)
        for ours, theirs in zip(parts, whole, strict=True):
            assert float((ours - theirs).abs().max()) <= 1e-12 * max(1.0, float(theirs.abs().max()))

    check()


def test_no_network_sees_more_images_than_a_chunk(unequal, monkeypatch):
    """In every method and plugin, on either side, in training and evaluation."""
    monkeypatch.setattr(
        compute, "chunk", lambda network, shape, given=None, whole=1, compiled=False: max(5, whole)
    )
    most = []
    before = networks.Network.features
    monkeypatch.setattr(networks.Network, "features", lambda self, x: most.append(len(x)) or before(self, x))
    for name, method in METHODS.items():
        for plugins in PLUGINS.values():
            squeeze.squeeze(unequal, TEACHER)
            found(unequal, method, plugins, None, 3, False)
            most.clear()
            found(unequal, method, plugins, None, 3, False)
            assert max(most) <= 5, (name, plugins)


@pytest.mark.parametrize("network", ["convnet1", "mlp", "convnet1-nonorm"])
def test_a_training_step_in_parts_is_the_whole_step(unequal, network):
    net = networks.build(network, unequal.shape, 3, width=4, dtype=torch.float64, generator=stream(0, "net"))
    targets = torch.rand(26, 3, dtype=torch.float64, generator=stream(0, "t")).softmax(1)
    whole, *parts = (
        training.gradient(net, list(net.parameters()), unequal.x_train, training.cross_entropy(targets), size)
        for size in (26, 1, 5, 7, 25)
    )
    for part in parts:
        for ours, theirs in zip(part, whole, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_batch_norms_in_training_are_not_parted(unequal):
    """The statistics of a batch are those of all of it."""
    net = networks.build(
        "convnet1-bn", unequal.shape, 3, width=4, dtype=torch.float64, generator=stream(0, "net")
    )
    assert not compute.divisible(net.train())
    assert compute.divisible(net.eval())
    assert training.images_at_once(net.train(), unequal.shape, 26) >= 26
    match = next(
        ddcore.DM(network="convnet1-bn", chunk=2, **FEW).matches(unequal, ddcore.Pixels(unequal, 2), seed=1)
    )
    whole = next(ddcore.DM(network="convnet1-bn", **FEW).matches(unequal, ddcore.Pixels(unequal, 2), seed=1))
    assert torch.equal(match.loss, whole.loss)


def test_the_evaluation_is_the_same_in_parts(unequal, monkeypatch):
    images, how = unequal.x_train[::2], Protocol(network="convnet1", width=4, epochs=3, batch=9)

    def trained(budget):
        monkeypatch.setitem(compute.BUDGET, "cpu", budget)
        (net,) = how.train(images, unequal.y_train[::2], unequal, (0,))
        return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])

    torch.testing.assert_close(trained(1), trained(2**30), rtol=1e-12, atol=1e-14)


@given(st.integers(1, 400), st.integers(1, 100))
def test_even_parts_cover_everything_once_and_are_not_too_large(count, most):
    size = compute.evenly(count, most)
    rows = [row for part in compute.slices(count, size) for row in range(part.start, part.stop)]
    assert rows == list(range(count))
    assert size <= most
    assert size == count or size > most // 2


def test_one_image_is_counted_without_its_parameters_and_leaves_the_network_as_it_is():
    """A convolution keeps its input of 8 x 8, the pooling its 2 x 8 x 8 rectified ones, the classifier its own."""
    net = networks.build("convnet1-nonorm", (1, 8, 8), 10, width=2, generator=stream(0, "net"))
    state, mode = {name: tensor.clone() for name, tensor in net.state_dict().items()}, net.training
    pooled = 2 * 4 * 4
    assert compute.activation_bytes(net, (1, 8, 8)) == 4 * (64 + 2 * 64 + pooled)
    assert net.training == mode
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in state.items())
    norm = networks.build("convnet1-bn", (1, 8, 8), 10, width=2, generator=stream(0, "net")).train()
    compute.activation_bytes(norm, (1, 8, 8))
    assert float(norm.blocks[0][1].running_mean.abs().max()) == 0


def test_the_chunk_depends_on_the_network_and_the_budget_alone(monkeypatch):
    small, large = (
        networks.build("convnet", (3, 32, 32), 10, width=width, generator=stream(0, "net"))
        for width in (64, 128)
    )
    assert (compute.chunk(small, (3, 32, 32)), compute.chunk(large, (3, 32, 32))) == (64, 32)
    assert [compute.chunk(net, (3, 32, 32), compiled=True) for net in (small, large)] == [32, 16]
    monkeypatch.setitem(compute.BUDGET, "cpu", 1)
    assert compute.chunk(large, (3, 32, 32)) == 1
    assert compute.chunk(large, (3, 32, 32), 7) == 7
    assert compute.chunk(large, (3, 32, 32), 7, whole=9) == 9


def test_too_little_memory_is_said_before_anything_runs(unequal, monkeypatch, refuses):
    monkeypatch.setattr(compute, "free_bytes", lambda at: 1000)
    for method in (METHODS["dm"], METHODS["dc"], METHODS["sre2l"]):
        with refuses("GiB free", "cpu", "images of 3x8x6"):
            next(method.matches(unequal, ddcore.Pixels(unequal, 1), seed=0))


def test_a_chunk_is_computed_again_where_its_tape_would_have_to_wait(monkeypatch):
    """More than HELD chunks: the forward pass of each runs twice, and only one tape lives at a time."""
    net = networks.build("mlp", (1, 4, 4), 3, width=2, dtype=torch.float64, generator=stream(0, "net"))
    calls = []

    def features(x):
        calls.append(len(x))
        return net.features(x)

    x = torch.randn(
        2 * (compute.HELD + 1), 1, 4, 4, dtype=torch.float64, generator=stream(0, "x"), requires_grad=True
    )
    ours = compute.in_chunks(features, x, 2)[-1]
    assert calls == [2] * (compute.HELD + 1)
    (gradient,) = torch.autograd.grad(ours.square().sum(), x)
    assert calls == [2] * 2 * (compute.HELD + 1)
    (expected,) = torch.autograd.grad(net.features(x)[-1].square().sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def test_unrolled_and_adjoint_agree_for_parts_of_any_size(unequal):
    generator = stream(0, "test")
    x, y = unequal.x_train[:7].clone().requires_grad_(), unequal.y_train[:7]
    weight = torch.randn(3, x[0].numel(), generator=generator, dtype=torch.float64)
    steps = [
        unrolling.Step(
            torch.randperm(7, generator=generator)[:5], ddcore.augment.draw("none", 1, generator, each=5)
        )
        for _ in range(3)
    ]
    alpha = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def forward(flat, images):
        return images.flatten(1).tanh() @ flat.view_as(weight).T

    def gradients(function):
        loss, last = function(
            forward, weight.flatten(), torch.zeros_like(weight).flatten(), x, y, alpha, steps
        )
        return loss.detach(), last, *torch.autograd.grad(loss, (x, alpha))

    expected = gradients(unrolling.unrolled)
    for size in (1, 2, 3, 4, 9):
        for ours, theirs in zip(
            gradients(functools.partial(unrolling.adjoint, size=size)), expected, strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-14)

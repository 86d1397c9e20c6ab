"""DC and DSA: all classes in one explicit pass are the published loop over classes, in loss and image gradient."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import ddcore
from ddcore import augment, networks
from ddcore.bench.published import dc_per_class
from ddcore.kernels.row_cosine import row_cosine_distance
from ddcore.kernels.weight_gradients import BACKENDS, class_weight_gradients
from ddcore.methods import class_gradients
from ddcore.methods.gradient import loops
from ddcore.random import stream

SETS = {
    "pixels": lambda data: ddcore.Pixels(data, 3),
    "one image": lambda data: ddcore.Pixels(data, 1),
    "lowrank": lambda data: ddcore.LowRank(data, 2, rank=1),
    "soft labels": lambda data: ddcore.Pixels(data, 3, soft=2.0),
}


def agree(ours, theirs):
    """Equal to 1e-12 of the largest entry, tensor by tensor."""
    for one, other in zip(ours, theirs, strict=True):
        assert float((one - other).detach().abs().max()) <= 1e-12 * float(other.detach().abs().max())


def published(match, data, synthetic, method, seed):
    index = data.sample(method.batch_real, stream(seed, "dc", "real", match.step))
    drawn = augment.draw(method.strategy, data.classes, stream(seed, "dc", "augment", match.step))
    return dc_per_class(
        match.network,
        drawn,
        data.x_train[index],
        data.y_train[index],
        synthetic.images(),
        synthetic.targets(),
        10,
    )


@pytest.mark.parametrize("network", ["convnet", "convnet-bn", "convnet-nonorm", "mlp"])
@pytest.mark.parametrize("make", SETS)
@pytest.mark.parametrize("strategy", ["none", augment.DSA])
def test_one_pass_equals_the_loop_over_classes(digits64, make, strategy, network):
    synthetic = SETS[make](digits64)
    method = ddcore.DC(network=network, width=6, batch_real=7, strategy=strategy)
    match = next(method.matches(digits64, synthetic, seed=3, start=0))
    expected = published(match, digits64, synthetic, method, 3)
    agree([match.loss], [expected])
    agree(
        torch.autograd.grad(match.loss, synthetic.parameters()),
        torch.autograd.grad(expected, synthetic.parameters()),
    )


@given(st.data())
def test_every_back_end_is_the_definition_for_classes_of_unequal_size(data):
    sizes = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    channels, height, width = (
        data.draw(st.sampled_from([1, 3])),
        data.draw(st.integers(8, 12)),
        data.draw(st.integers(8, 12)),
    )
    norm = data.draw(st.sampled_from(["", "-bn", "-nonorm"]))
    generator = stream(data.draw(st.integers(0, 99)), "test")
    net = networks.build(
        f"convnet2{norm}",
        (channels, height, width),
        len(sizes),
        width=4,
        dtype=torch.float64,
        generator=generator,
    ).eval()
    sides = [
        torch.randn(sum(sizes), channels, height, width, generator=generator, dtype=torch.float64)
        for _ in range(2)
    ]
    targets = (
        torch.randn(sum(sizes), len(sizes), generator=generator, dtype=torch.float64)
        .softmax(1)
        .requires_grad_()
    )
    images = sides[1].requires_grad_()
    plan, numbers = class_gradients.layers(net), [tensor.detach() for tensor in class_gradients.tensors(net)]

    share = torch.rand(sum(sizes), generator=generator, dtype=torch.float64)

    def loss(function):
        (real, _), (fake, features) = function(sides[0], targets.detach()), function(images, targets)
        return (
            (distance := row_cosine_distance(real, fake)),
            *torch.autograd.grad(distance, (images, targets)),
            *features,
        )

    expected = loss(lambda x, t: class_gradients.by_autograd(net, x, t, share, sizes, together=False))
    agree(loss(lambda x, t: class_gradients.by_autograd(net, x, t, share, sizes, together=True)), expected)
    for backend in BACKENDS:
        agree(
            loss(
                lambda x, t, one=backend: class_gradients.explicit(
                    plan, numbers, x, t, share, sizes, backend=one
                )
            ),
            expected,
        )


@pytest.mark.parametrize("sizes", [(1, 2), (2, 2)])
def test_a_channel_of_zeros_beside_a_single_one_changes_nothing(monkeypatch, sizes):
    """What is compiled for a CPU, in float64 and uncompiled."""
    generator = stream(0, "test")
    net = networks.build("convnet2", (1, 9, 8), 2, width=4, dtype=torch.float64, generator=generator)
    images = torch.randn(sum(sizes), 1, 9, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(sum(sizes), 2, generator=generator, dtype=torch.float64).softmax(1)
    plan, numbers = class_gradients.layers(net), [tensor.detach() for tensor in class_gradients.tensors(net)]

    def everything():
        found, features = class_gradients.explicit(
            plan, numbers, images, targets, torch.ones(sum(sizes), dtype=torch.float64), sizes
        )
        scalar = sum(one.square().sum() for one in (*found, *features, net(images)))
        return (
            *found,
            *features,
            net(images),
            *torch.autograd.grad(scalar, (images, *class_gradients.weights(net).values())),
        )

    plain = everything()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    shapes = []
    monkeypatch.setattr(
        networks.Convolution,
        "_conv_forward",
        lambda self, x, *given: shapes.append(x.shape[1]) or F.conv2d(x, *given, padding=self.padding),
    )
    agree(everything(), plain)
    assert set(shapes) == {2, 4}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (3, 3), (1, 2)])
def test_weight_gradients_are_differentiated_in_both_arguments(backend, padding):
    generator = stream(0, "test")
    x = torch.randn(4, 2, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    delta = torch.randn(
        4,
        3,
        3 + 2 * padding[0],
        4 + 2 * padding[1],
        generator=generator,
        dtype=torch.float64,
        requires_grad=True,
    )
    how = {"kernel": (3, 3), "padding": padding, "backend": backend}
    assert torch.autograd.gradcheck(
        lambda x, delta: class_weight_gradients(x, delta, (2, 2), **how), (x, delta)
    )


def test_every_back_end_gives_the_same_match(digits):
    synthetic = ddcore.Pixels(digits, 2)
    losses = [
        float(
            next(
                ddcore.DC(width=4, batch_real=5, weight_gradients=name).matches(digits, synthetic, seed=0)
            ).loss.detach()
        )
        for name in ("auto", *BACKENDS)
    ]
    assert losses == pytest.approx([losses[1]] * 4, rel=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_and_rounded_steps_are_close_to_the_exact_one(digits):
    synthetic = ddcore.Pixels(digits, 2)

    def gradient(**how):
        match = next(ddcore.DC(width=8, batch_real=8, **how).matches(digits, synthetic, seed=0))
        return torch.autograd.grad(match.loss, synthetic.parameters())[0]

    exact = gradient()
    assert float((gradient(compiled=True) - exact).norm() / exact.norm()) < 1e-3
    assert float(F.cosine_similarity(gradient(precision="bfloat16").flatten(), exact.flatten(), dim=0)) > 0.9


@pytest.mark.parametrize(
    ("ipc", "expected"),
    [(1, (1, 1)), (7, (1, 1)), (10, (10, 50)), (49, (40, 15)), (50, (50, 10)), (200, (50, 10))],
)
def test_loops_by_nominal_ipc(ipc, expected):
    assert loops(ipc) == expected


def test_between_two_updates_the_network_is_trained_on_the_set_by_sgd(digits64):
    synthetic = ddcore.Pixels(digits64, 2)
    method = ddcore.DC(width=4, batch_real=5, outer=3, inner=4, lr_net=0.05)
    matches = method.matches(digits64, synthetic, seed=1)
    first = {name: tensor.clone() for name, tensor in next(matches).network.state_dict().items()}
    net = networks.build(
        "convnet", digits64.shape, 10, width=4, dtype=torch.float64, generator=stream(9, "any")
    )
    net.load_state_dict(first)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(4):
        optimiser.zero_grad()
        F.cross_entropy(net(synthetic.images().detach()), synthetic.labels).backward()
        optimiser.step()
    for name, tensor in next(matches).network.state_dict().items():
        torch.testing.assert_close(tensor, net.state_dict()[name], rtol=1e-10, atol=1e-12)
    ones = torch.ones(4, dtype=torch.float64)
    assert not torch.equal(next(matches).network.blocks[0][1].weight, ones)
    assert torch.equal(next(matches).network.blocks[0][1].weight, ones), (
        "a new outer iteration draws a new network"
    )


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
@pytest.mark.parametrize("method", [ddcore.DC, ddcore.DSA])
def test_a_resumed_run_is_the_same_bit_for_bit_within_an_outer_iteration(digits, method, stop, tmp_path):
    method = method(width=4, batch_real=5, outer=3, inner=2)
    whole, cut = ddcore.Pixels(digits, 2), ddcore.Pixels(digits, 2)
    expected = ddcore.distill(digits, whole, method, steps=7, lr_img=0.1)

    class Stop(Exception):
        pass

    def at(step, loss):
        if step == stop + 1:
            raise Stop

    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(Stop):
        ddcore.distill(
            digits, cut, method, steps=7, lr_img=0.1, checkpoint=checkpoint, every_seconds=0, progress=at
        )
    again = ddcore.Pixels(digits, 2)
    trace = ddcore.distill(digits, again, method, steps=7, lr_img=0.1, checkpoint=checkpoint)
    assert trace.resumed == stop
    assert trace.losses == expected.losses
    assert torch.equal(again.images(), whole.images())


def test_a_network_that_is_at_the_step_already_is_not_trained_again(digits):
    """What a run leaves that stopped between a match and its update, as one that diverged does."""
    method, synthetic, memory = (
        ddcore.DC(width=4, batch_real=5, outer=3, inner=2),
        ddcore.Pixels(digits, 2),
        {},
    )
    first = list(itertools.islice(method.matches(digits, synthetic, seed=0, memory=memory), 3))[1:]
    assert int(memory["step"]) == 2
    kept = {name: tensor.clone() for name, tensor in memory.items()}
    again = next(method.matches(digits, synthetic, seed=0, start=2, memory=kept))
    assert float(again.loss.detach()) == float(first[-1].loss.detach())


def test_batch_norm_holds_the_statistics_of_real_images(digits):
    match = next(
        ddcore.DC(network="convnet-bn", width=4, batch_real=5).matches(
            digits, ddcore.Pixels(digits, 2), seed=0
        )
    )
    norm = match.network.blocks[0][1]
    assert not norm.training
    assert not torch.equal(norm.running_mean, torch.zeros(4))


def test_dsa_is_dc_with_siamese_augmentation(digits64):
    synthetic = ddcore.Pixels(digits64, 2)
    dsa, dc = (
        next(method.matches(digits64, synthetic, seed=0))
        for method in (
            ddcore.DSA(width=4, batch_real=5),
            ddcore.DC(width=4, batch_real=5, strategy=augment.DSA),
        )
    )
    assert float(dsa.loss.detach()) == float(dc.loss.detach())
    plain = next(ddcore.DC(width=4, batch_real=5).matches(digits64, synthetic, seed=0))
    assert float(plain.loss.detach()) != float(dsa.loss.detach())


def test_dc_beats_random_real_images(digits):
    synthetic = ddcore.Pixels(digits, 1)
    ddcore.distill(digits, synthetic, ddcore.DC(width=16, batch_real=32), steps=40, lr_img=1.0)
    scores = ddcore.evaluate(
        synthetic, digits, seeds=(0, 1), controls=["random"], width=16, epochs=60, strategy="none"
    )
    assert scores.mean > scores.controls["random"].mean + 5


def test_the_features_of_the_match_are_those_of_its_network(digits64):
    for network in ("convnet", "mlp"):
        match = next(
            ddcore.DC(network=network, width=4, batch_real=5).matches(
                digits64, ddcore.Pixels(digits64, 2), seed=0
            )
        )
        agree(match.synthetic_features, match.network.features(match.synthetic))
        agree(match.real_features, match.network.features(match.real))
        assert not any(feature.requires_grad for feature in match.real_features)


@pytest.mark.parametrize(("settings", "words"), [
    ({"batch_real": 0}, ("batch_real=0",)), ({"outer": 0}, ("outer=0",)), ({"strategy": "zoom"}, ("zoom",)),
    ({"weight_gradients": "fast"}, ("'fast'", "calls")), ({"precision": "half"}, ("half",)), ({"lr_net": -1.0}, ("lr_net",)),
])  # fmt: skip
def test_bad_settings_are_refused(refuses, settings, words):
    with refuses("DC", *words) if "strategy" not in settings else refuses(*words):
        ddcore.DC(**settings)


def test_bad_uses_are_refused(digits, refuses):
    with refuses("torch.compile", "mlp", "convnet"):
        next(
            ddcore.DC(network="mlp", batch_real=5, compiled=True).matches(
                digits, ddcore.Pixels(digits, 1), seed=0
            )
        )
    with refuses("DM", "soft"):
        ddcore.distill(digits, ddcore.Pixels(digits, 2, soft=1.0), ddcore.DM(width=4, batch_real=5), steps=1)


def test_the_global_generators_stay_untouched(digits, untouched):
    list(
        itertools.islice(
            ddcore.DSA(width=4, batch_real=5, outer=2, inner=1).matches(
                digits, ddcore.Pixels(digits, 1), seed=0
            ),
            2,
        )
    )

"""SRe2L's recover: all batches in one pass are the published loop over batches, in loss, image gradient and trajectory."""

import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.functional import resized_crop

import ddcore
from ddcore import networks
from ddcore.augment import crops
from ddcore.bench.published import recover_published
from ddcore.kernels.statistics import statistics_loss
from ddcore.methods import batch_norms
from ddcore.methods.squeeze import Squeeze, squeeze
from ddcore.networks import Network
from ddcore.random import stream
from ddcore.settings import stated

TINY = Squeeze(network="convnet2-bn", width=6, epochs=2, crop=1, flip=False)
ADAM = {"optimiser": "adam", "lr_img": 0.25, "momentum": 0.5, "schedule": "cosine"}

pytestmark = pytest.mark.usefixtures("teachers")


def sets(data):
    return [
        ddcore.Pixels(data, 1, init="noise"),
        ddcore.Pixels(data, 3, init="noise"),
        ddcore.LowRank(data, 2, rank=1),
    ]


def published_loss(network, images, labels, r_bn=0.01, r_var=1.0, first_bn=10.0):
    """The loss of one batch as the published code has it: forward hooks, a permuted contiguous copy, norms by torch.norm."""
    found, handles = [], []

    def hook(module, inputs, output):
        x = inputs[0]
        mean = x.mean([0, 2, 3])
        var = x.permute(1, 0, 2, 3).contiguous().view([x.shape[1], -1]).var(1, unbiased=False)
        found.append(
            r_var * torch.norm(module.running_var.data - var, 2)
            + torch.norm(module.running_mean.data - mean, 2)
        )

    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            handles.append(module.register_forward_hook(hook))
    outputs = network(images)
    for handle in handles:
        handle.remove()
    rescale = [first_bn] + [1.0 for _ in range(len(found) - 1)]
    return torch.nn.CrossEntropyLoss()(outputs, labels) + r_bn * sum(
        one * weight for one, weight in zip(found, rescale, strict=True)
    )


def rolled_shifts(seed, step, many, roll):
    return torch.randint(roll + 1, (many, 2), generator=stream(seed, "sre2l", "roll", step)).tolist()


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("network", ["convnet2-bn", "resnet18-bn"])
def test_one_pass_equals_the_published_batches_one_by_one(digits64, which, network):
    synthetic = sets(digits64)[which]
    teacher = dataclasses.replace(TINY, network=network, width=4, epochs=1)
    method = ddcore.SRe2L(teacher=teacher, roll=3, r_bn=0.1, r_var=2.0, first_bn=7.0)
    match = next(method.matches(digits64, synthetic, seed=3, start=5))
    expected = 0.0
    for batch, shift in enumerate(rolled_shifts(3, 5, synthetic.per_class, 3)):
        rows = torch.roll(synthetic.images()[batch :: synthetic.per_class], shift, (2, 3))
        expected = expected + published_loss(
            squeeze(digits64, teacher), rows, torch.arange(10), 0.1, 2.0, 7.0
        )
    assert match.loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(match.loss, synthetic.parameters()),
        torch.autograd.grad(expected, synthetic.parameters()),
        strict=True,
    ):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-12


@pytest.mark.parametrize("ipc", [1, 3])
def test_the_trajectory_is_that_of_the_published_loop(digits64, ipc):
    synthetic = ddcore.Pixels(digits64, ipc, init="noise", clip=True)
    start = synthetic.images().detach().clone()
    trace = ddcore.distill(digits64, synthetic, ddcore.SRe2L(teacher=TINY, roll=2), steps=12, seed=4, **ADAM)
    mean, std = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (digits64.mean, digits64.std)
    )
    expected, losses = recover_published(
        [squeeze(digits64, TINY)] * ipc,
        start,
        classes=10,
        steps=12,
        low=-mean / std,
        high=(1 - mean) / std,
        shift=lambda batch, step: tuple(rolled_shifts(4, step, ipc, 2)[batch]),
    )
    torch.testing.assert_close(synthetic.images().detach(), expected, rtol=0, atol=1e-12)
    assert trace.losses == pytest.approx([sum(one) for one in zip(*losses, strict=True)], rel=1e-12)
    assert not torch.equal(start, expected)


def test_batches_do_not_see_each_other(digits64):
    synthetic = ddcore.Pixels(digits64, 3, init="noise")
    method = ddcore.SRe2L(teacher=TINY)

    def gradient():
        match = next(method.matches(digits64, synthetic, seed=0, start=0))
        return torch.autograd.grad(match.loss, synthetic.parameters())[0]

    before = gradient()
    with torch.no_grad():
        synthetic.tensors["pixels"][1::3] += 1
    moved = (gradient() - before).abs().amax((1, 2, 3)).view(10, 3).amax(0)
    assert moved[1] > 1e-3
    assert float(moved[[0, 2]].max()) < 1e-12


def test_the_teacher_is_bitwise_unchanged_and_asks_for_no_gradient(digits64):
    before = squeeze(digits64, TINY).state_dict()
    seen = []

    class Watch:
        def adjust(self, network, batch, labels, generator):
            seen.append(network)
            return network

    ddcore.distill(
        digits64, ddcore.Pixels(digits64, 2), ddcore.SRe2L(teacher=TINY), plugins=[Watch()], steps=3, **ADAM
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in seen[-1].state_dict().items())
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in seen[-1].parameters())
    assert not any(
        module.training or module._forward_pre_hooks or module._forward_hooks for module in seen[-1].modules()
    )


def test_rolls_are_uniform_and_those_of_a_batch_do_not_depend_on_how_many_there_are(digits64):
    method = ddcore.SRe2L(teacher=TINY, roll=2)
    one, three = ddcore.Pixels(digits64, 1), ddcore.Pixels(digits64, 3)
    with torch.no_grad():
        three.tensors["pixels"][0::3] = one.tensors["pixels"]
    pairs = zip(method.matches(digits64, one, seed=1), method.matches(digits64, three, seed=1), strict=False)
    seen = set()
    for alone, among in itertools.islice(pairs, 60):
        assert torch.equal(alone.synthetic, among.synthetic[0::3])
        seen |= {
            shift
            for shift in itertools.product(range(-3, 4), repeat=2)
            if torch.equal(alone.synthetic, torch.roll(one.images(), shift, (2, 3)))
        }
    assert seen == set(itertools.product(range(3), repeat=2))


def test_without_a_roll_the_images_are_seen_as_they_are(digits64):
    synthetic = ddcore.Pixels(digits64, 2)
    match = next(ddcore.SRe2L(teacher=TINY, roll=0).matches(digits64, synthetic, seed=0))
    assert torch.equal(match.synthetic, synthetic.images())


def test_step_k_does_not_depend_on_where_the_run_began(digits64):
    method, synthetic = ddcore.SRe2L(teacher=TINY, batch_real=3), ddcore.Pixels(digits64, 2)
    late = next(method.matches(digits64, synthetic, seed=1, start=3))
    from_zero = next(itertools.islice(method.matches(digits64, synthetic, seed=1), 3, None))
    assert late.step == from_zero.step == 3
    assert torch.equal(late.loss, from_zero.loss)
    assert torch.equal(late.real, from_zero.real)


def test_real_features_are_there_when_asked_for_and_change_nothing(digits64):
    synthetic = ddcore.Pixels(digits64, 2)
    without = next(ddcore.SRe2L(teacher=TINY).matches(digits64, synthetic, seed=0))
    match = next(ddcore.SRe2L(teacher=TINY, batch_real=4).matches(digits64, synthetic, seed=0))
    assert without.real.shape == (0, 1, 8, 8)
    assert without.real_features == ()
    assert len(without.real_labels) == 0
    assert match.real_labels.bincount().tolist() == [4] * 10
    assert torch.equal(without.loss, match.loss)
    for features, images in ((match.real_features, match.real), (match.synthetic_features, match.synthetic)):
        for ours, theirs in zip(features, match.network.features(images), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert not any(feature.requires_grad for feature in match.real_features)
    assert all(feature.requires_grad for feature in match.synthetic_features)


class Borrowed(Network):
    """A network with the weights and statistics of another call: a functional copy."""

    def __init__(self, network, state):
        torch.nn.Module.__init__(self)
        self.network, self.state, self.classifier = [network], state, network.classifier

    def features(self, x):
        class Features(torch.nn.Module):
            def __init__(self, network):
                super().__init__()
                self.network = network

            def forward(self, x):
                return self.network.features(x)

        return torch.func.functional_call(
            Features(self.network[0]), {f"network.{name}": one for name, one in self.state.items()}, (x,)
        )


def test_a_plugins_functional_copy_is_looked_through_with_its_own_statistics(digits64):
    class Shift:
        def adjust(self, network, batch, labels, generator):
            state = {
                name: tensor * 1.1
                for name, tensor in network.state_dict().items()
                if tensor.is_floating_point()
            }
            return Borrowed(network, state)

    synthetic, method = ddcore.Pixels(digits64, 2), ddcore.SRe2L(teacher=TINY, roll=0)
    teacher = squeeze(digits64, TINY)
    changed = squeeze(digits64, TINY)
    state = {
        name: tensor * 1.1 for name, tensor in changed.state_dict().items() if tensor.is_floating_point()
    }
    changed.load_state_dict(state, strict=False)
    changed.classifier.load_state_dict(teacher.classifier.state_dict())
    match = next(method.matches(digits64, synthetic, seed=0, look=Shift().adjust))
    expected = sum(
        published_loss(changed, synthetic.images()[batch::2], torch.arange(10)) for batch in range(2)
    )
    assert match.loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_plugins_network_without_batch_norm_is_refused(digits64, refuses):
    bare = networks.build(
        "convnet2", digits64.shape, 10, width=4, dtype=torch.float64, generator=stream(0, "bare")
    )
    with refuses("SRe2L", "no batch norm"):
        next(
            ddcore.SRe2L(teacher=TINY).matches(
                digits64, ddcore.Pixels(digits64, 1), seed=0, look=lambda network, *others: bare
            )
        )


def test_every_batch_norm_is_recorded_in_the_order_of_the_pass(digits64):
    net = networks.build(
        "resnet18-bn", digits64.shape, 10, width=4, dtype=torch.float64, generator=stream(0, "net")
    ).eval()
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with batch_norms.recorded() as found:
        plain = net(digits64.x_train[:4])
    assert len(found) == len(norms) == 20
    assert {mean.data_ptr() for _, mean, _ in found} == {module.running_mean.data_ptr() for module in norms}
    assert found[0][1] is norms[0].running_mean
    net(digits64.x_train[:4])
    assert len(found) == 20
    assert torch.equal(plain, net(digits64.x_train[:4]))
    assert batch_norms.has_batch_norm(net)


@settings(max_examples=30)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.floats(0, 20),
)
def test_statistics_of_groups_are_those_of_each_group_alone(each, groups, channels, spatial, r_var):
    x = torch.randn(each * groups, channels, *spatial, generator=stream(0, "x"), dtype=torch.float64) * 3 + 1
    mean, var = (
        torch.randn(channels, generator=stream(0, "mean"), dtype=torch.float64),
        torch.rand(channels, dtype=torch.float64) + 0.1,
    )
    expected = 0.0
    for group in range(groups):
        rows = x[group::groups].transpose(0, 1).reshape(channels, -1)
        centre = rows.sum(1) / rows.shape[1]
        wide = ((rows - centre[:, None]) ** 2).sum(1) / rows.shape[1]
        expected += ((centre - mean) ** 2).sum().sqrt() + r_var * ((wide - var) ** 2).sum().sqrt()
    assert statistics_loss(x, mean, var, groups, r_var).item() == pytest.approx(float(expected), rel=1e-12)


def test_gradient_of_the_statistics_is_exact_and_zero_at_equality():
    x = torch.randn(6, 3, 2, 2, generator=stream(0, "x"), dtype=torch.float64, requires_grad=True)
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: statistics_loss(x, mean, var, 3, 2.0), x)
    same = torch.zeros(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    loss = statistics_loss(same, torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 2)
    gradient = torch.autograd.grad(loss, same)[0]
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_half_precision_is_reduced_in_float32():
    x = torch.randn(4, 2, 8, 8, generator=stream(0, "x")) + 100
    rounded = x.bfloat16()
    assert statistics_loss(rounded, torch.zeros(2), torch.ones(2)) == statistics_loss(
        rounded.float(), torch.zeros(2), torch.ones(2)
    )


def test_one_colour_channels_several_and_unequal_sides(coloured):
    data = dataclasses.replace(coloured, x_train=coloured.x_train.double(), x_test=coloured.x_test.double())
    synthetic = ddcore.Pixels(data, 2)
    match = next(
        ddcore.SRe2L(teacher=dataclasses.replace(TINY, network="convnet1-bn", batch=8)).matches(
            data, synthetic, seed=2
        )
    )
    shifts = rolled_shifts(2, 0, 2, 4)
    expected = sum(
        published_loss(
            match.network, torch.roll(synthetic.images()[batch::2], shifts[batch], (2, 3)), torch.arange(3)
        )
        for batch in range(2)
    )
    assert match.loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_bfloat16_is_near_the_exact_mode_and_not_equal(digits):
    found = {}
    for precision in ("float32", "bfloat16"):
        synthetic = ddcore.Pixels(digits, 2)
        match = next(ddcore.SRe2L(teacher=TINY, precision=precision).matches(digits, synthetic, seed=0))
        found[precision] = torch.autograd.grad(match.loss, synthetic.parameters())[0]
        assert match.loss.dtype == torch.float32
    error = float((found["bfloat16"] - found["float32"]).norm() / found["float32"].norm())
    assert 0 < error < 0.2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_equals_eager(digits):
    losses = [
        ddcore.distill(
            digits, ddcore.Pixels(digits, 2), ddcore.SRe2L(teacher=TINY, compiled=compiled), steps=3, **ADAM
        ).losses
        for compiled in (False, True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


# The setting of ImageNet: views, and blocks of classes


def seen(images, seed, step, batch, block=0, *, many, roll, scale, flip):
    """Images of one batch as they are looked at: the published transforms, from the draws of this batch."""
    more = (block,) if block else ()
    window = crops.windows(many, images.shape[2:], stream(seed, "sre2l", "crop", step, *more), scale=scale)[
        batch
    ].tolist()
    mirrored = bool(torch.rand(many, generator=stream(seed, "sre2l", "flip", step, *more))[batch] < 0.5)
    shift = torch.randint(roll + 1, (many, 2), generator=stream(seed, "sre2l", "roll", step, *more))[
        batch
    ].tolist()
    cut = resized_crop(images, *window, list(images.shape[2:]), antialias=False) if scale < 1 else images
    return torch.roll(cut.flip(3) if flip and mirrored else cut, shift, (2, 3))


@pytest.mark.parametrize(
    "views", [{"scale": 0.2, "flip": True}, {"scale": 0.2, "flip": False}, {"scale": 1.0, "flip": True}]
)
def test_a_batch_is_cut_mirrored_and_rolled_by_one_draw(digits64, views):
    synthetic = ddcore.Pixels(digits64, 3, init="noise")
    method = ddcore.SRe2L(teacher=TINY, roll=2, crop_scale=views["scale"], flip=views["flip"])
    teacher = squeeze(digits64, TINY)
    for step, match in zip(range(4), method.matches(digits64, synthetic, seed=3), strict=False):
        parts = [
            seen(synthetic.images()[batch::3], 3, step, batch, many=3, roll=2, **views) for batch in range(3)
        ]
        for batch, part in enumerate(parts):
            torch.testing.assert_close(match.synthetic[batch::3], part, rtol=0, atol=1e-12)
        assert match.loss.item() == pytest.approx(
            sum(published_loss(teacher, part, torch.arange(10)).item() for part in parts), rel=1e-11
        )


@pytest.mark.parametrize(
    "plugin", [None, ddcore.WeightAdjustment(0.5, 2), ddcore.WeightAdjustment(0.5, direction="gaussian")]
)
@pytest.mark.parametrize("at_once", [0, 2])
def test_blocks_of_classes_are_batches_of_their_own(digits64, plugin, at_once):
    """The published loop of ImageNet, the teacher given back before each: 4, 4 and 2 of the 10 classes, twice."""
    synthetic = ddcore.Pixels(digits64, 2, init="noise", seed=5)
    views = {"many": 2, "roll": 2, "scale": 0.3, "flip": True}
    method = ddcore.SRe2L(
        teacher=TINY, roll=2, crop_scale=0.3, flip=True, block=4, r_var=2.0, at_once=at_once
    )
    match = next(
        itertools.islice(
            method.matches(digits64, synthetic, seed=3, **({"look": plugin.adjust} if plugin else {})),
            2,
            None,
        )
    )
    begun, expected, images = (
        ddcore.Pixels(digits64, 2, seed=5).images().detach(),
        0.0,
        torch.zeros_like(synthetic.images()),
    )
    for block, classes in enumerate((range(4), range(4, 8), range(8, 10))):
        labels = torch.tensor(list(classes))
        for batch in range(2):
            rows, teacher = labels * 2 + batch, squeeze(digits64, TINY)
            if plugin:
                generator = stream(3, "sre2l", "look", batch, *([block] if block else []))
                teacher = plugin.adjust(
                    teacher, seen(begun[rows], 3, 0, batch, block, **views), labels, generator
                )
            images[rows] = seen(synthetic.images()[rows], 3, 2, batch, block, **views)
            expected = expected + published_loss(teacher, images[rows], labels, r_var=2.0)
    assert match.loss.item() == pytest.approx(expected.item(), rel=1e-10)
    ours, theirs = (
        torch.autograd.grad(one, synthetic.parameters(), retain_graph=True)[0]
        for one in (match.loss, expected)
    )
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-9
    torch.testing.assert_close(match.synthetic, images, rtol=0, atol=1e-12)
    assert torch.equal(match.synthetic_labels, synthetic.labels)
    for features, again in zip(
        match.synthetic_features, match.student.features(match.synthetic), strict=True
    ):
        torch.testing.assert_close(features, again, rtol=0, atol=1e-10)
    assert match.student(match.synthetic).shape == (20, 10)


def test_one_block_of_all_classes_is_none(digits64):
    losses = [
        ddcore.distill(
            digits64,
            ddcore.Pixels(digits64, 2),
            ddcore.SRe2L(teacher=TINY, block=block),
            plugins=[ddcore.WeightAdjustment(0.1, 2)],
            steps=3,
            **ADAM,
        ).losses
        for block in (0, 10, 99)
    ]
    assert losses[0] == losses[1] == losses[2]


def test_the_setting_of_imagenet_is_of_the_hash_only_when_asked():
    assert not {"crop_scale", "flip", "block"} & set(stated(ddcore.SRe2L()))
    assert {"crop_scale", "flip", "block"} <= set(stated(ddcore.SRe2L(crop_scale=0.08, flip=True, block=100)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"r_bn": -1.0},
        {"r_var": -0.1},
        {"roll": -1},
        {"batch_real": -2},
        {"precision": "float16"},
        {"block": -1},
        {"crop_scale": 0.0},
        {"crop_scale": 1.01},
    ],
)
def test_ill_settings_are_refused(wrong, refuses):
    with refuses("SRe2L" if "precision" not in wrong else "precision"):
        ddcore.SRe2L(**wrong)


def test_learned_labels_are_refused(digits, refuses):
    with refuses("SRe2L does not learn the 'soft'"):
        ddcore.distill(digits, ddcore.Pixels(digits, 2, soft=5.0), ddcore.SRe2L(teacher=TINY), steps=1)


@pytest.mark.usefixtures("untouched")
def test_recovered_images_are_known_to_the_teacher_and_in_range(digits):
    teacher = dataclasses.replace(TINY, width=16, epochs=10)
    synthetic = ddcore.Pixels(digits, 2, init="noise", clip=True)
    trace = ddcore.distill(digits, synthetic, ddcore.SRe2L(teacher=teacher, roll=1), steps=60, **ADAM)
    assert trace.losses[-1] < 0.05 * trace.losses[0]
    images, mean, std = synthetic.images().detach(), digits.mean[0], digits.std[0]
    assert -mean / std - 1e-6 <= float(images.min())
    assert float(images.max()) <= (1 - mean) / std + 1e-6
    rolled = crops.roll(images, torch.ones(20, 2, dtype=torch.int64))
    net = squeeze(digits, teacher)
    assert F.cross_entropy(net(rolled), synthetic.labels) < 0.1

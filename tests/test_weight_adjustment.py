"""DWA as a plugin: how far and where it moves weights, what it leaves alone, and SRe2L with other weights for every batch."""

import dataclasses
import os
import signal
import types

import pytest
import torch
import torch.nn.functional as F

import ddcore
from ddcore.augment import crops
from ddcore.files import records
from ddcore.lab.experiment import Experiment
from ddcore.methods.several import batches, joined
from ddcore.methods.squeeze import Squeeze, squeeze
from ddcore.plugins.weight_adjustment import DIRECTIONS
from ddcore.random import stream
from ddcore.settings import build, digest, stated

pytestmark = pytest.mark.usefixtures("teachers")
DWA = ddcore.WeightAdjustment
TINY = Squeeze(network="convnet2-bn", width=6, epochs=2, crop=1, flip=False)
ADAM = {"optimiser": "adam", "lr_img": 0.25, "momentum": 0.5, "schedule": "cosine"}


@pytest.fixture(scope="module")
def teacher(digits64, teachers):
    return squeeze(digits64, TINY)


def real(data, seed=0):
    rows = data.sample(1, stream(seed, "batch"))
    return data.x_train[rows], data.y_train[rows]


def moved(teacher, data, **settings):
    """Delta as one vector, of the batch `real(data)`."""
    return flat(DWA(**settings).displacement(teacher, *real(data), stream(1, "noise")))


def flat(tensors):
    return torch.cat([one.flatten() for one in tensors.values()])


def gradient(network, images, labels):
    copied = {name: one.detach().clone().requires_grad_() for name, one in network.named_parameters()}
    loss = F.cross_entropy(torch.func.functional_call(network, copied, (images,)), labels)
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(copied.values()))])


def loss(network, data):
    images, labels = real(data)
    return float(F.cross_entropy(network(images), labels))


def states(network):
    return {name: one.clone() for name, one in network.state_dict().items()}


# The adjustment


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_its_length_is_at_most_rho_and_rho_in_one_step(teacher, digits64, direction, steps):
    length = float(moved(teacher, digits64, rho=0.3, steps=steps, direction=direction).norm())
    assert length <= 0.3 * (1 + 1e-12)
    if steps == 1 or direction in ("gaussian", "fisher"):
        assert length == pytest.approx(0.3, rel=1e-9)


def test_one_step_is_along_the_gradient_of_the_batch(teacher, digits64):
    g = gradient(teacher, *real(digits64))
    torch.testing.assert_close(
        moved(teacher, digits64, rho=0.2, steps=1), 0.2 * g / g.norm(), rtol=0, atol=1e-10
    )
    torch.testing.assert_close(
        moved(teacher, digits64, rho=0.2, steps=1, direction="descent"),
        -0.2 * g / g.norm(),
        rtol=0,
        atol=1e-10,
    )


def test_later_steps_are_along_the_gradients_where_the_earlier_ones_lead(teacher, digits64):
    batch = real(digits64)
    walker, total = squeeze(digits64, TINY), 0.0
    for _ in range(3):
        g = gradient(walker, *batch)
        total = total + 0.5 / 3 * g / g.norm()
        torch.nn.utils.vector_to_parameters(
            torch.nn.utils.parameters_to_vector(teacher.parameters()) + total, walker.parameters()
        )
    torch.testing.assert_close(moved(teacher, digits64, rho=0.5, steps=3), total, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("direction", "sign"), [("ascent", 1), ("descent", -1)])
def test_as_printed_a_step_is_a_rate_times_the_gradient_of_the_summed_loss(
    teacher, digits64, direction, sign
):
    """Algorithm 1: delta_k = delta_(k-1) + (rho / K) grad L_B(theta + delta_(k-1)), L_B a sum over B; nothing is divided by a norm."""
    images, labels = real(digits64)
    walker, total = squeeze(digits64, TINY), 0.0
    for _ in range(3):
        total = total + sign * 0.01 / 3 * len(images) * gradient(walker, images, labels)
        torch.nn.utils.vector_to_parameters(
            torch.nn.utils.parameters_to_vector(teacher.parameters()) + total, walker.parameters()
        )
    found = moved(teacher, digits64, rho=0.01, steps=3, direction=direction, normalised=False)
    torch.testing.assert_close(found, total, rtol=0, atol=1e-12)
    longer = moved(teacher, digits64, rho=0.01, steps=1, direction=direction, normalised=False)
    expected = sign * 0.01 * len(images) * gradient(teacher, images, labels)
    torch.testing.assert_close(longer, expected, rtol=0, atol=1e-12)
    assert float(longer.norm()) > 0.01, "nothing bounds its length"


def test_ascent_raises_the_loss_of_the_batch_and_descent_lowers_it_by_rho_times_the_gradient(
    teacher, digits64
):
    before, g = loss(teacher, digits64), float(gradient(teacher, *real(digits64)).norm())
    for direction, sign in (("ascent", 1), ("descent", -1)):
        lengths = (1e-5, 1e-4)
        changes = [
            loss(DWA(rho, 3, direction).adjust(teacher, *real(digits64), stream(0, "x")), digits64) - before
            for rho in lengths
        ]
        assert sign * changes[0] > 0
        errors = [abs(change / (sign * rho * g) - 1) for change, rho in zip(changes, lengths, strict=True)]
        assert errors[0] < 1e-4
        assert errors[0] < errors[1] / 3


def test_the_fisher_direction_is_the_sum_of_image_gradients_with_the_generators_weights(teacher, digits64):
    images, labels = real(digits64)
    each = torch.stack(
        [gradient(teacher, images[row : row + 1], labels[row : row + 1]) for row in range(len(images))]
    )
    weights = torch.linalg.lstsq(
        each.T, moved(teacher, digits64, rho=0.2, direction="fisher")[:, None]
    ).solution[:, 0]
    drawn = torch.randn(len(images), generator=stream(1, "noise"), dtype=torch.float64)
    torch.testing.assert_close(weights / weights.norm(), drawn / drawn.norm(), rtol=0, atol=1e-6)
    noise = moved(teacher, digits64, rho=0.2, direction="gaussian")
    basis = torch.linalg.qr(each.T)[0]
    assert float((basis.T @ noise).norm()) < 0.5 * float(noise.norm())


def test_the_network_given_is_untouched_and_the_one_returned_frozen_with_its_statistics(teacher, digits64):
    before = states(teacher)
    for direction in DIRECTIONS:
        other = DWA(0.1, 2, direction).adjust(teacher, *real(digits64), stream(0, "x"))
        assert not any(
            parameter.requires_grad or parameter.grad is not None
            for parameter in (*teacher.parameters(), *other.parameters())
        )
        assert not any(module.training for module in other.modules())
        buffers = dict(other.named_buffers())
        assert all(torch.equal(before[name], one) for name, one in teacher.state_dict().items())
        assert all(torch.equal(before[name], one) for name, one in buffers.items())
        assert buffers
        weights = {name: one for name, one in other.state_dict().items() if name not in buffers}
        expected = DWA(0.1, 2, direction).displacement(teacher, *real(digits64), stream(0, "x"))
        assert all(torch.equal(weights[name], before[name] + one) for name, one in expected.items())


def test_in_train_mode_the_statistics_are_those_of_the_batch_and_the_kept_ones_stay(teacher, digits64):
    trained = squeeze(digits64, TINY).train()
    before = states(trained)
    g = gradient(squeeze(digits64, TINY).train(), *real(digits64))
    torch.testing.assert_close(
        moved(trained, digits64, rho=0.2, steps=1), 0.2 * g / g.norm(), rtol=0, atol=1e-10
    )
    assert not torch.allclose(
        moved(trained, digits64, rho=0.2, steps=1), moved(teacher, digits64, rho=0.2, steps=1)
    )
    other = DWA(0.1).adjust(trained, *real(digits64), stream(0, "x"))
    assert all(torch.equal(before[name], one) for name, one in trained.state_dict().items())
    assert all(torch.equal(before[name], one) for name, one in other.named_buffers())
    assert other.training


def test_no_length_is_the_very_same_network(teacher, digits64):
    assert all(
        DWA(0.0, direction=direction).adjust(teacher, *real(digits64), stream(0, "x")) is teacher
        for direction in DIRECTIONS
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"rho": -0.1},
        {"rho": float("nan")},
        {"steps": 0},
        {"direction": "up"},
        {"normalised": False, "direction": "gaussian"},
        {"normalised": False, "direction": "fisher"},
    ],
)
def test_ill_settings_are_refused(wrong, refuses):
    with refuses(next(iter(wrong))):
        DWA(**wrong)


def test_ill_batches_are_refused(teacher, digits64, refuses):
    images, labels = real(digits64)
    with refuses("no image", "give"):
        DWA().adjust(teacher, images[:0], labels[:0], stream(0, "x"))
    for ill in (labels[:-1], labels + 1, labels - 1, labels.double()):
        with refuses("labels of 10 images", "0 to 9"):
            DWA().adjust(teacher, images, ill, stream(0, "x"))


# SRe2L with other weights for every batch


def first(data, synthetic, plugin, **settings):
    """The first match of SRe2L as the loop would ask for it."""
    method = ddcore.SRe2L(teacher=TINY, **settings)
    return next(method.matches(data, synthetic, seed=3, start=0, look=plugin.adjust))


def one_by_one(data, synthetic, plugin, method, seed=3):
    """What the first match should be: batch after batch, from nothing but the teacher, the batch's number and the seed."""
    many, found = synthetic.per_class, []
    begun = ddcore.Pixels(data, many, seed=synthetic.settings["seed"])
    for number in range(many):
        rows = slice(number, None, many)
        shift = torch.randint(method.roll + 1, (many, 2), generator=stream(seed, "sre2l", "roll", 0))[
            number
        ].tolist()
        batch, labels = torch.roll(begun.images()[rows].detach(), shift, (2, 3)), torch.arange(data.classes)
        other = plugin.adjust(squeeze(data, TINY), batch, labels, stream(seed, "sre2l", "look", number))
        found.append(method.objective(other, torch.roll(synthetic.images()[rows], shift, (2, 3)), labels, 1))
    return found


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_several_batches_at_once_equal_one_by_one(digits64, direction, at_once):
    synthetic, plugin = ddcore.Pixels(digits64, 3, init="noise", seed=5), DWA(0.5, 2, direction)
    match = first(digits64, synthetic, plugin, at_once=at_once, r_var=2.0)
    found = one_by_one(digits64, synthetic, plugin, ddcore.SRe2L(teacher=TINY, r_var=2.0))
    expected = sum(one[0] for one in found)
    assert match.loss.item() == pytest.approx(expected.item(), rel=1e-12)
    ours, theirs = (
        torch.autograd.grad(one, synthetic.parameters(), retain_graph=True)[0]
        for one in (match.loss, expected)
    )
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-12
    parts = [
        network.features(batch)
        for network, batch in zip(match.student.networks, batches(match.synthetic, 3), strict=True)
    ]
    for features, again, *each in zip(
        match.synthetic_features, match.student.features(match.synthetic), *parts, strict=True
    ):
        torch.testing.assert_close(features, joined(each), rtol=0, atol=1e-12)
        torch.testing.assert_close(features, again, rtol=0, atol=1e-12)
    plain = next(ddcore.SRe2L(teacher=TINY, r_var=2.0).matches(digits64, synthetic, seed=3))
    assert abs(float(plain.loss.detach() - match.loss.detach())) > 1e-6


def by_hand(teacher, network, images, labels, r_var):
    """Eq. 15 as printed, of one batch, from nothing but torch's own modules: the cross-entropy through `network`, means and variances
    through `teacher`, whose batch norms are evaluated by a formula."""
    given = []
    handles = [
        module.register_forward_hook(lambda module, inputs, output: given.append((module, inputs[0])))
        for module in teacher.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    teacher(images)
    for handle in handles:
        handle.remove()
    loss = F.cross_entropy(network(images), labels)
    for layer, (module, x) in enumerate(given):
        mean = x.mean((0, 2, 3))
        var = (x - mean.view(1, -1, 1, 1)).square().mean((0, 2, 3))
        far = (mean - module.running_mean).square().sum().sqrt() + r_var * (
            var - module.running_var
        ).square().sum().sqrt()
        loss = loss + 0.01 * (10.0 if layer == 0 else 1.0) * far
    return loss


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("block", [0, 4])
def test_as_printed_the_statistics_pass_through_the_teacher(digits64, teacher, at_once, block):
    synthetic, plugin, many = ddcore.Pixels(digits64, 3, init="noise", seed=5), DWA(0.5, 2), 3
    how = {"r_var": 11.0, "roll": 0, "block": block}
    match = first(digits64, synthetic, plugin, at_once=at_once, statistics_through="teacher", **how)
    students = (
        match.student.networks
        if not block
        else [one for part in match.student.networks for one in part.networks]
    )
    labels = torch.arange(10)
    rows = [part * many + number for part in labels.split(block or 10) for number in range(many)]
    assert len(students) == len(rows)
    expected = sum(
        by_hand(teacher, network, synthetic.images()[row], row // many, 11.0)
        for network, row in zip(students, rows, strict=True)
    )
    assert match.loss.item() == pytest.approx(expected.item(), rel=1e-12)
    ours, theirs = (
        torch.autograd.grad(one, synthetic.parameters(), retain_graph=True)[0]
        for one in (match.loss, expected)
    )
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-12
    released = first(digits64, synthetic, plugin, at_once=at_once, **how)
    assert abs(released.loss.item() / expected.item() - 1) > 1e-6
    assert all(
        torch.equal(one, other)
        for one, other in zip(match.synthetic_features, released.synthetic_features, strict=True)
    )


def test_without_adjusted_weights_both_readings_are_the_same_bits(digits64):
    found = [
        run(digits64, method=ddcore.SRe2L(teacher=TINY, statistics_through=through))
        for through in ("adjusted", "teacher")
    ]
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_the_readings_of_the_paper_are_stated_where_they_are_not_the_default(refuses):
    assert "normalised" not in stated(DWA())
    assert "statistics_through" not in stated(ddcore.SRe2L(teacher=TINY))
    assert stated(DWA(normalised=False))["normalised"] is False
    assert stated(ddcore.SRe2L(teacher=TINY, statistics_through="teacher"))["statistics_through"] == "teacher"
    with refuses("statistics_through", "'text'", "teacher"):
        ddcore.SRe2L(teacher=TINY, statistics_through="text")


def test_images_of_low_rank_have_the_batches_of_real_ones_too(digits64):
    synthetic, plugin = ddcore.LowRank(digits64, 2, rank=1, seed=5), DWA(0.5, 2)
    assert synthetic.per_class == 8
    expected = sum(one[0] for one in one_by_one(digits64, synthetic, plugin, ddcore.SRe2L(teacher=TINY)))
    assert first(digits64, synthetic, plugin).loss.item() == pytest.approx(expected.item(), rel=1e-12)


def seen_by(data, ipc, *, start=0, **settings):
    """The real batches that plugins are shown."""
    found = []

    def look(network, *others):
        found.append(others[:2])
        return network

    next(
        ddcore.SRe2L(teacher=TINY, **settings).matches(
            data, ddcore.Pixels(data, ipc, init="noise"), seed=0, start=start, look=look
        )
    )
    return found


def test_a_batch_depends_neither_on_the_others_nor_on_where_the_run_goes_on(digits64):
    for batch in ("init", "other"):
        three = seen_by(digits64, 3, batch=batch)
        for other in (seen_by(digits64, 2, batch=batch), seen_by(digits64, 3, batch=batch, start=7)):
            assert all(
                torch.equal(images, again) for (images, _), (again, _) in zip(three, other, strict=False)
            )
        assert all(torch.equal(labels, torch.arange(10)) for _, labels in three)


def test_other_batches_are_real_images_of_their_classes_but_not_those_of_init(digits64):
    init, other = (
        torch.cat([images for images, _ in seen_by(digits64, 3, batch=batch, roll=0)])
        for batch in ("init", "other")
    )
    assert torch.equal(init, batches(ddcore.Pixels(digits64, 3).images().detach(), 3).flatten(0, 1))
    everything = digits64.x_train[:].flatten(1)
    nearest = torch.cdist(other.flatten(1), everything).min(1)
    assert float(nearest.values.max()) < 1e-6
    assert digits64.y_train[nearest.indices].tolist() == list(range(10)) * 3
    assert (init != other).flatten(1).any(1).float().mean() > 0.9


def test_the_batch_is_rolled_as_in_the_first_step(digits64):
    plain, rolled = (seen_by(digits64, 3, roll=roll) for roll in (0, 3))
    shifts = torch.randint(4, (3, 2), generator=stream(0, "sre2l", "roll", 0))
    for (images, _), (after, _), shift in zip(plain, rolled, shifts, strict=True):
        assert torch.equal(crops.roll(images, shift.expand(10, 2)), after)
    assert shifts.any()


def run(data, plugins=(), *, init="noise", ipc=2, steps=4, more=None, method=None, **how):
    synthetic = ddcore.Pixels(data, ipc, init=init, clip=True, **(more or {}))
    trace = ddcore.distill(
        data,
        synthetic,
        method or ddcore.SRe2L(teacher=TINY, batch_real=2),
        plugins=plugins,
        steps=steps,
        **ADAM | how,
    )
    return synthetic.images().detach(), trace.losses


def test_no_length_is_sre2l_bit_for_bit(digits64):
    plain, moved = run(digits64), run(digits64, [DWA(0.0)])
    assert torch.equal(plain[0], moved[0])
    assert plain[1] == moved[1]
    assert not torch.equal(plain[0], run(digits64, [DWA(0.1)])[0])


def test_after_a_run_the_teacher_is_bitwise_what_it_was(digits64):
    before, seen = states(squeeze(digits64, TINY)), []

    class Watch:
        def adjust(self, network, batch, labels, generator):
            seen.append(network)
            return DWA(0.1).adjust(network, batch, labels, generator)

    run(digits64, [Watch()])
    assert len(seen) == 2
    for network in seen:
        assert all(torch.equal(before[name], one) for name, one in network.state_dict().items())
        assert not any(
            parameter.requires_grad or parameter.grad is not None for parameter in network.parameters()
        )


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(digits64, tmp_path):
    whole, checkpoint = run(digits64, [DWA(0.1)], steps=7), tmp_path / "run.checkpoint"

    def stop(step, loss):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(ddcore.Interrupted):
        run(digits64, [DWA(0.1)], steps=7, checkpoint=checkpoint, progress=stop)
    resumed = run(digits64, [DWA(0.1)], steps=7, checkpoint=checkpoint)
    assert torch.equal(whole[0], resumed[0])
    assert whole[1] == resumed[1]


def test_a_network_of_each_batch_has_the_statistics_of_the_teacher(digits64, teacher):
    """The targets of the statistics are the teacher's: a network moved far from them has another loss, not other targets."""
    match = first(digits64, ddcore.Pixels(digits64, 2), DWA(0.3))
    kept = dict(teacher.named_buffers())
    for network in match.student.networks:
        assert all(torch.equal(kept[name], one) for name, one in network.named_buffers())
    assert all(
        torch.equal(one, match.network.state_dict()[name]) for name, one in teacher.state_dict().items()
    )
    ours, others = (torch.nn.utils.parameters_to_vector(one.parameters()) for one in match.student.networks)
    assert float((ours - others).norm()) > 0.05


def test_the_real_side_is_read_by_the_teacher(digits64, teacher):
    match = first(digits64, ddcore.Pixels(digits64, 2), DWA(0.3), batch_real=3)
    for ours, theirs in zip(match.real_features, teacher.features(match.real), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert ddcore.MutualInformation(width=4).loss(match, {}).isfinite()


def test_logits_of_several_networks_are_those_of_each(digits64):
    match = first(digits64, ddcore.Pixels(digits64, 2), DWA(0.3))
    logits = match.student(match.synthetic)
    for number, network in enumerate(match.student.networks):
        torch.testing.assert_close(logits[number::2], network(match.synthetic[number::2]))


def test_bfloat16_is_near_the_exact_mode(digits):
    found = {}
    for precision in ("float32", "bfloat16"):
        synthetic = ddcore.Pixels(digits, 2)
        loss = first(digits, synthetic, DWA(0.1), precision=precision).loss
        assert loss.dtype == torch.float32
        found[precision] = torch.autograd.grad(loss, synthetic.parameters())[0]
    error = float((found["bfloat16"] - found["float32"]).norm() / found["float32"].norm())
    assert 0 < error < 0.2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("at_once", [1, 2])
def test_compiled_equals_eager_and_is_compiled_once(coloured, at_once):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    how = {"teacher": dataclasses.replace(TINY, network="convnet1-bn", batch=8), "at_once": at_once}
    losses = [
        run(coloured, [DWA(0.1)], ipc=4, method=ddcore.SRe2L(compiled=compiled, **how))[1]
        for compiled in (False, True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


# Other methods


FEW = {"width": 4, "batch_real": 5}
METHODS = {
    "dc": ddcore.DC(**FEW, outer=2, inner=1),
    "dsa": ddcore.DSA(**FEW, outer=1),
    "dm": ddcore.DM(**FEW),
    "dm-bn": ddcore.DM(**FEW, network="convnet2-bn"),
    "dc-bn": ddcore.DC(**FEW, network="convnet2-bn", outer=1),
}


@pytest.mark.parametrize("name", METHODS)
def test_it_is_a_plugin_of_gradient_and_distribution_matching(digits64, name):
    plain, moved, again = (
        run(digits64, plugins, ipc=1, method=METHODS[name], optimiser="sgd", schedule="constant", lr_img=0.1)
        for plugins in ([], [DWA(0.3, 2)], [DWA(0.3, 2)])
    )
    assert moved[0].isfinite().all()
    assert not torch.equal(plain[0], moved[0])
    assert torch.equal(moved[0], again[0])


@pytest.mark.parametrize("name", METHODS)
def test_the_network_looked_through_is_the_one_moved_up_the_loss_of_the_real_batch(digits64, name):
    seen = []

    def look(*others):
        seen.append((DWA(0.3).adjust(*others), *others))
        return seen[-1][0]

    synthetic = ddcore.Pixels(digits64, 1)
    match = next(METHODS[name].matches(digits64, synthetic, seed=0, start=0, look=look))
    other, network, images, labels, _ = seen[0]
    assert match.network is match.student is other
    assert torch.equal(images, match.real)
    assert torch.equal(labels, match.real_labels)
    assert F.cross_entropy(other(images), labels) > F.cross_entropy(network(images), labels)
    for ours, theirs in zip(match.synthetic_features, other.features(match.synthetic), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_of_trajectories_it_moves_what_other_plugins_look_through_and_not_the_goal(digits64):
    experts = ddcore.Experts(width=4, experts=1, epochs=2, lr=0.05)
    method = ddcore.MTT(experts=experts, expert_epochs=1, max_start_epoch=1, syn_steps=2, batch_real=5)
    mim = ddcore.MutualInformation(width=4)
    found = [
        run(
            digits64, plugins, ipc=1, method=method, optimiser="sgd", schedule="constant", more={"step": 0.02}
        )
        for plugins in ([], [DWA(0.3)], [mim], [mim, DWA(0.3)])
    ]
    assert found[0][1] == found[1][1]
    assert found[2][1][0] != found[3][1][0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_network_is_the_moved_one_and_compiled_once(digits):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    how = {"ipc": 1, "optimiser": "sgd", "schedule": "constant", "lr_img": 0.1}
    eager, compiled = (
        run(digits, [DWA(0.3, 2)], method=ddcore.DM(**FEW, compiled=compiled), **how)[1]
        for compiled in (False, True)
    )
    assert eager == pytest.approx(compiled, rel=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2  # one with a tape and one without


def test_records_of_before_keep_their_hash():
    kept = [records.read(path) for path in sorted((records.TOP / "figures" / "records").glob("*.json"))]
    kept = [
        one
        for one in kept
        if one.experiment.get("method", {}).get("name") == "sre2l" and "of" not in one.experiment
    ]
    assert kept
    for record in kept:
        settings = {
            name: value
            for name, value in record.experiment.items()
            if name not in ("versions", "data_sha256")
        }
        experiment = build(Experiment, settings)
        data = types.SimpleNamespace(sha256=record.experiment["data_sha256"])
        assert digest(experiment.identity(data)) == record.hash
    assert stated(ddcore.SRe2L(batch="other", at_once=2)).items() >= {"batch": "other", "at_once": 2}.items()

"""DM: all classes in one pass are the published loop over classes, in loss and image gradient."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ddcore
from ddcore import augment
from ddcore.kernels.class_means import class_mean_distance, class_means
from ddcore.random import stream


def loop_over_classes(match, data, synthetic, drawn, index):
    """The published structure: class by class, both sides augmented alike, embedded apart, squared distance of the means."""
    loss, real, images = 0.0, data.x_train[index], synthetic.images()
    for label in range(data.classes):
        x, s = real[data.y_train[index] == label], images[synthetic.labels == label]
        one = augment.Draw(drawn.family[label : label + 1], drawn.uniform[label : label + 1])
        x, s = (augment.apply(one, side, torch.zeros(len(side), dtype=torch.int64)) for side in (x, s))
        loss = loss + torch.sum((match.network.embed(x).mean(0) - match.network.embed(s).mean(0)) ** 2)
    return loss


@pytest.mark.parametrize("strategy", [augment.DSA, "none", *augment.FAMILIES])
@pytest.mark.parametrize(
    "make", [lambda data: ddcore.Pixels(data, 3), lambda data: ddcore.LowRank(data, 2, rank=1)]
)
def test_one_pass_equals_the_loop_over_classes(digits64, make, strategy):
    synthetic = make(digits64)
    method = ddcore.DM(width=8, batch_real=13, strategy=strategy)
    match = next(method.matches(digits64, synthetic, seed=3, start=5))
    index = digits64.sample(13, stream(3, "dm", "real", 5))
    drawn = augment.draw(strategy, digits64.classes, stream(3, "dm", "augment", 5))
    expected = loop_over_classes(match, digits64, synthetic, drawn, index)
    assert match.loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(match.loss, synthetic.parameters()),
        torch.autograd.grad(expected, synthetic.parameters()),
        strict=True,
    ):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-12


def test_batch_norm_embeds_all_classes_jointly(digits64):
    synthetic = ddcore.Pixels(digits64, 2)
    match = next(
        ddcore.DM(network="convnet-bn", width=4, batch_real=9, strategy="none").matches(
            digits64, synthetic, seed=0, start=0
        )
    )
    jointly = match.network.embed(synthetic.images())
    torch.testing.assert_close(match.synthetic_features[-1].flatten(1), jointly, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_class_means_of_unequal_classes(data):
    classes = data.draw(st.integers(1, 5))
    sides = []
    width = data.draw(st.integers(1, 7))
    for seed in (0, 1):
        counts = data.draw(st.lists(st.integers(1, 6), min_size=classes, max_size=classes))
        labels = torch.arange(classes).repeat_interleave(torch.tensor(counts))
        labels = labels[torch.randperm(len(labels), generator=stream(seed, "order"))]
        sides.append(
            (torch.randn(len(labels), width, generator=stream(seed, "rows"), dtype=torch.float64), labels)
        )
    (fake, fake_labels), (real, real_labels) = sides
    by_hand = sum(
        ((fake[fake_labels == c].mean(0) - real[real_labels == c].mean(0)) ** 2).sum() for c in range(classes)
    )
    assert class_mean_distance(fake, fake_labels, real, real_labels, classes).item() == pytest.approx(
        by_hand.item(), rel=1e-12
    )


def test_class_mean_distance_is_twice_differentiable():
    rows = torch.randn(5, 3, generator=stream(0, "rows"), dtype=torch.float64, requires_grad=True)
    real = torch.randn(4, 3, generator=stream(0, "real"), dtype=torch.float64)
    labels, others = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 0])
    assert torch.autograd.gradcheck(lambda x: class_mean_distance(x, labels, real, others, 2), rows)
    assert torch.autograd.gradgradcheck(lambda x: class_mean_distance(x, labels, real, others, 2), rows)


def test_a_class_without_a_row_has_mean_zero():
    assert class_means(torch.ones(2, 3), torch.tensor([0, 2]), 3).tolist() == [[1] * 3, [0] * 3, [1] * 3]


def test_step_k_does_not_depend_on_where_the_run_began(digits64):
    synthetic = ddcore.Pixels(digits64, 1)
    method = ddcore.DM(width=4, batch_real=5)
    late = next(method.matches(digits64, synthetic, seed=1, start=3))
    from_zero = next(itertools.islice(method.matches(digits64, synthetic, seed=1, start=0), 3, None))
    assert late.step == from_zero.step == 3
    assert torch.equal(late.loss, from_zero.loss)
    assert torch.equal(late.real, from_zero.real)


def test_each_step_draws_network_batch_and_augmentation_anew(digits64):
    synthetic = ddcore.Pixels(digits64, 1)
    found = [
        (match.loss.item(), match.network.classifier.weight.clone(), match.real.clone())
        for match in itertools.islice(
            ddcore.DM(width=4, batch_real=5).matches(digits64, synthetic, seed=1, start=0), 3
        )
    ]
    for (loss, weight, real), (other_loss, other_weight, other_real) in itertools.combinations(found, 2):
        assert loss != other_loss
        assert not torch.equal(weight, other_weight)
        assert not torch.equal(real, other_real)


def test_features_of_every_block_are_there_and_only_the_synthetic_ones_carry_a_tape(digits64):
    synthetic = ddcore.LowRank(digits64, 1, rank=1)
    match = next(
        ddcore.DM(width=4, batch_real=6, network="convnet2").matches(digits64, synthetic, seed=0, start=0)
    )
    assert len(match.real_features) == len(match.synthetic_features) == 2
    assert not any(feature.requires_grad for feature in match.real_features)
    assert all(feature.requires_grad for feature in match.synthetic_features)
    assert len(match.real) == len(match.real_labels) == 60


def test_a_plugin_sees_every_match_and_adds_to_any_parametrisation(digits64):
    class Shrink:
        def adjust(self, network, batch, labels, generator):
            for parameter in network.parameters():
                parameter.mul_(0.5)
            return network

        def loss(self, match, memory):
            return match.synthetic_features[0].square().mean()

    for synthetic in (ddcore.Pixels(digits64, 1), ddcore.LowRank(digits64, 1, rank=1)):
        plain = synthetic.settings | {}
        method = ddcore.DM(width=4, batch_real=5)
        with_plugin = ddcore.distill(digits64, synthetic, method, plugins=[Shrink()], steps=2)
        assert synthetic.settings["distilled"]["plugins"] == [{"plugin": "Shrink"}]
        fresh = (
            ddcore.Pixels(digits64, 1) if plain["kind"] == "pixels" else ddcore.LowRank(digits64, 1, rank=1)
        )
        without = ddcore.distill(digits64, fresh, method, steps=2)
        assert with_plugin.losses != without.losses


def test_bfloat16_is_near_the_exact_mode_and_not_equal(digits64):
    data = ddcore.load("digits", "cpu")
    found = {}
    for precision in ("float32", "bfloat16"):
        synthetic = ddcore.Pixels(data, 2)
        match = next(
            ddcore.DM(width=8, batch_real=20, precision=precision).matches(data, synthetic, seed=0, start=0)
        )
        found[precision] = torch.autograd.grad(match.loss, synthetic.parameters())[0]
    error = float((found["bfloat16"] - found["float32"]).norm() / found["float32"].norm())
    assert 0 < error < 0.2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_equals_eager():
    data = ddcore.load("digits", "cpu")
    losses = []
    for compiled in (False, True):
        synthetic = ddcore.Pixels(data, 1)
        losses.append(
            ddcore.distill(
                data, synthetic, ddcore.DM(width=4, batch_real=8, compiled=compiled), steps=3, lr_img=0.1
            ).losses
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("settings_", [{"batch_real": 0}, {"precision": "float16"}, {"strategy": "blur"}])
def test_ill_settings_are_refused(settings_):
    with pytest.raises(ddcore.BadInput):
        ddcore.DM(**settings_)


def test_a_class_with_fewer_images_than_the_batch_gives_all_it_has(coloured):
    match = next(ddcore.DM(width=4, batch_real=8).matches(coloured, ddcore.Pixels(coloured, 1), seed=0))
    assert match.batch.sizes == (4, 7, 8)
    assert match.real_labels.bincount().tolist() == [4, 7, 8]
    assert sorted(match.batch.index[:11].tolist()) == list(range(11))

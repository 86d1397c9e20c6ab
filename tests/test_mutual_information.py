"""MIM4DD as a plugin: what it adds, to every method, and what it keeps between steps."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad

import ddcore
from ddcore.kernels.contrast import contrast_reference
from ddcore.lab.measurements.gradient_ratios import gradient_ratios
from ddcore.methods import Match
from ddcore.plugins.mutual_information import projection
from ddcore.random import stream

pytestmark = pytest.mark.usefixtures("teachers")
MIM = ddcore.MutualInformation
FEW = {"width": 4, "batch_real": 5}
EXPERTS = ddcore.Experts(width=4, experts=1, epochs=2, lr=0.05)
METHODS = {
    "dc": (ddcore.DC(**FEW, outer=2, inner=1), {}),
    "dsa": (ddcore.DSA(**FEW, outer=1), {}),
    "dm": (ddcore.DM(**FEW), {}),
    "mtt": (
        ddcore.MTT(experts=EXPERTS, expert_epochs=1, max_start_epoch=1, syn_steps=2, batch_real=5),
        {"step": 0.02},
    ),
    "sre2l": (
        ddcore.SRe2L(teacher=ddcore.Squeeze(network="convnet2-bn", width=4, epochs=1, crop=1), batch_real=5),
        {},
    ),
}


def first(data, name, ipc=2):
    method, how = METHODS[name]
    synthetic = ddcore.Pixels(data, ipc, **how)
    return synthetic, next(method.matches(data, synthetic, seed=0, start=0))


def embedded(plugin, match, layer):
    """The two sides of one layer, from the networks themselves."""
    found = []
    for network, images in ((match.student, match.synthetic), (match.network, match.real)):
        flat = network.features(images)[layer].flatten(1)
        generator = stream(plugin.seed, "mutual information", "projection", layer)
        rows = flat @ torch.randn(flat.shape[1], plugin.width, generator=generator).double()
        found.append((rows / rows.norm(dim=1, keepdim=True))[None])
    return found


@pytest.mark.parametrize("name", METHODS)
def test_the_term_is_the_sum_over_layers_in_every_method(digits64, name):
    """The real side through `network`, the synthetic through `student`: two networks in MTT."""
    plugin = MIM(weight=0.3, beta=3.0, width=16, temperature=0.2)
    _, match = first(digits64, name)
    assert (match.network is match.student) == (name != "mtt")
    blocks = len(match.real_features)
    expected = 0.0
    for layer in range(blocks):
        fake, real = embedded(plugin, match, layer)
        how = {"temperature": 0.2}
        sides = (fake, match.synthetic_labels, real, match.real_labels, 10)
        log_z = contrast_reference(*sides, **how).log_mean_exp.detach()
        expected = (
            expected
            + 0.3 * 3.0 ** (layer - blocks + 1) * contrast_reference(*sides, **how, log_z=log_z).loss.sum()
        )
    found = plugin.loss(match, {})
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-10)
    ours, theirs = (grad(term, match.synthetic, retain_graph=True)[0] for term in (found, expected))
    assert float((ours - theirs).norm()) < 1e-9 * float(theirs.norm())


@pytest.mark.parametrize("name", METHODS)
def test_methods_run_with_it_and_their_own_loss_is_unchanged(digits64, name):
    method, how = METHODS[name]
    traces = [
        ddcore.distill(
            digits64, ddcore.Pixels(digits64, 1, **how), method, plugins=plugins, steps=3, lr_img=0.1
        )
        for plugins in ([], [MIM(weight=1e-9)], [MIM(weight=1.0)])
    ]
    assert traces[0].losses == pytest.approx(traces[1].losses, abs=1e-6)
    assert traces[0].losses[0] + 1e-3 < traces[2].losses[0]


def test_layers_add_up(digits64):
    _, match = first(digits64, "dm")
    whole = MIM(critic="infonce").loss(match, {})
    parts = [
        MIM(critic="infonce", layers=(layer,)).loss(match, {}) for layer in range(len(match.real_features))
    ]
    torch.testing.assert_close(whole, sum(parts), rtol=1e-12, atol=0)


def test_size_of_features_does_not_count(digits64):
    _, match = first(digits64, "dm")
    larger = dataclasses.replace(
        match,
        real_features=[7 * one for one in match.real_features],
        synthetic_features=[3 * one for one in match.synthetic_features],
    )
    torch.testing.assert_close(MIM().loss(larger, {}), MIM().loss(match, {}), rtol=1e-10, atol=0)


def test_infonce_without_its_class_means_does_not_see_the_labels(digits64):
    """Its repulsion: what is left is the same whatever the real images are called."""
    _, match = first(digits64, "dm")
    others = dataclasses.replace(match.batch)
    others.__dict__["labels"] = (match.real_labels + 3) % 10
    renamed = dataclasses.replace(match, batch=others)
    how = {"negatives": "all others", "layers": (1,)}
    apart = [
        MIM(critic="infonce", **how).loss(one, {}) - MIM(critic="mean", **how).loss(one, {})
        for one in (match, renamed)
    ]
    torch.testing.assert_close(*apart, rtol=1e-12, atol=0)
    assert MIM(critic="mean").loss(match, {}) != MIM(critic="mean").loss(renamed, {})


def test_information_is_at_most_log_classes_and_reaches_it_where_images_tell_the_class(digits64):
    _, match = first(digits64, "dm")
    assert float(MIM(temperature=0.01).information(match).max()) < math.log(10)
    sure = [F.one_hot(labels, 10).double() for labels in (match.synthetic_labels, match.real_labels)]
    clear = dataclasses.replace(match, synthetic_features=[sure[0]], real_features=[sure[1]])
    assert float(MIM(temperature=0.01).information(clear)) == pytest.approx(math.log(10), abs=1e-3)


# the normaliser


def test_the_normaliser_is_a_running_mean_from_the_first_batch_on(digits64):
    """z_t = 0.9 z_{t-1} + 0.1 m_t from z_0 = m_0, and a step uses the one before it."""
    method, synthetic, plugin, memory = METHODS["dm"][0], ddcore.Pixels(digits64, 1), MIM(decay=0.9), {}
    expected = None
    for _, match in zip(range(4), method.matches(digits64, synthetic, seed=0), strict=False):
        layers = [embedded(plugin, match, layer) for layer in range(len(match.real_features))]
        sides = [torch.cat(side) for side in zip(*layers, strict=True)]
        mean = contrast_reference(
            sides[0], match.synthetic_labels, sides[1], match.real_labels, 10, temperature=0.1
        ).log_mean_exp.exp()
        used = mean if expected is None else expected
        plugin.loss(match, memory)
        expected = 0.9 * used + 0.1 * mean
        torch.testing.assert_close(memory["log_z"].exp(), expected.detach(), rtol=1e-10, atol=0)


def test_without_a_normaliser_an_orthogonal_pair_counts_as_positive(digits64):
    """h = 1 / (1 + N / M) at s = 0, with N = 45 negatives and M = 50 real images: log(1 + 0.9) for the positive, 45 log(1 + 1 / 0.9)."""
    _, match = first(digits64, "dm")
    zero = dataclasses.replace(
        match, synthetic_features=[match.synthetic_features[0] * 0], real_features=match.real_features[:1]
    )
    match.network.blocks = match.network.blocks[:1]
    loss = float(MIM(weight=1.0, normaliser="none").loss(zero, {}).detach())
    assert loss == pytest.approx(math.log1p(0.9) + 45 * math.log1p(1 / 0.9), rel=1e-10)


def test_a_resumed_run_is_the_same_bit_for_bit(digits, tmp_path):
    how = {
        "method": ddcore.DM(**FEW),
        "plugins": [MIM(critic="infonce"), MIM(weight=0.5, decay=0.5)],
        "steps": 7,
        "lr_img": 0.1,
    }
    whole, cut, again = (ddcore.Pixels(digits, 1) for _ in range(3))
    expected = ddcore.distill(digits, whole, **how)

    def stop(step, loss):
        if step == 4:
            raise RuntimeError("stopped")

    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(RuntimeError, match="stopped"):
        ddcore.distill(digits, cut, **how, checkpoint=checkpoint, every_seconds=0, progress=stop)
    with pytest.raises(ddcore.BadInput, match="other settings"):
        ddcore.distill(digits, cut, **how | {"plugins": [MIM(weight=0.1)]}, checkpoint=checkpoint)
    trace = ddcore.distill(digits, again, **how, checkpoint=checkpoint)
    assert trace.resumed == 3
    assert trace.losses == expected.losses
    assert torch.equal(again.images(), whole.images())


# weight and projection


@pytest.mark.parametrize("name", ["dm", "mtt"])
def test_the_ratio_of_gradients_is_that_of_their_norms(digits64, name):
    method, how = METHODS[name]
    synthetic = ddcore.LowRank(digits64, 1, rank=1, **how)
    plugins = [MIM(weight=0.1), MIM(weight=0.2)]
    ratios = gradient_ratios(digits64, synthetic, method, plugins, seed=0)
    assert ratios[1] == pytest.approx(2 * ratios[0], rel=1e-3)
    match = next(method.matches(digits64, synthetic, seed=0, start=0))
    norms = [
        torch.cat([one.flatten() for one in grad(term, synthetic.parameters()[:2], retain_graph=True)]).norm()
        for term in (plugins[0].loss(match, {}), match.loss)
    ]
    assert ratios[0] == pytest.approx(float(norms[0] / norms[1]), rel=1e-3)


class Once(torch.autograd.Function):
    """The identity; like a compiled graph, it can be walked back once."""

    @staticmethod
    def forward(ctx, x):
        ctx.walked = False
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        assert not ctx.walked
        ctx.walked = True
        return gradient


def test_ratios_walk_no_graph_twice(digits64):
    synthetic, method = ddcore.Pixels(digits64, 1), METHODS["dm"][0]
    expected = gradient_ratios(digits64, synthetic, method, [MIM(weight=0.1), MIM(weight=0.2)], seed=0)
    images = synthetic.images
    synthetic.images = lambda *rows: Once.apply(images(*rows))
    assert (
        gradient_ratios(digits64, synthetic, method, [MIM(weight=0.1), MIM(weight=0.2)], seed=0) == expected
    )


@pytest.mark.usefixtures("untouched")
def test_projections_are_drawn_from_the_seed_alone_and_keep_angles():
    one, same, other = (
        projection(seed, layer, 500, 4000, torch.device("cpu"), torch.float64)
        for seed, layer in ((0, 1), (0, 1), (0, 2))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    x = torch.randn(2, 500, generator=stream(0, "x"), dtype=torch.float64)
    before, after = F.cosine_similarity(*x, dim=0), F.cosine_similarity(*(x @ one), dim=0)
    assert abs(float(before - after)) < 4 / math.sqrt(4000)


# bad input


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"temperature": 0.0}, ("temperature=0.0", "above 0")),
        ({"weight": -1.0}, ("weight=-1.0",)),
        ({"beta": 0.0}, ("beta=0.0",)),
        ({"width": 0}, ("width=0",)),
        ({"decay": 1.0}, ("decay=1.0", "between 0 and 1")),
        ({"layers": ()}, ("layers=()", "None")),
        ({"layers": (-1,)}, ("layers=(-1,)", "from 0")),
        ({"critic": "softmax"}, ("'softmax'", "infonce")),
        ({"negatives": "others"}, ("'others'", "all others")),
        ({"normaliser": "once"}, ("'once'", "running")),
    ],
    ids=str,
)
def test_ill_settings_are_refused(refuses, wrong, words):
    with refuses("MutualInformation", *words):
        MIM(**wrong)


def test_matches_that_cannot_be_contrasted_are_refused(digits64, refuses):
    _, match = first(digits64, "dm")
    with refuses("layers=(0, 5)", "2 blocks", "0 to 1"):
        MIM(layers=(0, 5)).loss(match, {})
    bare = ddcore.SRe2L(teacher=METHODS["sre2l"][0].teacher)
    with refuses("no real images", "batch_real"):
        MIM().loss(next(bare.matches(digits64, ddcore.Pixels(digits64, 1), seed=0)), {})
    rows = digits64.y_train == 0
    one = dataclasses.replace(
        digits64, x_train=digits64.x_train[rows], y_train=digits64.y_train[rows], class_names=("0",)
    )
    with refuses("one class", "two classes"):
        ddcore.distill(one, ddcore.Pixels(one, 1), ddcore.DM(**FEW), plugins=[MIM()], steps=1)


def test_a_match_is_all_it_needs(coloured):
    """Three classes of unequal sides, colour, an MLP's flat features."""
    synthetic = ddcore.Pixels(coloured, 2)
    match = next(
        ddcore.DM(network="mlp", width=6, batch_real=3, strategy="none").matches(coloured, synthetic, seed=0)
    )
    assert isinstance(match, Match)
    assert grad(MIM().loss(match, {}), synthetic.parameters())[0].norm() > 0

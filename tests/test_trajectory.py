"""MTT: one gradient found three ways (adjoint, unrolled, checkpointed), the approximation of TESLA, the method in the loop."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

import ddcore
from ddcore import augment, networks
from ddcore.methods import MTT, unrolling
from ddcore.methods.experts import Experts, flatten, unflatten
from ddcore.random import stream
from ddcore.synthetic import create

SMALL = Experts(width=8, experts=2, epochs=3, lr=0.05)
FEW = {"experts": SMALL, "expert_epochs": 1, "max_start_epoch": 2, "syn_steps": 5, "batch_real": 5}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDCORE_DATA", str(tmp_path_factory.mktemp("data")))
        patch.delenv("DDCORE_CACHE", raising=False)
        yield


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("pixels", {}), ("lowrank", {"rank": 1}), ("tucker", {"rank": 2}), ("adaptive", {"rank": 1})],
)
def test_a_set_of_every_kind_learns_its_images_and_its_step(digits, kind, settings):
    synthetic = create(digits, kind, 1, seed=0, step=0.02, step_rate=1.0, **settings)
    before = synthetic.images().detach().clone(), float(synthetic.step_size.detach())
    ddcore.distill(digits, synthetic, MTT(**FEW), steps=1, lr_img=1.0)
    assert not torch.equal(synthetic.images(), before[0])
    assert float(synthetic.step_size.detach()) != before[1]


def problem(
    shape=(1, 8, 8),
    classes=3,
    images=6,
    steps=4,
    batch=None,
    soft=False,
    strategy=augment.DSA,
    network="convnet2",
    seed=0,
):
    """forward, start, goal, images, targets, alpha, steps: random ones in float64."""
    net = networks.build(network, shape, classes, width=4, dtype=torch.float64, generator=stream(seed, "net"))
    start = flatten(net)
    random = {name: stream(seed, name) for name in ("goal", "images", "labels", "steps")}
    goal = start + 0.1 * torch.randn(len(start), generator=random["goal"], dtype=torch.float64)
    pool = torch.randn(images, *shape, generator=random["images"], dtype=torch.float64, requires_grad=True)
    logits = torch.randn(images, classes, generator=random["labels"], dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    method = MTT(experts=SMALL, max_start_epoch=1, syn_steps=steps, batch_syn=batch, strategy=strategy)
    targets = logits.softmax(1) if soft else logits.argmax(1)

    def forward(flat, x):
        return functional_call(net, unflatten(net, flat), (x,))

    return (forward, start, goal, pool, targets, alpha, method._steps(images, random["steps"])), logits


def gradients(loss_of, given_, logits):
    loss, end = loss_of(*given_)
    inputs = [given_[3], given_[5], *([logits] if given_[4].is_floating_point() else [])]
    return [loss, end, *torch.autograd.grad(loss, inputs, retain_graph=True)]


def errors(ours, theirs):
    return [
        float((one - other).detach().norm() / other.detach().norm())
        for one, other in zip(ours, theirs, strict=True)
    ]


@given(
    st.sampled_from([(1, 8, 8), (3, 8, 8), (1, 9, 11), (2, 12, 8)]),
    st.integers(1, 7),
    st.integers(1, 6),
    st.sampled_from([None, 1, 2, 4, 9]),
    st.booleans(),
    st.sampled_from([augment.DSA, "none", "crop", "scale"]),
    st.sampled_from(["convnet2", "convnet2-bn", "mlp", "convnet2-nonorm"]),
    st.integers(0, 99),
)
def test_the_adjoint_is_the_unrolled_gradient(shape, images, steps, batch, soft, strategy, network, seed):
    given_, logits = problem(shape, 3, images, steps, batch, soft, strategy, network, seed)
    ours, theirs = (gradients(one, given_, logits) for one in (unrolling.adjoint, unrolling.unrolled))
    assert max(errors(ours, theirs)) < 1e-12
    assert len(ours) == 4 + soft


def test_every_step_checkpointed_is_a_second_witness():
    """The reference written anew: torch's own checkpointing of each step, cross-entropy by hand, the loss by hand."""
    (forward, start, goal, images, targets, alpha, steps), logits = problem(
        images=5, steps=6, batch=2, soft=True
    )

    def move(theta, images, targets, alpha, rows, drawn):
        theta = theta if theta.requires_grad else theta.requires_grad_()
        x = augment.apply(drawn, images[rows], torch.arange(len(rows)))
        entropy = -(targets[rows] * torch.log_softmax(forward(theta, x), 1)).sum(1).mean()
        return theta - alpha * torch.autograd.grad(entropy, theta, create_graph=True)[0]

    theta = start.clone().requires_grad_()
    for step in steps:
        theta = checkpoint(move, theta, images, targets, alpha, step.rows, step.drawn, use_reentrant=False)
    loss = ((theta - goal) ** 2).sum() / ((start - goal) ** 2).sum()
    theirs = [loss, theta, *torch.autograd.grad(loss, [images, alpha, logits], retain_graph=True)]
    for one in (unrolling.adjoint, unrolling.unrolled):
        assert (
            max(errors(gradients(one, (forward, start, goal, images, targets, alpha, steps), logits), theirs))
            < 1e-12
        )


@pytest.mark.parametrize("soft", [False, True])
def test_the_adjoint_is_what_finite_differences_say(soft):
    given_, logits = problem(steps=3, batch=4, soft=soft, network="mlp")
    _, _, *found = gradients(unrolling.adjoint, given_, logits)
    inputs = [given_[3], given_[5], *([logits] if soft else [])]
    for which, (tensor, gradient) in enumerate(zip(inputs, found, strict=True)):
        towards = torch.randn(tensor.shape, generator=stream(which, "towards"), dtype=torch.float64)
        values = []
        for sign in (1, -1):
            moved = [
                one.detach() + (sign * 1e-6 * towards if place == which else 0)
                for place, one in enumerate(inputs)
            ]
            targets = moved[2].softmax(1) if soft else given_[4]
            values.append(
                float(unrolling.unrolled(*given_[:3], moved[0], targets, moved[1], given_[-1])[0].detach())
            )
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(
            float((gradient * towards).sum()), rel=1e-5, abs=1e-9
        )


@pytest.mark.parametrize("factor", [1, 2])
def test_tesla_is_its_own_formula_and_not_the_exact_gradient(factor):
    given_, logits = problem(images=5, steps=6, batch=2, soft=True)
    forward, start, goal, images, targets, alpha, steps = given_
    loss, theta, *found = gradients(lambda *given_: unrolling.tesla(*given_, factor=factor), given_, logits)
    walk, total = start, torch.zeros_like(start)
    for step in steps:
        held = walk.detach().requires_grad_()
        entropy = F.cross_entropy(forward(held, step.augmented(images[step.rows])), targets[step.rows])
        g = torch.autograd.grad(entropy, held, create_graph=True)[0]
        walk, total = walk - alpha.detach() * g.detach(), total + g
    formula = (start - alpha * total - goal).square().sum() / (start - goal).square().sum()
    of_images, of_alpha, of_logits = torch.autograd.grad(formula, [images, alpha, logits], retain_graph=True)
    expected = [formula, walk, of_images * factor / 2, of_alpha, of_logits * factor / 2]
    assert max(errors([loss, theta, *found], expected)) < 1e-12
    assert min(errors(found, gradients(unrolling.unrolled, given_, logits)[2:])) > 1e-3


def test_one_step_leaves_tesla_nothing_to_neglect():
    given_, logits = problem(steps=1)
    assert (
        max(errors(gradients(unrolling.tesla, given_, logits), gradients(unrolling.unrolled, given_, logits)))
        < 1e-12
    )


def tape_bytes(loss_of, given_):
    """The most bytes saved for backward passes that were alive at once, views counted anew."""
    alive = peak = 0

    class Saved:
        def __init__(self, tensor):
            nonlocal alive, peak
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            alive += self.size
            peak = max(peak, alive)

        def __del__(self):
            nonlocal alive
            alive -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        loss, _ = loss_of(*given_)
        torch.autograd.grad(loss, [given_[3], given_[5]])
    return peak


def test_the_tape_of_the_adjoint_does_not_grow_with_the_steps():
    found = {
        steps: [tape_bytes(one, problem(steps=steps)[0]) for one in (unrolling.adjoint, unrolling.unrolled)]
        for steps in (5, 20)
    }
    assert found[20][0] <= found[20][1] / 8
    assert found[20][0] <= 1.1 * found[5][0]
    assert found[20][1] > 3 * found[5][1]


def test_a_gradient_of_the_gradient_is_refused():
    given_, _ = problem(steps=2)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(weight * unrolling.adjoint(*given_)[0], given_[3], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# the method


def sets(data):
    return [
        ddcore.Pixels(data, 1, step=0.05),
        ddcore.Pixels(data, 2, step=0.05, soft=3.0),
        ddcore.LowRank(data, 1, rank=1, step=0.05),
        ddcore.LowRank(data, 1, rank=1, step=0.05, soft=3.0),
    ]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("batch_syn", [None, 4])
def test_all_that_a_set_stores_is_learned_by_the_exact_gradient(digits64, which, batch_syn):
    synthetic, found = sets(digits64)[which], []
    for gradient in ("adjoint", "unrolled"):
        match = next(
            MTT(**FEW, batch_syn=batch_syn, gradient=gradient).matches(digits64, synthetic, seed=3, start=2)
        )
        found.append([match.loss, *torch.autograd.grad(match.loss, synthetic.parameters())])
    assert len(found[0]) == 1 + len(synthetic.tensors)
    assert max(errors(*found)) < 1e-12


def test_the_loss_is_the_published_one_of_the_trajectory_drawn(digits64):
    """Step by step with plain parameters and no helper of the method but its draws."""
    synthetic, method = ddcore.Pixels(digits64, 1, step=0.05), MTT(**FEW, batch_syn=4)
    match = next(method.matches(digits64, synthetic, seed=1, start=6))
    generator = stream(1, "mtt", "trajectory", 6)
    number, epoch = (
        int(torch.randint(2, (), generator=generator)),
        int(torch.randint(2, (), generator=generator)),
    )
    rows = [
        torch.from_numpy(row.copy()).double()
        for row in ddcore.methods.experts.experts(digits64, SMALL)[number][[epoch, epoch + 1]]
    ]
    net = SMALL.network_for(digits64, stream(0, "any"))
    torch.nn.utils.vector_to_parameters(rows[0].clone(), net.parameters())
    generator = stream(1, "mtt", "steps", 6)
    batches = []
    for _ in range(5):
        batches = batches or list(torch.randperm(10, generator=generator).split(4))
        chosen = batches.pop()
        x = augment.apply(
            augment.draw(augment.DSA, 1, generator, each=len(chosen)),
            synthetic.images()[chosen],
            torch.arange(len(chosen)),
        )
        wanted = torch.autograd.grad(
            F.cross_entropy(net(x), synthetic.labels[chosen]), list(net.parameters())
        )
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), wanted, strict=True):
                parameter -= 0.05 * gradient
    expected = (flatten(net) - rows[1]).square().sum() / (rows[0] - rows[1]).square().sum()
    assert match.loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.equal(flatten(match.network), rows[1])
    torch.testing.assert_close(flatten(match.student), flatten(net), rtol=1e-12, atol=1e-12)


def test_batches_use_each_image_once_before_any_again():
    steps = MTT(**(FEW | {"syn_steps": 9}), batch_syn=4)._steps(10, stream(0, "steps"))
    assert [len(step.rows) for step in steps] == [2, 4, 4] * 3
    for first in range(0, 9, 3):
        assert sorted(torch.cat([step.rows for step in steps[first : first + 3]]).tolist()) == list(range(10))


def test_step_k_does_not_depend_on_where_the_run_began(digits64):
    synthetic, method = ddcore.Pixels(digits64, 1, step=0.05), MTT(**FEW)
    late = next(method.matches(digits64, synthetic, seed=1, start=3))
    from_zero = next(itertools.islice(method.matches(digits64, synthetic, seed=1, start=0), 3, None))
    assert torch.equal(late.loss, from_zero.loss)
    assert torch.equal(late.real, from_zero.real)


def test_features_are_found_when_looked_at_and_only_the_synthetic_ones_carry_a_tape(digits64, monkeypatch):
    calls = []
    whole = networks.Network.features
    monkeypatch.setattr(networks.Network, "features", lambda self, x: calls.append(len(x)) or whole(self, x))
    synthetic = ddcore.LowRank(digits64, 1, rank=1, step=0.05)
    match = next(MTT(**(FEW | {"syn_steps": 2})).matches(digits64, synthetic, seed=0))
    before = len(calls)
    assert len(match.real_features) == len(match.synthetic_features) == 2
    assert len(calls) == before + 2
    assert not match.real_features[-1].requires_grad
    assert (
        torch.autograd.grad(match.synthetic_features[0].sum(), synthetic.parameters()[0])[0].abs().sum() > 0
    )
    assert torch.equal(match.real_features[-1].flatten(1), match.network.embed(match.real))
    assert torch.equal(match.synthetic_features[-1].flatten(1), match.student.embed(synthetic.images()))
    assert match.real_labels.tolist() == [label for label in range(10) for _ in range(5)]


def test_soft_labels_begin_as_those_of_an_expert(digits64):
    synthetic = ddcore.Pixels(digits64, 2, step=0.05, soft=3.0)
    matches = MTT(**FEW).matches(digits64, synthetic, seed=0)
    next(matches)
    net = ddcore.methods.experts.fill(
        SMALL.network_for(digits64, stream(0, "any")),
        torch.from_numpy(ddcore.methods.experts.experts(digits64, SMALL)[0][-1].copy()).double(),
    )
    assert torch.equal(synthetic.tensors["soft"], net(synthetic.images()))
    later = ddcore.Pixels(digits64, 2, step=0.05, soft=3.0)
    next(MTT(**FEW).matches(digits64, later, seed=0, start=1))
    assert torch.equal(later.tensors["soft"], 3.0 * F.one_hot(later.labels, 10))


def test_a_plugin_sees_both_sides_and_its_network_is_not_the_goal(digits64):
    class Shrink:
        def adjust(self, network, batch, labels, generator):
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.mul_(0.5)
            return network

        def loss(self, match, memory):
            return match.synthetic_features[0].square().mean() * 0

    losses = [
        ddcore.distill(
            digits64, ddcore.Pixels(digits64, 1, step=0.05), MTT(**FEW), plugins=plugins, steps=3
        ).losses
        for plugins in ([], [Shrink()])
    ]
    assert losses[0] == losses[1]


def test_distilled_digits_fall_in_loss_and_train_better_than_the_images_they_began_as(tmp_path):
    data = ddcore.load("digits", "cpu")
    method = MTT(
        experts=Experts(width=8, experts=3, epochs=6, lr=0.1),
        expert_epochs=2,
        max_start_epoch=3,
        syn_steps=10,
        batch_real=1,
    )
    synthetic = ddcore.Pixels(data, 1, step=0.1, step_rate=0.05, seed=0)
    trace = ddcore.distill(data, synthetic, method, steps=60, lr_img=30.0, momentum=0.5)
    assert sum(trace.losses[-15:]) < 0.95 * sum(trace.losses[:15])
    assert float(synthetic.step_size.detach()) > 0
    scores = {
        name: ddcore.evaluate(
            one, data, seeds=range(2), width=8, epochs=60, lr=float(synthetic.step_size.detach())
        ).mean
        for name, one in {"mtt": synthetic, "real": ddcore.Pixels(data, 1, seed=0)}.items()
    }
    assert scores["mtt"] > scores["real"] + 5, scores


def test_the_step_size_stays_positive_whatever_its_gradient(digits64):
    synthetic = ddcore.Pixels(digits64, 1, step=0.5, step_rate=1.0)
    ddcore.distill(digits64, synthetic, MTT(**(FEW | {"syn_steps": 3})), steps=1, lr_img=1.0)
    assert 0 < float(synthetic.step_size.detach()) < 0.1


def test_settings_come_from_a_mapping():
    built = ddcore.settings.build(
        MTT, {"experts": {"width": 8, "epochs": 9}, "max_start_epoch": 3, "batch_syn": 7}
    )
    assert built == MTT(experts=Experts(width=8, epochs=9), max_start_epoch=3, batch_syn=7)
    assert MTT.versions == {"trajectories": ddcore.methods.experts.VERSION}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"gradient": "autograd"}, ("gradient", "adjoint", "tesla")),
        ({"tesla_factor": 3}, ("tesla_factor=3", "2", "1")),
        ({"syn_steps": 0}, ("syn_steps=0",)),
        ({"batch_syn": 0}, ("batch_syn=0",)),
        ({"strategy": "blur"}, ("blur",)),
        ({"max_start_epoch": 40, "expert_epochs": 20}, ("reach epoch 59", "50 epochs", "train them longer")),
    ],
)
def test_ill_settings_are_refused(refuses, wrong, words):
    with refuses(*words):
        MTT(**wrong)


def test_a_set_without_a_step_size_is_refused(refuses, digits64):
    with refuses("step=0.01"):
        ddcore.distill(digits64, ddcore.Pixels(digits64, 1), MTT(**FEW), steps=1)

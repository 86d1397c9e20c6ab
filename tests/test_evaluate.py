"""The protocol: equal to a plain training loop, whether networks are trained one by one or at once."""

import dataclasses
import statistics

import pytest
import torch

import ddcore
from ddcore import augment, networks
from ddcore.data import whitening
from ddcore.evaluation import Protocol, accuracy
from ddcore.random import stream

SMALL = {"network": "convnet2", "width": 6, "epochs": 7, "batch": 16}


def parameters(network):
    return torch.cat([tensor.detach().flatten() for tensor in network.state_dict().values()])


@pytest.mark.parametrize("network", ["convnet2", "convnet2-bn", "mlp"])
@pytest.mark.parametrize("strategy", [augment.DSA, "none"])
def test_networks_trained_at_once_equal_one_by_one(digits64, network, strategy):
    images = ddcore.Pixels(digits64, 2)
    how = Protocol(**(SMALL | {"network": network, "strategy": strategy}))
    together = how.train(images.images().detach(), images.labels, digits64, (0, 1, 2))
    for seed, network_ in enumerate(together):
        alone = how.train(images.images().detach(), images.labels, digits64, (seed,))[0]
        assert float((parameters(alone) - parameters(network_)).abs().max()) < 1e-12


def test_training_is_the_published_loop(digits64):
    """SGD with momentum and weight decay, E + 1 epochs, a tenth of the step after epoch E // 2 + 1 with a fresh optimiser."""
    images, labels = digits64.x_train[::70], digits64.y_train[::70]
    ours = Protocol(**SMALL, strategy="none").train(images, labels, digits64, (4,))[0]
    net = networks.build(
        "convnet2",
        digits64.shape,
        10,
        width=6,
        dtype=torch.float64,
        generator=stream(4, "evaluate", "network"),
    )
    generator, lr = stream(4, "evaluate", "train"), 0.01
    velocity = [torch.zeros_like(parameter) for parameter in net.parameters()]
    for epoch in range(7 + 1):
        for rows in torch.randperm(len(images), generator=generator).split(16):
            torch.rand(1, generator=generator), torch.rand(len(rows), 4, generator=generator)
            loss = -torch.log_softmax(net(images[rows]), 1)[torch.arange(len(rows)), labels[rows]].mean()
            with torch.no_grad():
                gradients = torch.autograd.grad(loss, list(net.parameters()))
                for parameter, speed, gradient in zip(net.parameters(), velocity, gradients, strict=True):
                    speed.mul_(0.9).add_(gradient + 5e-4 * parameter)
                    parameter.sub_(lr * speed)
        if epoch == 7 // 2 + 1:
            lr, velocity = lr * 0.1, [torch.zeros_like(parameter) for parameter in net.parameters()]
    assert float((parameters(ours) - parameters(net)).abs().max()) < 1e-12


def test_accuracy_counts_the_last_partial_batch(digits):
    network = networks.build("mlp", digits.shape, 10, generator=stream(0, "net"))
    right = sum(
        int(network(x[None]).argmax()) == int(y) for x, y in zip(digits.x_test, digits.y_test, strict=True)
    )
    assert accuracy(network, digits) == pytest.approx(100 * right / len(digits.y_test), abs=1e-4)


def test_a_network_learns_the_whole_set(digits):
    protocol = {"network": "convnet2", "width": 16, "epochs": 20, "lr": 0.05, "strategy": "none"}
    scores = ddcore.evaluate(ddcore.baseline("whole", digits, 1), digits, seeds=[0], **protocol)
    assert scores.mean > 90


def test_scores_are_mean_sd_n_of_every_score(digits):
    scores = ddcore.evaluate(
        ddcore.Pixels(digits, 1), digits, seeds=[3, 1, 2], controls=["herding", "random"], **SMALL
    )
    assert scores.n == 3
    assert scores.mean == pytest.approx(statistics.mean(scores.scores))
    assert scores.sd == pytest.approx(statistics.stdev(scores.scores))
    assert list(scores.controls) == ["herding", "random"]
    assert scores.to_dict()["controls"]["random"]["n"] == 3
    assert scores.controls["random"].stored_numbers == scores.stored_numbers


def test_a_score_depends_on_its_seed_only(digits):
    synthetic = ddcore.Pixels(digits, 1)
    many = ddcore.evaluate(synthetic, digits, seeds=range(3), **SMALL).scores
    alone = ddcore.evaluate(synthetic, digits, seeds=[1], **SMALL).scores
    assert many[1] == alone[0]


def test_evaluation_leaves_the_set_as_it_was(digits):
    synthetic = ddcore.LowRank(digits, 1, rank=1)
    before = [tensor.detach().clone() for tensor in synthetic.parameters()]
    ddcore.evaluate(synthetic, digits, seeds=[0], **SMALL)
    assert all(torch.equal(one, other) for one, other in zip(before, synthetic.parameters(), strict=True))


def test_one_seed_has_no_sd(digits):
    found = ddcore.evaluate(ddcore.Pixels(digits, 1), digits, seeds=[0], **SMALL)
    assert found.to_dict()["sd"] is None


def test_bad_input_is_refused(digits):
    with pytest.raises(ddcore.BadInput, match="no seeds"):
        ddcore.evaluate(ddcore.Pixels(digits, 1), digits, seeds=[])
    with pytest.raises(ddcore.BadInput, match="did you mean 'epochs'"):
        ddcore.evaluate(ddcore.Pixels(digits, 1), digits, epoch=3)
    with pytest.raises(ddcore.BadInput, match="unknown baseline 'hearding'"):
        ddcore.evaluate(ddcore.Pixels(digits, 1), digits, controls=["hearding"], **SMALL)
    wider = dataclasses.replace(digits, x_train=digits.x_train[:][..., :7], x_test=digits.x_test[:][..., :7])
    with pytest.raises(ddcore.BadInput, match=r"\(1, 8, 8\) images, but digits has"):
        ddcore.evaluate(ddcore.Pixels(digits, 1), wider)
    brighter = dataclasses.replace(digits, mean=(0.5,))
    for other, made in (
        (brighter, digits),
        (digits, brighter),
        (digits, whitening.whiten(digits)),
        (whitening.whiten(digits), digits),
        (whitening.whiten(digits, eps=0.5), whitening.whiten(digits)),
    ):
        with pytest.raises(ddcore.BadInput, match="as normalised or whitened there"):
            ddcore.evaluate(ddcore.Pixels(made, 1), other, seeds=[0], **SMALL)


@pytest.mark.parametrize(
    "wrong", [{"momentum": float("nan")}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"at_once": -1}]
)
def test_ill_settings_are_refused(digits, wrong):
    with pytest.raises(ddcore.BadInput, match=next(iter(wrong))):
        ddcore.evaluate(ddcore.Pixels(digits, 1), digits, **wrong)

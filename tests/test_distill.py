"""The loop: its optimiser, its checkpoints, how it stops."""

import dataclasses
import itertools
import os
import signal
import time

import pytest
import torch

import ddcore
from ddcore.methods import Match


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """Matches with loss |X - target|^2 / 2, which becomes `wrong` at step `at`."""

    target: float = 1.0
    at: int = -1
    wrong: float = float("nan")

    def matches(self, data, synthetic, *, seed, start, look, memory):
        for step in itertools.count(start):
            images = synthetic.images()
            loss = (images - self.target).square().sum() / 2
            loss = loss * self.wrong if step == self.at else loss
            yield Match(step, None, None, None, images, synthetic.labels, (), (), loss)


class Steep:
    """A finite loss whose gradient, 1e20 for every number, is finite too."""

    def matches(self, data, synthetic, *, seed, start, look, memory):
        for step in itertools.count(start):
            images = synthetic.images()
            yield Match(step, None, None, None, images, synthetic.labels, (), (), 1e20 * images.mean())


def state(synthetic):
    return {name: tensor.detach().clone() for name, tensor in synthetic.tensors.items()}


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_update_is_sgd_with_momentum(digits):
    synthetic = ddcore.Pixels(digits, 1)
    x, velocity = synthetic.images().detach().clone(), 0.0
    trace = ddcore.distill(digits, synthetic, Quadratic(), steps=4, lr_img=0.1, momentum=0.5)
    losses = []
    for _ in range(4):
        losses.append(float((x - 1).square().sum() / 2))
        velocity = 0.5 * velocity + (x - 1)
        x = x - 0.1 * velocity
    torch.testing.assert_close(synthetic.images().detach(), x)
    assert trace.losses == pytest.approx(losses, rel=1e-5)


def test_low_rank_factors_move_by_the_chain_rule(digits):
    synthetic = ddcore.LowRank(digits, 1, rank=1)
    u, v = (tensor.detach().clone() for tensor in synthetic.parameters())
    gradient = u @ v - 1
    ddcore.distill(digits, synthetic, Quadratic(), steps=1, lr_img=0.01, momentum=0.0)
    torch.testing.assert_close(synthetic.tensors["u"].detach(), u - 0.01 * gradient @ v.mT)
    torch.testing.assert_close(synthetic.tensors["v"].detach(), v - 0.01 * u.mT @ gradient)


def test_dm_lowers_its_loss(digits):
    trace = ddcore.distill(
        digits, ddcore.LowRank(digits, 1, rank=1), ddcore.DM(width=16, batch_real=32), steps=40
    )
    assert sum(trace.losses[-10:]) < 0.7 * sum(trace.losses[:10])


@pytest.mark.parametrize(
    "make", [lambda data: ddcore.Pixels(data, 2), lambda data: ddcore.LowRank(data, 1, rank=1)]
)
def test_ctrl_c_saves_and_a_resumed_run_is_the_same_bit_for_bit(digits, make, tmp_path):
    method, checkpoint = ddcore.DM(width=4, batch_real=10), tmp_path / "run.checkpoint"
    whole = make(digits)
    expected = ddcore.distill(digits, whole, method, steps=9, seed=2)

    def interrupt(step, loss):
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ddcore.Interrupted, match=r"stopped after step [45] of 9"):
        ddcore.distill(
            digits, make(digits), method, steps=9, seed=2, checkpoint=checkpoint, progress=interrupt
        )
    assert signal.getsignal(signal.SIGINT) is before
    again = make(digits)
    trace = ddcore.distill(digits, again, method, steps=9, seed=2, checkpoint=checkpoint)
    assert trace.resumed in (4, 5)
    assert trace.losses == expected.losses
    assert equal(state(again), state(whole))
    assert not checkpoint.exists()
    assert [whole.save(tmp_path / "a").read_bytes()] == [again.save(tmp_path / "b").read_bytes()]


def test_checkpoints_come_by_time(digits, tmp_path):
    checkpoint, seen = tmp_path / "run.checkpoint", []
    ddcore.distill(
        digits,
        ddcore.Pixels(digits, 1),
        Quadratic(),
        steps=5,
        checkpoint=checkpoint,
        every_seconds=0.0,
        lr_img=0.1,
        progress=lambda step, loss: seen.append(checkpoint.exists()),
    )
    assert seen == [False, True, True, True, True]


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"lr_img": 0.2}, {"momentum": 0.1}, {"method": Quadratic(target=2.0)}]
)
def test_a_checkpoint_of_another_run_is_refused(digits, tmp_path, change):
    checkpoint = tmp_path / "run.checkpoint"
    run = {"method": Quadratic(), "steps": 5, "lr_img": 0.1, "seed": 0}

    def stop(step, loss):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(ddcore.Interrupted):
        ddcore.distill(digits, ddcore.Pixels(digits, 1), **run, checkpoint=checkpoint, progress=stop)
    saved = checkpoint.read_bytes()
    with pytest.raises(ddcore.BadInput, match="other settings"):
        ddcore.distill(digits, ddcore.Pixels(digits, 1), **(run | change), checkpoint=checkpoint)
    assert checkpoint.read_bytes() == saved


class Brighter:
    """A plugin that is no dataclass: its repr holds an address."""

    def loss(self, match, memory):
        return -match.synthetic.mean()


def test_a_run_with_any_plugin_goes_on_in_another_process(digits, tmp_path):
    run = {"steps": 5, "lr_img": 0.1, "checkpoint": tmp_path / "run.checkpoint"}
    whole, cut = ddcore.Pixels(digits, 1), ddcore.Pixels(digits, 1)
    ddcore.distill(digits, whole, ddcore.DM(width=8, batch_real=8), plugins=[Brighter()], steps=5, lr_img=0.1)
    with pytest.raises(ddcore.Interrupted):
        ddcore.distill(
            digits,
            cut,
            ddcore.DM(width=8, batch_real=8),
            plugins=[Brighter()],
            **run,
            progress=lambda step, loss: os.kill(os.getpid(), signal.SIGINT),
        )
    again = ddcore.Pixels(digits, 1)
    trace = ddcore.distill(
        digits, again, ddcore.DM(width=8, batch_real=8), plugins=[Brighter()], **run
    )  # another instance, as there
    assert trace.resumed > 0
    assert torch.equal(again.images(), whole.images())


def test_a_checkpoint_that_is_no_checkpoint_is_refused(digits, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    checkpoint.write_bytes(b"\x10\x00\x00")
    with pytest.raises(ddcore.BadInput, match="not a whole checkpoint"):
        ddcore.distill(digits, ddcore.Pixels(digits, 1), Quadratic(), steps=2, checkpoint=checkpoint)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_state_before_it(digits, tmp_path, wrong):
    checkpoint, sound = tmp_path / "run.checkpoint", ddcore.Pixels(digits, 1)
    ddcore.distill(digits, sound, Quadratic(), steps=3, lr_img=0.1)
    synthetic = ddcore.Pixels(digits, 1)
    with pytest.raises(
        ddcore.Diverged, match=r"the loss became (nan|inf) at step 4, from .*after 3 steps.*smaller lr_img"
    ):
        ddcore.distill(
            digits, synthetic, Quadratic(at=3, wrong=wrong), steps=8, lr_img=0.1, checkpoint=checkpoint
        )
    assert equal(state(synthetic), state(sound))
    restored = ddcore.Pixels(digits, 1)
    with pytest.raises(ddcore.Diverged, match="at step 4"):
        ddcore.distill(
            digits, restored, Quadratic(at=3, wrong=wrong), steps=8, lr_img=0.1, checkpoint=checkpoint
        )
    assert equal(state(restored), state(sound))


def test_a_step_size_that_is_too_large_diverges_and_says_so(digits):
    synthetic = ddcore.LowRank(digits, 1, rank=1)
    with pytest.raises(ddcore.Diverged, match="smaller lr_img"):
        ddcore.distill(digits, synthetic, ddcore.DM(width=4, batch_real=10), steps=60, lr_img=1e12)
    assert all(tensor.isfinite().all() for tensor in synthetic.parameters())


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_an_update_that_overflows_diverges_and_leaves_the_set_before_it(digits, optimiser):
    synthetic = ddcore.Pixels(digits, 1)
    before = state(synthetic)
    with pytest.raises(
        ddcore.Diverged, match="not finite at step 1; the finite state after 0 steps is left in the set"
    ):
        ddcore.distill(digits, synthetic, Steep(), steps=1, lr_img=9e29, optimiser=optimiser)
    assert equal(state(synthetic), before)


def test_a_method_needs_not_be_a_dataclass(digits, tmp_path):
    class Plain:
        def matches(self, *arguments, **keywords):
            return Quadratic().matches(*arguments, **keywords)

    synthetic = ddcore.Pixels(digits, 1)
    ddcore.distill(digits, synthetic, Plain(), steps=2, lr_img=0.1, checkpoint=tmp_path / "run.checkpoint")
    assert synthetic.settings["distilled"]["method"] == "Plain"
    assert not list(tmp_path.iterdir())


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_calls(digits, tmp_path):
    def stop(step, loss):
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    run = {"steps": 3, "lr_img": 0.1, "checkpoint": tmp_path / "run.checkpoint"}
    with pytest.raises(ddcore.Interrupted):
        ddcore.distill(digits, ddcore.Pixels(digits, 1), Quadratic(), **run, progress=stop)
    assert ddcore.distill(digits, ddcore.Pixels(digits, 1), Quadratic(), **run).seconds > 0.2


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"lr_img": 0.0},
        {"lr_img": float("nan")},
        {"lr_img": 1e39},
        {"momentum": 1.0},
        {"momentum": -3.0},
        {"momentum": float("nan")},
        {"optimiser": "adam", "beta2": 1.0},
    ],
)
def test_settings_that_do_nothing_are_refused(digits, change):
    with pytest.raises(ddcore.BadInput):
        ddcore.distill(digits, ddcore.Pixels(digits, 1), Quadratic(), **({"steps": 2} | change))


# Adam, cosine, projection


def test_adam_with_a_cosine_is_that_of_torch(digits):
    synthetic = ddcore.Pixels(digits, 1)
    x = synthetic.images().detach().clone().requires_grad_()
    ddcore.distill(
        digits,
        synthetic,
        Quadratic(),
        steps=6,
        lr_img=0.1,
        momentum=0.5,
        optimiser="adam",
        beta2=0.8,
        schedule="cosine",
    )
    optimiser = torch.optim.Adam([x], lr=0.1, betas=(0.5, 0.8))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 6)
    for _ in range(6):
        optimiser.zero_grad()
        ((x - 1).square().sum() / 2).backward()
        optimiser.step()
        schedule.step()
    torch.testing.assert_close(synthetic.images().detach(), x.detach())


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_resumed_run_of_adam_is_the_same_bit_for_bit(digits, schedule, tmp_path):
    how = {"steps": 7, "lr_img": 0.1, "optimiser": "adam", "schedule": schedule}
    whole, cut = ddcore.Pixels(digits, 1), ddcore.Pixels(digits, 1)
    expected = ddcore.distill(digits, whole, Quadratic(), **how)

    def stop(step, loss):
        if step == 4:
            raise RuntimeError("stopped")

    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(RuntimeError, match="stopped"):
        ddcore.distill(digits, cut, Quadratic(), checkpoint=checkpoint, every_seconds=0, progress=stop, **how)
    again = ddcore.Pixels(digits, 1)
    trace = ddcore.distill(digits, again, Quadratic(), checkpoint=checkpoint, **how)
    assert trace.resumed == 3
    assert trace.losses == expected.losses
    assert torch.equal(again.images(), whole.images())


def test_pixels_stay_in_range_through_a_run(digits):
    synthetic = ddcore.Pixels(digits, 1, clip=True)
    ddcore.distill(digits, synthetic, Quadratic(target=100.0), steps=3, lr_img=1.0)
    highest = (1 - torch.tensor(digits.mean)) / torch.tensor(digits.std)
    torch.testing.assert_close(synthetic.images().detach().amax((0, 2, 3)), highest)


def test_what_is_learned_is_named_where_a_method_does_not(digits, refuses):
    with refuses("Quadratic", "'step'"):
        ddcore.distill(digits, ddcore.Pixels(digits, 1, step=0.1), Quadratic(), steps=1)


@pytest.mark.parametrize(
    ("how", "words"),
    [({"optimiser": "lbfgs"}, ("'lbfgs'", "adam")), ({"schedule": "step"}, ("'step'", "cosine"))],
)
def test_an_unknown_rule_is_refused(digits, refuses, how, words):
    with refuses(*words):
        ddcore.distill(digits, ddcore.Pixels(digits, 1), Quadratic(), steps=1, **how)

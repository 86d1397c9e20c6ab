import dataclasses
import math
import os
import signal

import pytest
import torch

import ddcore
from ddcore import augment
from ddcore.evaluation import step_size
from ddcore.evaluation.step_size import HELD_OUT, TRIED, choose, climb
from ddcore.synthetic import create

PROTOCOL = {"network": "convnet", "width": 8, "epochs": 15, "strategy": "none"}
DM = ddcore.DM(width=8, batch_real=16, strategy="none")


def chosen(data, kind, report=None, **more):
    return choose(
        data,
        lambda part: create(part, kind, 1, seed=0, **more),
        DM,
        settings={"steps": 10},
        protocol=PROTOCOL,
        seed=0,
        report=report,
    )


@pytest.fixture
def trials(digits, monkeypatch):
    """`trials(folder, ...)` chooses for pixels, five steps a trial, the accuracy being best at 1; beside the result the step sizes
    evaluated and the number of steps taken."""
    evaluated, drawn, draw = [], [], augment.draw
    monkeypatch.setattr(
        augment, "draw", lambda *given, **keywords: drawn.append(None) or draw(*given, **keywords)
    )

    def evaluate(synthetic, data, *, seeds, **protocol):
        lr = synthetic.settings["distilled"]["lr_img"]
        evaluated.append((lr, synthetic.images().detach().clone(), data, tuple(seeds), protocol))
        return ddcore.Scores((80 - abs(math.log10(lr)),), tuple(seeds), 1, 1, 0.0)

    monkeypatch.setattr(step_size, "evaluate", evaluate)

    def run(
        folder, *, steps=5, method=DM, seed=0, protocol=PROTOCOL, plugins=(), ipc=1, lrs=TRIED, report=None
    ):
        evaluated.clear()
        drawn.clear()
        found = choose(
            digits,
            lambda part: ddcore.Pixels(part, ipc, seed=seed),
            method,
            settings={"steps": steps, "plugins": plugins},
            protocol=protocol,
            seed=seed,
            lrs=lrs,
            folder=folder,
            report=report,
        )
        return found, list(evaluated), len(drawn)

    return run


def test_a_step_size_is_chosen_for_each_parametrisation_and_is_no_end_of_those_tried(digits, untouched):
    for kind, more in (("pixels", {}), ("lowrank", {"rank": 1})):
        tried: dict = {}
        found = chosen(digits, kind, tried.__setitem__, **more)
        assert tried[found] == max(tried.values())
        assert min(tried) < found < max(tried)


def test_the_choice_does_not_see_the_test_set(digits):
    blind = dataclasses.replace(
        digits, x_test=torch.zeros(1, 1, 8, 8), y_test=torch.zeros(1, dtype=torch.int64)
    )
    tried = [], []
    for data, seen in zip((digits, blind), tried, strict=True):
        chosen(data, "pixels", lambda *pair, seen=seen: seen.append(pair))
    assert tried[0] == tried[1]


def test_each_trial_is_the_run_that_the_step_size_would_give_on_nine_tenths(trials, digits, tmp_path):
    found, evaluated, _ = trials(None, seed=3)
    assert found == 1.0
    assert [lr for lr, *_ in evaluated] == [0.1, 1.0, 10.0]
    part = digits.holdout(HELD_OUT)
    assert len(part.y_test) / len(digits.y_train) == pytest.approx(0.1, abs=0.01)
    for lr, images, data, seeds, protocol in evaluated:
        expected = ddcore.Pixels(part, 1, seed=3)
        ddcore.distill(part, expected, DM, steps=5, lr_img=lr, seed=3)
        assert torch.equal(images, expected.images())
        assert (data.sha256, seeds, protocol) == (part.sha256, (3000,), PROTOCOL)


def test_trials_are_kept_and_not_tried_again(trials, tmp_path):
    told = {}
    first = trials(tmp_path / "trials", report=told.__setitem__)
    assert len(first[1]) == 3
    assert {path.suffix for path in (tmp_path / "trials").iterdir()} == {".json"}
    again = {}
    assert trials(tmp_path / "trials", report=again.__setitem__) == (first[0], [], 0)
    assert again == told == {0.1: 79.0, 1.0: 80.0, 10.0: 79.0}


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 6},
        {"seed": 1},
        {"method": dataclasses.replace(DM, batch_real=9)},
        {"ipc": 2},
        {"protocol": PROTOCOL | {"width": 4}},
        {"plugins": [ddcore.MutualInformation(width=4)]},
    ],
    ids=str,
)
def test_trials_of_other_settings_are_not_taken(trials, tmp_path, changed):
    trials(tmp_path)
    assert len(trials(tmp_path, **changed)[1]) == 3
    assert trials(tmp_path)[1:] == ([], 0), "those of before are still there"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_search_that_is_stopped_goes_on_where_it_was(trials, tmp_path, monkeypatch, number):
    """In the third of five steps of the second trial."""
    whole, seen, steps = trials(tmp_path / "whole")
    draw, calls = augment.draw, []

    def stopping(*given, **keywords):
        calls.append(None)
        if len(calls) == 5 + 3:
            os.kill(os.getpid(), number)
        return draw(*given, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(augment, "draw", stopping)
        with pytest.raises(ddcore.Interrupted, match="after step 3 of 5; the state is in"):
            trials(tmp_path / "cut")
    found, rest, taken = trials(tmp_path / "cut")
    assert (found, taken) == (whole, steps - 5 - 3)
    assert [lr for lr, *_ in rest] == [1.0, 10.0]
    assert all(
        torch.equal(images, again) for (_, images, *_), (_, again, *_) in zip(seen[1:], rest, strict=True)
    )


def test_a_set_whose_evaluation_was_stopped_is_not_distilled_again(trials, tmp_path, monkeypatch):
    evaluate = step_size.evaluate

    def stopped(synthetic, *given, **keywords):
        if synthetic.settings["distilled"]["lr_img"] == 1.0:
            raise ddcore.Interrupted("stopped", signal.SIGINT)
        return evaluate(synthetic, *given, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(step_size, "evaluate", stopped)
        with pytest.raises(ddcore.Interrupted):
            trials(tmp_path)
    found, rest, taken = trials(tmp_path)
    assert (found, [lr for lr, *_ in rest], taken) == (1.0, [1.0, 10.0], 5)


def test_nothing_is_left_where_nothing_was_tried(trials, tmp_path, refuses):
    with refuses("steps=0"):
        trials(tmp_path / "trials", steps=0)
    for wrong in (-1.0, 0.0, math.nan):
        with refuses("lr_img"):
            trials(tmp_path / "trials", lrs=(0.1, wrong))
    assert list(tmp_path.iterdir()) == []


CLIMBS = {  # accuracy by exponent of ten -> exponents tried in their order, and the best
    "in the middle": (lambda e: -abs(e), [-1, 0, 1], 0),
    "upwards": (lambda e: -abs(e - 3), [-1, 0, 1, 2, 3, 4], 3),
    "downwards": (lambda e: -abs(e + 3), [-1, 0, 1, -2, -3, -4], -3),
    "of equals the first": (lambda e: 0 if e < 1 else -1, [-1, 0, 1, -2], -1),
    "up to what diverges": (lambda e: e if e < 2 else None, [-1, 0, 1, 2], 1),
    "the last diverges": (lambda e: e if e < 1 else None, [-1, 0, 1], 0),
    "all but one diverge": (lambda e: {-1: 0, -2: -1}.get(e), [-1, 0, -2], -1),
}


@pytest.mark.parametrize("case", CLIMBS)
def test_it_climbs_while_an_end_is_best(case):
    accuracy, expected, best = CLIMBS[case]
    tried = []

    def of(lr):
        tried.append(round(math.log10(lr)))
        if (found := accuracy(tried[-1])) is None:
            raise ddcore.Diverged("x")
        return found

    found, top = climb(of, (1.0, 10.0, 0.1))
    assert tried == expected
    assert round(math.log10(top)) == best
    assert {round(math.log10(lr)): value for lr, value in found.items()} == {
        e: accuracy(e) for e in expected if accuracy(e) is not None
    }


def test_a_search_without_a_finite_trial_raises(trials):
    def of(lr):
        raise ddcore.Diverged(f"at {lr}")

    with pytest.raises(ddcore.Diverged, match=r"at 0\.1"):
        climb(of, TRIED)

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddcore.errors import BadInput
from ddcore.files.records import read_all
from ddcore.lab.experiment import Experiment
from ddcore.lab.measurements.continual import Continual, class_order, forgetting
from ddcore.lab.runner import Runner
from ddcore.settings import canonical

EVALUATE = {"width": 8, "epochs": 8, "networks": 2, "strategy": "none"}
DM = {
    "synthetic": {"kind": "lowrank", "rank": 1},
    "method": {"name": "dm", "width": 8, "batch_real": 8, "strategy": "none"},
    "distill": {"steps": 3},
}


def test_only_keeps_the_images_of_its_classes_and_numbers_them_in_order(digits):
    part = digits.only([7, 2])
    assert part.classes == 2
    assert part.class_names == ("7", "2")
    assert torch.equal(part.class_images(0)[:], digits.class_images(7)[:])
    assert torch.equal(part.class_images(1)[:], digits.class_images(2)[:])
    assert torch.equal(part.x_test[part.y_test == 1], digits.x_test[digits.y_test == 2])
    assert part.sha256 not in (digits.sha256, digits.only([2, 7]).sha256)


@pytest.mark.parametrize("classes", [[], [1, 1], [10], [-1]])
def test_only_refuses_other_classes(digits, classes):
    with pytest.raises(BadInput, match="each named once"):
        digits.only(classes)


@given(st.integers(1, 100), st.integers(0, 9))
def test_an_order_names_every_class_once(classes, seed):
    assert sorted(class_order(classes, seed)) == list(range(classes))


@given(st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_nothing_is_forgotten_while_accuracies_rise(values):
    tasks = len(values)
    rising = [sorted(values)[: step + 1] for step in range(tasks)]
    assert forgetting([[row[-1]] * len(row) for row in rising]) <= 0
    assert forgetting([[50.0] * (step + 1) for step in range(tasks)]) == 0
    assert forgetting([[60.0], [10.0, 70.0]]) == 50.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"synthetic": {"kind": "lowrank", "rank": 1, "soft": 2.0}}, "without `soft`"),
        ({"synthetic": {"kind": "whole"}, "method": {}, "distill": {}}, "no memory"),
        (
            {"evaluate": {"protocol": "relabel", "teacher": {"network": "convnet-bn", "width": 8}}},
            "images of earlier steps",
        ),
    ],
)
def test_what_a_learner_in_time_can_not_have_is_refused(change, words):
    with pytest.raises(BadInput, match=words):
        Continual(Experiment("digits", 1, **{"evaluate": EVALUATE, **DM} | change))


def test_one_task_is_the_plain_experiment(digits):
    experiment = Experiment("digits", 1, evaluate=EVALUATE, **DM)
    result, _ = Continual(experiment, tasks=1).make(digits, None)
    alone, _ = experiment.make(digits.only(class_order(10, 0)), None)
    assert result["steps"][0]["scores"] == alone["scores"]
    assert result["stored_numbers"] == alone["stored_numbers"]


def test_a_step_knows_nothing_of_the_classes_to_come(digits):
    continual = Continual(Experiment("digits", 1, evaluate=EVALUATE, **DM), tasks=5)
    late = torch.isin(digits.y_train, torch.tensor(class_order(10, 0)[4:]))
    other = dataclasses.replace(
        digits, x_train=torch.where(late[:, None, None, None], -digits.x_train[:], digits.x_train[:])
    )
    here, there = (continual.make(data, None)[0]["steps"] for data in (digits, other))
    for step in range(2):
        assert here[step]["task_scores"] == there[step]["task_scores"]
    assert here[2:] != there[2:]


def test_the_memory_grows_by_the_same_cost_a_class(digits):
    result, _ = Continual(
        Experiment("digits", 2, evaluate=EVALUATE, synthetic={"kind": "herding"}), tasks=5
    ).make(digits, None)
    assert [step["stored_numbers"] for step in result["steps"]] == [4 * 64 * task for task in range(1, 6)]
    assert [step["classes"] for step in result["steps"]] == [2, 4, 6, 8, 10]
    assert [len(scores) for step in result["steps"] for scores in step["task_scores"]] == [
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
        5,
        5,
    ]


def test_a_score_is_the_mean_of_its_tasks_weighted_by_test_images(digits):
    result, _ = Continual(
        Experiment("digits", 1, evaluate=EVALUATE, synthetic={"kind": "pixels"}), tasks=2
    ).make(digits, None)
    order, counts = class_order(10, 0), torch.bincount(digits.y_test)
    weights = torch.stack([counts[list(order[:5])].sum(), counts[list(order[5:])].sum()]).double()
    for score, tasks in zip(result["steps"][1]["scores"], result["steps"][1]["task_scores"], strict=True):
        assert score == pytest.approx(float((weights * torch.tensor(tasks)).sum() / weights.sum()), abs=1e-3)


def test_an_interrupted_run_goes_on_from_its_last_step(tmp_path, monkeypatch):
    continual = Continual(Experiment("digits", 1, evaluate=EVALUATE, **DM), tasks=5)
    plain = Runner("laptop", device="cpu").run(continual).result
    test, done, runner = Continual._test, [], Runner("laptop", tmp_path, device="cpu")

    def fails_at_the_third(self, memory, seen, size):
        if len(memory) == 3:
            raise KeyboardInterrupt
        done.append(len(memory))
        return test(self, memory, seen, size)

    monkeypatch.setattr(Continual, "_test", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        runner.run(continual)
    assert read_all(tmp_path) == []
    monkeypatch.setattr(Continual, "_test", lambda *given: done.append(len(given[1])) or test(*given))
    record = runner.run(continual)
    again = record.result
    assert record.provenance["seconds"] >= sum(step["seconds"] for step in again["steps"])
    assert done == [1, 2, 3, 4, 5]
    for step in (*plain["steps"], *again["steps"]):
        step.pop("seconds")
    assert again == plain
    assert [path.name for path in tmp_path.iterdir()] == [f"{record.hash}.json"]


def test_its_record_is_kept_and_read_again(tmp_path):
    continual = Continual(Experiment("digits", 1, evaluate=EVALUATE, synthetic={"kind": "pixels"}), tasks=5)
    runner = Runner("laptop", tmp_path, device="cpu")
    record = runner.run(continual)
    assert runner.run(continual).hash == record.hash
    assert (
        record.hash
        != runner.key(Continual(continual.experiment, tasks=10))
        != runner.key(continual.experiment)
    )
    assert json.loads(canonical(record.result)) == record.result


def test_bad_input_is_refused_in_a_sentence(digits):
    plain = Experiment("digits", 1, evaluate=EVALUATE)
    with pytest.raises(BadInput, match="tasks=3 does not divide the 10 classes"):
        Continual(plain, tasks=3).make(digits, None)
    with pytest.raises(BadInput, match="learned step size"):
        Continual(Experiment("digits", 1, synthetic={"kind": "pixels", "step": 0.01}), tasks=5)
    gradient = {
        "method": {"name": "dc", "width": 8, "batch_real": 8, "strategy": "none"},
        "distill": {"steps": 1},
    }
    with pytest.raises(BadInput, match="one class"):
        Continual(Experiment("digits", 1, evaluate=EVALUATE, **gradient), tasks=10).make(digits, None)


def test_forgetting_counts_from_the_best_accuracy_ever():
    assert forgetting([[90.0], [70.0, 80.0], [60.0, 85.0, 50.0]]) == (90 - 60 + 80 - 85) / 2


def test_a_large_memory_teaches_every_task(digits):
    how = {"width": 32, "epochs": 40, "lr": 0.05, "networks": 1, "strategy": "none"}
    result, _ = Continual(Experiment("digits", 20, evaluate=how, synthetic={"kind": "pixels"}), tasks=5).make(
        digits, None
    )
    assert min(result["steps"][-1]["task_scores"][0]) > 30

"""Experiments as JSON: there and back, and what is refused."""

import dataclasses
import json

import pytest

from ddcore.lab.experiment import Experiment
from ddcore.lab.experiment_json import KINDS, from_json, to_json
from ddcore.lab.measurement import Measurement
from ddcore.lab.measurements.continual import Continual
from ddcore.lab.measurements.diversity import Diversity
from ddcore.lab.measurements.ratios import Ratios
from ddcore.lab.measurements.transfer import Transfer
from ddcore.lab.runner import Runner
from ddcore.synthetic import Pixels

DM = {"name": "dm", "width": 8, "batch_real": 8, "strategy": "none"}
DISTILLED = Experiment(
    "digits",
    2,
    {"kind": "lowrank", "rank": 1},
    DM,
    {"steps": 2},
    {"epochs": 2, "width": 8},
    {"mutual_information": {"weight": 0.5, "width": 8}},
    holdout=0.1,
    seed=3,
)
TEACHER = {"network": "convnet1-bn", "width": 8, "epochs": 1}
TAUGHT = Experiment(
    "digits",
    2,
    evaluate={"protocol": "relabel", "network": "convnet1-bn", "width": 8, "epochs": 1, "teacher": TEACHER},
)


@pytest.fixture(scope="module")
def evaluated(teachers):
    return Runner("smoke", device="cpu").run(TAUGHT)


@pytest.mark.parametrize("experiment", [
    DISTILLED, TAUGHT, Experiment("digits", 1), Measurement("spectra", "digits", {"ranks": (1, 2), "images": 20}, 1),
    Continual(dataclasses.replace(DISTILLED, plugins={}), 5), Ratios(DISTILLED),
], ids=lambda one: type(one).__name__)  # fmt: skip
def test_an_experiment_is_the_same_experiment_after_json(experiment, digits):
    again = from_json(json.loads(json.dumps(to_json(experiment))))
    assert type(again) is type(experiment)
    assert again.identity(digits) == json.loads(json.dumps(experiment.identity(digits)))


def test_what_is_about_a_set_takes_the_set_that_comes_beside(digits, evaluated):
    synthetic = Pixels(digits, 2, seed=0)
    for experiment in (
        Transfer(evaluated, synthetic, {"width": 4}, "float16", True),
        Diversity(evaluated, synthetic, 20, 3),
    ):
        said = to_json(experiment)
        assert "synthetic" not in said
        again = from_json(json.loads(json.dumps(said)), synthetic)
        assert type(again) is type(experiment)
        assert again.identity(digits) == experiment.identity(digits)
        assert again.synthetic is synthetic


def test_every_kind_of_experiment_has_a_name():
    assert set(KINDS.values()) == {Experiment, Measurement, Continual, Ratios, Transfer, Diversity}


@pytest.mark.parametrize(("given", "words"), [
    ([], ("kind",)), ({}, ("kind",)), ({"kind": 3}, ("kind",)), ({"kind": "experimnt"}, ("experimnt", "did you mean 'experiment'")),
    ({"kind": "experiment", "dataset": "digits"}, ("budget_ipc", "missing")),
    ({"kind": "experiment", "dataset": "digits", "budget_ipc": "1"}, ("budget_ipc", "str")),
    ({"kind": "experiment", "dataset": "digits", "budget_ipc": 1, "stepps": 3}, ("stepps", "allowed")),
    ({"kind": "continual", "experiment": 3}, ("experiment", "int")),
    ({"kind": "transfer", "of": {}}, ("hash", "missing")),
    ({"kind": "diversity", "of": {"hash": "a", "preset": "b", "experiment": {}, "result": {}, "provenance": {}}}, ("synthetic", "missing")),
], ids=str)  # fmt: skip
def test_what_is_no_experiment_is_refused(refuses, given, words):
    with refuses(*words):
        from_json(given)

import dataclasses

import torch

import ddcore
from ddcore.evaluation.step_size import choose
from ddcore.synthetic import create


def chosen(data, kind, report=None, **more):
    protocol = {"network": "convnet", "width": 8, "epochs": 15, "strategy": "none"}
    method = ddcore.DM(width=8, batch_real=16, strategy="none")
    return choose(data, lambda part: create(part, kind, 1, seed=0, **more), method, settings={"steps": 10}, protocol=protocol, seed=0,
                  report=report)


def test_a_step_size_is_chosen_for_each_parametrisation_and_is_no_end_of_those_tried(digits, untouched):
    for kind, more in (("pixels", {}), ("lowrank", {"rank": 1})):
        tried: dict = {}
        found = chosen(digits, kind, tried.__setitem__, **more)
        assert tried[found] == max(tried.values())
        assert min(tried) < found < max(tried)


def test_the_choice_does_not_see_the_test_set(digits):
    blind = dataclasses.replace(digits, x_test=torch.zeros(1, 1, 8, 8), y_test=torch.zeros(1, dtype=torch.int64))
    tried = [], []
    for data, seen in zip((digits, blind), tried, strict=True):
        chosen(data, "pixels", lambda *pair, seen=seen: seen.append(pair))
    assert tried[0] == tried[1]

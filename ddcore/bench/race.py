"""Accuracy against wall seconds of distillation: how long a method takes to a published number, on the hardware at hand."""

import time
from collections.abc import Mapping, Sequence

from ddcore.data import Dataset
from ddcore.distillation import distill
from ddcore.evaluation import evaluate, network_seeds
from ddcore.methods import method_of
from ddcore.settings import versioned
from ddcore.synthetic import create


@versioned(version=1)
def race(
    data: Dataset,
    *,
    seed: int,
    synthetic: Mapping,
    method: Mapping,
    budget_ipc: int,
    steps: Sequence[int],
    lr_img: float,
    protocol: Mapping,
) -> list[dict]:
    """A set distilled once and evaluated by one network after each of `steps` updates.

    Columns: step; seconds of distillation up to there, without the evaluations and without the first step, which compiles;
    first_seconds, those of the first step; accuracy.
    """
    chosen = method_of(method)
    kind = {name: value for name, value in synthetic.items() if name != "kind"}
    found = create(data, synthetic["kind"], budget_ipc, seed=seed, **kind)
    rows, marks = [], {"spent": 0.0, "since": time.perf_counter()}

    def mark(step: int, loss: float) -> None:
        now = time.perf_counter()
        marks["spent"] += now - marks["since"]
        if step == 1:
            marks["first"], marks["spent"] = marks["spent"], 0.0
        if step in steps:
            scores = evaluate(found, data, seeds=network_seeds(seed, 1), **protocol)
            rows.append(
                {
                    "step": step,
                    "seconds": round(marks["spent"], 3),
                    "first_seconds": round(marks["first"], 3),
                    "accuracy": scores.scores[0],
                }
            )
        marks["since"] = time.perf_counter()

    distill(data, found, chosen, steps=max(steps), lr_img=lr_img, seed=seed, progress=mark)
    return rows

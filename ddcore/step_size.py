"""The step size on what is stored, chosen where no test image is seen: climb while an end of those tried is best."""

import math
from collections.abc import Callable, Generator, Mapping, Sequence

from ddcore.data import Dataset
from ddcore.distill import distill
from ddcore.errors import Diverged
from ddcore.evaluate import evaluate, network_seeds
from ddcore.methods.match import Method
from ddcore.settings import positive
from ddcore.synthetic import Synthetic

TRIED = (0.1, 1.0, 10.0)
HELD_OUT = 0.1  # of each class, as `Dataset.holdout` cuts them


def climbing(lrs: Sequence[float]) -> Generator[float, float, tuple[dict[float, float], float]]:
    """Yields the step sizes to try, each to be sent its accuracy or thrown Diverged; returns the accuracies by step size and the most
    accurate one.

    As long as that is the largest or the smallest, one ten times as large or as small is tried too. Of equals the first tried counts; where
    a trial has diverged no larger one is tried, and Diverged is raised where none was finite.
    """
    found, waiting, tried, bound = {}, sorted(lrs), set(), math.inf
    while waiting:
        lr = waiting.pop(0)
        tried.add(lr)
        try:
            found[lr] = yield lr
        except Diverged:
            if not found:
                raise
            waiting, bound = [], lr
        if not waiting:
            top = max(found, key=found.get)
            waiting = [10 * top] if top == max(found) and 10 * top < bound else [top / 10] if top == min(found) else []
            waiting = [lr for lr in waiting if lr not in tried]
    return found, top


def climb(accuracy: Callable[[float], float], lrs: Sequence[float]) -> tuple[dict[float, float], float]:
    """The accuracies by step size, and the most accurate one, as `climbing` has it; `accuracy(lr)` is one trial, and may raise Diverged."""

    def trial(asked: list[tuple[int, float]]) -> list[float | Diverged]:
        (_, lr), = asked
        try:
            return [accuracy(lr)]
        except Diverged as error:
            return [error]

    return climb_together(trial, [lrs])[0]


def climb_together(accuracies: Callable[[list[tuple[int, float]]], Sequence[float | Diverged]],
                   lrs: Sequence[Sequence[float]]) -> list[tuple[dict[float, float], float]]:
    """Several climbs, their trials side by side: what `climb` gives for each of `lrs`. `accuracies` takes the number and the step size of
    each climb that goes on, and gives the accuracies, or Diverged, in that order."""
    climbs = {number: climbing(one) for number, one in enumerate(lrs)}
    asked, ended = {number: next(one) for number, one in climbs.items()}, {}
    while asked:
        order = [*asked.items()]
        for (number, _), outcome in zip(order, accuracies(order), strict=True):
            climb = climbs[number]
            try:
                asked[number] = climb.throw(outcome) if isinstance(outcome, Diverged) else climb.send(outcome)
            except StopIteration as end:
                ended[number] = end.value
                del asked[number]
    return [ended[number] for number in climbs]


def choose(data: Dataset, start: Callable[[Dataset], Synthetic], method: Method, *, settings: Mapping, protocol: Mapping, seed: int,
           lrs: Sequence[float] = TRIED, report: Callable[[float, float], None] | None = None) -> float:
    """The step size at which the set that `start` makes of a dataset, distilled by `method` on nine tenths of the training images, teaches
    a network most of the rest.

    settings: those of `ddcore.distill` but lr_img and seed; protocol: those of `ddcore.evaluate` (one network a trial). `report(lr_img,
    accuracy)` is called after each trial. Raises Diverged where no step size is finite.
    """
    positive("distill", **{"lr_img": tuple(lrs)})
    part = data.holdout(HELD_OUT)

    def accuracy(lr: float) -> float:
        synthetic = start(part)
        distill(part, synthetic, method, **settings, lr_img=lr, seed=seed)
        found = evaluate(synthetic, part, seeds=network_seeds(seed, 1), **protocol).mean
        if report:
            report(lr, found)
        return found

    return climb(accuracy, lrs)[1]

"""The step size on what is stored, chosen where no test image is seen: climb while an end of those tried is best."""

import contextlib
import json
import math
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

from ddcore.data import Dataset
from ddcore.distillation import described, distill
from ddcore.errors import Diverged
from ddcore.evaluation import evaluate, network_seeds
from ddcore.files import whole
from ddcore.methods.match import Method
from ddcore.settings import digest, positive
from ddcore.synthetic import Synthetic, load_synthetic

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
            waiting = (
                [10 * top]
                if top == max(found) and 10 * top < bound
                else [top / 10]
                if top == min(found)
                else []
            )
            waiting = [lr for lr in waiting if lr not in tried]
    return found, top


def climb(accuracy: Callable[[float], float], lrs: Sequence[float]) -> tuple[dict[float, float], float]:
    """The accuracies by step size, and the most accurate one, as `climbing` has it; `accuracy(lr)` is one trial, and may raise Diverged."""

    def trial(asked: list[tuple[int, float]]) -> list[float | Diverged]:
        ((_, lr),) = asked
        try:
            return [accuracy(lr)]
        except Diverged as error:
            return [error]

    return climb_together(trial, [lrs])[0]


def climb_together(
    accuracies: Callable[[list[tuple[int, float]]], Sequence[float | Diverged]],
    lrs: Sequence[Sequence[float]],
) -> list[tuple[dict[float, float], float]]:
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


def choose(
    data: Dataset,
    start: Callable[[Dataset], Synthetic],
    method: Method,
    *,
    settings: Mapping,
    protocol: Mapping,
    seed: int,
    lrs: Sequence[float] = TRIED,
    report: Callable[[float, float], None] | None = None,
    folder: str | Path | None = None,
    every_seconds: float = 60.0,
) -> float:
    """The step size at which the set that `start` makes of a dataset, distilled by `method` on nine tenths of the training images, teaches
    a network most of the rest.

    settings: those of `ddcore.distill` but lr_img and seed; protocol: those of `ddcore.evaluate` (one network a trial). `report(lr_img,
    accuracy)` is called after each trial. With `folder`, each trial is kept there as it ends, and every `every_seconds` the state of the
    one that runs, under a name of all that it depends on: the same call goes on from there. Raises Diverged where no step size is finite.
    """
    positive("distill", **{"lr_img": tuple(lrs)})
    part = data.holdout(HELD_OUT)
    plugins = [described(plugin) for plugin in settings.get("plugins", ())]
    asked = {
        "data": part.sha256,
        "method": described(method),
        "protocol": dict(protocol),
        "seed": seed,
        **settings,
        "plugins": plugins,
    }

    def accuracy(folder: Path, lr: float) -> float:
        synthetic = start(part)
        trial = folder / digest(asked | {"set": synthetic.settings, "lr_img": lr})
        ended, distilled = trial.with_suffix(".json"), trial.with_suffix(".safetensors")
        if ended.is_file():
            return json.loads(ended.read_text(encoding="utf-8"))["accuracy"]
        if distilled.is_file():
            synthetic = load_synthetic(distilled, data.device)
        else:
            distill(
                part,
                synthetic,
                method,
                **settings,
                lr_img=lr,
                seed=seed,
                checkpoint=trial.with_suffix(".checkpoint"),
                every_seconds=every_seconds,
            )
            synthetic.save(distilled)
        found = evaluate(synthetic, part, seeds=network_seeds(seed, 1), **protocol).mean
        with whole(ended) as being_written:
            being_written.write_text(json.dumps({"lr_img": lr, "accuracy": found}), encoding="utf-8")
        distilled.unlink()
        return found

    with _made(folder) as kept:

        def reported(lr: float) -> float:
            found = accuracy(kept, lr)
            if report:
                report(lr, found)
            return found

        return climb(reported, lrs)[1]


@contextlib.contextmanager
def _made(folder: str | Path | None) -> Iterator[Path]:
    """`folder`, which is not left if nothing was kept in it; for None one of this call's own."""
    if folder is None:
        with tempfile.TemporaryDirectory() as own:
            yield Path(own)
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()

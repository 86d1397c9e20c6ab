"""Continual learning from a condensed memory: classes come in steps, networks learn from what was kept of them.

The protocol of DM and LoDC (GDumb of Prabhu et al., ECCV 2020, with condensed images): at each step the training images of the
new classes are condensed to a fixed budget a class and join the memory, which is not changed again; a fresh network is trained
on the memory alone and tested on all classes seen so far. The published scripts load condensed images that were never
released; here each step makes its own, from that step's classes only.
"""

import dataclasses
import time
from pathlib import Path

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.evaluation import network_seeds, right_by_class
from ddcore.files import checksums
from ddcore.lab.experiment import Experiment, OfExperiment
from ddcore.random import stream
from ddcore.settings import positive
from ddcore.synthetic import Synthetic

VERSION = 1


def class_order(classes: int, seed: int) -> tuple[int, ...]:
    """A permutation of the classes, drawn from `seed`."""
    return tuple(torch.randperm(classes, generator=stream(seed, "continual", "order")).tolist())


def forgetting(accuracies: list[list[float]]) -> float:
    """Mean over all tasks but the last of what was lost of the best accuracy (Chaudhry et al., ECCV 2018); rows are steps, columns tasks.

    >>> forgetting([[90.0], [70.0, 80.0], [60.0, 85.0, 50.0]])
    12.5
    """
    last = accuracies[-1]
    lost = [max(row[task] for row in accuracies[task:-1]) - last[task] for task in range(len(last) - 1)]
    return sum(lost) / len(lost) if lost else 0.0


@dataclasses.dataclass(frozen=True)
class Continual(OfExperiment):
    """`experiment` says how each step's classes are condensed (`budget_ipc` images' worth of numbers a class) and how networks
    are trained and tested; its seed also orders the classes. `tasks` steps of equally many classes."""

    experiment: Experiment
    tasks: int = 5

    def __post_init__(self):
        positive("continual", tasks=self.tasks)
        made = self.experiment.synthetic
        if "step" in made:
            raise BadInput(
                "continual: a learned step size belongs to one set, and a memory is many; make the sets without `step`"
            )
        if "soft" in made:
            raise BadInput(
                "continual: learned labels of one step say nothing of the classes of another; make the sets without `soft`"
            )
        if made.get("kind") == "whole":
            raise BadInput(
                "continual: the whole training set is no memory; give a kind that keeps to a budget"
            )
        if self.experiment.protocol()[0] == "relabel":
            raise BadInput(
                "continual: 'relabel' asks a teacher trained on images of earlier steps, which are gone; leave the protocol out"
            )

    def identity(self, data: Dataset) -> dict:
        """What the hash covers."""
        identity = self.experiment.identity(data)
        return identity | {
            "continual": {"tasks": self.tasks},
            "versions": identity["versions"] | {"continual": VERSION},
        }

    def make(self, data: Dataset, checkpoint: Path | None) -> tuple[dict, None]:
        """{"steps": one mapping a step, ...}. With `checkpoint`, each step done is kept beside it (`Runner.run` removes them)."""
        if data.classes % self.tasks:
            raise BadInput(
                f"continual: tasks={self.tasks} does not divide the {data.classes} classes of {data.name} evenly"
            )
        order, size = class_order(data.classes, self.experiment.seed), data.classes // self.tasks
        memory, steps = [], []
        for task in range(self.tasks):
            place = checkpoint.with_name(f"{checkpoint.name}.{task}") if checkpoint else None
            new = data.only(order[task * size : (task + 1) * size])
            began, told = time.perf_counter(), Path(f"{place}.json")
            memory.append(self.experiment.condense(new, place)[1])
            if place and told.is_file():
                steps.append(checksums.read_json(told))
                continue
            seen = data.only(order[: (task + 1) * size])
            steps.append(self._test(memory, seen, size) | {"seconds": round(time.perf_counter() - began, 3)})
            if place:
                checksums.write_json(told, steps[-1])
        networks = range(len(steps[0]["scores"]))
        lost = [forgetting([step["task_scores"][network] for step in steps]) for network in networks]
        means = [sum(step["scores"]) / len(networks) for step in steps]
        return {
            "order": list(order),
            "steps": steps,
            "accuracy": round(means[-1], 4),
            "average_accuracy": round(sum(means) / len(means), 4),
            "forgetting": round(sum(lost) / len(lost), 4),
            "images_per_class": memory[0].per_class,
            "stored_numbers": steps[-1]["stored_numbers"],
        }, None

    def _test(self, memory: list[Synthetic], seen: Dataset, size: int) -> dict:
        """Accuracy over the classes seen, of each network, and by task."""
        images = torch.cat([part.images().detach() for part in memory])
        targets = torch.cat([part.labels + size * task for task, part in enumerate(memory)])
        scores, by_task = [], []
        for right in self._right(images, targets, seen):
            counts = torch.bincount(seen.y_test, minlength=seen.classes)
            scores.append(round(100 * float(right.sum() / counts.sum()), 4))
            by_task.append(
                [
                    round(100 * float(part), 4)
                    for part in right.view(-1, size).sum(1) / counts.view(-1, size).sum(1)
                ]
            )
        return {
            "classes": seen.classes,
            "stored_numbers": sum(part.stored_numbers for part in memory),
            "scores": scores,
            "task_scores": by_task,
        }

    def _right(self, images: Tensor, targets: Tensor, seen: Dataset) -> list[Tensor]:
        """The test images of each class that each network, trained on the memory, gives their label."""
        _, many, how = self.experiment.protocol()
        seeds = network_seeds(self.experiment.seed, many)
        return [
            right_by_class(network, seen)
            for seed in seeds
            for network in how.train(images, targets, seen, (seed,))
        ]

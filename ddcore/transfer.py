"""A set made once and evaluated again: through other networks than it was distilled with, or stored in fewer bits."""

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from ddcore.data import Dataset
from ddcore.evaluate import evaluate
from ddcore.experiments import Experiment, merge
from ddcore.records import Record
from ddcore.settings import one_of
from ddcore.synthetic import Synthetic

STORED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclasses.dataclass(frozen=True)
class Transfer:
    """`of`: the record of the set, `synthetic` the set; `evaluate`: where this evaluation differs from the record's; `stored`: the
    type that the set's numbers are rounded to first."""

    of: Record
    synthetic: Synthetic
    evaluate: Mapping = dataclasses.field(default_factory=dict)
    stored: str = "float32"

    def __post_init__(self):
        one_of("transfer", STORED, stored=self.stored)
        self._experiment()

    def _experiment(self) -> Experiment:
        undistilled = {name: self.of.experiment[name] for name in ("dataset", "budget_ipc", "synthetic", "holdout", "seed")}
        return Experiment(**undistilled, evaluate=merge(self.of.experiment["evaluate"], self.evaluate))

    @property
    def dataset(self) -> str:
        return self.of.experiment["dataset"]

    @property
    def holdout(self) -> float:
        return self.of.experiment["holdout"]

    def identity(self, data: Dataset) -> dict:
        """What the hash covers: the set's own, by the hash of its record, and this evaluation."""
        return self.of.experiment | {"evaluate": self._experiment().resolved()["evaluate"], "of": self.of.hash, "stored": self.stored}

    def rounded(self) -> Synthetic:
        """The set with its numbers rounded, the given one unchanged."""
        found = copy.copy(self.synthetic)
        found.tensors = {name: tensor.detach().to(STORED[self.stored]).to(tensor.dtype) for name, tensor in self.synthetic.tensors.items()}
        return found

    def make(self, data: Dataset, checkpoint: Path | None) -> tuple[dict, None]:
        """Accuracies by the same seeds as the record's."""
        rounded = self.rounded()
        name, many, how = self._experiment().protocol()
        seeds = [self.of.experiment["seed"] * 1000 + index for index in range(many)]
        scores = evaluate(rounded, data, seeds=seeds, protocol=name, **vars(how))
        return {"images_per_class": rounded.per_class, "stored_numbers": rounded.stored_numbers,
                "stored_bits": rounded.stored_numbers * STORED[self.stored].itemsize * 8, "scores": list(scores.scores),
                "accuracy": round(scores.mean, 4), "evaluate_seconds": round(scores.seconds, 3)}, None

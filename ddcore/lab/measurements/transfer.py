"""A set made once and evaluated again: through other networks than it was distilled with, in fewer bits, or at the scale of real images.

A network that normalises its maps hardly sees the scale of an image, so nothing holds it in distillation: it grows, and may leave what a
network without norms can learn from.
"""

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from ddcore.data import Dataset, standard_deviation
from ddcore.errors import BadInput
from ddcore.evaluation import evaluate, network_seeds
from ddcore.files.records import OfRecord, Record
from ddcore.lab.experiment import Experiment
from ddcore.settings import merge, one_of
from ddcore.synthetic import Synthetic

LINEAR = {
    "pixels": "pixels",
    "lowrank": "u",
    "tucker": "core",
}  # the tensor of a kind, a row an image, that its images are linear in
STORED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclasses.dataclass(frozen=True)
class Transfer(OfRecord):
    """`of`: the record of the set, `synthetic` the set; `evaluate`: where this evaluation differs from the record's; `stored`: the
    type that the set's numbers are rounded to first; `rescaled`: each image is first scaled to the standard deviation that real images
    have, which costs no number, as a factor takes it up."""

    of: Record
    synthetic: Synthetic
    evaluate: Mapping = dataclasses.field(default_factory=dict)
    stored: str = "float32"
    rescaled: bool = False

    def __post_init__(self):
        one_of("transfer", STORED, stored=self.stored)
        if self.rescaled:
            one_of("rescaled set", LINEAR, kind=self.synthetic.kind)
        self._experiment()

    def _experiment(self) -> Experiment:
        undistilled = {
            name: self.of.experiment[name]
            for name in ("dataset", "budget_ipc", "synthetic", "holdout", "seed")
        }
        return Experiment(**undistilled, evaluate=merge(self.of.experiment["evaluate"], self.evaluate))

    def identity(self, data: Dataset) -> dict:
        """What the hash covers: the set's own, by the hash of its record, and this evaluation."""
        return (
            self.of.experiment
            | {
                "evaluate": self._experiment().resolved()["evaluate"],
                "of": self.of.hash,
                "stored": self.stored,
            }
            | ({"rescaled": True} if self.rescaled else {})
        )

    def changed(self, data: Dataset) -> Synthetic:
        """The set rescaled and rounded as asked, the given one unchanged."""
        found = copy.copy(self.synthetic)
        if self.rescaled:
            scale = standard_deviation(data.x_train) / self.synthetic.images().detach().std(
                dim=(1, 2, 3), keepdim=True
            ).clamp(min=1e-12)
            name = LINEAR[found.kind]
            found.tensors = found.tensors | {name: found.tensors[name].detach() * scale}
        found.tensors = {
            name: tensor.detach().to(STORED[self.stored]).to(tensor.dtype)
            for name, tensor in found.tensors.items()
        }
        if large := [name for name, tensor in found.tensors.items() if not tensor.isfinite().all()]:
            raise BadInput(
                f"transfer: '{large[0]}' of the set holds numbers beyond {self.stored}; store them as bfloat16 or float32"
            )
        return found

    def make(self, data: Dataset, checkpoint: Path | None) -> tuple[dict, None]:
        """Accuracies by the same seeds as the record's."""
        changed = self.changed(data)
        name, many, how = self._experiment().protocol()
        seeds = network_seeds(self.of.experiment["seed"], many)
        scores = evaluate(changed, data, seeds=seeds, protocol=name, **vars(how))
        return {
            "images_per_class": changed.per_class,
            "stored_numbers": changed.stored_numbers,
            "stored_bits": changed.stored_numbers * STORED[self.stored].itemsize * 8,
        } | scores.result(), None

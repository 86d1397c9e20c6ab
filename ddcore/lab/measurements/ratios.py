"""What the weight of a plugin means to the method of an experiment, kept as a record: to read it no expert need be trained."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from ddcore.data import Dataset
from ddcore.lab.experiment import Experiment, OfExperiment


@dataclasses.dataclass(frozen=True)
class Ratios(OfExperiment):
    """Rows: plugin, ratio, of the plugins of `experiment`, run or not, as `Experiment.gradient_ratios` has them."""

    version: ClassVar[int] = 1

    experiment: Experiment

    def identity(self, data: Dataset) -> dict:
        """What the hash covers."""
        of = self.experiment.identity(data)
        return of | {
            "measurement": "gradient_ratios",
            "versions": of["versions"] | {"gradient_ratios": self.version},
        }

    def make(self, data: Dataset, checkpoint: Path | None) -> tuple[dict, None]:
        """{"rows": [...]}, as the class says."""
        return {
            "rows": [
                {"plugin": name, "ratio": ratio}
                for name, ratio in self.experiment.gradient_ratios(data).items()
            ]
        }, None

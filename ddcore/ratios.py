"""What the weight of a plugin means to the method of an experiment, kept as a record: to read it no expert need be trained."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from ddcore.data import Dataset
from ddcore.experiments import Experiment


@dataclasses.dataclass(frozen=True)
class Ratios:
    """Rows: plugin, ratio, of the plugins of `of`, an experiment run or not, as `Experiment.gradient_ratios` has them."""

    version: ClassVar[int] = 1

    of: Experiment

    @property
    def dataset(self) -> str:
        return self.of.dataset

    @property
    def holdout(self) -> float:
        return self.of.holdout

    def identity(self, data: Dataset) -> dict:
        """What the hash covers."""
        of = self.of.identity(data)
        return of | {"measurement": "gradient_ratios", "versions": of["versions"] | {"gradient_ratios": self.version}}

    def make(self, data: Dataset, checkpoint: Path | None) -> tuple[dict, None]:
        """{"rows": [...]}, as the class says."""
        return {"rows": [{"plugin": name, "ratio": ratio} for name, ratio in self.of.gradient_ratios(data).items()]}, None

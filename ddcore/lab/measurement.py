"""Measurements by name: functions of a dataset, or of the device alone, that return the rows of a table."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch

from ddcore.bench.contrast import contrast_speed
from ddcore.bench.cost import cost
from ddcore.bench.profiles import profile
from ddcore.bench.race import race
from ddcore.bench.speed import speed
from ddcore.bench.tapes import tapes
from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.lab.experiment import freeze
from ddcore.lab.measurements.adjusted_teacher import adjusted_teacher
from ddcore.lab.measurements.batch_variance import batch_variance
from ddcore.lab.measurements.information_curve import information_curve
from ddcore.lab.measurements.information_sweeps import critic_sizes, information_bounds
from ddcore.lab.measurements.leave_out import leave_out
from ddcore.lab.measurements.multi_index_sweeps import (
    multi_index_collapse,
    multi_index_subspace,
    multi_index_sweep,
)
from ddcore.lab.measurements.spectra import gradient_geometry, spectra
from ddcore.settings import keywords, unknown

MEASUREMENTS = {
    function.__name__: function
    for function in (
        adjusted_teacher,
        batch_variance,
        contrast_speed,
        cost,
        critic_sizes,
        gradient_geometry,
        information_bounds,
        information_curve,
        leave_out,
        multi_index_collapse,
        multi_index_subspace,
        multi_index_sweep,
        profile,
        race,
        spectra,
        speed,
        tapes,
    )
}


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Something computed from a dataset alone, or from none (`dataset` is ''): `name` is one of `MEASUREMENTS`, `settings`
    its arguments."""

    name: str
    dataset: str
    settings: Mapping = dataclasses.field(default_factory=dict)
    seed: int = 0
    holdout: ClassVar[float] = 0.0

    def __post_init__(self):
        freeze(self, "measurement")
        if self.name not in MEASUREMENTS:
            raise unknown("measurement", self.name, MEASUREMENTS)
        if MEASUREMENTS[self.name].of_data != bool(self.dataset):
            needs = "needs a dataset" if self.dataset == "" else "takes no dataset: leave it ''"
            raise BadInput(f"measurement {self.name}: dataset='{self.dataset}' was given, but it {needs}")
        self._settings()

    def _settings(self) -> dict:
        return keywords(MEASUREMENTS[self.name], self.settings, f"measurement {self.name}", without=("seed",))

    def identity(self, data: Dataset | torch.device) -> dict:
        """What the hash covers."""
        of_data = {"data_sha256": data.sha256} if self.dataset else {}
        return {
            "measurement": self.name,
            "dataset": self.dataset,
            "settings": self._settings(),
            "seed": self.seed,
            "versions": {self.name: MEASUREMENTS[self.name].version},
        } | of_data

    def make(self, data: Dataset | torch.device, checkpoint: Path | None) -> tuple[dict, None]:
        """{"rows": [...]}: one mapping a row of the table that the figure is drawn from."""
        return {"rows": MEASUREMENTS[self.name](data, seed=self.seed, **self._settings())}, None

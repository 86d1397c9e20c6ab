"""Running an experiment makes a record; a present record is kept."""

import json
import time
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

# Some are imported for the measurements that they register.
from ddcore import compute
from ddcore.data import Dataset, load
from ddcore.errors import BadInput
from ddcore.files import records
from ddcore.files.records import Record
from ddcore.lab.experiment import Experiment
from ddcore.lab.measurement import Measurement
from ddcore.lab.measurements import batch_variance, information_sweeps, leave_out, multi_index_sweeps  # noqa: F401
from ddcore.settings import canonical, digest
from ddcore.synthetic import Synthetic, load_synthetic


class Runner:
    """Runs experiments, with one copy of each dataset in memory; `folder` keeps records, None keeps nothing. `overrides`: numbers that
    are not the preset's, which a record made with them names."""

    def __init__(self, preset: str, folder: str | Path | None = None, *, device: str = "auto",
                 report: Callable[[str], None] | None = None, overrides: Mapping = types.MappingProxyType({})):
        self.preset, self.folder, self.device, self.overrides = preset, Path(folder) if folder else None, device, dict(overrides)
        self.report = report or (lambda line: None)
        self.datasets: dict[tuple[str, float], Dataset] = {}
        self.sets: dict[str, Synthetic | None] = {}
        if (preset == "smoke" or overrides) and self.folder and self.folder.resolve().is_relative_to(records.SHIPPED / "figures"):
            raise BadInput("records of the smoke preset, or of other numbers than a preset's, are not for figures/; name another folder")
        records.code()

    def data(self, name: str, holdout: float = 0.0) -> Dataset | torch.device:
        """The dataset `name`, or its training set cut in two; for '', no dataset, the device alone."""
        if not name:
            return compute.device(self.device)
        if (name, holdout) not in self.datasets:
            self.datasets[name, holdout] = self.data(name).holdout(holdout) if holdout else load(name, self.device)
        return self.datasets[name, holdout]

    def key(self, experiment: Experiment | Measurement) -> str:
        """The hash of its record, run or not."""
        return digest(experiment.identity(self.data(experiment.dataset, experiment.holdout)))

    def run(self, experiment: Experiment | Measurement) -> Record:
        """The record of `experiment`: read if present, else made. A distilled set is kept beside it as safetensors,
        but not that of a trial on a holdout, which served a choice."""
        data = self.data(experiment.dataset, experiment.holdout)
        identity = experiment.identity(data)
        key = digest(identity)
        if self.folder and (self.folder / f"{key}.json").is_file():
            return records.read(self.folder / f"{key}.json")
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
        at = compute.device(self.device)
        if at.type == "cuda":
            torch.cuda.reset_peak_memory_stats(at)
        unfinished = self.folder / f".{key}.checkpoint" if self.folder else None
        spent = Path(f"{unfinished}.seconds")
        began = time.perf_counter() - (float(spent.read_text(encoding="utf-8")) if unfinished and spent.is_file() else 0.0)
        try:
            result, synthetic = experiment.make(data, unfinished)
        except BaseException:
            if unfinished:
                spent.write_text(f"{time.perf_counter() - began:.3f}", encoding="utf-8")
            raise
        made_on = records.provenance(time.perf_counter() - began, at) | ({"overrides": self.overrides} if self.overrides else {})
        # As it will be read back, so that a figure drawn now and one drawn from the file are the same.
        record = Record(*json.loads(canonical([key, self.preset, identity, result, made_on])))
        self.sets[key] = synthetic
        if self.folder:
            if synthetic is not None and not experiment.holdout:
                synthetic.save(self.folder / f"{key}.safetensors")
            record.save(self.folder)
            for rest in self.folder.glob(f"{unfinished.name}*"):
                rest.unlink(missing_ok=True)
        return record

    def synthetic(self, record: Record) -> Synthetic:
        """The distilled set of a record made by this runner or kept in its folder."""
        if self.sets.get(record.hash) is None:
            if not record.experiment.get("method") or not self.folder:
                raise BadInput(f"record {record.hash}: no distilled set of it is kept here; run its experiment")
            self.sets[record.hash] = load_synthetic(self.folder / f"{record.hash}.safetensors", self.device)
        return self.sets[record.hash]

    def run_all(self, experiments: Sequence[Experiment | Measurement]) -> list[Record]:
        """The records of all, in order, each reported as it comes."""
        found = []
        for number, experiment in enumerate(experiments, 1):
            record = self.run(experiment)
            found.append(record)
            accuracy = f" {record.result['accuracy']:.2f} %" if "accuracy" in record.result else ""
            self.report(f"{number}/{len(experiments)} {record.hash}{accuracy} {record.provenance['seconds']:.0f} s")
        return found

"""Running an experiment makes a record; a present record is kept."""

import contextlib
import json
import time
import types
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from ddcore import compute
from ddcore.data import Dataset, load
from ddcore.errors import BadInput, Broken, Diverged
from ddcore.files import alone, checksums, records
from ddcore.files.records import Record
from ddcore.lab.executor import Executor, Here
from ddcore.lab.experiment import Experiment
from ddcore.lab.measurement import Measurement
from ddcore.settings import canonical, digest
from ddcore.synthetic import Synthetic, load_synthetic


class Runner:
    """Runs experiments, with one copy of each dataset in memory; `folder` keeps records, None keeps nothing. `overrides`: numbers that
    are not the preset's, which a record made with them names. `executor`: who computes what `run_all` misses; default this process."""

    def __init__(
        self,
        preset: str,
        folder: str | Path | None = None,
        *,
        device: str = "auto",
        report: Callable[[str], None] | None = None,
        overrides: Mapping = types.MappingProxyType({}),
        executor: Executor | None = None,
    ):
        self.preset, self.folder, self.device, self.overrides = (
            preset,
            Path(folder) if folder else None,
            device,
            dict(overrides),
        )
        self.report, self.executor = report or (lambda line: None), executor or Here()
        self.datasets: dict[tuple[str, float], Dataset] = {}
        self.sets: dict[str, Synthetic | None] = {}
        if (
            (preset == "smoke" or overrides)
            and self.folder
            and self.folder.resolve().is_relative_to(records.SHIPPED / "figures")
        ):
            raise BadInput(
                "records of the smoke preset, or of other numbers than a preset's, are not for figures/; name another folder"
            )
        records.code()

    def data(self, name: str, holdout: float = 0.0) -> Dataset | torch.device:
        """The dataset `name`, or its training set cut in two; for '', no dataset, the device alone."""
        if not name:
            return compute.device(self.device)
        if (name, holdout) not in self.datasets:
            self.datasets[name, holdout] = (
                self.data(name).holdout(holdout) if holdout else load(name, self.device)
            )
        return self.datasets[name, holdout]

    def key(self, experiment: Experiment | Measurement) -> str:
        """The hash of its record, run or not."""
        return digest(experiment.identity(self.data(experiment.dataset, experiment.holdout)))

    def kept(self, key: str) -> Record | None:
        """The record of that hash, if the folder has it; one that is broken, or whose set is, is set aside (`ddcore.files.checksums`),
        with a warning, and counts as none."""
        path, file = (
            self.folder / f"{key}.{form}" if self.folder else None for form in ("json", "safetensors")
        )
        if not path or not path.is_file():
            return None
        try:
            record = records.read(path)
            written = record.provenance.get("set_sha256")
            if written and file.is_file() and checksums.of_file(file) != written:
                raise Broken(f"{file}: does not have the sha256 that it was written with")
        except Broken as error:
            warnings.warn(f"{error}; moved to {checksums.ASIDE}/ and computed again", stacklevel=2)
            checksums.set_aside([path, file])
            return None
        return record

    def run(self, experiment: Experiment | Measurement) -> Record:
        """The record of `experiment`: read if present, else made, here and by one process at a time. A distilled set is kept beside it as
        safetensors, but not that of a trial on a holdout, which served a choice."""
        data = self.data(experiment.dataset, experiment.holdout)
        identity = experiment.identity(data)
        key = digest(identity)
        if (record := self.kept(key)) or not self.folder:
            return record or self._make(experiment, data, identity, key)
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder / f".{key}.lock"):
            return self.kept(key) or self._make(experiment, data, identity, key)

    def _make(
        self, experiment: Experiment | Measurement, data: Dataset | torch.device, identity: dict, key: str
    ) -> Record:
        at = compute.device(self.device)
        if at.type == "cuda":
            torch.cuda.reset_peak_memory_stats(at)
        unfinished = self.folder / f".{key}.checkpoint" if self.folder else None
        result, synthetic, seconds = self._timed(experiment, data, unfinished)
        made_on = records.provenance(seconds, at) | ({"overrides": self.overrides} if self.overrides else {})
        self.sets[key] = synthetic
        if self.folder and synthetic is not None and not experiment.holdout:
            made_on |= {"set_sha256": checksums.of_file(synthetic.save(self.folder / f"{key}.safetensors"))}
        # As it will be read back, so that a figure drawn now and one drawn from the file are the same.
        record = records.sealed(Record(*json.loads(canonical([key, self.preset, identity, result, made_on]))))
        if self.folder:
            record.save(self.folder)
            for rest in self.folder.glob(f"{unfinished.name}*"):
                rest.unlink(missing_ok=True)
        return record

    def _timed(
        self, experiment: Experiment | Measurement, data: Dataset | torch.device, unfinished: Path | None
    ) -> tuple[dict, Synthetic | None, float]:
        """Result, set, and the seconds that they took, those of earlier calls that were stopped included; what is left of such a call and
        is broken is set aside, with a warning, and the experiment begins anew."""
        spent, began = Path(f"{unfinished}.seconds"), time.perf_counter()
        if unfinished and spent.is_file():
            with contextlib.suppress(Broken):
                began -= checksums.read_json(spent)
        try:
            try:
                result, synthetic = experiment.make(data, unfinished)
            except Broken as error:
                if not unfinished or not checksums.set_aside(self.folder.glob(f"{unfinished.name}*")):
                    raise
                warnings.warn(
                    f"{error}; moved to {checksums.ASIDE}/, the experiment begins anew", stacklevel=2
                )
                result, synthetic = experiment.make(data, unfinished)
        except BaseException:
            if unfinished:
                checksums.write_json(spent, round(time.perf_counter() - began, 3))
            raise
        return result, synthetic, time.perf_counter() - began

    def synthetic(self, record: Record) -> Synthetic:
        """The distilled set of a record made by this runner or kept in its folder."""
        if self.sets.get(record.hash) is None:
            if not record.experiment.get("method") or not self.folder:
                raise BadInput(
                    f"record {record.hash}: no distilled set of it is kept here; run its experiment"
                )
            self.sets[record.hash] = load_synthetic(self.folder / f"{record.hash}.safetensors", self.device)
        return self.sets[record.hash]

    def run_all(self, experiments: Sequence[Experiment | Measurement]) -> list[Record]:
        """The records of all, in order, each reported as it comes."""
        return self._reported(self.executor.records(self, experiments), len(experiments))

    def attempt_all(self, experiments: Sequence[Experiment | Measurement]) -> list[Record | Diverged]:
        """The same, with Diverged in the place of what diverges."""
        return self._reported(self.executor.attempts(self, experiments), len(experiments))

    def _reported(
        self, coming: Iterable[tuple[int, Record | Diverged]], many: int
    ) -> list[Record | Diverged]:
        found: dict[int, Record | Diverged] = {}
        for place, one in coming:
            found[place] = one
            if isinstance(one, Record):
                accuracy = f" {one.result['accuracy']:.2f} %" if "accuracy" in one.result else ""
                self.report(f"{len(found)}/{many} {one.hash}{accuracy} {one.provenance['seconds']:.0f} s")
        return [found[place] for place in range(many)]

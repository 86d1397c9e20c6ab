"""Experiments: frozen, validated settings of one run, with a hash; running one makes a record, a present record is kept.

The hash covers the resolved settings, the data's sha256 and the integer version of each component used, so that a
refactoring keeps its records and a change of numbers (a bumped version) does not.
"""

import contextlib
import dataclasses
import json
import time
import types
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch
from scipy import stats

# Some are imported for the measurements that they register.
from ddcore import (  # noqa: F401
    adjusted_teacher,
    augment,
    bench,
    checksums,
    compute,
    contrast_speed,
    coresets,
    cost,
    information_curve,
    networks,
    profiles,
    race,
    records,
    tapes,
)
from ddcore.coresets import baseline
from ddcore.data import Dataset, load
from ddcore.distill import VERSION as DISTILL_VERSION
from ddcore.distill import check, distill
from ddcore.errors import BadInput, Broken, Diverged
from ddcore.evaluate import PROTOCOLS, evaluate, network_seeds
from ddcore.evaluate import VERSION as EVALUATE_VERSION
from ddcore.executor import Executor, Here
from ddcore.files import alone
from ddcore.measurements import MEASUREMENTS
from ddcore.methods import METHODS, method_of
from ddcore.plugins import PLUGINS
from ddcore.plugins.gradient_ratios import gradient_ratios
from ddcore.records import Record
from ddcore.settings import build, keywords, later, merge, one_of, positive, stated, typed, unknown
from ddcore.synthetic import KINDS, Synthetic, create, load_synthetic
from ddcore.theory import batch_variance, information_sweeps, leave_out, multi_index_sweeps  # noqa: F401

BASELINES = tuple(name for name in coresets.NAMES if name != "random")


def _freeze(self, what: str) -> None:
    """Check the types of the fields of a frozen dataclass, and take copies of its mappings: what was given may change."""
    for name, value in typed(what, [(field.name, field.type) for field in dataclasses.fields(self)], vars(self)).items():
        object.__setattr__(self, name, types.MappingProxyType(merge(value)) if isinstance(value, Mapping) else value)


@dataclasses.dataclass(frozen=True)
class Loop:
    """The settings of `ddcore.distill` that are numbers of an experiment."""

    steps: int
    lr_img: float = 1.0
    momentum: float = 0.5
    optimiser: str = later("sgd")
    beta2: float = later(0.9)
    schedule: str = later("constant")

    def __post_init__(self):
        positive("distill", steps=self.steps)
        check(self.lr_img, self.momentum, self.optimiser, self.beta2, self.schedule)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One set, distilled and evaluated.

    synthetic: {"kind": "pixels" | "lowrank", "init": ..., "rank": ...}, or a baseline: {"kind": "herding" | ...}.
    method: {"name": "dm", ...its settings}; {} leaves the set as initialised. distill: {"steps", "lr_img", "momentum"}.
    evaluate: {"protocol": a name of `PROTOCOLS`, "networks": how many are trained on the set, ...settings of the protocol}.
    plugins: {a name of `PLUGINS`: its settings}.
    holdout: that part of the training set replaces the test set (hyper-parameters are chosen there); 0 means the test set.
    """

    dataset: str
    budget_ipc: int
    synthetic: Mapping = dataclasses.field(default_factory=lambda: {"kind": "pixels"})
    method: Mapping = dataclasses.field(default_factory=dict)
    distill: Mapping = dataclasses.field(default_factory=dict)
    evaluate: Mapping = dataclasses.field(default_factory=dict)
    plugins: Mapping = dataclasses.field(default_factory=dict)
    holdout: float = 0.0
    seed: int = 0

    def __post_init__(self):
        _freeze(self, "experiment")
        positive("experiment", budget_ipc=self.budget_ipc)
        if not 0 <= self.holdout < 1:
            raise BadInput(f"experiment: holdout={self.holdout} must be 0 (the test set) or lie between 0 and 1")
        kind = self.synthetic.get("kind")
        if kind not in (*KINDS, *BASELINES):
            raise unknown("kind of synthetic set", kind, [*KINDS, *BASELINES])
        if self.method and self.method.get("name") not in METHODS:
            raise unknown("method", self.method.get("name"), METHODS)
        if self.method and kind == "whole":
            raise BadInput("experiment: 'whole' is the training set itself and nothing to distil; leave the method out")
        if not self.method and (self.distill or self.plugins):
            raise BadInput(f"experiment: distill={dict(self.distill)} and plugins={dict(self.plugins)} without a method do nothing")
        typed("plugins", [(name, Mapping, dataclasses.field(default=None)) for name in PLUGINS], self.plugins)
        self.resolved()

    def _synthetic(self) -> dict:
        kind, settings = self.synthetic["kind"], {name: value for name, value in self.synthetic.items() if name != "kind"}
        if kind not in KINDS:
            without = ("network", "width", "seed") if kind == "svd" else ("network", "width", "seed", "rank")
            return keywords(baseline, settings, f"baseline {kind}", without=without)
        found = keywords(KINDS[kind], settings, f"synthetic set {kind}", without=("seed",))
        found = {name: value for name, value in found.items() if value is not None}
        one_of(f"synthetic set {kind}", KINDS[kind].inits, init=found["init"])
        return found

    def _method(self):
        return method_of(self.method) if self.method else None

    def _plugins(self) -> dict:
        return {name: build(PLUGINS[name], settings, f"plugin {name}") for name, settings in sorted(self.plugins.items())}

    def protocol(self) -> tuple[str, int, object]:
        """The protocol's name, the number of networks, and its settings."""
        settings = {"protocol": "synset", "networks": 1} | dict(self.evaluate)
        name, many = settings.pop("protocol"), settings.pop("networks")
        one_of("evaluate", PROTOCOLS, protocol=name)
        typed("evaluate", [("networks", int)], {"networks": many})
        positive("evaluate", networks=many)
        return name, many, build(PROTOCOLS[name], settings, "evaluate")

    def resolved(self) -> dict:
        """Every setting with its value, defaults included."""
        method = self._method()
        protocol, many, how = self.protocol()
        evaluated = stated(how) | {"networks": many} | ({} if protocol == "synset" else {"protocol": protocol})
        return {"dataset": self.dataset, "budget_ipc": self.budget_ipc, "synthetic": {"kind": self.synthetic["kind"]} | self._synthetic(),
                "method": {"name": self.method["name"]} | stated(method) if method else {},
                "distill": stated(build(Loop, self.distill, "distill")) if method else {},
                "evaluate": evaluated, "holdout": self.holdout, "seed": self.seed} | (
                {"plugins": {name: stated(plugin) for name, plugin in self._plugins().items()}} if self.plugins else {})

    def identity(self, data: Dataset) -> dict:
        """What the hash covers."""
        kind = self.synthetic["kind"]
        versions = {"augment": augment.VERSION, "networks": networks.VERSION, "evaluate": EVALUATE_VERSION,
                    kind: KINDS[kind].version if kind in KINDS else coresets.VERSION}
        if self.method:
            versions |= {"distill": DISTILL_VERSION, self.method["name"]: METHODS[self.method["name"]].version}
        versions |= {name: PLUGINS[name].version for name in self.plugins}
        for part in (self._method(), self.protocol()[2]):
            versions |= getattr(part, "versions", {})
        return self.resolved() | {"data_sha256": data.sha256, "versions": versions}

    def start(self, data: Dataset) -> Synthetic:
        """The set before distillation."""
        kind, settings = self.synthetic["kind"], self._synthetic()
        if kind in KINDS:
            return create(data, kind, self.budget_ipc, seed=self.seed, **settings)
        protocol = self.protocol()[2]
        return baseline(kind, data, self.budget_ipc, network=protocol.network, width=protocol.width, seed=self.seed, **settings)

    def gradient_ratios(self, data: Dataset) -> dict[str, float]:
        """For each plugin what its weight means beside this method at the start (`ddcore.plugins.gradient_ratios`)."""
        plugins = self._plugins()
        ratios = gradient_ratios(data, self.start(data), self._method(), list(plugins.values()), seed=self.seed)
        return dict(zip(plugins, ratios, strict=True))

    def condense(self, data: Dataset, checkpoint: Path | None) -> tuple[dict, Synthetic]:
        """The set, distilled if there is a method, and what is to be recorded of that. `checkpoint` holds an unfinished run, and files
        beside it the end of one, until the caller needs them no more (`Runner.run`)."""
        kept, told = Path(f"{checkpoint}.safetensors"), Path(f"{checkpoint}.result.json")
        if checkpoint and told.is_file():
            said = checksums.read_json(told)
            if not kept.is_file() or checksums.of_file(kept) != said["set_sha256"]:
                raise Broken(f"{kept}: does not have the sha256 that it was written with; remove it and {told.name}")
            return said["result"], load_synthetic(kept, data.device)
        method, synthetic = self._method(), self.start(data)
        result: dict = {"images_per_class": synthetic.per_class, "stored_numbers": synthetic.stored_numbers}
        if method:
            plugins = self._plugins()
            trace = distill(data, synthetic, method, plugins=list(plugins.values()), **self.resolved()["distill"], seed=self.seed,
                            checkpoint=checkpoint)
            every = max(1, len(trace.losses) // 200)
            means = [sum(trace.losses[at : at + every]) / every for at in range(0, len(trace.losses) - every + 1, every)]
            result |= {"losses": [round(mean, 6) for mean in means], "losses_every": every, "distill_seconds": round(trace.seconds, 3)}
            terms = any(hasattr(plugin, "loss") for plugin in plugins.values())
            result |= {"gradient_ratios": self.gradient_ratios(data)} if terms else {}
            if checkpoint:
                checksums.write_json(told, {"set_sha256": checksums.of_file(synthetic.save(kept)), "result": result})
        return result, synthetic

    def make(self, data: Dataset, checkpoint: Path | None) -> tuple[dict, Synthetic | None]:
        """Condense and evaluate: the result, and the set if it was distilled."""
        result, synthetic = self.condense(data, checkpoint)
        protocol, many, how = self.protocol()
        scores = evaluate(synthetic, data, seeds=network_seeds(self.seed, many), protocol=protocol, **vars(how))
        return result | scores.result(), synthetic if self.method else None


class OfExperiment:
    """What is computed in the setting of an experiment, on its dataset, and is not its record."""

    experiment: Experiment

    @property
    def dataset(self) -> str:
        return self.experiment.dataset

    @property
    def holdout(self) -> float:
        return self.experiment.holdout


def grid(base: Mapping, cells: Iterable[Mapping], seeds: Sequence[int]) -> list[Experiment]:
    """One experiment for each seed and cell, the seeds outermost: cut short, it has made whole tables of fewer seeds."""
    cells = list(cells)
    return [build(Experiment, merge(base, cell, {"seed": seed}), "experiment") for seed in seeds for cell in cells]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Something computed from a dataset alone, or from none (`dataset` is ''): `name` is a function of `ddcore.measurements`,
    `settings` its arguments."""

    name: str
    dataset: str
    settings: Mapping = dataclasses.field(default_factory=dict)
    seed: int = 0
    holdout: ClassVar[float] = 0.0

    def __post_init__(self):
        _freeze(self, "measurement")
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
        return {"measurement": self.name, "dataset": self.dataset, "settings": self._settings(), "seed": self.seed,
                "versions": {self.name: MEASUREMENTS[self.name].version}} | of_data

    def make(self, data: Dataset | torch.device, checkpoint: Path | None) -> tuple[dict, None]:
        """{"rows": [...]}: one mapping a row of the table that the figure is drawn from."""
        return {"rows": MEASUREMENTS[self.name](data, seed=self.seed, **self._settings())}, None


class Runner:
    """Runs experiments, with one copy of each dataset in memory; `folder` keeps records, None keeps nothing. `overrides`: numbers that
    are not the preset's, which a record made with them names. `executor`: who computes what `run_all` misses; default this process."""

    def __init__(self, preset: str, folder: str | Path | None = None, *, device: str = "auto",
                 report: Callable[[str], None] | None = None, overrides: Mapping = types.MappingProxyType({}),
                 executor: Executor | None = None):
        self.preset, self.folder, self.device, self.overrides = preset, Path(folder) if folder else None, device, dict(overrides)
        self.report, self.executor = report or (lambda line: None), executor or Here()
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
        return records.digest(experiment.identity(self.data(experiment.dataset, experiment.holdout)))

    def kept(self, key: str) -> Record | None:
        """The record of that hash, if the folder has it; one that is broken, or whose set is, is set aside (`ddcore.checksums`), with a
        warning, and counts as none."""
        path, file = (self.folder / f"{key}.{form}" if self.folder else None for form in ("json", "safetensors"))
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
        key = records.digest(identity)
        if (record := self.kept(key)) or not self.folder:
            return record or self._make(experiment, data, identity, key)
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder / f".{key}.lock"):
            return self.kept(key) or self._make(experiment, data, identity, key)

    def _make(self, experiment: Experiment | Measurement, data: Dataset | torch.device, identity: dict, key: str) -> Record:
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
        record = records.sealed(Record(*json.loads(records.canonical([key, self.preset, identity, result, made_on]))))
        if self.folder:
            record.save(self.folder)
            for rest in self.folder.glob(f"{unfinished.name}*"):
                rest.unlink(missing_ok=True)
        return record

    def _timed(self, experiment: Experiment | Measurement, data: Dataset | torch.device,
               unfinished: Path | None) -> tuple[dict, Synthetic | None, float]:
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
                warnings.warn(f"{error}; moved to {checksums.ASIDE}/, the experiment begins anew", stacklevel=2)
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
                raise BadInput(f"record {record.hash}: no distilled set of it is kept here; run its experiment")
            self.sets[record.hash] = load_synthetic(self.folder / f"{record.hash}.safetensors", self.device)
        return self.sets[record.hash]

    def run_all(self, experiments: Sequence[Experiment | Measurement]) -> list[Record]:
        """The records of all, in order, each reported as it comes."""
        return self._reported(self.executor.records(self, experiments), len(experiments))

    def attempt_all(self, experiments: Sequence[Experiment | Measurement]) -> list[Record | Diverged]:
        """The same, with Diverged in the place of what diverges."""
        return self._reported(self.executor.attempts(self, experiments), len(experiments))

    def _reported(self, coming: Iterable[tuple[int, Record | Diverged]], many: int) -> list[Record | Diverged]:
        found: dict[int, Record | Diverged] = {}
        for place, one in coming:
            found[place] = one
            if isinstance(one, Record):
                accuracy = f" {one.result['accuracy']:.2f} %" if "accuracy" in one.result else ""
                self.report(f"{len(found)}/{many} {one.hash}{accuracy} {one.provenance['seconds']:.0f} s")
        return [found[place] for place in range(many)]


def table(found: Iterable[Record], **columns: Callable[[Record], object]) -> pd.DataFrame:
    """One row a record: accuracy (mean over its networks), seed, record, stored numbers, and `columns` computed from it."""
    rows = [{name: value(record) for name, value in columns.items()} | {
        "seed": record.experiment["seed"], "accuracy": record.result["accuracy"], "images_per_class": record.result["images_per_class"],
        "stored_numbers": record.result["stored_numbers"], "record": record.hash} for record in found]
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame, by: list[str], value: str = "accuracy") -> pd.DataFrame:
    """mean, sd (n - 1) and n of `value` for each group, in the order of first appearance."""
    return frame.groupby(by, sort=False)[value].agg(mean="mean", sd="std", n="count").reset_index()


def paired(frame: pd.DataFrame, pairs: Iterable[tuple[str, str]], by: list[str], *, arm: str = "method",
           value: str = "accuracy") -> pd.DataFrame:
    """Differences at equal seeds: a row for each (one, other) of `pairs`, arms named in column `arm`, and each group of `by` that has both:
    difference 'one - other', its mean, the half width `half` of Student's 95 % interval, n seeds."""
    wide, rows = frame.pivot_table(index=[*by, "seed"], columns=arm, values=value, sort=False), []
    for one, other in (pair for pair in pairs if {*pair} <= {*wide}):
        apart = (wide[one] - wide[other]).dropna().groupby(by, sort=False).agg(["mean", "sem", "count"]).reset_index()
        half = apart["sem"] * stats.t.ppf(0.975, apart["count"] - 1)
        rows.append(apart[by].assign(difference=f"{one} - {other}", mean=apart["mean"], half=half, n=apart["count"]))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=[*by, "difference", "mean", "half", "n"])

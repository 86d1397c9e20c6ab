"""Experiments: frozen, validated settings of one run, with a hash.

The hash covers the resolved settings, the data's sha256 and the integer version of each component used, so that a
refactoring keeps its records and a change of numbers (a bumped version) does not.
"""

import dataclasses
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ddcore import augment, networks
from ddcore.data import Dataset
from ddcore.distillation import VERSION as DISTILL_VERSION
from ddcore.distillation import check, distill
from ddcore.errors import BadInput, Broken
from ddcore.evaluation import PROTOCOLS, coresets, evaluate, network_seeds
from ddcore.evaluation import VERSION as EVALUATE_VERSION
from ddcore.evaluation.coresets import baseline
from ddcore.files import checksums
from ddcore.lab.measurements.gradient_ratios import gradient_ratios
from ddcore.methods import METHODS, method_of
from ddcore.plugins import PLUGINS
from ddcore.settings import build, keywords, later, merge, one_of, positive, stated, typed, unknown
from ddcore.synthetic import KINDS, Synthetic, create, load_synthetic

BASELINES = tuple(name for name in coresets.NAMES if name != "random")


def freeze(self, what: str) -> None:
    """Check the types of the fields of a frozen dataclass, and take copies of its mappings: what was given may change."""
    for name, value in typed(
        what, [(field.name, field.type) for field in dataclasses.fields(self)], vars(self)
    ).items():
        object.__setattr__(
            self, name, types.MappingProxyType(merge(value)) if isinstance(value, Mapping) else value
        )


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
        freeze(self, "experiment")
        positive("experiment", budget_ipc=self.budget_ipc)
        if not 0 <= self.holdout < 1:
            raise BadInput(
                f"experiment: holdout={self.holdout} must be 0 (the test set) or lie between 0 and 1"
            )
        kind = self.synthetic.get("kind")
        if kind not in (*KINDS, *BASELINES):
            raise unknown("kind of synthetic set", kind, [*KINDS, *BASELINES])
        if self.method and self.method.get("name") not in METHODS:
            raise unknown("method", self.method.get("name"), METHODS)
        if self.method and kind == "whole":
            raise BadInput(
                "experiment: 'whole' is the training set itself and nothing to distil; leave the method out"
            )
        if not self.method and (self.distill or self.plugins):
            raise BadInput(
                f"experiment: distill={dict(self.distill)} and plugins={dict(self.plugins)} without a method do nothing"
            )
        typed("plugins", [(name, Mapping, dataclasses.field(default=None)) for name in PLUGINS], self.plugins)
        self.resolved()

    def _synthetic(self) -> dict:
        kind, settings = (
            self.synthetic["kind"],
            {name: value for name, value in self.synthetic.items() if name != "kind"},
        )
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
        return {
            name: build(PLUGINS[name], settings, f"plugin {name}")
            for name, settings in sorted(self.plugins.items())
        }

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
        evaluated = (
            stated(how) | {"networks": many} | ({} if protocol == "synset" else {"protocol": protocol})
        )
        return {
            "dataset": self.dataset,
            "budget_ipc": self.budget_ipc,
            "synthetic": {"kind": self.synthetic["kind"]} | self._synthetic(),
            "method": {"name": self.method["name"]} | stated(method) if method else {},
            "distill": stated(build(Loop, self.distill, "distill")) if method else {},
            "evaluate": evaluated,
            "holdout": self.holdout,
            "seed": self.seed,
        } | (
            {"plugins": {name: stated(plugin) for name, plugin in self._plugins().items()}}
            if self.plugins
            else {}
        )

    def identity(self, data: Dataset) -> dict:
        """What the hash covers."""
        kind = self.synthetic["kind"]
        versions = {
            "augment": augment.VERSION,
            "networks": networks.VERSION,
            "evaluate": EVALUATE_VERSION,
            kind: KINDS[kind].version if kind in KINDS else coresets.VERSION,
        }
        if self.method:
            versions |= {
                "distill": DISTILL_VERSION,
                self.method["name"]: METHODS[self.method["name"]].version,
            }
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
        return baseline(
            kind,
            data,
            self.budget_ipc,
            network=protocol.network,
            width=protocol.width,
            seed=self.seed,
            **settings,
        )

    def gradient_ratios(self, data: Dataset) -> dict[str, float]:
        """For each plugin what its weight means beside this method at the start (`ddcore.lab.measurements.gradient_ratios`)."""
        plugins = self._plugins()
        ratios = gradient_ratios(
            data, self.start(data), self._method(), list(plugins.values()), seed=self.seed
        )
        return dict(zip(plugins, ratios, strict=True))

    def condense(self, data: Dataset, checkpoint: Path | None) -> tuple[dict, Synthetic]:
        """The set, distilled if there is a method, and what is to be recorded of that. `checkpoint` holds an unfinished run, and files
        beside it the end of one, until the caller needs them no more (`Runner.run`)."""
        kept, told = Path(f"{checkpoint}.safetensors"), Path(f"{checkpoint}.result.json")
        if checkpoint and told.is_file():
            said = checksums.read_json(told)
            if not kept.is_file() or checksums.of_file(kept) != said["set_sha256"]:
                raise Broken(
                    f"{kept}: does not have the sha256 that it was written with; remove it and {told.name}"
                )
            return said["result"], load_synthetic(kept, data.device)
        method, synthetic = self._method(), self.start(data)
        result: dict = {"images_per_class": synthetic.per_class, "stored_numbers": synthetic.stored_numbers}
        if method:
            plugins = self._plugins()
            trace = distill(
                data,
                synthetic,
                method,
                plugins=list(plugins.values()),
                **self.resolved()["distill"],
                seed=self.seed,
                checkpoint=checkpoint,
            )
            every = max(1, len(trace.losses) // 200)
            means = [
                sum(trace.losses[at : at + every]) / every
                for at in range(0, len(trace.losses) - every + 1, every)
            ]
            result |= {
                "losses": [round(mean, 6) for mean in means],
                "losses_every": every,
                "distill_seconds": round(trace.seconds, 3),
            }
            terms = any(hasattr(plugin, "loss") for plugin in plugins.values())
            result |= {"gradient_ratios": self.gradient_ratios(data)} if terms else {}
            if checkpoint:
                checksums.write_json(
                    told, {"set_sha256": checksums.of_file(synthetic.save(kept)), "result": result}
                )
        return result, synthetic

    def make(self, data: Dataset, checkpoint: Path | None) -> tuple[dict, Synthetic | None]:
        """Condense and evaluate: the result, and the set if it was distilled."""
        result, synthetic = self.condense(data, checkpoint)
        protocol, many, how = self.protocol()
        scores = evaluate(
            synthetic, data, seeds=network_seeds(self.seed, many), protocol=protocol, **vars(how)
        )
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
    return [
        build(Experiment, merge(base, cell, {"seed": seed}), "experiment") for seed in seeds for cell in cells
    ]

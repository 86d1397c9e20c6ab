"""Experiments as JSON, for those who compute elsewhere: what is read back is built as any other, checked, and never executed."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ddcore.errors import BadInput
from ddcore.files.records import Record, read
from ddcore.lab.experiment import Experiment
from ddcore.lab.measurement import Measurement
from ddcore.lab.measurements.continual import Continual
from ddcore.lab.measurements.diversity import Diversity
from ddcore.lab.measurements.ratios import Ratios
from ddcore.lab.measurements.transfer import Transfer
from ddcore.lab.runner import Runner
from ddcore.settings import build, merge, unknown
from ddcore.synthetic import Synthetic, load_synthetic

KINDS = {
    "experiment": Experiment,
    "measurement": Measurement,
    "continual": Continual,
    "ratios": Ratios,
    "transfer": Transfer,
    "diversity": Diversity,
}
Any = Experiment | Measurement | Continual | Ratios | Transfer | Diversity


def to_json(experiment: Any) -> dict:
    """{"kind": a name of `KINDS`, ...its fields}; a synthetic set among them is left out and travels beside."""
    kind = next(name for name, cls in KINDS.items() if type(experiment) is cls)
    return {"kind": kind} | {
        field.name: _plain(getattr(experiment, field.name))
        for field in dataclasses.fields(experiment)
        if not isinstance(getattr(experiment, field.name), Synthetic)
    }


def from_json(given: Mapping, synthetic: Synthetic | None = None) -> Any:
    """The experiment of `to_json`, with the set that travelled beside it. Raises BadInput for an unknown kind or field, a missing one, or
    ill-typed settings."""
    if not isinstance(given, Mapping) or not isinstance(given.get("kind"), str):
        raise BadInput(
            f"an experiment as JSON is a mapping with a 'kind' among {', '.join(KINDS)}; given was {given!r:.80}"
        )
    if given["kind"] not in KINDS:
        raise unknown("kind of experiment", given["kind"], KINDS)
    values = {name: value for name, value in given.items() if name != "kind"}
    if isinstance(values.get("experiment"), Mapping):
        values["experiment"] = from_json(values["experiment"])
    if synthetic is not None:
        values["synthetic"] = synthetic
    return build(KINDS[given["kind"]], values, f"experiment of kind {given['kind']}")


def of_record(record: Record, folder: Path) -> Any:
    """The experiment that `record` is of, from the settings that it states; the record and the set of one that is about a set lie in
    `folder`. Raises BadInput where they don't."""
    said = {
        name: value for name, value in record.experiment.items() if name not in ("versions", "data_sha256")
    }
    if said.get("measurement") == "gradient_ratios" and "budget_ipc" in said:
        return Ratios(_experiment(said))
    if "continual" in said:
        return Continual(_experiment(said), **said["continual"])
    if "of" in said:
        of = read(folder / f"{said['of']}.json")
        beside = {"of": of, "synthetic": _set(of, folder)}
        if said.get("measurement") == "diversity":
            return Diversity(**beside, images=said["images"], neighbours=said["neighbours"])
        return Transfer(
            **beside, evaluate=said["evaluate"], stored=said["stored"], rescaled=said.get("rescaled", False)
        )
    if "measurement" in said:
        return Measurement(said["measurement"], said["dataset"], said["settings"], said["seed"])
    return _experiment(said)


def _experiment(said: Mapping) -> Experiment:
    return Experiment(
        **{field.name: said[field.name] for field in dataclasses.fields(Experiment) if field.name in said}
    )


def _set(of: Record, folder: Path) -> Synthetic:
    if of.experiment.get("method"):
        return load_synthetic(folder / f"{of.hash}.safetensors")
    undistilled = _experiment(of.experiment)
    return undistilled.start(Runner(of.preset).data(undistilled.dataset, undistilled.holdout))


def _plain(value):
    if isinstance(value, Record):
        return dataclasses.asdict(value)
    if type(value) in KINDS.values():
        return to_json(value)
    return merge(value) if isinstance(value, Mapping) else value

"""Experiments as JSON, for those who compute elsewhere: what is read back is built as any other, checked, and never executed."""

import dataclasses
from collections.abc import Mapping

from ddcore.continual import Continual
from ddcore.diversity import Diversity
from ddcore.errors import BadInput
from ddcore.experiments import Experiment, Measurement
from ddcore.ratios import Ratios
from ddcore.records import Record
from ddcore.settings import build, merge, unknown
from ddcore.synthetic import Synthetic
from ddcore.transfer import Transfer

KINDS = {"experiment": Experiment, "measurement": Measurement, "continual": Continual, "ratios": Ratios, "transfer": Transfer,
         "diversity": Diversity}
Any = Experiment | Measurement | Continual | Ratios | Transfer | Diversity


def to_json(experiment: Any) -> dict:
    """{"kind": a name of `KINDS`, ...its fields}; a synthetic set among them is left out and travels beside."""
    kind = next(name for name, cls in KINDS.items() if type(experiment) is cls)
    return {"kind": kind} | {field.name: _plain(getattr(experiment, field.name)) for field in dataclasses.fields(experiment)
                             if not isinstance(getattr(experiment, field.name), Synthetic)}


def from_json(given: Mapping, synthetic: Synthetic | None = None) -> Any:
    """The experiment of `to_json`, with the set that travelled beside it. Raises BadInput for an unknown kind or field, a missing one, or
    ill-typed settings."""
    if not isinstance(given, Mapping) or not isinstance(given.get("kind"), str):
        raise BadInput(f"an experiment as JSON is a mapping with a 'kind' among {', '.join(KINDS)}; given was {given!r:.80}")
    if given["kind"] not in KINDS:
        raise unknown("kind of experiment", given["kind"], KINDS)
    values = {name: value for name, value in given.items() if name != "kind"}
    if isinstance(values.get("experiment"), Mapping):
        values["experiment"] = from_json(values["experiment"])
    if synthetic is not None:
        values["synthetic"] = synthetic
    return build(KINDS[given["kind"]], values, f"experiment of kind {given['kind']}")


def _plain(value):
    if isinstance(value, Record):
        return dataclasses.asdict(value)
    if type(value) in KINDS.values():
        return to_json(value)
    return merge(value) if isinstance(value, Mapping) else value

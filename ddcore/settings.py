"""Strict settings: a frozen dataclass built from a mapping that may hold no unknown name and no ill-typed value."""

import dataclasses
import difflib
import hashlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence

from ddcore.errors import BadInput


def _allows(annotation, value) -> bool:
    if annotation is typing.Any:
        return True
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_allows(part, value) for part in typing.get_args(annotation))
    if origin is tuple:
        inner = typing.get_args(annotation)[0]
        return isinstance(value, tuple | list) and all(_allows(inner, part) for part in value)
    if dataclasses.is_dataclass(annotation):
        return isinstance(value, Mapping | annotation)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or annotation)


def _cast(annotation, value):
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return _cast(next(part for part in typing.get_args(annotation) if _allows(part, value)), value)
    if origin is tuple:
        return tuple(_cast(typing.get_args(annotation)[0], part) for part in value)
    if dataclasses.is_dataclass(annotation) and isinstance(value, Mapping):
        return build(annotation, value)
    return float(value) if annotation is float else value


def unknown(kind: str, given: str, allowed: typing.Iterable[str]) -> BadInput:
    """The error for a name that is not in a list, with the nearest one suggested."""
    allowed = sorted(map(str, allowed))
    near = difflib.get_close_matches(str(given), allowed, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return BadInput(f"unknown {kind} '{given}'; allowed: {', '.join(allowed)}{hint}")


def later(default):
    """A field that came after records were made: `stated` leaves it out at its default, so that their hashes stand."""
    return dataclasses.field(default=default, metadata={"later": True})


def stated(settings) -> dict:
    """The fields of a dataclass by name, dataclasses among them likewise; without those of `later` that have their default. A dataclass
    that has a `stated` of its own is given them and says which ones speak."""
    values = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if not (field.metadata.get("later") and value == field.default):
            values[field.name] = stated(value) if dataclasses.is_dataclass(value) else value
    return settings.stated(values) if hasattr(settings, "stated") else values


def merge(*parts: Mapping) -> dict:
    """Nested mappings merged, the later ones first in rank."""
    found: dict = {}
    for part in parts:
        for name, value in part.items():
            before = found.get(name)
            found[name] = (
                merge(before if isinstance(before, Mapping) else {}, value)
                if isinstance(value, Mapping)
                else value
            )
    return found


def build(cls: type, given: Mapping, what: str | None = None):
    """An instance of the dataclass `cls` from `given`; an int stands for a float, a list for a tuple, a mapping for a
    dataclass, nothing else.

    Raises BadInput for an unknown name, a missing one, or a value of another type.
    """
    what = what or cls.__name__
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values = {}
    for name, value in given.items():
        if name not in fields:
            raise unknown(f"setting of {what}", name, fields)
        if not _allows(hints[name], value):
            kind = str(hints[name]) if typing.get_args(hints[name]) else hints[name].__name__
            raise BadInput(f"{what}: {name}={value!r} is of type {type(value).__name__}, but needs {kind}")
        values[name] = _cast(hints[name], value)
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise BadInput(f"{what}: '{name}' is missing")
    return cls(**values)


def typed(what: str, fields: typing.Iterable[tuple], given: Mapping) -> dict:
    """`given` with the defaults of `fields` (name, type[, default field]); raises BadInput as `build` does."""
    made = build(dataclasses.make_dataclass("settings", fields, kw_only=True), given, what)
    return {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}


def keywords(function: Callable, given: Mapping, what: str, *, without: typing.Iterable[str] = ()) -> dict:
    """The keyword-only arguments of `function` but those of `without`, defaults included."""
    fields = [
        (
            one.name,
            one.annotation,
            dataclasses.field(default=dataclasses.MISSING if one.default is one.empty else one.default),
        )
        for one in inspect.signature(function).parameters.values()
        if one.kind is one.KEYWORD_ONLY and one.name not in without
    ]
    return typed(what, fields, given)


def listed(values: Mapping) -> str:
    """'name=value, name=value', for a sentence."""
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def positive(what: str, **values: float | Sequence[float] | None) -> None:
    """Raise BadInput for the first value, or member of a list, that is not above zero; None stands for none given."""
    for name, value in values.items():
        if isinstance(value, Sequence):
            positive(what, **{f"{name}[{place}]": one for place, one in enumerate(value)})
        elif value is not None and not value > 0:
            raise BadInput(f"{what}: {name}={value} must be above 0")


def within(what: str, low: float, high: float, **values: float) -> None:
    """Raise BadInput for the first value that is not in [low, high), not a number included."""
    for name, value in values.items():
        if not low <= value < high:
            raise BadInput(f"{what}: {name}={value} must be at least {low:g} and below {high:g}")


def one_of(what: str, allowed: typing.Iterable[str], **values: str) -> None:
    """Raise BadInput for the first value that is not among `allowed`."""
    allowed = tuple(allowed)
    for name, value in values.items():
        if value not in allowed:
            raise unknown(f"{name} of {what}", value, allowed)


def canonical(value) -> str:
    """JSON with sorted keys and no spaces: equal for equal settings."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest(identity: Mapping) -> str:
    """16 hexadecimal digits of sha256 over the canonical JSON."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()[:16]


def versioned(version: int, *, of_data: bool = True):
    """Mark a measurement, `(data, *, seed, **settings) -> list of rows`; bump `version` when its numbers change.

    With `of_data=False` it takes the device to compute on in place of a dataset. Its name stands in `ddcore.lab.measurement`.
    """

    def mark(function):
        function.version, function.of_data = version, of_data
        return function

    return mark

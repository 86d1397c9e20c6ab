"""name=value, as a command line gives settings: read, and sorted by what they are settings of."""

from collections.abc import Collection, Mapping, Sequence

import yaml

from ddcore.errors import BadInput
from ddcore.lab import values
from ddcore.settings import unknown


def read(pairs: Sequence[str], option: str = "--set") -> dict:
    """By name. Raises BadInput for a pair that is none, a name given twice, and a value that YAML can't read."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not value.strip():
            raise BadInput(
                f"{option} {pair}: needs name=value, e.g. --set steps=100; what keeps its default is left out"
            )
        if name in found:
            raise BadInput(f"{option} {pair}: {name} is given twice; give it once")
        try:
            found[name] = values.read(value)
        except yaml.YAMLError as error:
            raise BadInput(
                f"{option} {pair}: '{value}' is not a value of YAML ({' '.join(str(error).split())})"
            ) from error
    return found


def grouped(pairs: Sequence[str], groups: Collection[str], bare: Collection[str]) -> dict[str, dict]:
    """The settings of each group, nested: `synthetic.balance=true` is {"balance": True} of the group 'synthetic'; a name that begins with
    no group's is of the first one, whose settings are `bare`, so that there `teacher.epochs=5` is {"teacher": {"epochs": 5}}.

    Raises BadInput as `read` does, for a setting given twice in other words, and for a dotted name that begins with nothing that is known.
    """
    first, *_ = groups
    found: dict[str, dict] = {name: {} for name in groups}
    for name, value in read(pairs).items():
        beginning, *rest = name.split(".")
        if beginning not in groups and rest and beginning not in bare:
            raise unknown(f"beginning of --set {name}", beginning, {*groups, *bare})
        if beginning in groups and not rest and not isinstance(value, Mapping):
            raise BadInput(
                f"--set {name}={value}: names none of its settings; write --set {name}.SETTING=value"
            )
        path = [beginning, *rest] if beginning in groups else [first, beginning, *rest]
        for part in reversed(path):
            value = {part: value}
        _put(found, value, f"--set {name}")
    return found


def _put(found: dict, more: Mapping, what: str) -> None:
    for name, value in more.items():
        if isinstance(value, Mapping) and isinstance(found.get(name, {}), dict):
            _put(found.setdefault(name, {}), value, what)
        elif name in found:
            raise BadInput(f"{what}: {name} is given twice; give it once")
        else:
            found[name] = value


def once(group: str, given: Mapping, options: Mapping[str, str]) -> None:
    """Raise BadInput for a setting of `given` that an option gives too; `options`: how that is written, by the setting's name."""
    for name in given:
        if name in options:
            raise BadInput(f"--set {group}.{name}: {options[name]} gives it too; give it once")

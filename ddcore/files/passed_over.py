"""Teachers and experts that are kept, but were computed with something else: said before others are trained in their place."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

APART = ("computed_with", "device", "versions")  # of an identity: how it was computed, not what was asked for


def say(what: str, wanted: Mapping, kept: Iterable[tuple[Path, Mapping]]) -> None:
    """Print one line on standard error where some of `kept` (where it is, its identity) is what is `wanted`, but for how it was computed;
    of several the one that differs in least."""
    wanted = json.loads(json.dumps(wanted))
    alike = [
        (_differences(identity, wanted), path)
        for path, identity in kept
        if _asked(identity) == _asked(wanted)
    ]
    if alike:
        differences, path = min(alike, key=lambda one: len(one[0]))
        print(
            f"{what}: {path} is passed over, since it was computed with {', '.join(differences)}; another one is trained now, and sets "
            "made with the one are not those made with the other",
            file=sys.stderr,
        )


def _asked(identity: Mapping) -> dict:
    return {name: value for name, value in identity.items() if name not in APART}


def _differences(found: Mapping, wanted: Mapping) -> list[str]:
    ours, theirs = _flat(wanted), _flat(found)
    return [
        f"{name} {theirs.get(name, 'not kept')} (here {ours.get(name, 'none')})"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]


def _flat(identity: Mapping) -> dict:
    """What `APART` holds, by names of one level."""
    found: dict = {}
    for name in APART:
        value = identity.get(name)
        if isinstance(value, Mapping):
            found |= {f"{'version of ' * (name == 'versions')}{inner}": one for inner, one in value.items()}
        elif value is not None:
            found[name] = value
    return found

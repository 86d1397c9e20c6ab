"""What to cite for what was used: each component with its entries of figures/figures.bib, which holds what our sources state alone."""

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ddcore import figures
from ddcore.data import TORCHVISION
from ddcore.errors import BadInput
from ddcore.evaluation import coresets
from ddcore.methods import METHODS
from ddcore.plugins import PLUGINS
from ddcore.settings import unknown

REFERENCES: dict[str, tuple[str, ...]] = {
    "dc": ("dc",), "dsa": ("dsa",), "dm": ("dm",), "mtt": ("mtt",), "sre2l": ("sre2l",),
    "pixels": (), "lowrank": ("lodc",), "adaptive": (), "tucker": (),
    "mutual_information": ("mim4dd",), "weight_adjustment": ("dwa",),
    **dict.fromkeys(coresets.NAMES, ()),
    **dict.fromkeys(("digits", *TORCHVISION), ()),
}  # fmt: skip


def references(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The keys of figures.bib for each of `names`: components of `REFERENCES`, keys themselves, or sets saved by ddcore, which name the
    components that made them. () where there is no reference. Raises BadInput for a name that is none of these."""
    keys, found = figures.bibliography(), {}
    for name in names:
        for part in components(Path(name)) if name.endswith(".safetensors") else [name]:
            if part not in REFERENCES and part not in keys:
                raise unknown("component", part, {*REFERENCES, *keys})
            found[part] = REFERENCES.get(part, (part,))
    return found


def components(path: Path) -> list[str]:
    """The names of dataset, parametrization, method and plugins of a set saved by ddcore. Raises BadInput for another file."""
    if not path.is_file():
        raise BadInput(
            f"{path}: no such file; name a set saved by ddcore (.safetensors), or components as in 'ddcore cite dm lowrank'"
        )
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {})["ddcore"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise BadInput(
            f"{path}: not a synthetic set saved by ddcore; name its components, as in 'ddcore cite dm lowrank'"
        ) from error
    classes = {part.__name__: name for name, part in (METHODS | PLUGINS).items()}
    made = settings.get("distilled", {"plugins": []})
    plugins = [
        one if isinstance(one, str) else one["plugin"] for one in made["plugins"]
    ]  # older sets name them without their settings
    used = [*([made["method"]] if "method" in made else []), *plugins]
    dataset = [settings["dataset"]] if settings["dataset"] in REFERENCES else []
    return [*(classes[name] for name in used), settings["kind"], *dataset]


def bibtex(names: Iterable[str], **known: str) -> str:
    """The entries for `names` and this companion, no entry twice; what has none is said in a line that BibTeX passes over. `known`: as
    `figures.bibliography` takes it."""
    found, entries = references(names), figures.bibliography(**known)
    keys = dict.fromkeys(["ddcore", *(key for of in found.values() for key in of)])
    without = [f"% {name}: no reference available\n" for name, of in found.items() if not of]
    return "\n".join([*(entries[key] for key in keys), *(["".join(without)] if without else [])])

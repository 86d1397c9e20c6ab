"""What a parameter of a notebook may be: of the kind of its examples, which are its values in the presets, and in range."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ddcore import augment, compute, networks
from ddcore.data import TORCHVISION, data_folder
from ddcore.errors import BadInput
from ddcore.settings import one_of, unknown

# What is a number of pixels, a part of the noise, a radius, a place in a list or a seed; all other numbers are counts, sizes, rates.
MAY_BE_ZERO = {"crop", "roll", "noise", "real", "r_var", "rho", "rhos", "layers", "seeds"}


def check(where: str, name: str, value, examples: Sequence, *, within: str = "") -> None:
    """Raise BadInput unless `value` is as one of `examples` is: of its type, where an int stands for a float and a list or mapping holds
    what theirs hold; a finite number, above zero or, by its `name`, not below; names that are known.

    A mapping whose values are all of one kind may have other names than theirs, else not. `within`: how the message calls it.
    """
    what = within or name
    if None in examples:  # 'the default' of what it is a setting of, which may be of any kind
        return
    alike = [
        one for one in examples if type(one) is type(value) or (isinstance(one, float) and type(value) is int)
    ]
    if examples and not alike:
        written = (
            "; numbers are written like 10, 0.5 or 1e-3"
            if isinstance(value, str) and type(examples[0]) in (int, float)
            else ""
        )
        raise BadInput(
            f"{where}: {what}={value!r} is of type {type(value).__name__}, but needs {type(examples[0]).__name__}{written}"
        )
    if isinstance(value, Mapping):
        _check_mapping(where, name, value, alike, what)
    elif isinstance(value, list):
        inner = [one for example in alike for one in example]
        if inner and not value and all(alike):
            raise BadInput(f"{where}: {what}=[] is empty; at least one {type(inner[0]).__name__} is needed")
        for place, one in enumerate(value):
            check(where, name, one, inner, within=f"{what}[{place}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(where, name, value, what)
    elif isinstance(value, str):
        _check_name(where, name, value)
    if name == "seeds" and isinstance(value, list) and len(set(value)) < len(value):
        raise BadInput(f"{where}: seeds={value} names a seed twice; give each once")


def _check_mapping(where: str, name: str, value: Mapping, examples: Sequence[Mapping], what: str) -> None:
    known = {key: [one[key] for one in examples if key in one] for one in examples for key in one}
    values = [one for found in known.values() for one in found]
    table = len({type(one) for one in values}) == 1
    for key, one in value.items():
        if key not in known and not table:
            raise unknown(f"name in {what} of {where}", key, known)
        check(
            where,
            name if table and not isinstance(one, Mapping | list) else str(key),
            one,
            known.get(key, values),
            within=f"{what}[{key}]",
        )


def _check_number(where: str, name: str, value: float, what: str) -> None:
    if not math.isfinite(value):
        raise BadInput(f"{where}: {what}={value} is no finite number")
    if value < 0 or (value == 0 and name not in MAY_BE_ZERO):
        raise BadInput(f"{where}: {what}={value} must be {'at least' if name in MAY_BE_ZERO else 'above'} 0")


def _check_name(where: str, name: str, value: str) -> None:
    if name == "strategy":
        augment.families(value)
    elif name == "precision":
        one_of(where, (*compute.PRECISIONS, "float64"), precision=value)
    elif name == "device":
        compute.device(value)
    elif name == "network":
        networks.build(value, (3, 256, 256), 2, width=1, generator=torch.Generator())
    elif name == "dataset":
        bare = value.removesuffix("-zca")
        if not named(bare) and not Path(bare).exists():
            raise unknown(
                "dataset (no file and no folder of that name either)", value, ["digits", *TORCHVISION]
            )


def named(dataset: str) -> bool:
    """Whether a dataset is found by its name, wherever that is said."""
    return dataset in ("digits", *TORCHVISION) or any(
        (data_folder() / one).exists() for one in (dataset, f"{dataset}.npz")
    )

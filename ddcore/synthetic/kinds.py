"""The parametrizations by name: an explicit table, and what is made, sized or read by a name of it."""

import bisect
import functools
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open

from ddcore import compute
from ddcore.data import Dataset, Whitening
from ddcore.errors import BadInput
from ddcore.settings import keywords, positive, typed, unknown
from ddcore.synthetic.adaptive import Adaptive
from ddcore.synthetic.base import Synthetic
from ddcore.synthetic.lowrank import LowRank
from ddcore.synthetic.pixels import Pixels
from ddcore.synthetic.tucker import Tucker

KINDS = {kind.kind: kind for kind in (Pixels, LowRank, Adaptive, Tucker)}


def budget(data: Dataset, kind: str, images_per_class: int, **settings) -> int:
    """The smallest budget_ipc that holds so many images a class of that kind; `settings`: rank and soft, where the kind has them."""
    if kind not in KINDS:
        raise unknown("synthetic set", kind, KINDS)
    settings = keywords(KINDS[kind].most, settings, f"synthetic set {kind}")
    typed(f"synthetic set {kind}", [("images_per_class", int)], {"images_per_class": images_per_class})
    positive(kind, images_per_class=images_per_class, rank=settings.get("rank"))
    most = functools.partial(KINDS[kind].most, data, **settings)
    high = 1
    while most(high) < images_per_class:
        high *= 2
    return bisect.bisect_left(range(high + 1), images_per_class, key=most)


def create(data: Dataset, kind: str, budget_ipc: int, *, seed: int, **settings) -> Synthetic:
    """A synthetic set by the name of its kind ('pixels', 'lowrank') and its settings."""
    if kind not in KINDS:
        raise unknown("synthetic set", kind, KINDS)
    return KINDS[kind](
        data, budget_ipc, **keywords(KINDS[kind], settings | {"seed": seed}, f"synthetic set {kind}")
    )


def load_synthetic(path: str | Path, device: torch.device | str = "cpu") -> Synthetic:
    """A set saved by `save`, equal to what was saved. Raises BadInput for a missing, foreign or corrupt file, and for NaN."""
    path, at = Path(path), compute.device(device)
    if not path.is_file():
        raise BadInput(f"{path}: no such file; a synthetic set saved by ddcore (.safetensors) is needed")
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {}).get("ddcore", "null"))
        tensors = load_file(path, str(at))
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path}: not a whole safetensors file ({error})") from error
    if not isinstance(settings, dict) or settings.get("kind") not in KINDS:
        raise BadInput(f"{path}: a safetensors file, but not a synthetic set saved by ddcore")
    found = KINDS[settings["kind"]].__new__(KINDS[settings["kind"]])
    try:
        if "whitening.mean" in tensors:
            found.whitening = Whitening(tensors.pop("whitening.mean"), tensors.pop("whitening.transform"))
        Synthetic.__init__(found, tensors, tensors.pop("labels"), settings)
        whole = found.images(slice(0, 1)).shape[1:] == found.shape
        whole = whole and all(
            len(found.labels) == len(tensors[name]) for name in tensors if name not in found.shared
        )
        whole = (
            whole
            and len(found.labels) == found.classes * found.per_class
            and found.stored_numbers <= found.budget
        )
    except (KeyError, TypeError, RuntimeError, IndexError):
        whole = False
    if not whole:
        raise BadInput(f"{path}: its tensors are not those that its settings name; distil it again")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise BadInput(
                f"{path}: '{name}' holds {int((~tensor.isfinite()).sum())} numbers that are not finite; distil it again"
            )
    found._learn()
    return found

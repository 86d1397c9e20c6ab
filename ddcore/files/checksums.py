"""Checksums of what is kept, so that a flipped byte is found and never computed with; and where to put what is found broken."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ddcore.errors import Broken
from ddcore.files import whole

ASIDE = "broken"  # the folder, beside what was found broken, that it is moved to


def of_file(path: Path) -> str:
    """sha256 of its bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def of_json(value) -> str:
    """sha256 over its JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value) -> None:
    """`value` with its checksum, whole or not at all."""
    with whole(path) as part:
        part.write_text(json.dumps({"sha256": of_json(value), "value": value}), encoding="utf-8")


def read_json(path: Path):
    """What `write_json` wrote. Raises Broken for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["sha256"] == of_json(found["value"]):
            return found["value"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Broken(f"{path}: not whole ({error}); remove it, and it is made anew") from error
    raise Broken(f"{path}: does not have the sha256 that it was written with; remove it, and it is made anew")


def set_aside(paths: Iterable[Path]) -> list[Path]:
    """Move files to `ASIDE` beside them, over those of their names that lie there."""
    found = [path for path in paths if path.is_file()]
    for path in found:
        (path.parent / ASIDE).mkdir(exist_ok=True)
        os.replace(path, path.parent / ASIDE / path.name)
    return found

"""Epochs of a training that may be stopped: each whole one is kept, and the training goes on from the last, on a CPU bit for bit if
torch, threads and vector instructions are the same."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from ddcore.files import checksums, whole


def remaining(
    epochs: int, tensors: dict[str, Tensor], generator: torch.Generator, path: Path, identity: str
) -> Iterator[int]:
    """The epochs that are still to be trained, from 0 on. After each, `tensors` and the state of `generator` are written to `path`; they
    begin as they were left there, if that file is whole and of `identity`."""
    done = _restore(tensors, generator, path, identity)
    for epoch in range(done, epochs):
        yield epoch
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()} | {
            "generator": generator.get_state()
        }
        said = {"ddcore": identity, "epochs": str(epoch + 1)}
        with whole(path) as part:
            save_file(kept, part, said | {"sha256": checksums.of_json([said, checksums.of_tensors(kept)])})


@torch.no_grad()
def _restore(tensors: dict[str, Tensor], generator: torch.Generator, path: Path, identity: str) -> int:
    """How many epochs are done; one that a crash of the machine cut short, or that holds other bytes than were written,
    counts as absent."""
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
        kept = load_file(path)
    except (SafetensorError, OSError, ValueError):
        return 0
    written = said.pop("sha256", None)  # none before there were any
    if written and written != checksums.of_json([said, checksums.of_tensors(kept)]):
        return 0
    if said.get("ddcore") != identity or kept.keys() != {*tensors, "generator"}:
        return 0
    generator.set_state(kept.pop("generator"))
    for name, tensor in kept.items():
        tensors[name].copy_(tensor)
    return int(said["epochs"])

"""Weights from a file: the state dict of a network trained elsewhere, as torchvision's or as ours names its numbers.

Read are what `torch.save` writes of tensors alone (.pth, .pt), also under 'state_dict' or 'model' as a training keeps them and with the
'module.' of parallel ones, and .safetensors. A file is known by the sha256 of its tensors, which is the same in each of these forms.
"""

import argparse
import functools
import hashlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ddcore import networks
from ddcore.data import Dataset, data_folder
from ddcore.errors import BadInput
from ddcore.networks import Network

NEEDED = "give tensors by name alone, as torch.save(network.state_dict(), FILE) writes them"
COUNTER = "num_batches_tracked"  # of a batch norm: no number of ours depends on it, and older files have none


def find(file: str, known: str | None = None) -> Path:
    """The file of that path, a bare name also in `teachers` beside the datasets; of `known` sha256, if that is given.

    Raises BadInput if there is none.
    """
    places = [Path(file).expanduser()]
    if places[0].name == file:
        places.append(data_folder() / "teachers" / file)
    there = [path for path in places if path.is_file()]
    if not there:
        which = f"that with sha256 {known}" if known else "a state dict (.pth, .pt or .safetensors)"
        raise BadInput(
            f"weights {file}: no such file{f', nor in {places[1].parent}' if places[1:] else ''}; {which} is needed; "
            "give its path as the teacher's weights"
        )
    found = next((path for path in there if known in (None, sha256(path))), None)
    if found is None:
        raise BadInput(
            f"weights {there[0]}: its tensors have sha256 {sha256(there[0])}, but those of {known} are needed; name the file "
            "that holds them"
        )
    return found


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, mapped into memory where its form allows. Raises BadInput for one that is not whole or holds more
    than tensors."""
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            # The settings that torchvision's own training keeps beside the weights; what else is no tensor is not loaded.
            with torch.serialization.safe_globals([argparse.Namespace]):
                found = torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # the readers name no common class
        asked = re.search(r"GLOBAL (\S+) was not", str(error))
        why = (
            f"asks for {asked[1]}, and code is never loaded"
            if asked
            else f"not whole, or not of this form ({type(error).__name__})"
        )
        raise BadInput(f"weights {path}: {why}; {NEEDED}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not found:
        what = "nothing" if isinstance(found, Mapping) else type(found).__name__
        raise BadInput(f"weights {path}: holds {what}; {NEEDED}")
    for name, tensor in found.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
            raise BadInput(
                f"weights {path}: '{name}' is no plain tensor but {type(tensor).__name__}; {NEEDED}"
            )
    prefix = "module." if all(str(name).startswith("module.") for name in found) else ""
    return {
        str(name).removeprefix(prefix): tensor.detach()
        for name, tensor in found.items()
        if not str(name).endswith(COUNTER)
    }


def sha256(path: Path) -> str:
    """Over the tensors of a file in the order of their names, computed once while the file stays as it is."""
    now = path.stat()
    return _sha256(path, (path.absolute(), now.st_size, now.st_mtime_ns))


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, state: tuple) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(read(path).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def fill(network: Network, name: str, path: Path, data: Dataset) -> None:
    """Copy a file's numbers into the network `name`, made for `data`. Raises BadInput that names the first one that does not fit."""
    found, ours = read(path), network.state_dict()
    namings = networks.torchvision_names(name, network), {one: one for one in ours}
    names = max(filter(None, namings), key=lambda naming: sum(one in found for one in naming.values()))
    for one, number in ours.items():
        if not one.endswith(COUNTER):
            _check(
                found, names[one], number, f"weights {path}", name, data, last=one.startswith("classifier.")
            )
            number.copy_(found.pop(names[one]))
    if found:
        raise BadInput(
            f"weights {path}: has a '{next(iter(found))}', which network {name} has not; name the network that the file holds"
        )


def _check(
    found: Mapping[str, Tensor], name: str, wanted: Tensor, what: str, network: str, data: Dataset, last: bool
) -> None:
    needs = f"network {network} for images of {'x'.join(map(str, data.shape))} needs {tuple(wanted.shape)}"
    if name not in found:
        kept = ", and has no use without the statistics of its batch norms" if "running_" in name else ""
        raise BadInput(
            f"{what}: has no '{name}', but {needs}{kept}; name the network that the file holds, or give a whole one"
        )
    tensor = found[name]
    if tensor.shape != wanted.shape:
        if last and tensor.shape[1:] == wanted.shape[1:]:
            raise BadInput(
                f"{what}: '{name}' is {tuple(tensor.shape)}, of {len(tensor)} classes, but {data.name} has {data.classes}; "
                "give a network of those classes"
            )
        raise BadInput(
            f"{what}: '{name}' is {tuple(tensor.shape)}, but {needs}; name the network that the file holds"
        )
    if not tensor.is_floating_point():
        raise BadInput(
            f"{what}: '{name}' is {tensor.dtype}, but floating-point numbers are needed; give the state dict as it was trained"
        )
    bad = ~tensor.isfinite() | (tensor < 0 if name.endswith("running_var") else False)
    if bad.any():
        raise BadInput(
            f"{what}: {int(bad.sum())} numbers of '{name}' are not finite, or a variance below 0; give those of a training that "
            "went well"
        )


class Normalise(nn.Module):
    """(N, C, H, W) images normalised by one mean and standard deviation a channel -> by others."""

    def __init__(self, data: Dataset, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        like = {"dtype": data.x_train.dtype, "device": data.device}
        our_mean, our_std, mean, std = (
            torch.tensor(values, **like).view(-1, 1, 1) for values in (data.mean, data.std, mean, std)
        )
        self.register_buffer("scale", our_std / std, persistent=False)
        self.register_buffer("shift", (our_mean - mean) / std, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def normalised(network: Network, data: Dataset, mean: tuple[float, ...], std: tuple[float, ...]) -> Network:
    """`network`, trained on pixels normalised by `mean` and `std`, for the images of `data`: the same pixels, to it, as theirs."""
    if data.whitening or len(mean) != data.shape[0]:
        raise BadInput(
            f"teacher: reads pixels normalised by mean={list(mean)} and std={list(std)}, but {data.name} has "
            f"{'whitened images' if data.whitening else f'{data.shape[0]} channels'}; name a dataset of such pixels"
        )
    if (tuple(mean), tuple(std)) != (tuple(data.mean), tuple(data.std)):
        network.blocks[0] = nn.Sequential(Normalise(data, mean, std), network.blocks[0])
    return network

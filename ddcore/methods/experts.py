"""Expert trajectories (MTT, Cazenavette et al., CVPR 2022, section 3.1): the parameters of networks trained on the real set, epoch by
epoch, on disk.

One expert is one `expert_<k>.npy` of shape (epochs + 1, P), row e the parameters after e epochs. While it is trained, each
epoch is a file of its own in `expert_<k>.epochs/`, so that an interrupted expert goes on from its last whole epoch.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from ddcore import augment, compute, networks
from ddcore.data import Dataset, cache_folder
from ddcore.errors import BadInput
from ddcore.files import CACHE, alone, made, passed_over, whole
from ddcore.files.stopping import heed
from ddcore.networks import Network
from ddcore.optim import training
from ddcore.random import stream
from ddcore.settings import one_of, positive, stated, within

VERSION = 1
STORED = ("float32", "float16")
ON_A_GPU = (
    10  # experts trained at once; on a CPU one after another is faster (`ddcore.evaluation.Protocol.at_once`)
)


@dataclasses.dataclass(frozen=True)
class Experts:
    """How the experts are trained. Published setting: 100 ConvNet-3 of width 128, 50 epochs of plain SGD, DSA's full strategy with
    parameters drawn for each image. `dtype` is that of the files; training is in the dataset's."""

    network: str = "convnet"
    width: int | None = None
    experts: int = 100
    epochs: int = 50
    lr: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    batch: int = 256
    strategy: str = augment.DSA
    dtype: str = "float32"
    precision: str = "float32"
    compiled: bool = False

    def __post_init__(self):
        positive("Experts", experts=self.experts, epochs=self.epochs, lr=self.lr, batch=self.batch)
        within("Experts", 0, 1, momentum=self.momentum)
        one_of("Experts", STORED, dtype=self.dtype)
        one_of("Experts", compute.PRECISIONS, precision=self.precision)
        augment.families(self.strategy)

    def network_for(self, data: Dataset, generator: torch.Generator) -> Network:
        return networks.build(
            self.network,
            data.shape,
            data.classes,
            width=self.width,
            device=data.device,
            dtype=data.x_train.dtype,
            generator=generator,
        )


def flatten(network: Network) -> Tensor:
    """(P,) the parameters in the order of `named_parameters`, as a copy."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def unflatten(network: Network, flat: Tensor) -> dict[str, Tensor]:
    """Views of (P,) by the names and in the shapes of the network's parameters, for `torch.func.functional_call`."""
    named = dict(network.named_parameters())
    parts = flat.split([parameter.numel() for parameter in named.values()])
    return {
        name: part.view_as(parameter) for (name, parameter), part in zip(named.items(), parts, strict=True)
    }


@torch.no_grad()
def fill(network: Network, flat: Tensor) -> Network:
    """Copy (P,) into the network's parameters."""
    for parameter, part in zip(network.parameters(), unflatten(network, flat).values(), strict=True):
        parameter.copy_(part)
    return network


def experts(
    data: Dataset,
    how: Experts,
    seed: int = 0,
    folder: str | Path | None = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, ...]:
    """One read-only memory-mapped array (epochs + 1, P) an expert; those without a file are trained first, on `data.device`.

    They lie in `folder`, by default one under `experts` in `ddcore.data.cache_folder` named by everything that their bits depend on, what
    they were computed with (`ddcore.compute.bits`) included, except their number: more experts can be asked for later; folders of before
    that was in their name are left alone and not read. Where there are some that differ in what they were computed with alone, a line on
    standard error says so before others are trained. `report(k, epochs done)` is called after each epoch. Raises BadInput for a folder
    of other experts, for a file that is cut short or of another shape, and for experts that diverge; Interrupted after a signal.
    """
    settings = _settings(data, how, seed)
    text = json.dumps(settings, sort_keys=True, indent=1)
    others = None if folder else cache_folder() / "experts"
    folder = Path(folder) if folder else others / hashlib.sha256(text.encode()).hexdigest()[:16]
    _claim(folder / "settings.json", settings, text)
    paths = [folder / f"expert_{number}.npy" for number in range(how.experts)]
    size = networks.parameter_count(how.network_for(data, torch.Generator(data.device)))
    kept = {path: _open(path, how, size) for path in paths if path.exists()}
    if len(kept) < len(paths):
        made(folder, CACHE)
        with alone(folder / ".lock"), heed():
            if others and not any(path.exists() for path in paths):
                passed_over.say("experts", settings, _identities(others))
            missing = [number for number, path in enumerate(paths) if not path.exists()]
            together = ON_A_GPU if data.device.type == "cuda" else 1
            for first in range(0, len(missing), together):
                _train(
                    data,
                    how,
                    seed,
                    {number: paths[number] for number in missing[first : first + together]},
                    report,
                )
    return tuple(kept[path] if path in kept else _open(path, how, size) for path in paths)


def _settings(data: Dataset, how: Experts, seed: int) -> dict:
    versions = {"trajectories": VERSION, "networks": networks.VERSION, "augment": augment.VERSION}
    trained = {name: value for name, value in stated(how).items() if name != "experts"}
    on = (
        {} if data.device.type == "cpu" else {"device": data.device.type}
    )  # another device draws other numbers
    return {
        "dataset": data.name,
        "data_sha256": data.sha256,
        "trained_in": str(data.x_train.dtype),
        "seed": seed,
        **trained,
        **on,
        "versions": versions,
        "computed_with": compute.bits(data.device),
    }


def _identities(folder: Path) -> Iterator[tuple[Path, dict]]:
    """Of the folders that hold an expert, one whose settings can't be read apart."""
    for path in sorted(folder.glob("*/settings.json")):
        if any(path.parent.glob("expert_*.npy")):
            with contextlib.suppress(OSError, ValueError):
                yield path.parent, json.loads(path.read_text(encoding="utf-8"))


def _claim(path: Path, settings: dict, text: str) -> None:
    if not path.exists():
        made(path.parent, CACHE)
        with whole(path) as part:
            part.write_text(text, encoding="utf-8")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if found != settings:
        found = found if isinstance(found, dict) else {}
        differ = next(name for name in [*settings, *found] if settings.get(name) != found.get(name))
        raise BadInput(
            f"{path}: these experts have {differ}={found.get(differ)}, but {differ}={settings.get(differ)} is asked for; "
            "name another folder, or remove this one to train anew"
        )


def _open(path: Path, how: Experts, size: int) -> np.ndarray:
    shape = (how.epochs + 1, size)
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadInput(
            f"{path}: not a whole file of an expert ({error}); remove it, and it is trained anew"
        ) from error
    if found.shape != shape or found.dtype != how.dtype:
        raise BadInput(
            f"{path}: holds {found.dtype} numbers of shape {found.shape}, but {how.dtype} of shape {shape} is needed; remove "
            "it, and it is trained anew"
        )
    return found


def _train(data: Dataset, how: Experts, seed: int, paths: dict[int, Path], report: Callable | None) -> None:
    """Train a group at once, from the last epoch that all of it has whole, and write each one's file."""
    device = data.device
    parts = {number: path.with_suffix(".epochs") for number, path in paths.items()}
    nets = [
        how.network_for(data, stream(seed, "experts", number, "network", device=device)) for number in paths
    ]
    flat = torch.stack([flatten(net) for net in nets])
    velocity = torch.zeros_like(flat)
    for part, row in zip(parts.values(), flat, strict=True):
        part.mkdir(exist_ok=True)
        _write(part / "0.npy", torch.stack([row, torch.zeros_like(row)]))
    done = min(_whole_epochs(part, how.epochs) for part in parts.values())
    if done:
        flat, velocity = torch.stack(
            [torch.from_numpy(np.load(part / f"{done}.npy")).to(flat) for part in parts.values()], 1
        )
    gradient = _gradient(nets, data, how)
    with heed() as stop:
        for epoch in range(done, how.epochs):
            generators = [stream(seed, "experts", number, "epoch", epoch, device=device) for number in paths]
            orders = [
                torch.randperm(len(data.y_train), generator=generator, device=device).split(how.batch)
                for generator in generators
            ]
            for rows in zip(*orders, strict=True):
                if stop:
                    raise stop.interrupted(
                        f"Experts: stopped in epoch {epoch + 1} of {how.epochs}, expert {min(paths) + 1} of "
                        f"{how.experts}; the epochs before it are kept in {parts[min(paths)].parent}: the same call "
                        "goes on from there"
                    )
                drawn = augment.join(
                    [augment.draw(how.strategy, 1, generator, each=len(rows[0])) for generator in generators]
                )
                chosen = torch.cat(rows)
                x = augment.apply(drawn, data.x_train[chosen], torch.arange(len(chosen), device=device))
                step = gradient(flat, x, data.y_train[chosen]) + how.weight_decay * flat
                velocity = how.momentum * velocity + step
                flat = flat - how.lr * velocity
            if not flat.isfinite().all():
                raise BadInput(
                    f"Experts: training diverged in epoch {epoch + 1} with lr={how.lr} and momentum={how.momentum}; lower "
                    "the lr"
                )
            for (number, part), row, speed in zip(parts.items(), flat, velocity, strict=True):
                _write(part / f"{epoch + 1}.npy", torch.stack([row, speed]))
                if report:
                    report(number, epoch + 1)
    for number, part in parts.items():
        rows = np.stack(
            [
                np.load(part / f"{epoch}.npy", mmap_mode="r")[0].astype(how.dtype)
                for epoch in range(how.epochs + 1)
            ]
        )
        with whole(paths[number]) as being_written, being_written.open("wb") as file:
            np.save(file, rows)
        shutil.rmtree(part)


def _gradient(nets: list[Network], data: Dataset, how: Experts) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(flat (m, P), images (m * b, ...), labels (m * b,)) -> (m, P), each expert's gradient on its own b images."""
    many = len(nets)
    if many == 1:
        forward = compute.accelerate(
            lambda flat, x: functional_call(nets[0], unflatten(nets[0], flat[0]), (x,)),
            data.device,
            precision=how.precision,
            compiled=how.compiled,
        )
        size = training.images_at_once(nets[0], data.shape, how.batch, compiled=how.compiled)
    else:
        buffers = stack_module_state(nets)[1]
        one = vmap(
            lambda flat, buffers, x: functional_call(nets[0], (unflatten(nets[0], flat), buffers), (x,))
        )
        together = compute.accelerate(one, data.device, precision=how.precision, compiled=how.compiled)
        size = many * how.batch  # all: those of several networks are not parted

        def forward(flat, x):
            return together(flat, buffers, x.unflatten(0, (many, -1))).flatten(0, 1)

    def gradient(flat, x, labels):
        flat = flat.detach().requires_grad_()
        return (
            training.gradient(
                functools.partial(forward, flat), [flat], x, training.cross_entropy(labels), size
            )[0]
            * many
        )

    return gradient


def _write(path: Path, state: Tensor) -> None:
    """(2, P), the parameters and their velocity, as one file."""
    with whole(path) as part, part.open("wb") as file:
        np.save(file, state.cpu().numpy())


def _whole_epochs(folder: Path, epochs: int) -> int:
    """How many epochs, one after another, have their file; one that a crash of the machine cut short counts as absent."""
    for epoch in range(1, epochs + 1):
        try:
            np.load(folder / f"{epoch}.npy", mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError):
            return epoch - 1
    return epochs

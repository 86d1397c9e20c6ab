"""Squeeze: the first stage of SRe2L, a network trained on the whole training set, kept on disk, or one from a file (Yin, Xing & Shen,
*Squeeze, Recover and Relabel*, NeurIPS 2023).

As published for CIFAR: SGD with momentum and weight decay, a cosine from `lr` to zero over the epochs, random crops and mirror
images. Its knowledge is in the weights and in the means and variances that its batch norms keep, hence a network with those.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from ddcore import compute, networks
from ddcore.augment import crops
from ddcore.data import Dataset, cache_folder
from ddcore.errors import BadInput, Diverged
from ddcore.files import CACHE, alone, made, passed_over, whole
from ddcore.files.epochs import remaining
from ddcore.files.stopping import heed
from ddcore.methods import weights
from ddcore.networks import Network
from ddcore.optim.sgd import SGD, cosine
from ddcore.random import stream
from ddcore.settings import canonical, digest, later, one_of, positive, stated, within

VERSION = 1
VERSIONS = {"squeeze": VERSION, "crops": crops.VERSION}
OF_FILE = (
    "network",
    "width",
    "weights",
    "sha256",
    "mean",
    "std",
)  # the settings of a network from a file; the others are of a training


@dataclasses.dataclass(frozen=True)
class Squeeze:
    """Published setting for CIFAR: ResNet-18, 200 epochs. `crop`: pixels of padding, 0 for no crop; `flip`: mirror images, which
    digits do not bear. `precision` and `compiled` say how the network is computed (`ddcore.compute`).

    `weights`: the file of a network that is not trained here (`ddcore.methods.weights`), as published for ImageNet, where 'resnet18',
    'resnet50'
    and 'resnet101' are torchvision's own. It was trained on pixels normalised by `mean` and `std`, if they are not those of the data;
    for torchvision's own they are ImageNet's. `sha256` is of the file's tensors, found if not given, checked if given. What is stated of
    the settings (`ddcore.settings.stated`) names the file, not its place, and no setting of a training.
    """

    network: str = "resnet18-bn"
    width: int | None = None
    epochs: int = 200
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 128
    crop: int = 4
    flip: bool = True
    precision: str = "float32"
    compiled: bool = False
    weights: str | None = later(None)
    sha256: str | None = later(None)
    mean: tuple[float, ...] | None = later(None)
    std: tuple[float, ...] | None = later(None)

    def __post_init__(self):
        positive("squeeze", epochs=self.epochs, lr=self.lr, batch=self.batch)
        within("squeeze", 0, 1, momentum=self.momentum)
        crops.check("squeeze", self.crop)
        one_of("squeeze", compute.PRECISIONS, precision=self.precision)
        if self.weights and self.network in networks.IMAGENET:
            object.__setattr__(self, "network", f"{self.network}-imagenet")
        if not self.network.endswith(("-bn", "-imagenet")):
            raise BadInput(
                f"squeeze: network '{self.network}' keeps no batch statistics; use one with batch norm, such as 'convnet3-bn' "
                "or 'resnet18-bn'"
            )
        self._check_file()

    def _check_file(self) -> None:
        if not self.weights:
            if idle := [name for name in ("sha256", "mean", "std") if getattr(self, name) is not None]:
                raise BadInput(
                    f"squeeze: {idle[0]} does nothing without weights, a file; name it too, or leave {idle[0]} out"
                )
            return
        for field in dataclasses.fields(self):
            if field.name not in OF_FILE and (value := getattr(self, field.name)) != field.default:
                raise BadInput(
                    f"squeeze: {field.name}={value} is of a training, and weights='{self.weights}' are trained already; leave "
                    f"{field.name} out"
                )
        if self.network.endswith("-imagenet") and self.mean is self.std is None:
            object.__setattr__(self, "mean", networks.IMAGENET_MEAN)
            object.__setattr__(self, "std", networks.IMAGENET_STD)
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise BadInput(
                f"squeeze: mean={self.mean} and std={self.std} are given; give both, a number a channel, or neither"
            )
        positive("squeeze", std=self.std)
        if not self.sha256:
            object.__setattr__(self, "sha256", weights.sha256(weights.find(self.weights)))

    def stated(self, values: dict) -> dict:
        """Of all that is stated, what says which network this is."""
        if not self.weights:
            return values
        return {name: values[name] for name in OF_FILE if name in values} | {
            "weights": Path(self.weights).name
        }


def squeeze(data: Dataset, how: Squeeze, seed: int = 0, folder: str | Path | None = None) -> Network:
    """The network of `how`, trained on `data` or from its file, frozen and in eval mode; read from `folder` if it was trained before.

    `folder`: default `teachers` in `ddcore.data.cache_folder`; the file is named by all that its bits depend on: the settings, the data,
    the seed, the versions, and what it was computed with (`ddcore.compute.bits`), so that no result depends on who filled the folder; files
    of before that was in their name are left alone and not read. Where one is there that differs in what it was computed with alone, a
    line on standard error says so before another is trained. A training that is stopped goes on from its last whole epoch when it
    is asked for again. Each call returns a network of its own. Raises BadInput for a file that is not whole or holds another network,
    Diverged if the weights do not stay finite.
    """
    network = networks.build(
        how.network,
        data.shape,
        data.classes,
        width=how.width,
        device=data.device,
        dtype=data.x_train.dtype,
        generator=stream(seed, "squeeze", "network", device=data.device),
    )
    if how.weights:
        weights.fill(network, how.network, weights.find(how.weights, how.sha256), data)
        network = weights.normalised(network, data, how.mean, how.std) if how.mean else network
        return network.eval().requires_grad_(False)
    identity = {
        "squeeze": stated(how),
        "data_sha256": data.sha256,
        "mean": list(data.mean),
        "std": list(data.std),
        "seed": seed,
        "dtype": str(data.x_train.dtype),
        "versions": VERSIONS | {"networks": networks.VERSION},
        "computed_with": compute.bits(data.device),
    }
    identity |= (
        {} if data.device.type == "cpu" else {"device": data.device.type}
    )  # another device draws other numbers
    path = Path(folder or cache_folder() / "teachers") / f"{digest(identity)}.safetensors"
    if not path.is_file():
        unfinished = made(path.parent, CACHE) / f".{path.stem}.epochs"
        with alone(path.with_name(f".{path.stem}.lock")):
            if not path.is_file():
                passed_over.say("teacher", identity, _identities(path.parent))
                _train(
                    network,
                    data,
                    how,
                    stream(seed, "squeeze", "train", device=data.device),
                    unfinished,
                    canonical(identity),
                )
                with whole(path) as part:
                    save_file(
                        {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()},
                        part,
                        {"ddcore": canonical(identity)},
                    )
                unfinished.unlink(missing_ok=True)
    _read(path, canonical(identity), network)
    return network.eval().requires_grad_(False)


def _identities(folder: Path) -> Iterator[tuple[Path, dict]]:
    """Of the networks that are kept in `folder`; of a file that can't be read, or is another's, nothing."""
    for path in sorted(folder.glob("*.safetensors")):
        with contextlib.suppress(SafetensorError, OSError, ValueError), safe_open(path, "pt") as file:
            found = json.loads((file.metadata() or {}).get("ddcore", "null"))
            if isinstance(found, dict):
                yield path, found


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The indices of an epoch in a new order, `size` at a time. An image left over alone sits this epoch out: a batch norm has no
    statistics of one value."""
    for rows in torch.randperm(count, generator=generator, device=generator.device).split(size):
        if len(rows) > 1 or size == 1 or count == 1:
            yield rows


def _train(
    network: Network, data: Dataset, how: Squeeze, generator: torch.Generator, unfinished: Path, identity: str
) -> None:
    forward = compute.accelerate(network, data.device, precision=how.precision, compiled=how.compiled)
    parameters, fill = list(network.parameters()), crops.black(data)
    optimiser = SGD(parameters, lr=how.lr, momentum=how.momentum, weight_decay=how.weight_decay)
    state = network.state_dict() | {f"velocity {place}": one for place, one in enumerate(optimiser.velocity)}
    with heed() as stop:
        for epoch in remaining(how.epochs, state, generator, unfinished, identity):
            optimiser.lr = how.lr * cosine(epoch, how.epochs)
            for rows in batches(len(data.x_train), how.batch, generator):
                if stop:
                    raise stop.interrupted(
                        f"squeeze: stopped in epoch {epoch + 1} of {how.epochs}; the epochs before it are kept in "
                        f"{unfinished.parent}: the same call goes on from there"
                    )
                x = crops.apply(
                    crops.draw(len(rows), generator, pad=how.crop, flip=how.flip), data.x_train[rows], fill
                )
                optimiser.step(
                    torch.autograd.grad(F.cross_entropy(forward(x), data.y_train[rows]), parameters)
                )
            if not torch.stack([parameter.isfinite().all() for parameter in parameters]).all():
                unfinished.unlink(missing_ok=True)
                raise Diverged(
                    f"squeeze: weights were not finite after epoch {epoch + 1}; use a smaller lr than {how.lr}"
                )


def _read(path: Path, identity: str, network: Network) -> None:
    try:
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("ddcore")
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path}: not a whole network ({error}); remove it, and it is trained anew") from error
    wanted = network.state_dict()
    if found != identity or {name: one.shape for name, one in tensors.items()} != {
        name: one.shape for name, one in wanted.items()
    }:
        raise BadInput(
            f"{path}: does not hold the network that its name stands for; remove it, and it is trained anew"
        )
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise BadInput(f"{path}: holds weights that are not finite; remove it, and it is trained anew")
    network.load_state_dict(tensors)

"""`load`: a dataset by name, from an .npz, or from a folder of images."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from ddcore import compute
from ddcore.data import digits, folder, npz, torchvision
from ddcore.data.dataset import Dataset
from ddcore.data.folders import data_folder
from ddcore.data.images import Images, Stored
from ddcore.data.source import Arrays, checked, parts
from ddcore.data.statistics import PUBLISHED_STATISTICS, channel_statistics
from ddcore.data.torchvision import TORCHVISION
from ddcore.data.whitening import whiten
from ddcore.errors import BadInput
from ddcore.settings import unknown

ON_DEVICE = 4 << 30  # bytes of pixels that a GPU keeps; more stay in main memory and go there as they are drawn


def load(name: str, device: str | torch.device = "auto", *, root: str | Path | None = None, size: int | None = None,
         download: bool = True) -> Dataset:
    """A dataset by name ('digits', 'mnist', 'fashion_mnist', 'svhn', 'cifar10', 'cifar100'), .npz file or image folder.

    A name is looked up as `<root>/<name>.npz` first (`root`: default $DDCORE_DATA), then through torchvision, which
    downloads it where there is a network. An .npz holds uint8 NHWC `x_train`, `x_test` and integer `y_train`, `y_test`;
    a folder holds `train/<class>/*.png` and `test/<class>/*.png`, resized and centre-cropped to `size` if given.
    '<name>-zca' is the dataset of that name, whitened (`ddcore.data.whitening`). Pixels stay in 8 bits; numbers are made of those that are
    drawn (`ddcore.data.images`). Raises BadInput naming the file, what was found in it and what is needed.
    """
    if str(name).endswith("-zca"):
        return whiten(load(str(name).removesuffix("-zca"), device, root=root, size=size, download=download))
    at, source = compute.device(device), str(name)
    arrays, class_names = _arrays(source, Path(root) if root else data_folder(), size, download)
    found = checked(source, arrays)
    found = dataclasses.replace(found, class_names=class_names) if class_names else found
    short = Path(source).stem if Path(source).suffix == ".npz" else Path(source).name
    channels = found.x_train.shape[-1]
    mean, std = PUBLISHED_STATISTICS.get(short) or channel_statistics(parts(found.x_train))
    if len(mean) != channels:
        raise BadInput(f"{source}: images have {channels} channels, but {short} has {len(mean)}")
    sides = found.x_train.shape[1:3]
    if size and sides != (size, size):
        raise BadInput(f"{source}: size={size} is for folders of images, and these are {sides[0]}x{sides[1]} already; leave size out")
    return _dataset(short, found, mean, std, at)


def _arrays(name: str, root: Path, size: int | None, download: bool) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    if name == "digits":
        return digits.read(), None
    if name.endswith(".npz"):
        return npz.read(Path(name)), None
    if (root / f"{name}.npz").is_file():
        return npz.read(root / f"{name}.npz"), None
    if name in TORCHVISION:
        return torchvision.read(name, root, download), None
    for place in (Path(name), root / name):
        if place.is_dir():
            return folder.read(place, size)
    raise unknown(f"dataset (no file {root / f'{name}.npz'} and no folder of that name either)", name, ["digits", *TORCHVISION])


def _dataset(name: str, found: Arrays, mean: tuple[float, ...], std: tuple[float, ...], at: torch.device) -> Dataset:
    splits = {}
    for split in ("train", "test"):
        y = torch.from_numpy(getattr(found, f"y_{split}").astype(np.int64))
        order, stored = y.argsort(stable=True), _stored(getattr(found, f"x_{split}"), at)
        splits |= {f"x_{split}": Images(stored, order.to(stored.device), mean, std, at), f"y_{split}": y[order].to(at)}
    return Dataset(name, **splits, mean=mean, std=std, sha256=found.sha256, class_names=found.class_names, notes=found.notes)


def _stored(pixels: np.ndarray, at: torch.device) -> Stored:
    """The pixels where they are drawn from."""
    if at.type != "cpu" and pixels.nbytes <= ON_DEVICE:
        return torch.from_numpy(np.ascontiguousarray(pixels)).to(at)
    return npz.Mapped(pixels) if isinstance(pixels, np.memmap) else torch.from_numpy(pixels)

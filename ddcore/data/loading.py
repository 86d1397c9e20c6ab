"""`load`: a dataset by name, from an .npz, or from a folder of images."""

from pathlib import Path

import numpy as np
import torch

from ddcore import compute
from ddcore.data import digits, folder, npz, torchvision
from ddcore.data.dataset import Dataset
from ddcore.data.files import Files
from ddcore.data.folders import data_folder
from ddcore.data.images import Images, Stored
from ddcore.data.source import Source, of_arrays
from ddcore.data.statistics import ONE_LEVEL, PUBLISHED_STATISTICS
from ddcore.data.torchvision import TORCHVISION
from ddcore.data.whitening import whiten
from ddcore.errors import BadInput
from ddcore.settings import unknown

ON_DEVICE = (
    4 << 30
)  # bytes of pixels that a GPU keeps; more stay in main memory and go there as they are drawn


def load(
    name: str | Path,
    device: str | torch.device = "auto",
    *,
    root: str | Path | None = None,
    size: int | None = None,
    test_fraction: float | None = None,
    split_seed: int = 0,
    download: bool = True,
) -> Dataset:
    """A dataset by name ('digits', 'mnist', 'fashion_mnist', 'svhn', 'cifar10', 'cifar100'), .npz file or image folder.

    A name is looked up as `<root>/<name>.npz` first (`root`: default $DDCORE_DATA), then through torchvision, which
    downloads it where there is a network. An .npz holds uint8 NHWC `x_train`, `x_test` and integer `y_train`, `y_test`;
    a folder holds `train/<class>/*.png` and `test/<class>/*.png`, or as `ddcore.data.listing` says, resized to `size` by the shorter side
    and cut to the central square, if given. `test_fraction` of the training images of each class, drawn by `split_seed`, are those for
    testing of a folder that has none; name and sha256 tell it. '<name>-zca' is the dataset of that name, whitened
    (`ddcore.data.whitening`). Pixels stay in 8 bits; numbers are made of those that are drawn (`ddcore.data.images`).
    Raises BadInput naming the file, what was found in it and what is needed.
    """
    source, at = str(name), compute.device(device)
    if source.endswith("-zca"):
        return whiten(
            load(
                source.removesuffix("-zca"),
                at,
                root=root,
                size=size,
                test_fraction=test_fraction,
                split_seed=split_seed,
                download=download,
            )
        )
    found = _source(source, Path(root) if root else data_folder(), size, test_fraction, split_seed, download)
    short = Path(source).stem if Path(source).suffix == ".npz" else Path(source).resolve().name
    channels = found.x_train.shape[-1]
    mean, std = PUBLISHED_STATISTICS.get(short) or found.statistics()
    if len(mean) != channels:
        raise BadInput(f"{source}: images have {channels} channels, but {short} has {len(mean)}")
    flat = tuple(
        f"channel {place} is nearly the same everywhere; it is divided by one level of its pixels, {ONE_LEVEL}"
        for place, deviation in enumerate(std)
        if deviation == ONE_LEVEL
    )
    splits = {}
    for split in ("train", "test"):
        y = torch.from_numpy(getattr(found, f"y_{split}").astype(np.int64))
        order, stored = y.argsort(stable=True), _stored(getattr(found, f"x_{split}"), at)
        splits |= {
            f"x_{split}": Images(stored, order.to(stored.device), mean, std, at),
            f"y_{split}": y[order].to(at),
        }
    return Dataset(
        f"{short} ({found.tag})" if found.tag else short,
        **splits,
        mean=mean,
        std=std,
        sha256=found.sha256,
        class_names=found.class_names,
        notes=found.notes + flat,
    )


def _source(
    name: str, root: Path, size: int | None, test_fraction: float | None, split_seed: int, download: bool
) -> Source:
    arrays = _arrays(name, root, download)
    if arrays is None:
        for place in (Path(name), root / name):
            if place.is_dir():
                return folder.read(place, size, test_fraction, split_seed)
        raise unknown(
            f"dataset (no file {root / f'{name}.npz'} and no folder of that name either)",
            name,
            ["digits", *TORCHVISION],
        )
    found = of_arrays(name, arrays)
    sides = found.x_train.shape[1:3]
    if size and sides != (size, size):
        raise BadInput(
            f"{name}: size={size} is for folders of images, and these are {sides[0]}x{sides[1]} already; leave size out"
        )
    if test_fraction is not None:
        raise BadInput(f"{name}: has a test split of its own; leave test_fraction={test_fraction} out")
    return found


def _arrays(name: str, root: Path, download: bool) -> dict[str, np.ndarray] | None:
    if name == "digits":
        return digits.read()
    if name.endswith(".npz"):
        return npz.read(Path(name))
    if (root / f"{name}.npz").is_file():
        return npz.read(root / f"{name}.npz")
    return torchvision.read(name, root, download) if name in TORCHVISION else None


def _stored(pixels: np.ndarray | Files, at: torch.device) -> Stored:
    """The pixels where they are drawn from."""
    if isinstance(pixels, Files):
        return pixels
    if at.type != "cpu" and pixels.nbytes <= ON_DEVICE:
        return torch.from_numpy(np.ascontiguousarray(pixels)).to(at)
    return npz.Mapped(pixels) if isinstance(pixels, np.memmap) else torch.from_numpy(pixels)

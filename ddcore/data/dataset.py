"""Datasets: a whole set as two tensors on the device, sorted by class, normalised, known by the sha256 of its content."""

import dataclasses
import functools
import hashlib
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ddcore import compute
from ddcore.errors import BadInput
from ddcore.random import stream
from ddcore.settings import positive, unknown
from ddcore.whitening import Whitening, whiten

KEYS = ("x_train", "y_train", "x_test", "y_test")
TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "svhn": "SVHN", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
# Mean and standard deviation used by the published code of DC, DSA, DM (VICO-UoE/DatasetCondensation, utils.py).
PUBLISHED_STATISTICS = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2861,), (0.3530,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
KNOWN_SHA256 = {
    "fashion_mnist": "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f",
    "cifar10": "80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660",
}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """x: (N, C, H, W) float32, normalised by `mean` and `std` a channel; y: (N,) int64, sorted; both on `device`.

    `whitening`: what x was whitened by, if it was (`ddcore.whitening`); its inverse gives what `mean` and `std` speak of.
    """

    name: str
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    class_names: tuple[str, ...]
    whitening: Whitening | None = None

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return tuple(self.x_train.shape[1:])

    @property
    def device(self) -> torch.device:
        return self.x_train.device

    @functools.cached_property
    def counts(self) -> torch.Tensor:
        """(classes,) number of training images of each class."""
        return torch.bincount(self.y_train, minlength=self.classes)

    def class_images(self, label: int) -> torch.Tensor:
        """(n_c, C, H, W) view of the training images of one class."""
        start, end = torch.searchsorted(self.y_train, torch.tensor([label, label + 1], device=self.device)).tolist()
        return self.x_train[start:end]

    def need(self, per_class: int, why: str) -> None:
        """Raise BadInput if some class holds fewer than `per_class` training images."""
        counts = self.counts
        worst = int(counts.argmin())
        if counts[worst] < per_class:
            raise BadInput(f"{self.name}: class {self.class_names[worst]} has {int(counts[worst])} training images, but {why} asks for "
                           f"{per_class} a class")

    def sample(self, per_class: int, generator: torch.Generator) -> torch.Tensor:
        """(classes * per_class,) indices into the training set: each class without replacement, sorted by class."""
        counts = self.counts
        fewest, most = torch.stack(counts.aminmax()).tolist()
        if per_class > fewest:
            self.need(per_class, "a sample")
        keys = torch.rand(self.classes, most, generator=generator, device=self.device)
        keys.masked_fill_(torch.arange(keys.shape[1], device=self.device) >= counts[:, None], 2.0)
        starts = counts.cumsum(0) - counts
        return (keys.topk(per_class, largest=False).indices + starts[:, None]).flatten()

    def holdout(self, fraction: float = 0.1, seed: int = 0) -> "Dataset":
        """The training set cut in two, a part of every class as `test`: where hyper-parameters are chosen."""
        if not 0 < fraction < 1:
            raise BadInput(f"holdout: fraction={fraction} must lie between 0 and 1")
        self.need(2, "holdout, which leaves an image on either side,")
        sizes = (self.counts * fraction).long().clamp(min=1).minimum(self.counts - 1)
        generator = stream(seed, "holdout", device=self.device)
        held = torch.zeros_like(self.y_train, dtype=torch.bool)
        for label in range(self.classes):
            members = (self.y_train == label).nonzero().flatten()
            order = torch.randperm(len(members), generator=generator, device=self.device)
            held[members[order[: sizes[label]]]] = True
        return self._part(f"holdout {fraction} {seed}", x_train=self.x_train[~held], y_train=self.y_train[~held],
                          x_test=self.x_train[held], y_test=self.y_train[held])

    def only(self, classes: Sequence[int]) -> "Dataset":
        """The images of some classes, renumbered from 0 in the order given."""
        if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(range(self.classes)):
            raise BadInput(f"{self.name}: classes={list(classes)} must be at least one of 0 to {self.classes - 1}, each named once")
        train, test = ([(y == label).nonzero().flatten() for label in classes] for y in (self.y_train, self.y_test))
        y_train, y_test = (torch.cat([torch.full_like(rows, label) for label, rows in enumerate(split)]) for split in (train, test))
        return self._part(f"classes {','.join(map(str, classes))}", x_train=self.x_train[torch.cat(train)], y_train=y_train,
                          x_test=self.x_test[torch.cat(test)], y_test=y_test,
                          class_names=tuple(self.class_names[label] for label in classes))

    def _part(self, tag: str, **changed) -> "Dataset":
        """A dataset of its own, by name and sha256."""
        sha256 = hashlib.sha256(f"{self.sha256} {tag}".encode()).hexdigest()
        return dataclasses.replace(self, name=f"{self.name} ({tag})", sha256=sha256, **changed)

    def to_pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images back to [0, 1], clipped: for pictures only."""
        return to_pixels(images, self.mean, self.std, self.whitening)


def to_pixels(images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...], whitening: Whitening | None = None) -> torch.Tensor:
    images = whitening.invert(images.detach()) if whitening else images
    mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return (images.detach() * std + mean).clamp(0, 1)


def content_sha256(arrays: dict[str, np.ndarray]) -> str:
    """sha256 over the bytes of x_train (NHWC), y_train, x_test, y_test, as uint8, in the order of the source."""
    digest = hashlib.sha256()
    for key in KEYS:
        array = arrays[key]
        digest.update(np.ascontiguousarray(array, np.int64 if array.max() > 255 else np.uint8).tobytes())
    return digest.hexdigest()


def data_folder() -> Path:
    """Where datasets lie: $DDCORE_DATA, else ~/.cache/ddcore."""
    return Path(os.environ.get("DDCORE_DATA") or Path.home() / ".cache" / "ddcore").expanduser()


def load(name: str, device: str | torch.device = "auto", *, root: str | Path | None = None, size: int | None = None,
         download: bool = True) -> Dataset:
    """A dataset by name ('digits', 'mnist', 'fashion_mnist', 'svhn', 'cifar10', 'cifar100'), .npz file or image folder.

    A name is looked up as `<root>/<name>.npz` first (`root`: default $DDCORE_DATA), then through torchvision, which
    downloads it where there is a network. An .npz holds uint8 NHWC `x_train`, `x_test` and integer `y_train`, `y_test`;
    a folder holds `train/<class>/*.png` and `test/<class>/*.png`, resized and centre-cropped to `size` if given.
    '<name>-zca' is the dataset of that name, whitened (`ddcore.whitening`).
    Raises BadInput naming the file, what was found in it and what is needed.
    """
    if str(name).endswith("-zca"):
        return whiten(load(str(name).removesuffix("-zca"), device, root=root, size=size, download=download))
    at = compute.device(device)
    arrays, class_names = _arrays(str(name), Path(root) if root else data_folder(), size, download)
    source = str(name)
    _check(source, arrays)
    classes = int(arrays["y_train"].max()) + 1
    short = Path(source).stem if Path(source).suffix == ".npz" else Path(source).name
    scaled = arrays["x_train"].reshape(-1, arrays["x_train"].shape[-1])
    mean, std = PUBLISHED_STATISTICS.get(short) or tuple(
        tuple(round(float(value) / 255, 4) for value in values)
        for values in (scaled.mean(0, dtype=np.float64), np.maximum(scaled.std(0, dtype=np.float64), 1e-3))
    )
    if len(mean) != arrays["x_train"].shape[-1]:
        raise BadInput(f"{source}: images have {arrays['x_train'].shape[-1]} channels, but {short} has {len(mean)}")

    def tensors(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.from_numpy(arrays[f"y_{split}"].astype(np.int64))
        order = y.argsort(stable=True)
        x = torch.from_numpy(arrays[f"x_{split}"]).to(at)[order.to(at)].permute(0, 3, 1, 2).float().div_(255)
        return x.sub_(x.new_tensor(mean).view(1, -1, 1, 1)).div_(x.new_tensor(std).view(1, -1, 1, 1)).contiguous(), y[order].to(at)

    return Dataset(short, *tensors("train"), *tensors("test"), mean, std, content_sha256(arrays),
                   class_names or tuple(map(str, range(classes))))


def _arrays(name: str, root: Path, size: int | None, download: bool) -> tuple[dict, tuple[str, ...] | None]:
    if name == "digits":
        return _digits(), None
    if name.endswith(".npz"):
        return _npz(Path(name)), None
    if (root / f"{name}.npz").is_file():
        return _npz(root / f"{name}.npz"), None
    if name in TORCHVISION:
        return _torchvision(name, root, download), None
    for folder in (Path(name), root / name):
        if folder.is_dir():
            return _folder(folder, size)
    raise unknown(f"dataset (no file {root / f'{name}.npz'} and no folder of that name either)", name, ["digits", *TORCHVISION])


def _digits() -> dict[str, np.ndarray]:
    state = random.getstate()
    from sklearn.datasets import load_digits  # imports rich, which draws from Python's global generator as it is imported

    random.setstate(state)
    found = load_digits()
    x = np.round(found.images * (255 / 16)).astype(np.uint8)[..., None]
    y = found.target.astype(np.uint8)
    test = np.arange(len(x)) % 5 == 0
    return {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}


def _npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file; an .npz with {', '.join(KEYS)} is needed")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file.files]
            if missing:
                raise BadInput(f"{path}: holds {', '.join(file.files) or 'nothing'}, but {', '.join(missing)} is missing")
            return {key: np.asarray(file[key]) for key in KEYS}
    except BadInput:
        raise
    except Exception as error:  # whatever the parser stumbles over: numpy and zipfile name no common class
        raise BadInput(f"{path}: not a whole .npz file ({error}); fetch it again") from error


def _torchvision(name: str, root: Path, download: bool) -> dict[str, np.ndarray]:
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION[name])
    arrays = {}
    for split in ("train", "test"):
        which = {"split": split} if name == "svhn" else {"train": split == "train"}
        try:
            found = kind(root / "torchvision", download=download, **which)
        except (RuntimeError, OSError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise BadInput(f"{name}: neither {root / f'{name}.npz'} nor a torchvision copy is there, and it could not be downloaded "
                           f"({why}); put the .npz there, or set DDCORE_DATA to its folder") from error
        images, labels = np.asarray(found.data), np.asarray(getattr(found, "targets", getattr(found, "labels", None)))
        if name == "svhn":
            images = images.transpose(0, 2, 3, 1)
        arrays[f"x_{split}"] = images if images.ndim == 4 else images[..., None]
        arrays[f"y_{split}"] = labels.astype(np.uint8)
    return arrays


def _folder(folder: Path, size: int | None) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    from PIL import Image
    from torchvision.transforms import functional

    positive("load", size=size)
    arrays, names, shape = {}, None, None
    for split in ("train", "test"):
        found = tuple(sorted(path.name for path in (folder / split).glob("*") if path.is_dir()))
        if not found:
            raise BadInput(f"{folder / split}: no class folders found; train/<class>/*.png and test/<class>/*.png are needed")
        if names is not None and found != names:
            raise BadInput(f"{folder / split}: classes {', '.join(found)} differ from those of train: {', '.join(names)}")
        names, images, labels = found, [], []
        for label, name in enumerate(names):
            for path in sorted((folder / split / name).iterdir()):
                if path.suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                try:
                    with Image.open(path) as image:
                        image = image.convert("L" if image.mode in ("1", "L") else "RGB")
                except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError and more
                    raise BadInput(f"{path}: not a whole image ({error}); remove or replace it") from error
                if size:
                    image = functional.center_crop(functional.resize(image, size), size)
                pixels = np.asarray(image)
                pixels = pixels if pixels.ndim == 3 else pixels[..., None]
                if shape is None:
                    shape = pixels.shape
                elif pixels.shape[:2] != shape[:2]:
                    raise BadInput(f"{path}: is {pixels.shape[:2]}, but the images before it are {shape[:2]}; make them of one size, "
                                   "or give `size` to ddcore.load")
                images.append(pixels)
                labels.append(label)
            if label not in labels:
                raise BadInput(f"{folder / split / name}: no image found; {', '.join(sorted(IMAGE_SUFFIXES))} are read")
        arrays[f"x_{split}"], arrays[f"y_{split}"] = images, np.asarray(labels)
    channels = max(image.shape[2] for split in ("train", "test") for image in arrays[f"x_{split}"])
    for split in ("train", "test"):  # grey images among coloured ones, as in ImageNet, take three equal channels
        arrays[f"x_{split}"] = np.stack([np.broadcast_to(image, (*image.shape[:2], channels)) for image in arrays[f"x_{split}"]])
    return arrays, names


def _check(source: str, arrays: dict[str, np.ndarray]) -> None:
    for split in ("train", "test"):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if x.dtype != np.uint8:
            nan = " and holds NaN" if np.issubdtype(x.dtype, np.floating) and np.isnan(x).any() else ""
            raise BadInput(f"{source}: x_{split} is {x.dtype}{nan}, but uint8 pixels from 0 to 255 are needed")
        if x.ndim != 4 or x.shape[-1] not in (1, 3) or 0 in x.shape:
            raise BadInput(f"{source}: x_{split} has shape {x.shape}, but (images, height, width, 1 or 3 channels) is needed")
        if not np.issubdtype(y.dtype, np.integer):
            raise BadInput(f"{source}: y_{split} is {y.dtype}, but integer labels are needed")
        if y.shape != (len(x),):
            raise BadInput(f"{source}: y_{split} has shape {y.shape}, but x_{split} holds {len(x)} images")
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise BadInput(f"{source}: training images are {arrays['x_train'].shape[1:]}, test images {arrays['x_test'].shape[1:]}")
    classes = int(arrays["y_train"].max()) + 1
    for split in ("train", "test"):
        y = arrays[f"y_{split}"]
        if y.min() < 0 or y.max() >= classes:
            raise BadInput(f"{source}: y_{split} holds labels from {y.min()} to {y.max()}, but 0 to {classes - 1} are needed")
    present = np.unique(arrays["y_train"])
    if len(present) < classes:
        gap = int(np.append(present != np.arange(len(present)), True).argmax())
        raise BadInput(f"{source}: class {gap} of 0 to {classes - 1} has no training image; labels must be without gaps")

"""Datasets that torchvision knows by name, downloaded where there is a network."""

from pathlib import Path

import numpy as np

from ddcore.errors import BadInput

TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "svhn": "SVHN",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}


def read(name: str, root: Path, download: bool) -> dict[str, np.ndarray]:
    """The arrays of a dataset of `TORCHVISION`. Raises BadInput where it is not there and can't be downloaded."""
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION[name])
    arrays = {}
    for split in ("train", "test"):
        which = {"split": split} if name == "svhn" else {"train": split == "train"}
        try:
            found = kind(root / "torchvision", download=download, **which)
        except (RuntimeError, OSError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise BadInput(
                f"{name}: neither {root / f'{name}.npz'} nor a torchvision copy is there, and it could not be downloaded "
                f"({why}); put the .npz there, or set DDCORE_DATA to its folder"
            ) from error
        images, labels = (
            np.asarray(found.data),
            np.asarray(getattr(found, "targets", getattr(found, "labels", None))),
        )
        if name == "svhn":
            images = images.transpose(0, 2, 3, 1)
        arrays[f"x_{split}"] = images if images.ndim == 4 else images[..., None]
        arrays[f"y_{split}"] = labels.astype(np.uint8)
    return arrays

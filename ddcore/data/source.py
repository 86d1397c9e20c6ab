"""What a loader reads, before it is a dataset: pixels of 8 bits and labels, in the order of their source."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from ddcore.data.files import Files
from ddcore.data.statistics import channel_statistics
from ddcore.errors import BadInput

KEYS = ("x_train", "y_train", "x_test", "y_test")
KNOWN_SHA256 = {
    "fashion_mnist": "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f",
    "cifar10": "80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660",
}
PART_BYTES = 1 << 22  # read at once in a pass over an array


@dataclasses.dataclass(frozen=True)
class Source:
    """x: (N, H, W, C) uint8 with 1 or 3 channels; y: (N,) labels from 0, each class with a training image. `statistics` finds mean and
    standard deviation of the channels of the training images; `tag`: what was chosen of the source, part of the dataset's name."""

    x_train: np.ndarray | Files
    y_train: np.ndarray
    x_test: np.ndarray | Files
    y_test: np.ndarray
    class_names: tuple[str, ...]
    sha256: str
    statistics: Callable[[], tuple[tuple[float, ...], tuple[float, ...]]]
    tag: str = ""
    notes: tuple[str, ...] = ()


def content_sha256(arrays: dict[str, np.ndarray]) -> str:
    """Over the bytes of x_train, y_train, x_test, y_test, as uint8 (labels above 255 as int64), in the order of the source."""
    digest = hashlib.sha256()
    for key in KEYS:
        array = arrays[key]
        kind = np.int64 if array.dtype != np.uint8 and array.max() > 255 else np.uint8
        for part in parts(array):
            digest.update(np.ascontiguousarray(part, kind).reshape(-1).data)
    return digest.hexdigest()


def parts(array: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of an array, so many at a time that they take `PART_BYTES`."""
    rows = max(1, PART_BYTES * len(array) // max(1, array.nbytes))
    return (array[start : start + rows] for start in range(0, len(array), rows))


def of_arrays(source: str, arrays: dict[str, np.ndarray]) -> Source:
    """The arrays of `KEYS`, labels of shape (N, 1) taken as (N,), and labels that begin at 1 taken from 0, which is noted.

    Raises BadInput naming `source`, the array, what it is and what is needed.
    """
    for split in ("train", "test"):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if x.dtype != np.uint8:
            nan = " and holds NaN" if np.issubdtype(x.dtype, np.floating) and np.isnan(x).any() else ""
            raise BadInput(
                f"{source}: x_{split} is {x.dtype}{nan}, but uint8 pixels from 0 to 255 are needed"
            )
        if x.ndim != 4 or x.shape[-1] not in (1, 3) or 0 in x.shape:
            raise BadInput(
                f"{source}: x_{split} has shape {x.shape}, but (images, height, width, 1 or 3 channels) is needed"
            )
        if not np.issubdtype(y.dtype, np.integer):
            raise BadInput(f"{source}: y_{split} is {y.dtype}, but integer labels are needed")
        if y.shape not in ((len(x),), (len(x), 1)):
            raise BadInput(
                f"{source}: y_{split} has shape {y.shape}, but x_{split} holds {len(x)} images: labels of shape ({len(x)},), "
                "one class an image, are needed"
                + (" (of one-hot labels, take the argmax)" if y.ndim == 2 else "")
            )
    labels = {split: arrays[f"y_{split}"].reshape(-1) for split in ("train", "test")}
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise BadInput(
            f"{source}: training images are {arrays['x_train'].shape[1:]}, test images {arrays['x_test'].shape[1:]}"
        )
    first, notes = 0, ()
    if labels["train"].min() == 1 and labels["test"].min() >= 1:
        first = 1
        notes = (
            f"labels begin at 1: 1 to {labels['train'].max()} are taken as classes 0 to {int(labels['train'].max()) - 1}",
        )
    last = int(labels["train"].max())
    for split, y in labels.items():
        if y.min() < 0 or y.max() > last:
            raise BadInput(
                f"{source}: y_{split} holds labels from {y.min()} to {y.max()}, but {first} to {last} are needed"
            )
    present = np.unique(labels["train"])
    if len(present) < last - first + 1:
        gap = first + int(np.append(present != np.arange(first, first + len(present)), True).argmax())
        raise BadInput(
            f"{source}: class {gap} of {first} to {last} has no training image; labels must be without gaps"
        )
    y_train, y_test = (y - y.dtype.type(first) for y in labels.values())
    return Source(
        arrays["x_train"],
        y_train,
        arrays["x_test"],
        y_test,
        tuple(map(str, range(first, last + 1))),
        content_sha256(arrays),
        lambda: channel_statistics(parts(arrays["x_train"])),
        notes=notes,
    )

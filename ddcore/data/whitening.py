"""ZCA whitening of a dataset: fitted on its training images, applied to both splits as they are drawn (`ddcore.data.zca`)."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ddcore.data.dataset import Dataset
from ddcore.data.images import Images
from ddcore.data.statistics import at_once
from ddcore.data.zca import EPS, Whitening, fit
from ddcore.errors import BadInput
from ddcore.settings import positive

VERSION = 1
LARGEST = 1 << 14  # numbers of an image: the transform holds their square
__all__ = ["EPS", "VERSION", "Whitening", "fit", "whiten"]


def whiten(data: Dataset, eps: float = EPS) -> Dataset:
    """`data` whitened, with the transform as its `whitening`: another dataset by name ('<name>-zca') and sha256.

    Its `mean` is 0 and its `std` 1, for the inverse gives pixels. Raises BadInput unless eps > 0, for images too large, and for a dataset
    that is whitened.
    """
    positive("whiten", eps=eps)
    if data.whitening:
        raise BadInput(f"{data.name}: is whitened already; whiten the dataset that it was made from")
    if math.prod(data.shape) > LARGEST:
        raise BadInput(
            f"{data.name}: images of {math.prod(data.shape):,} numbers are too large to whiten, for the transform holds "
            f"their square; at most {LARGEST:,} are allowed"
        )
    whitening, channels = fit(_pixels(data.x_train, data), eps), len(data.mean)
    return dataclasses.replace(
        data,
        name=f"{data.name}-zca",
        whitening=whitening,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        sha256=hashlib.sha256(f"{data.sha256} zca {VERSION} {eps}".encode()).hexdigest(),
        **{split: _whitened(getattr(data, split), data, whitening) for split in ("x_train", "x_test")},
    )


def _whitened(x: Images | Tensor, data: Dataset, whitening: Whitening) -> Images | Tensor:
    if isinstance(x, Images):
        return dataclasses.replace(x, whitening=whitening)
    return torch.cat([whitening.apply(pixels) for pixels in _pixels(x, data)])


def _pixels(x: Images | Tensor, data: Dataset) -> Iterator[Tensor]:
    """All images as pixels in [0, 1], not clipped, in parts."""
    if isinstance(x, Images):
        return x.pixels(at_once(x))
    mean, std = (x.new_tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    return (part * std + mean for part in x.split(at_once(x)))

"""Means and standard deviations: of the channels of stored pixels, and of drawn images, one part after another."""

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from ddcore.data.images import Images

# Of the published code of DC, DSA, DM (VICO-UoE/DatasetCondensation, utils.py).
PUBLISHED_STATISTICS = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2861,), (0.3530,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
ONE_LEVEL = round(1 / 255, 4)  # what two neighbouring values of 8 bits differ by
AT_ONCE = 1 << 22  # numbers drawn at once in a pass over all


def channel_statistics(parts: Iterable[np.ndarray]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of pixels in [0, 1], to four decimals, of parts (n, H, W, C) uint8.

    The sums are whole numbers, so they are exact. A standard deviation is at least one level of the pixels: a channel that is the same
    everywhere is divided by that, not by zero.
    """
    count, total, squares = 0, 0, 0
    for part in parts:
        pixels = part.reshape(-1, part.shape[-1]).astype(np.int64)
        count, total, squares = count + len(pixels), total + pixels.sum(0), squares + np.square(pixels).sum(0)
    sums = [(int(first), int(second)) for first, second in zip(total, squares, strict=True)]
    mean = tuple(round(first / count / 255, 4) for first, _ in sums)
    std = tuple(
        max(round(((count * second - first**2) / count**2) ** 0.5 / 255, 4), ONE_LEVEL)
        for first, second in sums
    )
    return mean, std


def at_once(x: Images | Tensor) -> int:
    """How many images (n, C, H, W) a pass over all draws at a time."""
    return max(1, AT_ONCE // x.shape[1:].numel())


def mean_image(x: Images | Tensor) -> Tensor:
    """(C, H, W), the mean of images (n, C, H, W), drawn or not; summed in float64."""
    return (sum(part.double().sum(0) for part in x.split(at_once(x))) / len(x)).to(x.dtype)


def standard_deviation(x: Images | Tensor) -> Tensor:
    """A scalar, of all numbers of images (n, C, H, W), drawn or not, over their number less one; summed in float64."""
    count = len(x) * x.shape[1:].numel()
    mean = sum(part.double().sum() for part in x.split(at_once(x))) / count
    return (
        (sum((part.double() - mean).square().sum() for part in x.split(at_once(x))) / (count - 1))
        .sqrt()
        .to(x.dtype)
    )

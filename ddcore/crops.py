"""Random crops and mirror images of training batches, one draw an image; and rolls of synthetic ones, one draw a batch.

The crop is that of the published CIFAR recipes (He et al. 2016, section 4.2): the image padded with black, cut at a random
place, mirrored with probability one half. Draws come first, then are applied, all images in one gather.
"""

import dataclasses

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.errors import BadInput

VERSION = 1


def check(what: str, crop: int) -> None:
    """Raise BadInput for a padding that is negative."""
    if crop < 0:
        raise BadInput(f"{what}: crop={crop} pixels of padding must be 0 (no crop) or above")


def black(data: Dataset) -> Tensor:
    """(C, 1, 1): the value that a black pixel has in the normalised space of `data`; (C, H, W), a black image, where it is whitened."""
    if data.whitening:
        return data.whitening.apply(data.whitening.mean.new_zeros(1, *data.shape))[0].to(data.x_train.dtype)
    mean, std = (torch.tensor(values, dtype=data.x_train.dtype, device=data.device).view(-1, 1, 1) for values in (data.mean, data.std))
    return -mean / std


@dataclasses.dataclass(frozen=True)
class Crop:
    """offset: (n, 2) int64 rows and columns, -pad to pad, that the window is moved by; mirrored: (n,) bool."""

    offset: Tensor
    mirrored: Tensor


def draw(count: int, generator: torch.Generator, *, pad: int = 4, flip: bool = True) -> Crop:
    """`count` independent draws, offsets uniform; without `flip` nothing is mirrored (digits are not symmetric)."""
    offset = torch.randint(-pad, pad + 1, (count, 2), generator=generator, device=generator.device)
    chance = torch.rand(count, generator=generator, device=generator.device)
    return Crop(offset, chance < (0.5 if flip else 0.0))


def apply(drawn: Crop, images: Tensor, fill: Tensor | float) -> Tensor:
    """(N, C, H, W): images through their windows, then mirrored left to right; `fill` (`black`, or a number) where the window reaches
    beyond the image."""
    height, width = images.shape[2:]
    place = torch.arange(width, device=images.device).expand(len(images), -1)
    columns = torch.where(drawn.mirrored[:, None], place.flip(1), place) + drawn.offset[:, 1:]
    rows = torch.arange(height, device=images.device) + drawn.offset[:, :1]
    inside = _grid((rows >= 0) & (rows < height), (columns >= 0) & (columns < width), torch.logical_and)
    return torch.where(inside, _gather(images, rows.clamp(0, height - 1), columns.clamp(0, width - 1)), fill)


def roll(images: Tensor, shifts: Tensor) -> Tensor:
    """(N, C, H, W), image n rolled by shifts[n] = (down, right) pixels: what leaves at one edge comes in at the other."""
    height, width = images.shape[2:]
    rows, columns = (torch.arange(side, device=images.device) - shifts[:, axis, None] for axis, side in enumerate((height, width)))
    return _gather(images, rows % height, columns % width)


def _grid(rows: Tensor, columns: Tensor, join) -> Tensor:
    return join(rows[:, None, :, None], columns[:, None, None, :])


def _gather(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    index = _grid(rows * images.shape[3], columns, torch.add).flatten(2).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view_as(images)

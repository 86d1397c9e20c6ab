"""Random crops and mirror images of training batches, one draw an image; and views of synthetic ones, one draw a batch.

The crop is that of the published CIFAR recipes (He et al. 2016, section 4.2): the image padded with black, cut at a random
place, mirrored with probability one half; or that of the recipes for ImageNet (Szegedy et al. 2015): a window of random area, shape and
place, resized to the image. Draws come first, then are applied, all images in one gather or one product.
"""

import dataclasses
import math

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.errors import BadInput

VERSION = 1


RATIOS = (3 / 4, 4 / 3)  # of a window's width to its height, torchvision's
ATTEMPTS = 10  # at a window that fits, torchvision's


def check(what: str, crop: int, crop_scale: float = 1.0) -> None:
    """Raise BadInput for a padding that is negative, a part of the area that is none, and for both kinds of crop at once."""
    if crop < 0:
        raise BadInput(f"{what}: crop={crop} pixels of padding must be 0 (no crop) or above")
    if not 0 < crop_scale <= 1:
        raise BadInput(
            f"{what}: crop_scale={crop_scale}, the least part of an image that is kept, must be above 0, at most 1 (no crop)"
        )
    if crop and crop_scale < 1:
        raise BadInput(
            f"{what}: crop={crop} pads and cuts, crop_scale={crop_scale} cuts and resizes; give one of them, with crop=0 or "
            "crop_scale=1"
        )


def black(data: Dataset) -> Tensor:
    """(C, 1, 1): the value that a black pixel has in the normalised space of `data`; (C, H, W), a black image, where it is whitened."""
    if data.whitening:
        return data.whitening.apply(data.whitening.mean.new_zeros(1, *data.shape))[0].to(data.x_train.dtype)
    mean, std = (
        torch.tensor(values, dtype=data.x_train.dtype, device=data.device).view(-1, 1, 1)
        for values in (data.mean, data.std)
    )
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


def windows(count: int, sides: tuple[int, int], generator: torch.Generator, *, scale: float) -> Tensor:
    """(count, 4) int64, top, left, height and width, as torchvision's RandomResizedCrop draws them.

    The area is uniform from `scale` to the whole of an image of (height, width) `sides`, the ratio of the window's sides log-uniform in
    `RATIOS`; the first of ten draws that fits is put anywhere, or if none does, the largest window of a ratio nearby in the middle.
    """
    height, width = sides
    drawn = torch.rand(
        count, 2 * ATTEMPTS + 2, generator=generator, device=generator.device, dtype=torch.float64
    )
    area, ratio, place = drawn.split((ATTEMPTS, ATTEMPTS, 2), 1)
    area, (low, high) = height * width * (scale + (1 - scale) * area), map(math.log, RATIOS)
    ratio = (low + (high - low) * ratio).exp()
    whole = torch.tensor(sides, device=drawn.device)
    most = torch.tensor(
        (min(height, round(width / RATIOS[0])), min(width, round(height * RATIOS[1]))), device=drawn.device
    )
    sizes = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], 2).round().long()
    fits = ((sizes > 0) & (sizes <= whole)).all(2)
    found, none = sizes[torch.arange(count), fits.long().argmax(1)], ~fits.any(1, keepdim=True)
    size = torch.where(none, most, found)
    free = whole - size
    return torch.cat([torch.where(none, free // 2, (place * (free + 1)).long().minimum(free)), size], 1)


def resized(images: Tensor, windows: Tensor) -> Tensor:
    """(N, C, H, W): what image n has in window n, resized to the whole image, bilinear as `F.interpolate` is; differentiable."""
    rows, columns = (
        _interpolation(windows[:, axis], windows[:, axis + 2], images.shape[axis + 2], images.dtype)
        for axis in (0, 1)
    )
    return rows[:, None] @ images @ columns[:, None].mT


def _interpolation(start: Tensor, size: Tensor, side: int, dtype: torch.dtype) -> Tensor:
    """(N, side, side): in row i the weights of the pixels that pixel i is made of."""
    pixel, start, size = (
        torch.arange(side, device=start.device, dtype=dtype),
        start[:, None].to(dtype),
        size[:, None].to(dtype),
    )
    place = start + ((pixel + 0.5) * size / side - 0.5).clamp(min=0).minimum(size - 1)
    return (1 - (place[:, :, None] - pixel).abs()).clamp(min=0)


@dataclasses.dataclass(frozen=True)
class View:
    """shift: (n, 2) pixels down and right, a roll; before it mirrored: (n,) bool, and first windows: (n, 4), None for neither."""

    shift: Tensor
    mirrored: Tensor | None = None
    windows: Tensor | None = None

    def of(self, rows: Tensor) -> "View":
        """Those of some rows, e.g. of the batch of every image."""
        return View(*(one if one is None else one[rows] for one in (self.shift, self.mirrored, self.windows)))

    def to(self, device: torch.device) -> "View":
        return View(
            *(
                one if one is None else one.to(device, non_blocking=True)
                for one in (self.shift, self.mirrored, self.windows)
            )
        )

    def through(self, images: Tensor) -> Tensor:
        """(n, C, H, W), each image through its own."""
        if self.windows is not None:
            images = resized(images, self.windows)
        if self.mirrored is not None:
            images = torch.where(self.mirrored[:, None, None, None], images.flip(3), images)
        return roll(images, self.shift)


def roll(images: Tensor, shifts: Tensor) -> Tensor:
    """(N, C, H, W), image n rolled by shifts[n] = (down, right) pixels: what leaves at one edge comes in at the other."""
    height, width = images.shape[2:]
    rows, columns = (
        torch.arange(side, device=images.device) - shifts[:, axis, None]
        for axis, side in enumerate((height, width))
    )
    return _gather(images, rows % height, columns % width)


def _grid(rows: Tensor, columns: Tensor, join) -> Tensor:
    return join(rows[:, None, :, None], columns[:, None, None, :])


def _gather(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    index = _grid(rows * images.shape[3], columns, torch.add).flatten(2).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view_as(images)

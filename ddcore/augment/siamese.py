"""Differentiable Siamese augmentation (DSA, Zhao & Bilen 2021): parameters drawn first, then applied.

A draw holds, for each of its groups, one family (color, crop, cutout, flip, scale, rotate) and four uniform numbers from
which the family's parameters follow; `apply` gives image i the transform of group `group[i]`. Siamese augmentation is one
group a class, used for the real and the synthetic side; per-sample augmentation is one group an image. Values are those of
VICO-UoE/DatasetCondensation (`ParamDiffAug`), one family a call; the images are normalised, so a zero is the mean colour.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore.settings import unknown

VERSION = 1
FAMILIES = ("color", "crop", "cutout", "flip", "scale", "rotate")
DSA = "_".join(FAMILIES)
WITHOUT_FLIP = "color_crop_cutout_scale_rotate"


@dataclasses.dataclass(frozen=True)
class Draw:
    """family: (groups,) int64 on the CPU, an index into FAMILIES, -1 for none; uniform: (groups, 4) in [0, 1)."""

    family: Tensor
    uniform: Tensor


def families(strategy: str) -> list[int]:
    """'crop_flip' -> the indices of its families; '' or 'none' -> no family. Raises BadInput for an unknown one."""
    names = [] if strategy in ("", "none") else strategy.split("_")
    for name in names:
        if name not in FAMILIES:
            raise unknown("augmentation", name, FAMILIES)
    return [FAMILIES.index(name) for name in names]


def draw(strategy: str, calls: int, generator: torch.Generator, *, each: int = 1) -> Draw:
    """Draw `calls` families, and `each` sets of parameters for each: (calls * each) groups, a call's groups adjacent."""
    allowed = families(strategy)
    device = generator.device
    pick = torch.rand(calls, generator=generator, device=device).cpu()
    uniform = torch.rand(calls * each, 4, generator=generator, device=device)
    if not allowed:
        return Draw(torch.full((calls * each,), -1), uniform)
    family = torch.tensor(allowed)[(pick * len(allowed)).long().clamp(max=len(allowed) - 1)]
    return Draw(family.repeat_interleave(each), uniform)


def join(draws: list[Draw]) -> Draw:
    return Draw(torch.cat([one.family for one in draws]), torch.cat([one.uniform for one in draws]))


def apply(drawn: Draw, images: Tensor, group: Tensor) -> Tensor:
    """(N, C, H, W) images, image i transformed as group[i] says; differentiable in the images.

    `group` is (N,) int64. Images of one family are transformed together, in one call.
    """
    family = drawn.family[group.cpu()]
    uniform = drawn.uniform.to(images)[group]
    present = family.unique().tolist()
    if present == [-1]:
        return images
    if len(present) == 1:
        return TRANSFORMS[present[0]](images, uniform)
    parts, places = [], []
    for index in present:
        place = (family == index).nonzero().flatten().to(images.device)
        part = images[place]
        parts.append(part if index == -1 else TRANSFORMS[index](part, uniform[place]))
        places.append(place)
    return torch.cat(parts)[torch.cat(places).argsort()]


def _column(uniform: Tensor, index: int) -> Tensor:
    return uniform[:, index].view(-1, 1, 1, 1)


def color(x: Tensor, u: Tensor) -> Tensor:
    """Brightness + U(-.5, .5); saturation * U(0, 2) about the channel mean; contrast * U(.5, 1.5) about the image mean."""
    x = x + (_column(u, 0) - 0.5)
    mean = x.mean(1, keepdim=True)
    x = (x - mean) * (2 * _column(u, 1)) + mean
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (_column(u, 2) + 0.5) + mean


def _integers(u: Tensor, low: int, high: int) -> Tensor:
    """U[0, 1) -> uniform integers from low to high, both included."""
    return (low + (u * (high - low + 1)).long()).clamp(max=high)


def crop(x: Tensor, u: Tensor) -> Tensor:
    """Shift by up to an eighth of the side, in whole pixels; what comes in from outside is zero."""
    height, width = x.shape[2:]
    shifts = []
    for axis, side in enumerate((height, width)):
        reach = int(side * 0.125 + 0.5)
        source = torch.arange(side, device=x.device) + _integers(u[:, axis, None], -reach, reach) + 1
        shifts.append(source.clamp(0, side + 1))
    padded = F.pad(x, (1, 1, 1, 1))
    batch = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    return (
        padded.permute(0, 2, 3, 1)[batch, shifts[0][:, :, None], shifts[1][:, None, :]]
        .permute(0, 3, 1, 2)
        .contiguous()
    )


def cutout(x: Tensor, u: Tensor) -> Tensor:
    """A square of half the side set to zero, its centre anywhere in the image."""
    hidden = []
    for axis, side in enumerate(x.shape[2:]):
        cut = int(side * 0.5 + 0.5)
        start = _integers(u[:, axis, None], 0, side - cut % 2) - cut // 2
        place = torch.arange(side, device=x.device)
        # The published code clamps the window's pixels into the image, so that a window beyond the edge still hides the edge.
        low, high = start.clamp(0, side - 1), (start + cut - 1).clamp(0, side - 1)
        hidden.append((place >= low) & (place <= high))
    return x * ~(hidden[0][:, None, :, None] & hidden[1][:, None, None, :])


def flip(x: Tensor, u: Tensor) -> Tensor:
    """Mirrored left to right with probability one half."""
    return torch.where(_column(u, 0) < 0.5, x.flip(3), x)


def _affine(x: Tensor, rows: list[list[Tensor]]) -> Tensor:
    theta = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def scale(x: Tensor, u: Tensor) -> Tensor:
    """Each axis scaled by its own U(1/1.2, 1.2), bilinear, zeros outside."""
    factor = u[:, :2] * (1.2 - 1 / 1.2) + 1 / 1.2
    zero = torch.zeros_like(factor[:, 0])
    return _affine(x, [[factor[:, 0], zero, zero], [zero, factor[:, 1], zero]])


def rotate(x: Tensor, u: Tensor) -> Tensor:
    """Turned by U(-15, 15) degrees, bilinear, zeros outside."""
    angle = (u[:, 0] - 0.5) * 2 * 15 / 180 * math.pi
    zero = torch.zeros_like(angle)
    return _affine(x, [[angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero]])


TRANSFORMS = (color, crop, cutout, flip, scale, rotate)

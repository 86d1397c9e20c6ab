"""Mixed images: two images of a batch in one, by blending (mixup, Zhang et al. 2018) or pasting (CutMix, Yun et al. 2019)."""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

MIXES = ("mixup", "cutmix", "none")


@dataclasses.dataclass(frozen=True)
class Mix:
    """One draw a batch. partner: (n,) int64, the second image of each; share: the part of the first one, in [0, 1];
    box: (top, bottom, left, right) in pixels, what the partner fills in CutMix, None for a blend."""

    partner: Tensor
    share: float
    box: tuple[int, int, int, int] | None = None


def draw(
    kind: str, images: Tensor, alpha: float, generator: torch.Generator, numbers: np.random.Generator
) -> Mix | None:
    """One draw of `kind` for (n, C, H, W) images, None for 'none': the share is Beta(alpha, alpha), the partner a permutation.

    A CutMix box has its centre anywhere and is cut at the edges, and the share is what is left of the first image. `numbers` is
    drawn on the host, so that no device is waited for.
    """
    if kind == "none":
        return None
    partner, share = (
        torch.randperm(len(images), generator=generator, device=generator.device),
        float(numbers.beta(alpha, alpha)),
    )
    if kind == "mixup":
        return Mix(partner, share)
    box = []
    for side in images.shape[2:]:
        centre, half = int(numbers.integers(side)), int(side * math.sqrt(1 - share)) // 2
        box += [max(centre - half, 0), min(centre + half, side)]
    top, bottom, left, right = box
    return Mix(
        partner, 1 - (bottom - top) * (right - left) / math.prod(images.shape[2:]), (top, bottom, left, right)
    )


def apply(drawn: Mix | None, images: Tensor) -> Tensor:
    """(n, C, H, W) mixed images."""
    if drawn is None:
        return images
    if drawn.box is None:
        return drawn.share * images + (1 - drawn.share) * images[drawn.partner]
    top, bottom, left, right = drawn.box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[drawn.partner][:, :, top:bottom, left:right]
    return mixed

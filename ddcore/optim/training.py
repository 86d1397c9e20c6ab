"""The gradient of a training step, a bounded number of images at a time."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcore import compute

Loss = Callable[[Tensor, slice], Tensor]
"""(logits of some rows of a batch, those rows) -> their part of the loss of the batch."""


def images_at_once(
    network: nn.Module, shape: tuple[int, int, int], batch: int, *, compiled: bool = False
) -> int:
    """Of a training step on `batch` images: a chunk, or all where a batch norm takes its statistics from them."""
    return compute.chunk(network, shape, whole=1 if compute.divisible(network) else batch, compiled=compiled)


def gradient(
    forward: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], images: Tensor, loss: Loss, size: int
) -> tuple[Tensor, ...]:
    """Of the loss of `forward(images)` in `parameters`, with at most `size` of the images (n, C, H, W) at a time."""
    if len(images) <= size:
        return torch.autograd.grad(loss(forward(images), slice(0, len(images))), parameters)
    total = None
    for rows in compute.slices(len(images), compute.evenly(len(images), size)):
        found = torch.autograd.grad(loss(forward(images[rows]), rows), parameters)
        total = found if total is None else torch._foreach_add(total, found)
    return tuple(total)


def cross_entropy(targets: Tensor) -> Loss:
    """The mean cross-entropy to `targets`, (n,) classes or (n, classes) probabilities."""

    def loss(logits: Tensor, rows: slice) -> Tensor:
        return F.cross_entropy(logits, targets[rows]) * (len(logits) / len(targets))

    return loss

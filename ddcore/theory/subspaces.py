"""Subspaces of images and of gradients: how many directions a set uses, and how much of it lies in the directions of another."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore.errors import BadInput
from ddcore.methods import class_gradients
from ddcore.networks import Network


def effective_rank(rows: Tensor) -> float:
    """(n, d) -> exp(-sum p log p) with p = s^2 / sum s^2, s the singular values: 1 for one direction, m for m equal ones.

    After Roy & Vetterli, *The effective rank*, EUSIPCO 2007, who normalise s itself; s^2 is the energy that `energy_share` counts.
    Raises BadInput for rows that are all zero.
    """
    energy = torch.linalg.svdvals(rows.double()).square()
    if not energy.sum() > 0:
        raise BadInput(
            f"effective rank: {len(rows)} rows that are all zero span nothing; rows with a direction are needed"
        )
    return float(torch.special.entr(energy / energy.sum()).sum().exp())


def principal_directions(rows: Tensor | Iterable[Tensor], count: int) -> Tensor:
    """(n, d), or its parts one after another -> (d, count), orthonormal: the right singular vectors of the largest singular values, not
    centred, in float64.

    Raises BadInput for a count above d.
    """
    gram = sum(
        part.mT @ part for part in map(Tensor.double, rows.split(8192) if isinstance(rows, Tensor) else rows)
    )
    if not 0 < count <= len(gram):
        raise BadInput(
            f"principal directions: {count} of rows in {len(gram)} dimensions; ask for 1 to {len(gram)}"
        )
    return torch.linalg.eigh(gram).eigenvectors[:, -count:].flip(1)


def energy_share(rows: Tensor, basis: Tensor) -> float:
    """||X V||^2 / ||X||^2 of rows X (n, d) in the span of an orthonormal V (d, k): in [0, 1], about k / d for isotropic rows."""
    rows = rows.double()
    return float((rows @ basis).square().sum() / rows.square().sum())


def principal_angles(one: Tensor, other: Tensor) -> Tensor:
    """(d, k), (d, l), both orthonormal -> (min(k, l),) angles in degrees between the two spans, from small to large.

    From cosines above 45 degrees, from sines below, so that small angles are exact too (Bjorck & Golub 1973).
    """
    one, other = (one, other) if one.shape[1] >= other.shape[1] else (other, one)
    cosines = torch.linalg.svdvals(one.mT @ other).clamp(max=1)
    sines = torch.linalg.svdvals(other - one @ (one.mT @ other)).flip(0).clamp(max=1)
    return torch.rad2deg(torch.where(cosines.square() < 0.5, cosines.acos(), sines.asin()))


def first_layer_gradients(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """(classes * units, inputs of a unit): the gradient of each class's mean cross-entropy in the first weight, a row a unit.

    `images` (n, C, H, W) hold at least one of each class that `labels` (n,) name. A row of an MLP lies in the span of the images
    of its class, one of a convolution in that of their patches: the inputs that the layer sees.
    """
    weight = next(iter(class_gradients.weights(network).values()))
    losses = [
        F.cross_entropy(network(images[labels == label]), labels[labels == label])
        for label in labels.unique()
    ]
    return torch.cat([torch.autograd.grad(loss, weight)[0].flatten(1) for loss in losses])

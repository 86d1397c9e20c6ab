"""ZCA whitening, as MTT (Cazenavette et al., CVPR 2022) prepares CIFAR: fitted on the training images, applied to both splits.

x -> (x - mean) U (S + eps)^(-1/2) U^T on flattened pixels in [0, 1], not normalised before, where U S U^T is their covariance with
n - 1 in the denominator and eps = 0.1 (the published code calls `kornia.enhance.ZCAWhitening(eps=0.1)` on bare pixels).
"""

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddcore.settings import positive

if TYPE_CHECKING:
    from ddcore.data import Dataset

VERSION = 1
EPS = 0.1


@dataclasses.dataclass(frozen=True)
class Whitening:
    """mean: (P,) of the flattened training pixels; transform: (P, P), symmetric and positive definite."""

    mean: Tensor
    transform: Tensor

    def apply(self, pixels: Tensor) -> Tensor:
        """(n, C, H, W) pixels in [0, 1] to whitened images of the same shape."""
        return ((pixels.flatten(1) - self.mean) @ self.transform).view_as(pixels)

    def like(self, other: "Whitening") -> bool:
        """Whether both are the same transform, up to rounding."""
        pairs = ((self.mean, other.mean), (self.transform, other.transform))
        return all(torch.allclose(ours.cpu(), theirs.cpu(), rtol=1e-3, atol=1e-4) for ours, theirs in pairs)

    def invert(self, images: Tensor) -> Tensor:
        """(n, C, H, W) whitened images to pixels, not clipped."""
        return (torch.linalg.solve(self.transform, images.flatten(1).T).T + self.mean).reshape(images.shape)


def fit(pixels: Tensor, eps: float = EPS) -> Whitening:
    """The whitening of (n, C, H, W) pixels; the eigenvectors are found in float64."""
    flat = pixels.flatten(1)
    mean = flat.mean(0)
    centred = flat - mean
    values, vectors = torch.linalg.eigh((centred.T @ centred / (len(flat) - 1)).double())
    transform = (vectors * (values.clamp(min=0) + eps).rsqrt()) @ vectors.T
    return Whitening(mean, transform.to(flat.dtype))


def whiten(data: "Dataset", eps: float = EPS) -> "Dataset":
    """`data` whitened, with the transform as its `whitening`: another dataset by name ('<name>-zca') and sha256.

    Its `mean` is 0 and its `std` 1, for the inverse gives pixels. Raises BadInput unless eps > 0.
    """
    positive("whiten", eps=eps)
    mean, std = (data.x_train.new_tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    pixels = {"x_train": data.x_train * std + mean, "x_test": data.x_test * std + mean}
    found = fit(pixels["x_train"], eps)
    channels = len(data.mean)
    return dataclasses.replace(data, name=f"{data.name}-zca", **{split: found.apply(x) for split, x in pixels.items()},
                               mean=(0.0,) * channels, std=(1.0,) * channels, whitening=found,
                               sha256=hashlib.sha256(f"{data.sha256} zca {VERSION} {eps}".encode()).hexdigest())

"""The transform of ZCA whitening, as MTT (Cazenavette et al., CVPR 2022) prepares CIFAR.

x -> (x - mean) U (S + eps)^(-1/2) U^T on flattened pixels in [0, 1], not normalised before, where U S U^T is their covariance with
n - 1 in the denominator and eps = 0.1 (the published code calls `kornia.enhance.ZCAWhitening(eps=0.1)` on bare pixels).
"""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

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


def fit(parts: Iterable[Tensor], eps: float = EPS) -> Whitening:
    """The whitening of pixels that come in parts, each (n, C, H, W), in the type of the parts; sums and eigenvectors are in float64.

    Moments are taken about the mean of the first part, so that no digits cancel.
    """
    count, origin = 0, None
    for part in parts:
        flat = part.double().flatten(1)
        if origin is None:
            origin, dtype = flat.mean(0), part.dtype
            total, products = torch.zeros_like(origin), flat.new_zeros(len(origin), len(origin))
        flat -= origin
        count += len(flat)
        total += flat.sum(0)
        products.addmm_(flat.T, flat)
    centre = total / count
    values, vectors = torch.linalg.eigh((products - count * torch.outer(centre, centre)) / (count - 1))
    transform = (vectors * (values.clamp(min=0) + eps).rsqrt()) @ vectors.T
    return Whitening((origin + centre).to(dtype), transform.to(dtype))

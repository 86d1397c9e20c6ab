"""Subspaces: how much of a set of vectors lies in the task's directions, and how well it spans them."""

import torch
from torch import Tensor


def energy(rows: Tensor, basis: Tensor) -> Tensor:
    """(..., n, d), orthonormal (r, d) -> (...): the share of the squared norm of the rows that lies in the span of the basis."""
    return (rows @ basis.T).square().sum((-2, -1)) / rows.square().sum((-2, -1))


def spectrum(rows: Tensor) -> Tensor:
    """(..., n, d) -> (..., min(n, d)): singular values over the largest one."""
    values = torch.linalg.svdvals(rows)
    return values / values[..., :1]


def principal_cosines(rows: Tensor, basis: Tensor) -> Tensor:
    """(n, d), orthonormal (r, d) -> (min(n, r),): cosines of the principal angles to the top right singular subspace, from high to low."""
    top = torch.linalg.svd(rows, full_matrices=False).Vh[: len(basis)]
    return torch.linalg.svdvals(top @ basis.T).clamp(max=1)


def effective_rank(rows: Tensor) -> Tensor:
    """(..., n, d) -> (...): exp of the entropy of the squared singular values, as shares of their sum."""
    values = torch.linalg.svdvals(rows).square()
    shares = values / values.sum(-1, keepdim=True)
    return (-torch.xlogy(shares, shares).sum(-1)).exp()


def condition(rows: Tensor, rank: int) -> Tensor:
    """(..., n, d) -> (...): the largest singular value over the `rank`-th one."""
    values = torch.linalg.svdvals(rows)
    return values[..., 0] / values[..., rank - 1]

"""Distance of DC: one minus the cosine, row by row of the weight gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor


def row_cosine_distance(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """sum over layers, classes, rows of 1 - <a, b> / (|a| |b| + 1e-6); tensors (classes, rows, numbers a row)."""
    total = torch.zeros((), dtype=real[0].dtype, device=real[0].device)
    for a, b in zip(real, fake, strict=True):
        total = total + (1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-6)).sum()
    return total

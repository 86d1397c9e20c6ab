"""A scalar whose gradients are known already: found part by part, so that no more than one part was on a tape at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor


def known(value: Tensor, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """`value` as a function of `inputs` with these gradients, which have no derivative."""
    return _Known.apply(value, *gradients, *inputs)


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, *given):
        ctx.save_for_backward(*given[: len(given) // 2])
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, above):
        gradients = ctx.saved_tensors
        return None, *[None] * len(gradients), *[above * gradient for gradient in gradients]

"""ReLU and 2x2 average pooling of stride two, as they follow one another in a ConvNet.

On a CPU, uncompiled, they are two sums of neighbours forward and one product backward, where torch's own pooling takes a sixth of a step.
A last row or column without a neighbour is left out, as `torch.nn.AvgPool2d(2)` does. With x rectified to y and p the pooled y,
dL/dx = dL/dp / 4 at the four places of each p where x > 0. Differentiable as often as one likes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def rectified_pool(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H // 2, W // 2)."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return rectified_pool_reference(x)
    return _RectifiedPool.apply(x)[0]


def rectified_pool_reference(x: Tensor) -> Tensor:
    return F.avg_pool2d(x.relu(), 2)


class _RectifiedPool(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        height, width = (side // 2 * 2 for side in x.shape[-2:])
        y = x[..., :height, :width].relu()
        rows = y[..., 0::2, :] + y[..., 1::2, :]
        return (rows[..., 0::2] + rows[..., 1::2]) / 4, y > 0

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.sides = inputs[0].shape[-2:]
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, above, _):
        positive, = ctx.saved_tensors
        *others, height, width = above.shape
        found = ((above / 4)[..., :, None, :, None] * positive.view(*others, height, 2, width, 2)).view(positive.shape)
        beyond = [whole - own for whole, own in zip(ctx.sides, found.shape[-2:], strict=True)]
        return F.pad(found, (0, beyond[1], 0, beyond[0])) if any(beyond) else found

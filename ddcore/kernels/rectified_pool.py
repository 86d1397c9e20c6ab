"""ReLU and 2x2 average pooling of stride two, as they follow one another in a ConvNet.

On a CPU, uncompiled, they are two sums of neighbours forward, where torch's own pooling takes a twelfth of a step; backward is torch's.
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
        y = x.relu()
        height, width = (side // 2 * 2 for side in x.shape[-2:])
        rows = y[..., 0:height:2, :width] + y[..., 1:height:2, :width]
        return (rows[..., 0::2] + rows[..., 1::2]).mul_(0.25), y

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, above, _):
        (y,) = ctx.saved_tensors
        spread = torch.ops.aten.avg_pool2d_backward(above, y, [2, 2], [2, 2], [0, 0], False, True, None)
        return torch.ops.aten.threshold_backward(spread, y, 0)

"""Weight gradients of a convolution for each class apart, all classes having passed the network together.

The forward pass and the gradients of the inputs share their weights, so every class goes through one convolution; only
dL_c/dW = sum over the images of class c of wgrad(input, delta) is taken class by class. Three back ends compute it: 'calls'
(one convolution gradient a class), 'grouped' (one grouped convolution), 'unfold' (patches and a batched product).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BACKENDS = ("calls", "grouped", "unfold")


class _WeightGradient(torch.autograd.Function):
    """wgrad(x, delta) of a convolution of stride one. It is bilinear, so its own gradient for v is two convolutions with v."""

    @staticmethod
    def forward(context, x, delta, kernel, padding, groups):
        context.save_for_backward(x, delta)
        context.padding, context.groups = padding, groups
        weight = x.new_empty(delta.shape[1], x.shape[1] // groups, *kernel)
        return torch.ops.aten.convolution_backward(
            delta, x, weight, None, [1, 1], list(padding), [1, 1], False, [0, 0], groups, [False, True, False]
        )[1]

    @staticmethod
    def backward(context, v):
        x, delta = context.saved_tensors
        to_x = to_delta = None
        if context.needs_input_grad[0]:
            to_x = F.conv_transpose2d(delta, v, padding=context.padding, groups=context.groups)
        if context.needs_input_grad[1]:
            to_delta = F.conv2d(x, v, padding=context.padding, groups=context.groups)
        return to_x, to_delta, None, None, None


def _calls(x, delta, sizes, kernel, padding):
    return torch.stack(
        [
            _WeightGradient.apply(part, of, kernel, padding, 1)
            for part, of in zip(x.split(sizes), delta.split(sizes), strict=True)
        ]
    )


def _grouped(x, delta, sizes, kernel, padding):
    classes = len(sizes)
    x, delta = (side.unflatten(0, (classes, -1)).transpose(0, 1).flatten(1, 2) for side in (x, delta))
    return _WeightGradient.apply(x, delta, kernel, padding, classes).unflatten(0, (classes, -1))


def _unfold(x, delta, sizes, kernel, padding):
    patches = F.unfold(x, kernel, padding=padding).unflatten(0, (len(sizes), -1)).transpose(1, 2).flatten(2)
    rows = delta.flatten(2).unflatten(0, (len(sizes), -1)).transpose(1, 2).flatten(2)
    return (rows @ patches.mT).unflatten(2, (x.shape[1], *kernel))


def class_weight_gradients(
    x: Tensor,
    delta: Tensor,
    sizes: tuple[int, ...],
    *,
    kernel: tuple[int, int],
    padding: tuple[int, int],
    backend: str = "calls",
) -> Tensor:
    """(N, I, H, W) inputs, (N, O, H', W') gradients of the outputs -> (classes, O, I, *kernel), stride one.

    The images are sorted by class, sizes[c] of them in class c; classes of unequal size take 'calls'. Differentiable once, in
    both arguments.
    """
    if len(set(sizes)) > 1:
        backend = "calls"
    return {"calls": _calls, "grouped": _grouped, "unfold": _unfold}[backend](
        x, delta, sizes, kernel, padding
    )

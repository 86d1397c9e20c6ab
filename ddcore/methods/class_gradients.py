"""Gradients of the loss of each class in the weights of a network: what gradient matching compares.

`explicit` passes several classes through a ConvNet together and spells its backward pass out in ordinary operations: first-order
autograd then gives the gradient in the images, and torch.compile takes the whole of it. `by_autograd` is the definition, for
any network. Both read weight tensors only: biases and norms do not count in the distance of DC. `in_chunks` gives either of them a
bounded number of images at a time.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ddcore import compute
from ddcore.kernels.rectified_pool import rectified_pool
from ddcore.kernels.weight_gradients import class_weight_gradients
from ddcore.networks import Convolution, Network, RectifiedPool, beside_zeros


@dataclasses.dataclass(frozen=True)
class Layer:
    """One block of a ConvNet: 3x3 convolution of stride one, norm, ReLU, 2x2 average pooling."""

    kernel: tuple[int, int]
    padding: tuple[int, int]
    norm: str
    eps: float


def weights(network: Network) -> dict[str, Tensor]:
    """The weight tensors that DC's distance reads: those of at least two dimensions, in the order of the layers."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.ndim > 1}


def layers(network: Network) -> tuple[Layer, ...] | None:
    """What `explicit` needs to know of a ConvNet, None for a network of another form."""
    found = []
    for block in network.blocks:
        kinds = [type(module) for module in block] if isinstance(block, nn.Sequential) else []
        norm = (
            {nn.GroupNorm: "instance", nn.BatchNorm2d: "batch"}.get(kinds[1]) if len(kinds) == 3 else "none"
        )
        if norm is None or len(kinds) not in (2, 3) or (kinds[0], kinds[-1]) != (Convolution, RectifiedPool):
            return None
        found.append(
            Layer(block[0].kernel_size, block[0].padding, norm, 0.0 if norm == "none" else block[1].eps)
        )
    return tuple(found)


def tensors(network: Network) -> list[Tensor]:
    """The numbers that go with `layers`: weight, bias, scale and shift of each block, then the classifier's weight and bias.

    A batch norm, whose statistics are held, is a scale and a shift of its own.
    """
    found = []
    for block in network.blocks:
        conv, norm = block[0], block[1] if len(block) == 3 else None
        scale, shift = (norm.weight, norm.bias) if norm else (conv.bias.new_ones(()), conv.bias.new_zeros(()))
        if isinstance(norm, nn.BatchNorm2d):
            scale = scale * (norm.running_var + norm.eps).rsqrt()
            shift = shift - norm.running_mean * scale
        found += [conv.weight, conv.bias, scale, shift]
    return [*found, network.classifier.weight, network.classifier.bias]


def explicit(
    plan: tuple[Layer, ...],
    numbers: list[Tensor],
    images: Tensor,
    targets: Tensor,
    share: Tensor,
    sizes: tuple[int, ...],
    *,
    backend: str = "calls",
    dtype: torch.dtype | None = None,
    seen: bool = True,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """For each class the gradient of its images' cross-entropies, each times its `share`: one (classes, rows, numbers a row) for each
    weight; and the features of the blocks, if they are to be `seen`.

    images: (N, C, H, W), sorted by class, sizes[c] of class c; targets: (N, classes of the network) probabilities; share: (N,), one over
    the size of its class for a mean. Convolutions run in `dtype`. Differentiable once, in images and targets.
    """
    high, low, channels = images.dtype, dtype or images.dtype, images.shape[1]
    *inner, last_weight, last_bias = numbers
    images, first = beside_zeros(images, inner[0])
    inner = [first, *inner[1:]]
    a, kept, features = images, [], []
    for layer, (weight, bias, scale, shift) in zip(plan, _fours(inner), strict=True):
        z = F.conv2d(_inner(a.to(low)), _inner(weight.to(low)), padding=layer.padding).to(high) + bias.view(
            -1, 1, 1
        )
        deviation = None
        if layer.norm == "instance":
            variance, mean = torch.var_mean(z, (2, 3), correction=0, keepdim=True)
            deviation = (variance + layer.eps).rsqrt()
            z = (z - mean) * deviation
        y = z * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        kept.append((a, z, deviation, y > 0))
        a = rectified_pool(y)
        if seen:
            features.append(a)
    embedded = a.flatten(1)
    logits = F.linear(embedded, last_weight, last_bias)
    delta = (logits.softmax(1) * targets.sum(1, keepdim=True) - targets) * share[:, None]
    found = [
        torch.stack(
            [one.mT @ other for one, other in zip(delta.split(sizes), embedded.split(sizes), strict=True)]
        )
    ]
    delta = (delta @ last_weight).view_as(a)
    for index in reversed(range(len(plan))):
        layer, (weight, _, scale, _), (a, z, deviation, active) = (
            plan[index],
            _fours(inner)[index],
            kept[index],
        )
        delta = F.interpolate(delta, scale_factor=2, mode="nearest") / 4
        height, width = (side - other for side, other in zip(z.shape[2:], delta.shape[2:], strict=True))
        delta = F.pad(delta, (0, width, 0, height)) * active * scale.view(-1, 1, 1)
        if deviation is not None:
            delta = (
                delta - delta.mean((2, 3), keepdim=True) - z * (delta * z).mean((2, 3), keepdim=True)
            ) * deviation
        delta = _inner(delta.to(low))
        gradient = class_weight_gradients(
            _inner(a.to(low)), delta, sizes, kernel=layer.kernel, padding=layer.padding, backend=backend
        )
        found.append((gradient if index else gradient[:, :, :channels]).to(high).flatten(2))
        if index:
            delta = F.conv_transpose2d(delta, _inner(weight.to(low)), padding=layer.padding).to(high)
    return tuple(reversed(found)), tuple(features)


def _inner(x: Tensor) -> Tensor:
    """With the channels innermost where it is compiled for a CPU: oneDNN then reorders nothing, which saves a fifteenth of the step."""
    return (
        x.contiguous(memory_format=torch.channels_last)
        if x.device.type == "cpu" and torch.compiler.is_compiling()
        else x
    )


def _fours(numbers: list[Tensor]) -> list[list[Tensor]]:
    return [numbers[start : start + 4] for start in range(0, len(numbers), 4)]


def by_autograd(
    network: Network,
    images: Tensor,
    targets: Tensor,
    share: Tensor,
    sizes: tuple[int, ...],
    *,
    together: bool | None = None,
    seen: bool = True,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What `explicit` returns, for any network: class by class, or by vmap over classes of equal size (default: on a GPU)."""
    chosen = weights(network)
    differentiable = images.requires_grad or targets.requires_grad
    together = images.is_cuda if together is None else together
    if together and len(set(sizes)) == 1:
        fixed = {
            name: tensor
            for name, tensor in (*network.named_parameters(), *network.named_buffers())
            if name not in chosen
        }

        def loss(free, x, t, weight):
            features = _Features(network)
            logits, blocks = functional_call(
                features, {f"network.{name}": tensor for name, tensor in (free | fixed).items()}, (x,)
            )
            return F.cross_entropy(logits, t, reduction="none") @ weight, blocks

        parts = [side.unflatten(0, (len(sizes), -1)) for side in (images, targets, share)]
        free = {name: one.detach() for name, one in chosen.items()}
        found, blocks = vmap(grad(loss, has_aux=True), in_dims=(None, 0, 0, 0))(free, *parts)
        return tuple(one.flatten(2) for one in found.values()), tuple(block.flatten(0, 1) for block in blocks)
    free = {name: one.detach().requires_grad_() for name, one in chosen.items()}
    found, blocks = [], []
    with torch.enable_grad():
        for x, t, weight in zip(images.split(sizes), targets.split(sizes), share.split(sizes), strict=True):
            logits, features = functional_call(
                _Features(network), {f"network.{name}": one for name, one in free.items()}, (x,)
            )
            loss = F.cross_entropy(logits, t, reduction="none") @ weight
            found.append(torch.autograd.grad(loss, list(free.values()), create_graph=differentiable))
            blocks.append(features)
    joined = (
        tuple(torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*blocks, strict=True))
        if seen
        else ()
    )
    if not differentiable:
        joined = tuple(one.detach() for one in joined)
    return tuple(
        (torch.stack(parts) if len(parts) > 1 else parts[0][None]).flatten(2)
        for parts in zip(*found, strict=True)
    ), joined


Gradients = Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]
"""(images, targets, share, sizes, seen) -> what `explicit` returns."""


def in_chunks(
    gradients: Gradients,
    parts: Callable[[int, slice], Iterable[tuple[slice, Tensor]]],
    targets: Tensor,
    sizes: Sequence[int],
    size: int,
    seen: Callable[[Sequence[Tensor]], None] | None = None,
) -> tuple[Tensor, ...]:
    """The gradients of each class's mean cross-entropy, one (classes, rows, numbers a row) for each weight, with at most `size` images
    at a time: several small classes together, a large one in parts.

    `parts(size, rows)` gives the images of `rows` of all, sorted by class, sizes[c] of class c, by `size`, each time with its rows;
    targets: those of all, (n, classes of the network). `seen(features)` is told the features of the blocks of every part, in order.
    """
    found, first = [], 0
    for together in _groups(sizes, size):
        count, total = sum(together), None
        share = torch.cat([targets.new_full((many,), 1 / many) for many in together])
        for rows, x in parts(
            count if len(together) > 1 else compute.evenly(count, size), slice(first, first + count)
        ):
            each = tuple(together) if len(together) > 1 else (len(x),)
            of_part, features = gradients(x, targets[rows], share[: len(x)], each, seen is not None)
            total = of_part if total is None else _added(total, of_part)
            if seen:
                seen(features)
        found.append(total)
        first += count
    return tuple(torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*found, strict=True))


def _added(total: Sequence[Tensor], more: Sequence[Tensor]) -> Sequence[Tensor]:
    """In place where no tape would miss it."""
    if more[0].requires_grad:
        return tuple(map(torch.add, total, more))
    torch._foreach_add_(total, more)
    return total


def _groups(sizes: Sequence[int], most: int) -> list[list[int]]:
    """The sizes of classes that go together, `most` images at once; one that is larger goes alone. Equal classes make equal groups."""
    if len(set(sizes)) == 1:
        count = compute.evenly(len(sizes), max(1, most // sizes[0]))
        return [list(sizes[start : start + count]) for start in range(0, len(sizes), count)]
    groups: list[list[int]] = []
    for count in sizes:
        if groups and sum(groups[-1]) + count <= most:
            groups[-1].append(count)
        else:
            groups.append([count])
    return groups


class _Features(nn.Module):
    """A network that returns its logits and the features of its blocks."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features = self.network.features(x)
        return self.network.classifier(features[-1].flatten(1)), features

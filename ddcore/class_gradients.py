"""Gradients of the loss of each class in the weights of a network: what gradient matching compares.

`explicit` passes all classes through a ConvNet together and spells its backward pass out in ordinary operations: first-order
autograd then gives the gradient in the images, and torch.compile takes the whole of it. `by_autograd` is the definition, for
any network. Both read weight tensors only: biases and norms do not count in the distance of DC.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ddcore.kernels.weight_gradients import class_weight_gradients, fastest
from ddcore.networks import Convolution, Network, beside_zeros


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
        norm = {nn.GroupNorm: "instance", nn.BatchNorm2d: "batch"}.get(kinds[1]) if len(kinds) == 4 else "none"
        if norm is None or [kinds[0] if kinds else None, *kinds[-2:]] != [Convolution, nn.ReLU, nn.AvgPool2d] or len(kinds) > 4:
            return None
        found.append(Layer(block[0].kernel_size, block[0].padding, norm, 0.0 if norm == "none" else block[1].eps))
    return tuple(found)


def tensors(network: Network) -> list[Tensor]:
    """The numbers that go with `layers`: weight, bias, scale and shift of each block, then the classifier's weight and bias.

    A batch norm, whose statistics are held, is a scale and a shift of its own.
    """
    found = []
    for block in network.blocks:
        conv, norm = block[0], block[1] if len(block) == 4 else None
        scale, shift = (norm.weight, norm.bias) if norm else (conv.bias.new_ones(()), conv.bias.new_zeros(()))
        if isinstance(norm, nn.BatchNorm2d):
            scale = scale * (norm.running_var + norm.eps).rsqrt()
            shift = shift - norm.running_mean * scale
        found += [conv.weight, conv.bias, scale, shift]
    return [*found, network.classifier.weight, network.classifier.bias]


def explicit(plan: tuple[Layer, ...], numbers: list[Tensor], images: Tensor, targets: Tensor, sizes: tuple[int, ...], *,
             backend: str = "calls", dtype: torch.dtype | None = None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The gradients of each class's mean cross-entropy, one (classes, rows, numbers a row) for each weight, and the block features.

    images: (N, C, H, W), sorted by class, sizes[c] of class c; targets: (N, classes) probabilities. Convolutions run in `dtype`
    ('auto' back ends are resolved by `choose`). Differentiable once, in images and targets.
    """
    high, low, channels = images.dtype, dtype or images.dtype, images.shape[1]
    *inner, last_weight, last_bias = numbers
    images, first = beside_zeros(images, inner[0])
    inner = [first, *inner[1:]]
    a, kept, features = images, [], []
    for layer, (weight, bias, scale, shift) in zip(plan, _fours(inner), strict=True):
        z = F.conv2d(a.to(low), weight.to(low), padding=layer.padding).to(high) + bias.view(-1, 1, 1)
        deviation = None
        if layer.norm == "instance":
            variance, mean = torch.var_mean(z, (2, 3), correction=0, keepdim=True)
            deviation = (variance + layer.eps).rsqrt()
            z = (z - mean) * deviation
        y = z * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        kept.append((a, z, deviation, y > 0))
        a = F.avg_pool2d(y.relu(), 2)
        features.append(a)
    embedded = a.flatten(1)
    share = torch.cat([embedded.new_full((size,), 1 / size) for size in sizes if size])
    logits = F.linear(embedded, last_weight, last_bias)
    delta = (logits.softmax(1) * targets.sum(1, keepdim=True) - targets) * share[:, None]
    found = [torch.stack([one.mT @ other for one, other in zip(delta.split(sizes), embedded.split(sizes), strict=True)])]
    delta = (delta @ last_weight).view_as(a)
    for index in reversed(range(len(plan))):
        layer, (weight, _, scale, _), (a, z, deviation, active) = plan[index], _fours(inner)[index], kept[index]
        delta = F.interpolate(delta, scale_factor=2, mode="nearest") / 4
        height, width = (side - other for side, other in zip(z.shape[2:], delta.shape[2:], strict=True))
        delta = F.pad(delta, (0, width, 0, height)) * active * scale.view(-1, 1, 1)
        if deviation is not None:
            delta = (delta - delta.mean((2, 3), keepdim=True) - z * (delta * z).mean((2, 3), keepdim=True)) * deviation
        delta = delta.to(low)
        one = backend if isinstance(backend, str) else backend[index]
        gradient = class_weight_gradients(a.to(low), delta, sizes, kernel=layer.kernel, padding=layer.padding, backend=one)
        found.append((gradient if index else gradient[:, :, :channels]).to(high).flatten(2))
        if index:
            delta = F.conv_transpose2d(delta, weight.to(low), padding=layer.padding).to(high)
    return tuple(reversed(found)), tuple(features)


def _fours(numbers: list[Tensor]) -> list[list[Tensor]]:
    return [numbers[start : start + 4] for start in range(0, len(numbers), 4)]


def choose(plan: tuple[Layer, ...], numbers: list[Tensor], shape: tuple[int, ...], classes: int, dtype: torch.dtype,
           at: torch.device) -> tuple[str, ...]:
    """The fastest back end of each layer on this machine, for images of `shape` (N, C, H, W) of `classes` equal classes."""
    found = []
    for layer, (weight, *_) in zip(plan, _fours(numbers[:-2]), strict=True):
        outer = [side + 2 * pad - reach + 1 for side, pad, reach in zip(shape[2:], layer.padding, layer.kernel, strict=True)]
        delta = (shape[0], weight.shape[0], *outer)
        found.append(fastest(tuple(shape), delta, classes, layer.kernel, layer.padding, dtype, at))
        shape = (*delta[:2], *(side // 2 for side in outer))
    return tuple(found)


def by_autograd(network: Network, images: Tensor, targets: Tensor, sizes: tuple[int, ...], *, together: bool | None = None
                ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What `explicit` returns, for any network: class by class, or by vmap over classes of equal size (default: on a GPU)."""
    chosen = weights(network)
    differentiable = images.requires_grad or targets.requires_grad
    together = images.is_cuda if together is None else together
    if together and len(set(sizes)) == 1:
        fixed = {name: tensor for name, tensor in (*network.named_parameters(), *network.named_buffers()) if name not in chosen}

        def loss(free, x, t):
            features = _Features(network)
            logits, blocks = functional_call(features, {f"network.{name}": tensor for name, tensor in (free | fixed).items()}, (x,))
            return F.cross_entropy(logits, t), blocks

        parts = [side.unflatten(0, (len(sizes), -1)) for side in (images, targets)]
        found, blocks = vmap(grad(loss, has_aux=True), in_dims=(None, 0, 0))({name: one.detach() for name, one in chosen.items()}, *parts)
        return tuple(one.flatten(2) for one in found.values()), tuple(block.flatten(0, 1) for block in blocks)
    free = {name: one.detach().requires_grad_() for name, one in chosen.items()}
    found, blocks = [], []
    with torch.enable_grad():
        for x, t in zip(images.split(sizes), targets.split(sizes), strict=True):
            logits, features = functional_call(_Features(network), {f"network.{name}": one for name, one in free.items()}, (x,))
            gradients = torch.autograd.grad(F.cross_entropy(logits, t), list(free.values()), create_graph=differentiable)
            found.append(gradients)
            blocks.append(features)
    joined = tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))
    if not differentiable:
        joined = tuple(one.detach() for one in joined)
    return tuple(torch.stack(parts).flatten(2) for parts in zip(*found, strict=True)), joined


class _Features(nn.Module):
    """A network that returns its logits and the features of its blocks."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features = self.network.features(x)
        return self.network.classifier(features[-1].flatten(1)), features

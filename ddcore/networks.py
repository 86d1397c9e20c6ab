"""Networks of the field, initialised from an explicit generator, with the features of every block in reach.

ConvNet follows Gidaris & Komodakis as used by DC, DSA, DM, MTT (VICO-UoE/DatasetCondensation, networks.py): depth blocks of
[3x3 convolution, norm, ReLU, 2x2 average pooling] and a linear classifier; 28x28 images enter a 32x32 map through padding 3.
The ResNets of ImageNet are torchvision's own, cut into blocks.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcore.errors import BadInput
from ddcore.kernels.rectified_pool import rectified_pool
from ddcore.settings import positive, unknown

VERSION = 1


class Network(nn.Module):
    """`blocks` one after another, then the linear classifier: `features(x)` is what plugins and methods read."""

    def __init__(self, blocks: list[nn.Module], classifier: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.classifier = classifier

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The output of each block; the last one, flattened, is the embedding that the classifier reads."""
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return tuple(found)

    def embed(self, x: Tensor) -> Tensor:
        """(N, F) penultimate features."""
        return self.features(x)[-1].flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes) logits."""
        return self.classifier(self.embed(x))


class ImageNetResNet(Network):
    """torchvision's own, which begins its convolutions otherwise than PyTorch does: N(0, 2 / fan_out) (He et al. 2015)."""


class Convolution(nn.Conv2d):
    """nn.Conv2d; where it is compiled for a CPU, `beside_zeros`."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(*beside_zeros(x, self.weight), self.bias)


def beside_zeros(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What a convolution convolves. Compiled for a CPU, a single channel gets a second one, of zeros, with the channels innermost: oneDNN
    answers one channel with its maps laid out row by row, over which the compiler's pooling is not vectorised, and takes twice the time."""
    if x.shape[1] > 1 or x.device.type != "cpu" or not torch.compiler.is_compiling():
        return x, weight
    return tuple(
        F.pad(one, (0, 0, 0, 0, 0, 1)).contiguous(memory_format=torch.channels_last) for one in (x, weight)
    )


class RectifiedPool(nn.Module):
    """nn.ReLU() and nn.AvgPool2d(2), by `ddcore.kernels.rectified_pool`."""

    def forward(self, x: Tensor) -> Tensor:
        return rectified_pool(x)


def _norm(kind: str, channels: int) -> list[nn.Module]:
    return (
        {"instance": [nn.GroupNorm(channels, channels)], "batch": [nn.BatchNorm2d(channels)], "none": []}[
            kind
        ]
        if channels
        else []
    )


def _first_padding(shape: tuple[int, int, int], usual: int) -> int:
    return usual + 2 if shape[1:] == (28, 28) else usual


def _convnet(shape, width, depth, norm):
    blocks, channels = [], shape[0]
    for level in range(depth):
        padding = _first_padding(shape, 1) if level == 0 else 1
        blocks.append(
            nn.Sequential(
                Convolution(channels, width, 3, padding=padding), *_norm(norm, width), RectifiedPool()
            )
        )
        channels = width
    return blocks


def _mlp(shape, width, depth, norm):
    sizes = [math.prod(shape), *[width] * depth]
    return [
        nn.Sequential(
            *([nn.Flatten()] if level == 0 else []), nn.Linear(sizes[level], sizes[level + 1]), nn.ReLU()
        )
        for level in range(depth)
    ]


def _lenet(shape, width, depth, norm):
    padding = 2 if shape[1:] == (28, 28) else 0
    return [
        nn.Sequential(nn.Conv2d(shape[0], 6, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.LazyLinear(120), nn.ReLU()),
        nn.Sequential(nn.Linear(120, 84), nn.ReLU()),
    ]


def _alexnet(shape, width, depth, norm):
    def layer(before, after, kernel, padding, pool):
        return nn.Sequential(
            nn.Conv2d(before, after, kernel, padding=padding),
            *(_norm(norm, after) if norm == "batch" else []),
            nn.ReLU(),
            *([nn.MaxPool2d(2)] if pool else []),
        )

    return [
        layer(shape[0], width, 5, _first_padding(shape, 2), True),
        layer(width, width * 3 // 2, 5, 2, True),
        layer(width * 3 // 2, 2 * width, 3, 1, False),
        layer(2 * width, width * 3 // 2, 3, 1, False),
        layer(width * 3 // 2, width * 3 // 2, 3, 1, True),
    ]


def _vgg11(shape, width, depth, norm):
    blocks, channels = [], shape[0]
    for level, plan in enumerate(((1,), (2,), (4, 4), (8, 8), (8, 8))):
        layers = []
        for index, factor in enumerate(plan):
            padding = _first_padding(shape, 1) if level == index == 0 else 1
            layers += [
                nn.Conv2d(channels, factor * width, 3, padding=padding),
                *_norm(norm, factor * width),
                nn.ReLU(),
            ]
            channels = factor * width
        blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
    return blocks


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016, basic block)."""

    def __init__(self, before: int, after: int, stride: int, norm: str):
        super().__init__()
        bare = norm == "none"
        self.path = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=bare),
            *_norm(norm, after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=bare),
            *_norm(norm, after),
        )
        same = before == after and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=bare), *_norm(norm, after))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.path(x) + self.shortcut(x))


def _resnet18(shape, width, depth, norm):
    stem = nn.Sequential(
        nn.Conv2d(shape[0], width, 3, 1, _first_padding(shape, 1), bias=norm == "none"),
        *_norm(norm, width),
        nn.ReLU(),
    )
    blocks, channels = [stem], width
    for level in range(4):
        after = width << level
        pair = [Residual(channels, after, 1 if level == 0 else 2, norm), Residual(after, after, 1, norm)]
        blocks.append(nn.Sequential(*pair, *([nn.AdaptiveAvgPool2d(1)] if level == 3 else [])))
        channels = after
    return blocks


def _imagenet(stem, shape, width, depth, norm):
    from torchvision import models  # takes long to import

    if shape[0] != 3 or width != 64:
        raise BadInput(
            f"network {stem}-imagenet: {shape[0]} channels and width {width} were given, but torchvision's own reads 3 channels "
            "and has width 64; use 'resnet18-bn', which takes others"
        )
    whole = models.get_model(stem, weights=None)
    return [
        nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool),
        whole.layer1,
        whole.layer2,
        whole.layer3,
        nn.Sequential(*whole.layer4, whole.avgpool),
    ]


IMAGENET = ("resnet18", "resnet50", "resnet101")  # torchvision's names of them
# Mean and standard deviation a channel of the pixels that torchvision's weights for ImageNet were trained on.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# name: (blocks, default width, default depth)
ARCHITECTURES = {
    "convnet": (_convnet, 128, 3),
    "mlp": (_mlp, 128, 2),
    "lenet": (_lenet, 6, 5),
    "alexnet": (_alexnet, 128, 5),
    "vgg11": (_vgg11, 64, 11),
    "resnet18": (_resnet18, 64, 18),
    **{f"{stem}-imagenet": (functools.partial(_imagenet, stem), 64, None) for stem in IMAGENET},
}
NORMS = {"bn": "batch", "in": "instance", "nonorm": "none"}
NAMES = tuple(ARCHITECTURES)


def usual_depth(shape: tuple[int, int, int]) -> int:
    """The depth of a 'convnet' for images of `shape`: 3 for sides of 28 and 32, 4 for 64, 5 for 128, as published; 2 for 8."""
    return max(2, round(math.log2(min(shape[1:]))) - 2)


def build(
    name: str,
    shape: tuple[int, int, int],
    classes: int,
    *,
    generator: torch.Generator,
    width: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Network:
    """A network by name, e.g. 'convnet', 'convnet3', 'convnet4-bn', 'mlp', 'lenet', 'alexnet', 'vgg11', 'resnet18-bn'.

    'convnetD' sets the depth, 'convnet' takes the usual one (`usual_depth`); '-bn', '-in', '-nonorm' the norm of those that
    have one (default: instance norm, as DC uses; none for alexnet); `width` the channels of a convnet (128), the first
    channels of the others, the hidden units of an MLP. `shape` is (C, H, W). 'resnet18-imagenet', 'resnet50-imagenet' and
    'resnet101-imagenet' are torchvision's own, with the 7x7 convolution of stride 2 and the max pool for images of 224x224.
    Raises BadInput for an unknown name, an image too small for the depth, and channels or a width that torchvision's own have not.
    """
    stem, _, suffix = (name, "", "") if name in ARCHITECTURES else name.partition("-")
    depth = usual_depth(shape) if stem == "convnet" else None
    if stem.startswith("convnet") and stem[7:].isdecimal() and int(stem[7:]):
        stem, depth = "convnet", int(stem[7:])
    if stem not in ARCHITECTURES or suffix not in ("", *NORMS):
        raise unknown("network", name, [*NAMES, *(f"convnet3-{norm}" for norm in NORMS)])
    if (suffix and stem in ("mlp", "lenet")) or (stem, suffix) == ("alexnet", "in"):
        raise BadInput(
            f"network {name}: {stem} has no such norm; use '{'alexnet-bn' if stem == 'alexnet' else stem}'"
        )
    blocks_of, usual_width, layers = ARCHITECTURES[stem]
    width = usual_width if width is None else width
    positive(f"network {name}", width=width, classes=classes)
    with (
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
    ):  # modules draw from the global state when made; `initialise` draws anew
        blocks = blocks_of(tuple(shape), width, depth or layers, NORMS.get(suffix, "instance"))
        x = torch.zeros(1, *shape)
        for block in blocks:
            try:
                x = block.eval()(
                    x
                )  # of one image: an instance norm of one value, always zero, is refused by torch as well
            except (RuntimeError, ValueError) as error:
                raise BadInput(
                    f"network {name}: images of {shape[1]}x{shape[2]} are too small for it; use a shallower one"
                ) from error
            if 0 in x.shape:
                raise BadInput(
                    f"network {name}: images of {shape[1]}x{shape[2]} are too small for it; use a shallower one"
                )
        kind = ImageNetResNet if stem.endswith("-imagenet") else Network
        network = kind(blocks, nn.Linear(x[0].numel(), classes)).train()
    return initialise(network.to(device, dtype), generator)


def initialise(network: Network, generator: torch.Generator) -> Network:
    """Draw every parameter anew, in place, from PyTorch's default distributions (uniform, bound 1/sqrt(fan_in)); convolutions of
    torchvision's own as there."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and isinstance(network, ImageNetResNet):
                nn.init.kaiming_normal_(
                    module.weight, mode="fan_out", nonlinearity="relu", generator=generator
                )
            elif isinstance(module, nn.Conv2d | nn.Linear):
                bound = 1 / math.sqrt(module.weight[0].numel())
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
            elif isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
                module.weight.fill_(1)
                module.bias.zero_()
                if isinstance(module, nn.BatchNorm2d):
                    module.reset_running_stats()
    return network


def torchvision_names(name: str, network: Network) -> dict[str, str]:
    """For each name in the state dict of the network `name` that of torchvision, whose layers are in the same order: for its own, and for
    'resnet18-bn', which is its ResNet18 with the 3x3 stem of CIFAR. Empty for the others."""
    from torchvision import models

    stem, _, suffix = name.partition("-")
    if stem not in IMAGENET or suffix not in ("imagenet", "bn"):
        return {}
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        theirs = models.get_model(stem, weights=None).state_dict()
    return dict(zip(network.state_dict(), theirs, strict=True))


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())

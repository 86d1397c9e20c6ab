"""What the variance of a batch is made of in a trained network, and where matching mean and variance pushes a batch of noise.

`ddcore.theory.adjustment` has the algebra: total = within images + between them, the pushes a translation and a dispersion.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.kernels.statistics import statistics_loss
from ddcore.methods import batch_norms
from ddcore.methods.squeeze import Squeeze, squeeze
from ddcore.networks import Network
from ddcore.random import stream
from ddcore.settings import build, positive, versioned


def norm_inputs(network: Network, images: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(n, C, H, W) -> for each batch norm its input (n, channels, h, w) and the running mean and variance (channels,)."""
    with batch_norms.recorded() as found:
        network(images)
    return found


@torch.no_grad()
def image_moments(network: Network, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(n, C, H, W) -> for each batch norm the mean and biased variance of its input over the positions of an image, both (n, channels)."""
    parts = [
        [
            (x.double().mean((2, 3)), x.double().flatten(2).var(2, unbiased=False))
            for x, _, _ in norm_inputs(network, some)
        ]
        for some in images.split(250)
    ]
    return [tuple(map(torch.cat, zip(*layer, strict=True))) for layer in zip(*parts, strict=True)]


def pushes(x: Tensor, mean: Tensor, var: Tensor) -> dict[str, Tensor]:
    """Minus the gradients in x of the two terms of `ddcore.kernels.statistics.statistics_loss`, of one group: 'mean' and 'variance'."""
    x = x.detach().requires_grad_()
    first, both = (
        torch.autograd.grad(statistics_loss(x, mean, var, r_var=r_var), x)[0] for r_var in (0.0, 1.0)
    )
    return {"mean": -first, "variance": first - both}


def batches(
    labels: Tensor, classes: int, sizes: Sequence[int], draws: int, seed: int
) -> Iterator[tuple[str, int, Tensor]]:
    """(law, size, indices (draws, size)) with replacement: from any class, from one class, or one image of each class. Classes are equally
    many, sorted."""
    each = len(labels) // classes

    def uniform(high: int, *shape: int, name: str) -> Tensor:
        generator = stream(seed, "batch_variance", name, shape[-1], device=labels.device)
        return torch.randint(high, shape, generator=generator, device=labels.device)

    for size in sizes:
        yield "any class", size, uniform(len(labels), draws, size, name="any")
        yield (
            "one class",
            size,
            uniform(each, draws, size, name="one") + each * uniform(classes, draws, 1, name=f"class {size}"),
        )
    yield (
        "one a class",
        classes,
        uniform(each, draws, classes, name="each") + each * torch.arange(classes, device=labels.device),
    )


@versioned(version=1)
def batch_variance(
    data: Dataset,
    *,
    seed: int,
    teacher: Mapping,
    images: int,
    sizes: tuple[int, ...],
    draws: int,
    points: int,
) -> list[dict]:
    """Variances at the batch norms of `teacher` (settings of `Squeeze`) over those of `images` training images, equally many a class.

    Rows of `quantity` 'within', 'between', 'expected' (of 'between', by `adjustment.expected_between`): layer (from 1), law, size, value,
    the mean over channels and `draws` batches. Rows of 'mean' and 'variance': the push on the inputs of the last batch norm for a batch of
    one noise image a class, at `points` of them, in the two channels that vary most: x, y, dx, dy, in standard deviations of real images.
    """
    positive(
        "batch_variance",
        draws=draws,
        points=points,
        **{f"sizes[{place}]": size for place, size in enumerate(sizes)},
    )
    how, each = build(Squeeze, teacher, "teacher"), max(1, images // data.classes)
    data.need(each, f"batch_variance with images={images}")
    index = data.sample(each, stream(seed, "batch_variance", device=data.device))
    network, table = squeeze(data, how), []
    chosen = list(batches(data.y_train[index], data.classes, sizes, draws, seed))
    for layer, (mean, inside) in enumerate(image_moments(network, data.x_train[index]), 1):
        total = inside.mean(0) + mean.var(0, unbiased=False)
        alive = total > 1e-6 * total.max()
        mean, inside, total = mean[:, alive], inside[:, alive], total[alive]
        by_class = mean.unflatten(0, (data.classes, each))
        of_means, spread = by_class.mean(1).var(0, unbiased=False), by_class.var(1, unbiased=False).mean(0)
        drawn_from = {
            "any class": (0, of_means + spread),
            "one class": (0, spread),
            "one a class": (of_means, spread),
        }
        for law, size, rows in chosen:
            first, second = drawn_from[law]
            found = {
                "within": inside[rows].mean((0, 1)),
                "between": mean[rows].var(1, unbiased=False).mean(0),
                "expected": first + (1 - 1 / size) * second,
            }
            table += [
                {
                    "layer": layer,
                    "law": law,
                    "size": size,
                    "quantity": name,
                    "value": round(float((one / total).mean()), 6),
                }
                for name, one in found.items()
            ]
    shape = (data.classes, *data.shape)
    noise = torch.randn(
        shape, generator=stream(seed, "batch_variance", "noise", device=data.device), device=data.device
    )
    x, mean, var = norm_inputs(network, noise.to(data.x_train.dtype))[-1]
    return table + _arrows(x.detach().double(), mean.double(), var.double(), points)


def _arrows(x: Tensor, mean: Tensor, var: Tensor, points: int) -> list[dict]:
    two = x.var((0, 2, 3)).topk(2).indices

    def shown(values: Tensor) -> list[list[float]]:
        found = values[:, two].movedim(1, 3).flatten(0, 2) / var[two].sqrt()
        return found[:: -(-len(found) // points)].tolist()

    at = shown(x - mean[:, None, None])
    return [
        {
            "quantity": name,
            **{
                key: float(f"{value:.6g}")
                for key, value in zip(("x", "y", "dx", "dy"), (*place, *arrow), strict=True)
            },
        }
        for name, push in pushes(x, mean, var).items()
        for place, arrow in zip(at, shown(push), strict=True)
    ]

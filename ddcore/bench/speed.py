"""Benchmarks: each step against the published structure, in one run, with its distance from the machine's ceiling.

The baseline of a row is `ddcore.bench.published`; what its columns say stands in `ddcore.bench.yardsticks`.
"""

import copy
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddcore import compute, networks
from ddcore.bench import published
from ddcore.bench.steps import Case, grid_rows
from ddcore.bench.yardsticks import Provider, compare
from ddcore.data import Dataset
from ddcore.evaluation import Protocol
from ddcore.kernels.class_means import class_mean_distance
from ddcore.kernels.row_cosine import row_cosine_distance
from ddcore.methods import class_gradients
from ddcore.methods.statistics import SRe2L
from ddcore.optim.adam import Adam
from ddcore.optim.sgd import cosine
from ddcore.plugins.weight_adjustment import WeightAdjustment
from ddcore.random import stream
from ddcore.settings import positive, versioned


def _providers(
    name: str, loop: Callable[[], Tensor], together: Callable[[str, bool], Callable], compiled: bool
) -> dict[str, Provider]:
    """The `loop` of the published code by its name, then what `together(precision, compiled)` gives."""
    found = {f"{name} (published)": Provider(loop), "together": Provider(together("float32", False))}
    if compiled:
        found["together, compiled"] = Provider(together("float32", True), eager=False)
        found["together, compiled, bfloat16"] = Provider(together("bfloat16", True), "bfloat16", eager=False)
    return found


def evaluate_rows(
    data: Dataset, *, ipc: int, width: int, networks_: int, rounds: int, compiled: bool = True
) -> list[dict]:
    """Networks trained one after another against all at once (twenty epochs); compared are their classifiers' weights."""
    index = data.sample(ipc, stream(0, "bench", "fake", device=data.device))
    images, labels, seeds = data.x_train[index], data.y_train[index], tuple(range(networks_))

    def trained(together: bool, **settings) -> Callable[[], Tensor]:
        how = Protocol(width=width, epochs=20, **settings)
        groups = [seeds] if together else [(seed,) for seed in seeds]
        return lambda: torch.stack(
            [
                net.classifier.weight.detach()
                for group in groups
                for net in how.train(images, labels, data, group)
            ]
        )

    providers = {
        "one after another (published)": Provider(trained(False)),
        "all at once": Provider(trained(True)),
    }
    if compiled:
        providers["one after another, compiled, bfloat16"] = Provider(
            trained(False, precision="bfloat16", compiled=True), eager=False
        )
    return compare(
        f"evaluate {networks_} networks, ipc {ipc}",
        providers,
        providers["one after another (published)"].run().double(),
        data.device,
        rounds,
    )


def kernel_rows(data: Dataset, *, ipc: int, batch_real: int, width: int, rounds: int) -> list[dict]:
    """Each kernel, value and gradient, against its form in the published code, on numbers of the shapes of a ConvNet's step."""
    at, classes = data.device, data.classes
    generator = stream(0, "bench", "kernels", device=at)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=at)

    net = Case(data, ipc, batch_real, width, "none").net
    shapes = [
        (classes, weight.shape[0], weight[0].numel()) for weight in class_gradients.weights(net).values()
    ]
    real, fake = [[normal(*shape) for shape in shapes] for _ in range(2)]
    flat = [torch.cat([one.flatten() for one in side]) for side in (real, fake)]
    joined = flat[1].requires_grad_()

    def cosine(distance: Callable, given: Tensor, others: list[Tensor]) -> Tensor:
        parts = [
            part.view(shape)
            for part, shape in zip(given.split([one.numel() for one in others]), shapes, strict=True)
        ]
        return torch.autograd.grad(distance(others, parts), given)[0]

    rows = compare(
        "row cosine",
        {
            "per class (published)": Provider(lambda: cosine(published.row_cosine_per_class, joined, real)),
            "all layers at once": Provider(lambda: cosine(row_cosine_distance, joined, real)),
        },
        cosine(
            published.row_cosine_per_class,
            joined.detach().double().requires_grad_(),
            [one.double() for one in real],
        ),
        at,
        rounds,
        moved=4 * 5 * joined.numel(),
    )
    features = net.classifier.in_features
    of_real, of_fake = (
        normal(classes * batch_real, features),
        normal(classes * ipc, features).requires_grad_(),
    )
    labels = [torch.arange(classes, device=at).repeat_interleave(count) for count in (ipc, batch_real)]

    def means(distance: Callable, given: Tensor, other: Tensor) -> Tensor:
        return torch.autograd.grad(distance(given, labels[0], other, labels[1], classes), given)[0]

    return rows + compare(
        "class means",
        {
            "per class (published)": Provider(
                lambda: means(published.mean_distance_per_class, of_fake, of_real)
            ),
            "all classes at once": Provider(lambda: means(class_mean_distance, of_fake, of_real)),
        },
        means(
            published.mean_distance_per_class, of_fake.detach().double().requires_grad_(), of_real.double()
        ),
        at,
        rounds,
        moved=4 * (of_real.numel() + 2 * of_fake.numel()),
    )


def recover_rows(
    data: Dataset, *, ipc: int, width: int, rounds: int, compiled: bool = True, adjusted: bool = False
) -> list[dict]:
    """Two steps of SRe2L's recover, optimiser and clipping included, through a ConvNet with batch norm; compared are the images.
    `adjusted`: every batch through weights of its own, moved as in DWA before the clock starts."""
    at, shape, classes = data.device, data.shape, data.classes
    noise = torch.randn(classes * ipc, *shape, generator=stream(0, "bench", "noise", device=at), device=at)
    labels = torch.arange(classes, device=at).repeat_interleave(ipc)
    net = networks.build(
        "convnet-bn", shape, classes, width=width, device=at, generator=stream(0, "bench", device=at)
    ).eval()
    low, high = (
        noise.new_tensor([(edge - mean) / std for mean, std in zip(data.mean, data.std, strict=True)]).view(
            -1, 1, 1
        )
        for edge in (0, 1)
    )

    nets = [net] * ipc
    if adjusted:
        real = data.x_train[data.sample(ipc, stream(0, "bench", "real", device=at))]
        nets = [
            WeightAdjustment().adjust(net, real[j::ipc], labels[::ipc], stream(0, "bench", "adjustment", j))
            for j in range(ipc)
        ]

    def serial(teachers: Sequence[networks.Network], images: Tensor) -> Tensor:
        return published.recover_published(
            teachers,
            images,
            classes=classes,
            steps=2,
            shift=lambda batch, step: (0, 0),
            low=low.to(images),
            high=high.to(images),
        )[0]

    def together(precision: str, compiled: bool) -> Callable[[], Tensor]:
        accelerate = functools.cache(
            functools.partial(compute.accelerate, at=at, precision=precision, compiled=compiled)
        )
        objective = SRe2L(roll=0).in_groups(
            nets, classes, accelerate, compute.chunk(net, shape, whole=classes, compiled=compiled)
        )

        def run() -> Tensor:
            images = noise.clone().requires_grad_()
            updates = Adam([images], lr=0.25, betas=(0.5, 0.9))
            for step in range(2):
                updates.lr = 0.25 * cosine(step, 2)
                updates.step(torch.autograd.grad(objective(images, labels), [images]))
                images.data.copy_(images.data.clamp(low, high))
            return images.detach()

        return run

    truth = serial([copy.deepcopy(one).double() for one in nets], noise.double())
    net.requires_grad_(False)
    providers = _providers("batch after batch", lambda: serial(nets, noise), together, compiled)
    return compare(
        f"recover, {'weights adjusted' if adjusted else '2 steps'}, ipc {ipc}", providers, truth, at, rounds
    )


@versioned(version=5)
def speed(
    data: Dataset,
    *,
    seed: int,
    width: int,
    batches: Sequence[int],
    ipcs: Sequence[int],
    classes: Sequence[int],
    rounds: int,
    compiled: bool = True,
) -> list[dict]:
    """Every step and kernel against the published structure, on this machine: the rows of `ddcore bench`.

    `batches`: real images a class; the steps of DM, DC and DSA for each of `classes`, recover and kernels for the middle of `ipcs`.
    """
    positive("bench", rounds=rounds, batches=batches, ipcs=ipcs, classes=classes, width=width)
    ipc, size = sorted(ipcs)[len(ipcs) // 2], {"width": width, "rounds": rounds}
    data.need(max(*batches, *ipcs), "bench")
    rows = grid_rows(data, ipcs=ipcs, batches=batches, classes=classes, compiled=compiled, **size)
    rows += [
        row
        for adjusted in (False, True)
        for row in recover_rows(data, ipc=ipc, compiled=compiled, adjusted=adjusted, **size)
    ]
    rows += kernel_rows(data, ipc=ipc, batch_real=min(batches), **size)
    return rows + evaluate_rows(data, ipc=1, width=width, networks_=5, rounds=rounds, compiled=compiled)

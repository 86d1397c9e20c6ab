"""One step of DM, DC and DSA, loss and image gradient, in the structure of the published code and in ours: what the benchmarks time."""

import copy
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ddcore import augment, compute, methods, networks
from ddcore.bench import published
from ddcore.bench.yardsticks import Provider, compare
from ddcore.data import Dataset, Images
from ddcore.methods import distribution, gradient
from ddcore.methods.match import Batch
from ddcore.random import stream

TRUTH = 10  # classes up to which a step is compared with the published one in float64; above, with the published one itself


def generated(shape: tuple[int, int, int], classes: int, per_class: int, device: torch.device) -> Dataset:
    """`classes` of `per_class` images of random pixels: what a step costs does not depend on what they show. shape: (C, H, W)."""
    channels, height, width = shape
    pixels = torch.randint(
        256,
        (classes * per_class, height, width, channels),
        dtype=torch.uint8,
        generator=stream(0, "generated", device=device),
        device=device,
    )
    labels = torch.arange(classes, device=device).repeat_interleave(per_class)
    mean, std = (0.5,) * channels, (0.25,) * channels
    x = Images(pixels, torch.arange(len(pixels), device=device), mean, std, device)
    name = f"generated {classes} x {per_class}"
    return Dataset(
        name,
        x,
        labels,
        x.part(slice(0, 1)),
        labels[:1],
        mean,
        std,
        hashlib.sha256(name.encode()).hexdigest(),
        tuple(map(str, range(classes))),
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """What the steps are timed on: a network, a batch of real images, a set, an augmentation."""

    data: Dataset
    ipc: int
    batch_real: int
    width: int
    strategy: str

    @functools.cached_property
    def net(self) -> networks.Network:
        return networks.build(
            "convnet",
            self.data.shape,
            self.data.classes,
            width=self.width,
            device=self.data.device,
            generator=stream(0, "bench", device=self.data.device),
        )

    @functools.cached_property
    def drawn(self) -> augment.Draw:
        return augment.draw(
            self.strategy, self.data.classes, stream(0, "bench", "draw", device=self.data.device)
        )

    @functools.cached_property
    def batch(self) -> Batch:
        data = self.data
        return Batch(
            data,
            *data.sample_up_to(self.batch_real, stream(0, "bench", "real", device=data.device)),
            self.drawn,
        )

    @functools.cached_property
    def fake(self) -> Tensor:
        return self.data.batch(
            self.data.sample(self.ipc, stream(0, "bench", "fake", device=self.data.device))
        ).requires_grad_()

    @functools.cached_property
    def labels(self) -> Tensor:
        return torch.arange(self.data.classes, device=self.data.device).repeat_interleave(self.ipc)

    @functools.cached_property
    def real(self) -> Tensor:
        """The real images of the batch as numbers: the published code holds the whole dataset so."""
        return self.data.batch(self.batch.index)

    def image_gradient(self, loss: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        """That of `loss(augmented synthetic images)`."""
        return lambda: torch.autograd.grad(
            loss(augment.apply(self.drawn, self.fake, self.labels)), self.fake
        )[0]

    def published(self, loss: Callable) -> Callable[[], Tensor]:
        """The image gradient of a loss of `ddcore.bench.published`."""
        plain = published.plain(self.net)
        return lambda: torch.autograd.grad(
            loss(plain, self.drawn, self.real, self.batch.labels, self.fake, self.labels, self.data.classes),
            self.fake,
        )[0]

    def truth(self, loss: Callable) -> Tensor:
        """The same in float64."""
        exact, double = copy.deepcopy(self.net).double(), self.fake.detach().double().requires_grad_()
        return torch.autograd.grad(
            loss(
                exact,
                self.drawn,
                self.real.double(),
                self.batch.labels,
                double,
                self.labels,
                self.data.classes,
            ),
            double,
        )[0]

    def smaller(self) -> "Case":
        """One whose step compiles what this one's does: fewer real images, in parts of the same size."""
        size = compute.evenly(self.batch_real, compute.chunk(self.net, self.data.shape, compiled=True))
        return dataclasses.replace(self, batch_real=size)


def dm_step(case: Case, precision: str, compiled: bool) -> Callable[[], Tensor]:
    """DM's step as `ddcore.methods.DM` computes it."""
    net, data = case.net.requires_grad_(False), case.data
    features = compute.accelerate(net.features, data.device, precision=precision, compiled=compiled)
    size = compute.chunk(net, data.shape, compiled=compiled)

    def loss(fake: Tensor) -> Tensor:
        return distribution.distance(
            features, fake, distribution.class_means_of(features, case.batch, size)[0], size
        )

    return case.image_gradient(loss)


def dc_step(case: Case, precision: str, compiled: bool) -> Callable[[], Tensor]:
    """DC's step, or DSA's with an augmentation, as `ddcore.methods.DC` computes it."""
    net, data = case.net, case.data
    gradients = functools.partial(
        methods.DC(width=case.width, precision=precision, compiled=compiled).gradients(net, data.device), net
    )
    size, targets = (
        compute.chunk(net, data.shape, compiled=compiled),
        torch.nn.functional.one_hot(case.labels, data.classes).to(case.fake),
    )
    return case.image_gradient(lambda fake: gradient.distance(gradients, case.batch, fake, targets, size)[0])


# name: (our step, the published loss, its augmentation)
STEPS = {"dm": (dm_step, published.dm_per_class, augment.DSA), "dc": (dc_step, published.dc_per_class, "none"),
         "dsa": (dc_step, published.dc_per_class, augment.DSA)}  # fmt: skip


def providers(name: str, case: Case, compiled: bool) -> dict[str, Provider]:
    """The loop of the published code, then ours: eager, and compiled, in float32 and in bfloat16, if asked."""
    step, loss, _ = STEPS[name]
    found = {
        "per class (published)": Provider(case.published(loss)),
        "in chunks": Provider(step(case, "float32", False)),
    }
    if compiled:
        found["in chunks, compiled"] = Provider(step(case, "float32", True), eager=False)
        found["in chunks, compiled, bfloat16"] = Provider(
            step(case, "bfloat16", True), "bfloat16", eager=False
        )
    return found


def step_rows(
    name: str, data: Dataset, *, ipc: int, batch_real: int, width: int, rounds: int, compiled: bool = True
) -> list[dict]:
    """The step of `name` in STEPS on `data`. With many classes one call of each form is long enough, and is timed alone."""
    _, loss, strategy = STEPS[name]
    case = Case(data, ipc, batch_real, width, strategy)
    forms, few, flops = providers(name, case, compiled), data.classes <= TRUTH, None
    if few:
        with FlopCounterMode(display=False) as counter:
            forms["in chunks"].run()
        flops = counter.get_total_flops()
    else:  # what is compiled is compiled in the step of a smaller case
        for form in providers(name, case.smaller(), compiled).values():
            form.run()
    title = f"{name} step, ipc {ipc}, {batch_real} real, {data.classes} classes"
    rows = compare(
        title, forms, case.truth(loss) if few else None, data.device, rounds if few else 1, flops=flops
    )
    return [
        row | {"step": name, "ipc": ipc, "batch_real": batch_real, "classes": data.classes} for row in rows
    ]


def grid_rows(
    data: Dataset,
    *,
    ipcs: Sequence[int],
    batches: Sequence[int],
    classes: Sequence[int],
    width: int,
    rounds: int,
    compiled: bool = True,
) -> list[dict]:
    """Every step for every number of classes, real images a class and images per class; images are generated where `data` has another
    number of classes."""
    rows = []
    for count in classes:
        on = (
            data if count == data.classes else generated(data.shape, count, max(*batches, *ipcs), data.device)
        )
        rows += [
            row
            for name in STEPS
            for batch in batches
            for ipc in ipcs
            for row in step_rows(
                name, on, ipc=ipc, batch_real=batch, width=width, rounds=rounds, compiled=compiled
            )
        ]
    return rows

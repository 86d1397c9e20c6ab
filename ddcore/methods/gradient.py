"""DC and DSA: gradient matching (Zhao, Mopuri & Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021; Zhao & Bilen,
*Dataset Condensation with Differentiable Siamese Augmentation*, ICML 2021).

Each outer iteration draws a fresh network. Each of its `outer` updates compares, class by class, the gradients of the
cross-entropy on real and on synthetic images, sum over layers and rows of 1 - cos (biases and norms do not count), then trains
the network on the synthetic set for `inner` epochs, except after the last. DSA augments both sides of a class alike, and the
batches of that training.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore import augment, compute, networks
from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.kernels.row_cosine import row_cosine_distance
from ddcore.kernels.weight_gradients import BACKENDS
from ddcore.methods import class_gradients
from ddcore.methods.batch_norms import has_batch_norm
from ddcore.methods.known_gradient import known
from ddcore.methods.match import Batch, Features, Look, Match, Read, in_parts, looked_through, unadjusted
from ddcore.networks import Network
from ddcore.optim import training
from ddcore.optim.sgd import SGD
from ddcore.random import stream
from ddcore.settings import later, one_of, positive
from ddcore.synthetic import Synthetic

# nominal ipc: (updates of an outer iteration, epochs of training between two of them), `get_loops` of the published code
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


def loops(ipc: int) -> tuple[int, int]:
    """The published loops of the largest nominal ipc that is not above `ipc`."""
    return LOOPS[max(known for known in LOOPS if known <= ipc)]


@dataclasses.dataclass(frozen=True)
class DC:
    """Published setting: ConvNet-3 of width 128, 256 real images a class, no augmentation; `outer` and `inner` by the nominal ipc.

    `weight_gradients` names a back end of `ddcore.kernels.weight_gradients`, 'auto' the first of them on every machine; `chunk` is the most
    images that pass the network at once (`ddcore.compute`). A class with fewer images than `batch_real` gives all it has.
    """

    version: ClassVar[int] = 1

    network: str = "convnet"
    width: int | None = None
    batch_real: int = 256
    outer: int | None = None
    inner: int | None = None
    lr_net: float = 0.01
    batch_train: int = 256
    strategy: str = "none"
    weight_gradients: str = "calls"
    precision: str = "float32"
    compiled: bool = False
    chunk: int | None = later(None)

    def __post_init__(self):
        name = type(self).__name__
        positive(
            name,
            batch_real=self.batch_real,
            lr_net=self.lr_net,
            batch_train=self.batch_train,
            outer=self.outer,
            inner=self.inner,
            chunk=self.chunk,
        )
        one_of(name, compute.PRECISIONS, precision=self.precision)
        one_of(name, ("auto", *BACKENDS), weight_gradients=self.weight_gradients)
        augment.families(self.strategy)

    def matches(
        self,
        data: Dataset,
        synthetic: Synthetic,
        *,
        seed: int,
        start: int = 0,
        look: Look = unadjusted,
        memory: dict[str, Tensor] | None = None,
        reads: Sequence[Read] = (),
    ) -> Iterator[Match]:
        if data.classes < 2:
            raise BadInput(
                f"{type(self).__name__}: the cross-entropy of one class has no gradient to match; give two classes or more, "
                "or use DM"
            )
        memory = {} if memory is None else memory
        outer, inner = loops(synthetic.settings["budget_ipc"])
        outer, inner = self.outer or outer, inner if self.inner is None else self.inner
        device, dtype = data.device, data.x_train.dtype
        net = networks.build(
            self.network,
            data.shape,
            data.classes,
            width=self.width,
            device=device,
            dtype=dtype,
            generator=stream(seed, "dc", "network", start // outer, device=device),
        )
        forward = compute.accelerate(net, device, precision=self.precision, compiled=self.compiled)
        gradients, size = self.gradients(net, device), self.images_at_once(net, data, synthetic)
        for step in itertools.count(start):
            if step % outer == 0:
                networks.initialise(net, stream(seed, "dc", "network", step // outer, device=device))
            else:
                at = int(memory["step"])
                if step == start:
                    net.load_state_dict({name: tensor for name, tensor in memory.items() if name != "step"})
                if at < step:
                    self._train(
                        forward, net, synthetic, inner, size, stream(seed, "dc", "train", step, device=device)
                    )
            _hold_statistics(net, data, stream(seed, "dc", "statistics", step, device=device))
            index, sizes = data.sample_up_to(self.batch_real, stream(seed, "dc", "real", step, device=device))
            drawn = augment.draw(
                self.strategy, data.classes, stream(seed, "dc", "augment", step, device=device)
            )
            batch = Batch(data, index, sizes, drawn)
            fake = augment.apply(drawn, synthetic.images(), synthetic.labels)
            seen = looked_through(look, net, batch, stream(seed, "dc", "look", step))
            targets = synthetic.targets()
            targets = targets if targets.ndim == 2 else F.one_hot(targets, data.classes).to(fake)
            through = functools.partial(gradients, seen)
            loss, of_real = distance(through, batch, fake, targets, size, reads)
            memory |= net.state_dict() | {"step": torch.tensor(step)}
            embed = self._features(seen, device)
            real_features = Features(
                lambda read, embed=embed, batch=batch: in_parts(read, embed, batch, size), of_real
            )
            yield Match(
                step,
                seen,
                seen,
                batch,
                fake,
                synthetic.labels,
                real_features,
                Features.of(embed, fake, size),
                loss,
            )

    def images_at_once(self, network: Network, data: Dataset, synthetic: Synthetic) -> int:
        """Images that pass `network` together; its batch norms, if there are any, have their statistics held."""
        return compute.chunk(network, data.shape, self.chunk, compiled=self.compiled)

    def _features(self, network: Network, at: torch.device) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """What plugins read: not compiled, since a pass of its own is not what a step waits for."""
        return compute.accelerate(network.features, at, precision=self.precision)

    def gradients(self, net: Network, at: torch.device) -> Callable:
        """(network, images, targets, share, sizes, seen) -> the weight gradients of each class, and the features of the blocks.

        On a CPU the explicit form is slower than autograd unless it is compiled, and faster if it is (`ddcore bench`).
        """
        plan, low = class_gradients.layers(net), torch.bfloat16 if self.precision == "bfloat16" else None
        if plan is None and self.compiled:
            raise BadInput(
                f"{type(self).__name__}: torch.compile cannot differentiate '{self.network}' twice; use a convnet, or "
                "compiled=False"
            )
        if plan is None or (at.type == "cpu" and low is None and not self.compiled):

            def by_autograd(network, images, targets, share, sizes, seen):
                with torch.autocast(at.type, torch.bfloat16, enabled=low is not None):
                    return class_gradients.by_autograd(network, images, targets, share, sizes, seen=seen)

            return by_autograd
        function = class_gradients.explicit
        function = compute.compiled_alone(function, fullgraph=True) if self.compiled else function
        backend = "calls" if self.weight_gradients == "auto" else self.weight_gradients

        def explicit(network, images, targets, share, sizes, seen):
            numbers = [tensor.detach() for tensor in class_gradients.tensors(network)]
            return function(
                plan, numbers, images, targets, share, sizes, backend=backend, dtype=low, seen=seen
            )

        return explicit

    def _train(
        self,
        forward: Callable,
        net: Network,
        synthetic: Synthetic,
        epochs: int,
        size: int,
        generator: torch.Generator,
    ) -> None:
        """`epochs` over the synthetic set as it is now, by plain SGD; nothing here waits for a GPU."""
        images, targets = synthetic.images().detach(), synthetic.targets().detach()
        parameters = list(net.train().parameters())
        size = size if compute.divisible(net) else len(images)
        updates = SGD(parameters, lr=self.lr_net, momentum=0.0)
        batch = min(self.batch_train, len(images))
        batches = math.ceil(len(images) / batch)
        drawn = augment.draw(self.strategy, epochs * batches, generator, each=batch)
        for epoch in range(epochs):
            order = torch.randperm(len(images), generator=generator, device=images.device).split(batch)
            for number, rows in enumerate(order, epoch * batches):
                x = augment.apply(
                    drawn, images[rows], torch.arange(number * batch, number * batch + len(rows))
                )
                updates.step(
                    training.gradient(forward, parameters, x, training.cross_entropy(targets[rows]), size)
                )


@dataclasses.dataclass(frozen=True)
class DSA(DC):
    """DC with differentiable Siamese augmentation, by default of the full published strategy."""

    version: ClassVar[int] = 1

    strategy: str = augment.DSA


def distance(
    gradients: class_gradients.Gradients,
    batch: Batch,
    fake: Tensor,
    targets: Tensor,
    size: int,
    reads: Sequence[Read] = (),
) -> tuple[Tensor, list[tuple[Read, tuple[Tensor, ...]]]]:
    """The distance of the gradients of real images and of `fake` (n, C, H, W), sorted by class, equally many a class, with `targets`
    (n, classes); and for each of `reads` what it reads of the real features.

    The classes share no number: the gradient in `fake` and `targets` is found for as many of them at once as there are in a chunk, and
    kept, so that neither side is ever held whole.
    """
    classes, rows = len(batch.sizes), [[] for _ in reads]
    per_class, starts = len(fake) // classes, [0, *itertools.accumulate(batch.sizes)]
    together = compute.evenly(classes, max(1, size // per_class))
    learned = [fake, targets] if targets.requires_grad else [fake]
    kept = [torch.empty_like(one) for one in learned]
    total = torch.zeros((), dtype=torch.promote_types(fake.dtype, torch.float32), device=fake.device)

    def seen(features: Sequence[Tensor]) -> None:
        for read, parts in zip(reads, rows, strict=True):
            parts.append(read(features))

    for group in compute.slices(classes, together):
        first, sizes = starts[group.start], batch.sizes[group]
        with torch.no_grad():
            goals = F.one_hot(batch.labels[first : first + sum(sizes)], classes).to(fake)
            of_real = class_gradients.in_chunks(
                gradients,
                functools.partial(_drawn, batch, first),
                goals,
                sizes,
                size,
                seen if reads else None,
            )
        own = slice(group.start * per_class, group.stop * per_class)
        with torch.enable_grad():
            parts = [one.detach()[own].requires_grad_() for one in learned]
            goal = parts[1] if len(parts) > 1 else targets[own]
            of_fake = class_gradients.in_chunks(
                gradients, functools.partial(_cut, parts[0]), goal, (per_class,) * len(sizes), size
            )
            loss = row_cosine_distance(of_real, of_fake)
            for whole, gradient in zip(kept, torch.autograd.grad(loss, parts), strict=True):
                whole[own] = gradient
        total = total + loss.detach()
    of_real = [
        (read, tuple(map(torch.cat, zip(*parts, strict=True))))
        for read, parts in zip(reads, rows, strict=True)
    ]
    return known(total, learned, kept), of_real


def _drawn(batch: Batch, first: int, size: int, rows: slice) -> Iterator[tuple[slice, Tensor]]:
    """The real images of `rows`, counted from `first`."""
    for part, images in batch.parts(size, slice(first + rows.start, first + rows.stop)):
        yield slice(part.start - first, part.stop - first), images


def _cut(images: Tensor, size: int, rows: slice) -> Iterator[tuple[slice, Tensor]]:
    for part in compute.slices(rows.stop - rows.start, size):
        whole = slice(rows.start + part.start, rows.start + part.stop)
        yield whole, images[whole]


def _hold_statistics(net: Network, data: Dataset, generator: torch.Generator) -> None:
    """Batch norm: one pass over 16 real images a class in training mode, then the statistics are held, as published."""
    if has_batch_norm(net):
        data.need(16, "batch norm in gradient matching")
        with torch.no_grad():
            net.train()(data.x_train[data.sample(16, generator)])
        net.eval()

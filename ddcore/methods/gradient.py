"""DC and DSA: gradient matching (Zhao, Mopuri & Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021; Zhao & Bilen,
*Dataset Condensation with Differentiable Siamese Augmentation*, ICML 2021).

Each outer iteration draws a fresh network. Each of its `outer` updates compares, class by class, the gradients of the
cross-entropy on real and on synthetic images, sum over layers and rows of 1 - cos (biases and norms do not count), then trains
the network on the synthetic set for `inner` epochs, except after the last. DSA augments both sides of a class alike, and the
batches of that training.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore import augment, class_gradients, compute, networks
from ddcore.batch_norms import has_batch_norm
from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.kernels.row_cosine import row_cosine_distance
from ddcore.kernels.weight_gradients import BACKENDS
from ddcore.methods.match import Look, Match, unadjusted
from ddcore.networks import Network
from ddcore.random import stream
from ddcore.settings import one_of, positive
from ddcore.sgd import SGD
from ddcore.synthetic import Synthetic

# nominal ipc: (updates of an outer iteration, epochs of training between two of them), `get_loops` of the published code
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


def loops(ipc: int) -> tuple[int, int]:
    """The published loops of the largest nominal ipc that is not above `ipc`."""
    return LOOPS[max(known for known in LOOPS if known <= ipc)]


@dataclasses.dataclass(frozen=True)
class DC:
    """Published setting: ConvNet-3 of width 128, 256 real images a class, no augmentation; `outer` and `inner` by the nominal ipc.

    `weight_gradients` names a back end of `ddcore.kernels.weight_gradients`; 'auto' is the fastest on this machine.
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

    def __post_init__(self):
        name = type(self).__name__
        positive(name, batch_real=self.batch_real, lr_net=self.lr_net, batch_train=self.batch_train, outer=self.outer, inner=self.inner)
        one_of(name, compute.PRECISIONS, precision=self.precision)
        one_of(name, ("auto", *BACKENDS), weight_gradients=self.weight_gradients)
        augment.families(self.strategy)

    def matches(self, data: Dataset, synthetic: Synthetic, *, seed: int, start: int = 0,
                look: Look = unadjusted, memory: dict[str, Tensor] | None = None) -> Iterator[Match]:
        data.need(self.batch_real, f"{type(self).__name__} with batch_real={self.batch_real}")
        if data.classes < 2:
            raise BadInput(f"{type(self).__name__}: the cross-entropy of one class has no gradient to match; give two classes or more, "
                           "or use DM")
        memory = {} if memory is None else memory
        outer, inner = loops(synthetic.settings["budget_ipc"])
        outer, inner = self.outer or outer, inner if self.inner is None else self.inner
        device, dtype = data.device, data.x_train.dtype
        net = networks.build(self.network, data.shape, data.classes, width=self.width, device=device, dtype=dtype,
                             generator=stream(seed, "dc", "network", start // outer, device=device))
        forward = compute.accelerate(net, device, precision=self.precision, compiled=self.compiled)
        gradients = self._gradients(net, device)
        for step in itertools.count(start):
            if step % outer == 0:
                networks.initialise(net, stream(seed, "dc", "network", step // outer, device=device))
            else:
                at = int(memory["step"])
                if step == start:
                    net.load_state_dict({name: tensor for name, tensor in memory.items() if name != "step"})
                if at < step:
                    self._train(forward, net, synthetic, inner, stream(seed, "dc", "train", step, device=device))
            _hold_statistics(net, data, stream(seed, "dc", "statistics", step, device=device))
            index = data.sample(self.batch_real, stream(seed, "dc", "real", step, device=device))
            drawn = augment.draw(self.strategy, data.classes, stream(seed, "dc", "augment", step, device=device))
            real_labels = data.y_train[index]
            real = augment.apply(drawn, data.x_train[index], real_labels)
            fake = augment.apply(drawn, synthetic.images(), synthetic.labels)
            seen = look(net, real, real_labels, stream(seed, "dc", "look", step))
            sizes = [(count,) * data.classes for count in (self.batch_real, synthetic.per_class)]
            with torch.no_grad():
                of_real, real_features = gradients(seen, real, F.one_hot(real_labels, data.classes).to(real), sizes[0])
            targets = synthetic.targets()
            targets = targets if targets.ndim == 2 else F.one_hot(targets, data.classes).to(fake)
            of_fake, fake_features = gradients(seen, fake, targets, sizes[1])
            loss = row_cosine_distance(of_real, of_fake)
            memory |= net.state_dict() | {"step": torch.tensor(step)}
            yield Match(step, seen, seen, real, fake, real_labels, synthetic.labels, real_features, fake_features, loss)

    def _gradients(self, net: Network, at: torch.device) -> Callable:
        """(network, images, targets, sizes) -> the weight gradients of each class, and the features of the blocks."""
        plan, low = class_gradients.layers(net), torch.bfloat16 if self.precision == "bfloat16" else None
        if plan is None:
            if self.compiled:
                raise BadInput(f"{type(self).__name__}: torch.compile cannot differentiate '{self.network}' twice; use a convnet, or "
                               "compiled=False")

            def by_autograd(seen, images, targets, sizes):
                with torch.autocast(at.type, torch.bfloat16, enabled=low is not None):
                    return class_gradients.by_autograd(seen, images, targets, sizes)

            return by_autograd
        function = class_gradients.explicit
        function = torch.compile(function, dynamic=False, fullgraph=True) if self.compiled else function

        def explicit(seen, images, targets, sizes):
            numbers, backend = [tensor.detach() for tensor in class_gradients.tensors(seen)], self.weight_gradients
            if backend == "auto":
                backend = class_gradients.choose(plan, numbers, tuple(images.shape), len(sizes), low or images.dtype, at)
            return function(plan, numbers, images, targets, sizes, backend=backend, dtype=low)

        return explicit

    def _train(self, forward: Callable, net: Network, synthetic: Synthetic, epochs: int, generator: torch.Generator) -> None:
        """`epochs` over the synthetic set as it is now, by plain SGD; nothing here waits for a GPU."""
        images, targets = synthetic.images().detach(), synthetic.targets().detach()
        parameters = list(net.train().parameters())
        updates = SGD(parameters, lr=self.lr_net, momentum=0.0)
        batch = min(self.batch_train, len(images))
        batches = math.ceil(len(images) / batch)
        drawn = augment.draw(self.strategy, epochs * batches, generator, each=batch)
        for epoch in range(epochs):
            order = torch.randperm(len(images), generator=generator, device=images.device).split(batch)
            for number, rows in enumerate(order, epoch * batches):
                x = augment.apply(drawn, images[rows], torch.arange(number * batch, number * batch + len(rows)))
                updates.step(torch.autograd.grad(F.cross_entropy(forward(x), targets[rows]), parameters))


@dataclasses.dataclass(frozen=True)
class DSA(DC):
    """DC with differentiable Siamese augmentation, by default of the full published strategy."""

    version: ClassVar[int] = 1

    strategy: str = augment.DSA


def _hold_statistics(net: Network, data: Dataset, generator: torch.Generator) -> None:
    """Batch norm: one pass over 16 real images a class in training mode, then the statistics are held, as published."""
    if has_batch_norm(net):
        data.need(16, "batch norm in gradient matching")
        with torch.no_grad():
            net.train()(data.x_train[data.sample(16, generator)])
        net.eval()

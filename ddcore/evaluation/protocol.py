"""The one protocol of evaluation: networks trained from scratch on a set, tested on real images after the last epoch.

As published for DC, DSA and DM (`evaluate_synset` of VICO-UoE/DatasetCondensation): SGD, lr 0.01, momentum 0.9, weight decay
5e-4, batches of 256 in a new order each epoch; `epochs + 1` epochs, after epoch index `epochs // 2 + 1` the learning rate is
multiplied by 0.1 and the momentum forgotten; per-sample augmentation, one family a batch; no choice among epochs. A set that
has learned the size of its steps is trained with that one in place of lr, as published for MTT. `PROTOCOLS` names the others.
"""

import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from ddcore import augment, compute, networks
from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.evaluation.coresets import baseline
from ddcore.evaluation.relabel import Relabel
from ddcore.networks import Network
from ddcore.optim import training
from ddcore.optim.sgd import SGD
from ddcore.random import stream
from ddcore.settings import build, one_of, positive, within
from ddcore.synthetic import Synthetic

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a network is trained and tested. `at_once`: networks trained together, 0 for as many as a chunk of images allows on a GPU
    (`ddcore.compute`) and one on a CPU, where a stacked convolution of several networks was measured slower than one network after
    another (`ddcore bench`)."""

    network: str = "convnet"
    width: int | None = None
    epochs: int = 1000
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 256
    strategy: str = augment.DSA
    at_once: int = 0
    precision: str = "float32"
    compiled: bool = False

    def __post_init__(self):
        positive("evaluate", epochs=self.epochs, lr=self.lr, batch=self.batch)
        within("evaluate", 0, 1, momentum=self.momentum)
        within("evaluate", 0, math.inf, weight_decay=self.weight_decay, at_once=self.at_once)
        augment.families(self.strategy)

    def networks_at_once(self, data: Dataset, images: int) -> int:
        """How many networks, each with a batch of a set of `images`, take together what a chunk of images takes."""
        kind = (self.network, data.shape, data.classes, self.width, data.device, torch.float32)
        network = _network(kind, stream(0, "evaluate", "to be measured", device=data.device))
        return max(1, compute.chunk(network, data.shape) // min(self.batch, images))

    def train(self, images: Tensor, labels: Tensor, data: Dataset, seeds: tuple[int, ...]) -> list[Network]:
        """One network a seed, trained all at once, each with its own initialisation, order and augmentation.

        `labels`: (n,) classes or (n, classes) probabilities.
        """
        device, many = images.device, len(seeds)
        kind = (self.network, data.shape, data.classes, self.width, device, images.dtype)
        drawn_from = [stream(seed, "evaluate", "network", device=device) for seed in seeds]
        if many == 1:
            net, forward = (_kept if self.compiled else _forward)(kind, self.precision, self.compiled)
            together = training.images_at_once(
                net, data.shape, min(self.batch, len(images)), compiled=self.compiled
            )
            nets, parameters = [networks.initialise(net.train(), drawn_from[0])], list(net.parameters())
        else:
            nets = [_network(kind, generator) for generator in drawn_from]
            stacked, buffers = stack_module_state(nets)
            parameters, together = (
                list(stacked.values()),
                many * self.batch,
            )  # all: those of several networks are not parted
            one = vmap(lambda parameters, buffers, x: functional_call(nets[0], (parameters, buffers), (x,)))
            forwards = compute.accelerate(one, device, precision=self.precision, compiled=self.compiled)

            def forward(x):
                return forwards(stacked, buffers, x.unflatten(0, (many, -1))).flatten(0, 1)

        generators = [stream(seed, "evaluate", "train", device=device) for seed in seeds]
        for epoch in range(self.epochs + 1):
            if epoch in (0, self.epochs // 2 + 2):
                lr = self.lr if epoch == 0 else self.lr * 0.1
                optimiser = SGD(parameters, lr=lr, momentum=self.momentum, weight_decay=self.weight_decay)
            orders = [
                torch.randperm(len(images), generator=generator, device=device).split(self.batch)
                for generator in generators
            ]
            for rows in zip(*orders, strict=True):
                size = len(rows[0])
                drawn = augment.join(
                    [augment.draw(self.strategy, 1, generator, each=size) for generator in generators]
                )
                chosen = torch.cat(rows)
                x = augment.apply(drawn, images[chosen], torch.arange(many * size, device=device))
                step = training.gradient(
                    forward, parameters, x, training.cross_entropy(labels[chosen]), together
                )
                optimiser.step(torch._foreach_mul(step, many) if many > 1 else step)
        if many > 1:
            for index, net in enumerate(nets):
                net.load_state_dict({name: tensor[index] for name, tensor in {**stacked, **buffers}.items()})
        return copy.deepcopy(nets) if many == 1 and self.compiled else nets


PROTOCOLS = {"synset": Protocol, "relabel": Relabel}


@dataclasses.dataclass(frozen=True)
class Scores:
    """Test accuracies in percent after the last epoch, one a network; sd is the sample standard deviation (n - 1). `best`: those of each
    network's best epoch, chosen on the test set, where the protocol was asked to look (`Relabel.every`)."""

    scores: tuple[float, ...]
    seeds: tuple[int, ...]
    per_class: int
    stored_numbers: int
    seconds: float
    controls: dict[str, "Scores"] = dataclasses.field(default_factory=dict)
    best: tuple[float, ...] = ()

    @property
    def n(self) -> int:
        return len(self.scores)

    @property
    def mean(self) -> float:
        return sum(self.scores) / self.n

    @property
    def sd(self) -> float:
        return (
            math.sqrt(sum((score - self.mean) ** 2 for score in self.scores) / (self.n - 1))
            if self.n > 1
            else float("nan")
        )

    def result(self) -> dict:
        """What a record keeps of them."""
        return {
            "scores": list(self.scores),
            "accuracy": round(self.mean, 4),
            "evaluate_seconds": round(self.seconds, 3),
        } | ({"best": list(self.best)} if self.best else {})

    def to_dict(self) -> dict:
        sd = None if self.n < 2 else round(self.sd, 4)
        found = {
            "mean": round(self.mean, 4),
            "sd": sd,
            "n": self.n,
            "scores": list(self.scores),
            "seeds": list(self.seeds),
            "images_per_class": self.per_class,
            "stored_numbers": self.stored_numbers,
            "seconds": round(self.seconds, 3),
        }
        return found | (
            {"controls": {name: scores.to_dict() for name, scores in self.controls.items()}}
            if self.controls
            else {}
        )

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.sd:.1f} (n = {self.n})" if self.n > 1 else f"{self.mean:.1f} (n = 1)"


def evaluate(
    synthetic: Synthetic,
    data: Dataset,
    *,
    seeds: Iterable[int] = range(5),
    controls: Iterable[str] = (),
    protocol: str = "synset",
    **settings,
) -> Scores:
    """Test accuracy of networks trained on `synthetic`, one a seed, by `PROTOCOLS[protocol](**settings)`.

    `controls` names baselines (`ddcore.evaluation.coresets.NAMES`) of the same cost in stored numbers, evaluated by the same protocol
    and seeds. Raises BadInput for a set of other images or classes than `data`.
    """
    one_of("evaluate", PROTOCOLS, protocol=protocol)
    how, seeds = build(PROTOCOLS[protocol], settings, "evaluate"), tuple(seeds)
    if not seeds:
        raise BadInput("evaluate: no seeds given; at least one is needed")
    if synthetic.shape != data.shape or synthetic.classes != data.classes:
        raise BadInput(
            f"evaluate: the set holds {synthetic.classes} classes of {synthetic.shape} images, but {data.name} has "
            f"{data.classes} of {data.shape}"
        )
    if not synthetic.normalised_as(data):
        raise BadInput(
            f"evaluate: the set's numbers stand for {synthetic.settings['dataset']} images as normalised or whitened there, and "
            f"{data.name} is otherwise; name the dataset that it was made from"
        )
    others = {}
    for name in controls:
        control = baseline(
            name,
            data,
            synthetic.settings["budget_ipc"],
            rank=synthetic.settings.get("rank", 2),
            network=how.network,
            width=how.width,
            seed=seeds[0],
        )
        others[name] = evaluate(control, data, seeds=seeds, protocol=protocol, **settings)
    began = time.perf_counter()
    images, targets = synthetic.training_images(), synthetic.targets().detach()
    if synthetic.step_size is not None and isinstance(how, Protocol):
        how = dataclasses.replace(how, lr=float(synthetic.step_size.detach()))
    groups = _groups(
        seeds, how.at_once or (1 if data.device.type == "cpu" else how.networks_at_once(data, len(images)))
    )
    best = dict.fromkeys(seeds, 0.0)

    def watch(seed: int, network: Network) -> None:
        best[seed] = max(best[seed], accuracy(network, data))

    watched = {"watch": watch} if getattr(how, "every", 0) else {}
    scores = [
        accuracy(network, data)
        for group in groups
        for network in how.train(images, targets, data, group, **watched)
    ]
    bests = tuple(map(max, scores, best.values())) if watched else ()
    return Scores(
        tuple(scores),
        seeds,
        synthetic.per_class,
        synthetic.stored_numbers,
        time.perf_counter() - began,
        others,
        bests,
    )


def network_seeds(seed: int, many: int) -> list[int]:
    """The seeds of the `many` networks that an experiment of this seed trains: no two experiments share one."""
    return [seed * 1000 + index for index in range(many)]


def _groups(seeds: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


def _network(kind: tuple, generator: torch.Generator) -> Network:
    name, shape, classes, width, device, dtype = kind
    return networks.build(name, shape, classes, width=width, device=device, dtype=dtype, generator=generator)


def _forward(kind: tuple, precision: str, compiled: bool) -> tuple[Network, Callable[[Tensor], Tensor]]:
    net = _network(kind, stream(0, "evaluate", "to be initialised", device=kind[4]))
    return net, compute.accelerate(net, kind[4], precision=precision, compiled=compiled)


# A compiled network is kept and initialised anew for each training: another module would be compiled anew.
_kept = functools.lru_cache(maxsize=8)(_forward)


@torch.no_grad()
def right_by_class(network: Network, data: Dataset) -> Tensor:
    """(classes,) how many test images of each class `network`, in eval mode, gives their label."""
    network.eval()
    size = compute.chunk(network, data.shape)
    right = torch.cat(
        [
            network(x).argmax(1) == y
            for x, y in zip(data.x_test.split(size), data.y_test.split(size), strict=True)
        ]
    )
    return torch.bincount(data.y_test[right], minlength=data.classes)


def accuracy(network: Network, data: Dataset) -> float:
    """Percent of the test images that `network`, in eval mode, gives their label."""
    return round(100 * float(right_by_class(network, data).sum()) / len(data.y_test), 4)

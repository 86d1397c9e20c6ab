"""The contract between methods, plugins and the loop: one `Match` for each update of the synthetic set."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.networks import Network
from ddcore.synthetic import Synthetic

Look = Callable[[Network, Tensor, Tensor, torch.Generator], Network]


class Features(Sequence):
    """The tuple `features(images)`, found when it is first looked at: for methods whose own loss reads no features."""

    def __init__(self, features: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor):
        self._find = functools.cache(lambda: features(images))

    def __getitem__(self, index):
        return self._find()[index]

    def __len__(self) -> int:
        return len(self._find())


@dataclasses.dataclass(frozen=True)
class Match:
    """What one update looks at: networks, batches, labels, the features of every block (computed once), and the loss.

    `network` reads the real side and `student` the synthetic side; they are the same one unless the method has two, or several students.
    The real features carry no tape; the synthetic ones, and `loss` (a scalar), are differentiable in the stored numbers.
    """

    step: int
    network: Network
    student: Network
    real: Tensor
    synthetic: Tensor
    real_labels: Tensor
    synthetic_labels: Tensor
    real_features: Sequence[Tensor]
    synthetic_features: Sequence[Tensor]
    loss: Tensor


class Method(Protocol):
    """Yields a `Match` for step `start`, `start + 1`, ...; every draw derives from (seed, name, step)."""

    version: int

    def matches(self, data: Dataset, synthetic: Synthetic, *, seed: int, start: int, look: Look, memory: dict[str, Tensor]
                ) -> Iterator[Match]:
        """`look(network, real batch, its labels, generator)` is the network to look through: the plugins' `adjust`, in their order;
        `unadjusted` itself where no plugin has one.

        `memory` is empty, or what the method had left in it when a checkpoint was saved: what it needs to go on from `start`.
        """


class Plugin(Protocol):
    """What can be added to any method; a plugin has at least one of these two, and never knows which method runs."""

    def adjust(self, network: Network, batch: Tensor, labels: Tensor, generator: torch.Generator) -> Network:
        """The network to look through instead of `network`: another one of its form, or itself, in either case `network` unchanged."""

    def loss(self, match: Match, memory: dict[str, Tensor]) -> Tensor:
        """A scalar to add to `match.loss`. `memory` is the plugin's own: empty at first, kept between steps and in checkpoints."""


def unadjusted(network: Network, batch: Tensor, labels: Tensor, generator: torch.Generator) -> Network:
    """`look` without plugins."""
    return network

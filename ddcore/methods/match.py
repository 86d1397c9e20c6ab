"""The contract between methods, plugins and the loop: one `Match` for each update of the synthetic set."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ddcore import augment, compute
from ddcore.data import Dataset
from ddcore.networks import Network
from ddcore.synthetic import Synthetic

Look = Callable[[Network, Tensor, Tensor, torch.Generator], Network]
Read = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Real images drawn for one step, sorted by class: made when they are asked for, so that they are never all in memory.

    index: (n,) into the training set; sizes: how many of each class; drawn: their augmentation, one group a class, or None.
    """

    data: Dataset
    index: Tensor
    sizes: tuple[int, ...]
    drawn: augment.Draw | None = None

    def __len__(self) -> int:
        return len(self.index)

    @functools.cached_property
    def labels(self) -> Tensor:
        """(n,) on the device of the data."""
        return self.data.y_train[self.index]

    def images(self, rows: slice = slice(None)) -> Tensor:
        """(k, C, H, W), those of `rows`."""
        images = self.data.x_train[self.index[rows]]
        return images if self.drawn is None else augment.apply(self.drawn, images, self.labels[rows])

    def parts(self, size: int, rows: slice = slice(None)) -> Iterator[tuple[slice, Tensor]]:
        """Chunks of at most `size` images of `rows`, and which of all images each holds. They are drawn, and augmented, several chunks at
        a time, which costs less than one by one and little memory."""
        first, last, _ = rows.indices(len(self))
        for drawn in compute.slices(last - first, compute.HELD * size):
            images = self.images(slice(first + drawn.start, first + drawn.stop))
            for part in compute.slices(len(images), size):
                yield slice(first + drawn.start + part.start, first + drawn.start + part.stop), images[part]


class Features(Sequence):
    """The features of every block, found when they are first looked at; what is read of them can be had without holding them all."""

    def __init__(
        self,
        read_all: Callable[[Read], tuple[Tensor, ...]],
        known: Sequence[tuple[Read, tuple[Tensor, ...]]] = (),
    ):
        """`read_all(read)`: the tensors of `read(features of every block)`, taken chunk by chunk and joined over the images; `known`:
        what is known of that already."""
        self._read_all, self._known = read_all, known
        self._whole = functools.cache(lambda: read_all(tuple))

    @classmethod
    def of(cls, features: Callable[[Tensor], Sequence[Tensor]], images: Tensor, size: int) -> "Features":
        """Those of `images` (n, C, H, W), `size` of them at a time, with their tape where gradients are recorded."""
        return cls(lambda read: compute.in_chunks(lambda part: read(features(part)), images, size))

    def rows(self, read: Read) -> tuple[Tensor, ...]:
        return next((rows for one, rows in self._known if one == read), None) or self._read_all(read)

    def __getitem__(self, index):
        return self._whole()[index]

    def __len__(self) -> int:
        return len(self._whole())


@dataclasses.dataclass(frozen=True)
class Match:
    """What one update looks at: networks, batches, labels, the features of every block, and the loss.

    `network` reads the real side and `student` the synthetic side; they are the same one unless the method has two, or several students.
    The real features carry no tape; the synthetic ones, and `loss` (a scalar), are differentiable in the stored numbers.
    """

    step: int
    network: Network
    student: Network
    batch: Batch
    synthetic: Tensor
    synthetic_labels: Tensor
    real_features: Sequence[Tensor]
    synthetic_features: Sequence[Tensor]
    loss: Tensor

    @property
    def real(self) -> Tensor:
        """(n, C, H, W): all real images of the step, drawn anew at each call."""
        return self.batch.images()

    @property
    def real_labels(self) -> Tensor:
        """(n,)"""
        return self.batch.labels

    def read(self, read: Read) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """`read(features of every block)`, tensors with the images in their first dimension, of all real and of all synthetic images.

        `read` sees a chunk of images at a time, so that the features of all of them are never in memory.
        """
        real, synthetic = (
            side.rows(read) if isinstance(side, Features) else read(side)
            for side in (self.real_features, self.synthetic_features)
        )
        return real, synthetic


class Method(Protocol):
    """Yields a `Match` for step `start`, `start + 1`, ...; every draw derives from (seed, name, step)."""

    version: int

    def matches(
        self,
        data: Dataset,
        synthetic: Synthetic,
        *,
        seed: int,
        start: int,
        look: Look,
        memory: dict[str, Tensor],
        reads: Sequence[Read],
    ) -> Iterator[Match]:
        """`look(network, real batch, its labels, generator)` is the network to look through: the plugins' `adjust`, in their order;
        `unadjusted` itself where no plugin has one.

        `memory` is empty, or what the method had left in it when a checkpoint was saved: what it needs to go on from `start`.
        `reads`, given only if there are any: what plugins will ask `Match.read` for, so that it can be taken as the real images pass
        the network.
        """


class Plugin(Protocol):
    """What can be added to any method; a plugin has `adjust`, or `loss`, or both, and never knows which method runs."""

    def adjust(self, network: Network, batch: Tensor, labels: Tensor, generator: torch.Generator) -> Network:
        """The network to look through instead of `network`: another one of its form, or itself, in either case `network` unchanged."""

    def loss(self, match: Match, memory: dict[str, Tensor]) -> Tensor:
        """A scalar to add to `match.loss`. `memory` is the plugin's own: empty at first, kept between steps and in checkpoints."""

    def read(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Optional: what `loss` reads of the features of every block, by `match.read(self.read)`. Without it `match.real_features`
        gives them whole, after another pass."""


def unadjusted(network: Network, batch: Tensor, labels: Tensor, generator: torch.Generator) -> Network:
    """`look` without plugins."""
    return network


def looked_through(look: Look, network: Network, batch: Batch, generator: torch.Generator) -> Network:
    """`look` at a batch, which is drawn only where a plugin looks at it."""
    return network if look is unadjusted else look(network, batch.images(), batch.labels, generator)


@torch.no_grad()
def in_parts(
    read: Read, features: Callable[[Tensor], Sequence[Tensor]], batch: Batch, size: int
) -> tuple[Tensor, ...]:
    """`read(features)` of the images of `batch`, `size` of them drawn at a time, joined."""
    parts = [read(features(images)) for _, images in batch.parts(size)]
    return tuple(map(torch.cat, zip(*parts, strict=True)))

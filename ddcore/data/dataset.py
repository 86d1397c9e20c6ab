"""A dataset: two splits of images sorted by class, known by the sha256 of their content."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ddcore.data.images import Images, part
from ddcore.data.zca import Whitening
from ddcore.errors import BadInput
from ddcore.random import stream


@dataclasses.dataclass(frozen=True)
class Dataset:
    """x: (N, C, H, W), normalised by `mean` and `std` a channel as it is drawn (`ddcore.data.images`), or a tensor of such numbers;
    y: (N,) int64, sorted; both on `device`.

    `whitening`: what x is whitened by, if it is (`ddcore.data.whitening`); its inverse gives what `mean` and `std` speak of. `notes`: what
    was left out, changed or chosen as the dataset was read, a sentence each.
    """

    name: str
    x_train: Images | Tensor
    y_train: Tensor
    x_test: Images | Tensor
    y_test: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    class_names: tuple[str, ...]
    whitening: Whitening | None = None
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return tuple(self.x_train.shape[1:])

    @property
    def device(self) -> torch.device:
        return self.x_train.device

    @functools.cached_property
    def counts(self) -> Tensor:
        """(classes,) number of training images of each class."""
        return torch.bincount(self.y_train, minlength=self.classes)

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """`counts` as whole numbers of Python: a GPU is waited for once."""
        return tuple(self.counts.tolist())

    def batch(self, index: Tensor | slice) -> Tensor:
        """(n, C, H, W): the training images of `index`, drawn."""
        return self.x_train[index]

    def class_images(self, label: int) -> Images | Tensor:
        """(n_c, C, H, W): the training images of one class, not drawn yet where they are stored."""
        start = sum(self.sizes[:label])
        return part(self.x_train, slice(start, start + self.sizes[label]))

    def need(self, per_class: int, why: str) -> None:
        """Raise BadInput if some class holds fewer than `per_class` training images."""
        fewest = min(self.sizes)
        if fewest < per_class:
            raise BadInput(
                f"{self.name}: class {self.class_names[self.sizes.index(fewest)]} has {fewest} training images, but {why} asks "
                f"for {per_class} a class"
            )

    def sample(self, per_class: int, generator: torch.Generator) -> Tensor:
        """(classes * per_class,) indices into the training set: each class without replacement, sorted by class."""
        self.need(per_class, "a sample")
        return self.sample_up_to(per_class, generator)[0]

    def sample_up_to(self, per_class: int, generator: torch.Generator) -> tuple[Tensor, tuple[int, ...]]:
        """As `sample`, but all of a class that holds fewer than `per_class`: the indices, and how many of them each class has."""
        keys = torch.rand(self.classes, max(self.sizes), generator=generator, device=self.device)
        keys.masked_fill_(torch.arange(keys.shape[1], device=self.device) >= self.counts[:, None], 2.0)
        starts, sizes = (
            self.counts.cumsum(0) - self.counts,
            tuple(min(per_class, size) for size in self.sizes),
        )
        index = keys.topk(max(sizes), largest=False).indices + starts[:, None]
        return index.flatten()[self._held(max(sizes), sizes)], sizes

    def _held(self, columns: int, sizes: tuple[int, ...]) -> Tensor | slice:
        """Where a flattened table of `columns` a class holds the first `sizes` of each."""
        if min(sizes) == columns:
            return slice(None)
        held = self._tables.get(sizes)
        if held is None:
            held = torch.cat([torch.arange(size) + row * columns for row, size in enumerate(sizes)]).to(
                self.device
            )
            self._tables[sizes] = held
        return held

    @functools.cached_property
    def _tables(self) -> dict[tuple[int, ...], Tensor]:
        return {}

    def holdout(self, fraction: float = 0.1, seed: int = 0) -> "Dataset":
        """The training set cut in two, a part of every class as `test`: where hyper-parameters are chosen."""
        if not 0 < fraction < 1:
            raise BadInput(f"holdout: fraction={fraction} must lie between 0 and 1")
        self.need(2, "holdout, which leaves an image on either side,")
        held = held_out(self.y_train, self.classes, fraction, stream(seed, "holdout", device=self.device))
        return self._part(
            f"holdout {fraction} {seed}",
            x_train=part(self.x_train, ~held),
            y_train=self.y_train[~held],
            x_test=part(self.x_train, held),
            y_test=self.y_train[held],
        )

    def only(self, classes: Sequence[int]) -> "Dataset":
        """The images of some classes, renumbered from 0 in the order given."""
        if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(range(self.classes)):
            raise BadInput(
                f"{self.name}: classes={list(classes)} must be at least one of 0 to {self.classes - 1}, each named once"
            )
        train, test = (
            [(y == label).nonzero().flatten() for label in classes] for y in (self.y_train, self.y_test)
        )
        y_train, y_test = (
            torch.cat([torch.full_like(rows, label) for label, rows in enumerate(split)])
            for split in (train, test)
        )
        return self._part(
            f"classes {','.join(map(str, classes))}",
            x_train=part(self.x_train, torch.cat(train)),
            y_train=y_train,
            x_test=part(self.x_test, torch.cat(test)),
            y_test=y_test,
            class_names=tuple(self.class_names[label] for label in classes),
        )

    def _part(self, tag: str, **changed) -> "Dataset":
        """A dataset of its own, by name and sha256."""
        sha256 = hashlib.sha256(f"{self.sha256} {tag}".encode()).hexdigest()
        return dataclasses.replace(self, name=f"{self.name} ({tag})", sha256=sha256, **changed)

    def to_pixels(self, images: Tensor) -> Tensor:
        """Normalised images back to [0, 1], clipped: for pictures only."""
        return to_pixels(images, self.mean, self.std, self.whitening)


def numbered(classes: int) -> tuple[str, ...]:
    """The names of classes that have none: '0', '1', and so on."""
    return tuple(map(str, range(classes)))


def unnormalised(
    images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], whitening: Whitening | None = None
) -> Tensor:
    """Normalised or whitened images (n, C, H, W) back to pixels, not clipped: real ones lie in [0, 1]."""
    images = whitening.invert(images.detach()) if whitening else images
    mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return images.detach() * std + mean


def to_pixels(
    images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], whitening: Whitening | None = None
) -> Tensor:
    return unnormalised(images, mean, std, whitening).clamp(0, 1)


def held_out(labels: Tensor, classes: int, fraction: float, generator: torch.Generator) -> Tensor:
    """(N,) bool: `fraction` of each class, chosen at random, at least one image of it and never all. labels: (N,)."""
    counts = torch.bincount(labels, minlength=classes)
    sizes = (counts * fraction).long().clamp(min=1).minimum(counts - 1)
    held = torch.zeros_like(labels, dtype=torch.bool)
    for label in range(classes):
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator, device=labels.device)
        held[members[order[: sizes[label]]]] = True
    return held

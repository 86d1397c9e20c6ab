"""DM: distribution matching (Zhao & Bilen, *Dataset Condensation with Distribution Matching*, WACV 2023).

Each step draws a fresh network psi and minimises sum_c || mean_{B real} psi(A(x)) - mean_{n'} psi(A(s)) ||^2 over penultimate
features (sum over features, no averaging). The published code embeds class by class; here images go through the network in chunks
(`ddcore.compute`), whatever their class, and sums are taken by class, which is the same function of the same numbers.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore import augment, compute, networks
from ddcore.data import Dataset
from ddcore.kernels.class_means import class_mean_distance
from ddcore.methods.known_gradient import known
from ddcore.methods.match import Batch, Features, Look, Match, Read, in_parts, looked_through, unadjusted
from ddcore.networks import Network
from ddcore.random import stream
from ddcore.settings import later, one_of, positive
from ddcore.synthetic import Synthetic


@dataclasses.dataclass(frozen=True)
class DM:
    """Published setting: ConvNet-3 of width 128, 256 real images a class, Siamese augmentation by DSA's full strategy.

    `precision`, `compiled` and `chunk`, the most images that pass the network at once, say how it is computed (`ddcore.compute`):
    'bfloat16' is not the exact mode. A class with fewer images than `batch_real` gives all it has.
    """

    version: ClassVar[int] = 1

    network: str = "convnet"
    width: int | None = None
    batch_real: int = 256
    strategy: str = augment.DSA
    precision: str = "float32"
    compiled: bool = False
    chunk: int | None = later(None)

    def __post_init__(self):
        positive("DM", batch_real=self.batch_real, chunk=self.chunk)
        one_of("DM", compute.PRECISIONS, precision=self.precision)
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
        device = data.device
        net = networks.build(
            self.network,
            data.shape,
            data.classes,
            width=self.width,
            device=device,
            dtype=data.x_train.dtype,
            generator=stream(seed, "dm", "network", start, device=device),
        ).requires_grad_(False)
        embed = compute.accelerate(
            lambda seen, images: seen.features(images),
            device,
            precision=self.precision,
            compiled=self.compiled,
        )
        size = self.images_at_once(net, data, synthetic)
        for step in itertools.count(start):
            networks.initialise(net, stream(seed, "dm", "network", step, device=device))
            index, sizes = data.sample_up_to(self.batch_real, stream(seed, "dm", "real", step, device=device))
            drawn = augment.draw(
                self.strategy, data.classes, stream(seed, "dm", "augment", step, device=device)
            )
            batch = Batch(data, index, sizes, drawn)
            fake = augment.apply(drawn, synthetic.images(), synthetic.labels)
            seen = looked_through(look, net, batch, stream(seed, "dm", "look", step))
            features = functools.partial(embed, seen)
            means, of_real = class_means_of(features, batch, size, reads)
            loss = distance(features, fake, means, size)
            yield Match(
                step,
                seen,
                seen,
                batch,
                fake,
                synthetic.labels,
                of_real,
                Features.of(features, fake, size),
                loss,
            )

    def images_at_once(self, network: Network, data: Dataset, synthetic: Synthetic) -> int:
        """Images that pass `network` together: a chunk, or all where a batch norm takes its statistics from them."""
        all_of_them = max(sum(min(self.batch_real, size) for size in data.sizes), len(synthetic.labels))
        return compute.chunk(
            network,
            data.shape,
            self.chunk,
            compiled=self.compiled,
            whole=1 if compute.divisible(network) else all_of_them,
        )


@torch.no_grad()
def class_means_of(
    features: Callable[[Tensor], Sequence[Tensor]], batch: Batch, size: int, reads: Sequence[Read] = ()
) -> tuple[Tensor, Features]:
    """(classes, F) means of the penultimate features of the images of each class, at least float32, from sums over chunks of `size`
    images; and the features of all blocks, of which `reads` are taken in the same pass."""
    sums, rows, classes = 0, [[] for _ in reads], len(batch.sizes)
    for part, images in batch.parts(compute.evenly(len(batch), size)):
        found = features(images)
        embedded = found[-1].flatten(1)
        embedded = embedded.to(torch.promote_types(embedded.dtype, torch.float32))
        sums = sums + F.one_hot(batch.labels[part], classes).to(embedded).T @ embedded
        for read, parts in zip(reads, rows, strict=True):
            parts.append(read(found))
    known = [
        (read, tuple(map(torch.cat, zip(*parts, strict=True))))
        for read, parts in zip(reads, rows, strict=True)
    ]
    of_real = Features(lambda read: in_parts(read, features, batch, size), known)
    return sums / sums.new_tensor(batch.sizes)[:, None], of_real


def distance(
    features: Callable[[Tensor], Sequence[Tensor]], fake: Tensor, means: Tensor, size: int
) -> Tensor:
    """sum_c |mean of class c of `fake` - means[c]|^2 over penultimate features, for images (n, C, H, W) sorted by class, equally many a
    class. The classes share no number, so its gradient is found for as many classes at once as there are in a chunk, and kept."""
    classes = len(means)
    per_class = len(fake) // classes
    together = compute.evenly(classes, max(1, size // per_class))
    total, gradient = means.new_zeros(()), torch.empty_like(fake)
    labels, own = (
        torch.arange(together, device=fake.device).repeat_interleave(many) for many in (per_class, 1)
    )
    for group in compute.slices(classes, together):
        rows, many = slice(group.start * per_class, group.stop * per_class), group.stop - group.start
        with torch.enable_grad():
            part = fake.detach()[rows].requires_grad_()
            (embedded,) = compute.in_chunks(lambda images: features(images)[-1:], part, size)
            loss = class_mean_distance(
                embedded.flatten(1), labels[: len(part)], means[group], own[:many], many
            )
            (gradient[rows],) = torch.autograd.grad(loss, part)
        total = total + loss.detach()
    return known(total, [fake], [gradient])

"""SRe2L's recover: images that a trained network knows, with the batch statistics that it keeps (Yin, Xing & Shen, *Squeeze,
Recover and Relabel*, NeurIPS 2023).

A batch holds one image a class. Its loss is the cross-entropy of the network in eval mode plus r_bn * sum_l w_l
(||mu_l - mu_hat_l||_2 + r_var ||sigma2_l - sigma2_hat_l||_2): mean and biased variance of each channel of a batch norm's input
against its running ones, w = `first_bn` for the first and 1 for the others. The published code recovers the batches one after
another; here as many as fit go through the network at once, statistics taken batch by batch, and the loss is the sum of theirs, which
share no number. Where plugins adjust the weights, every batch has a network of its own. The published optimiser is a setting of the
loop: `distill(..., optimiser="adam", lr_img=0.25, momentum=0.5, schedule="cosine")` on `Pixels(init="noise", clip=True)`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore import compute
from ddcore.augment import crops
from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.kernels.statistics import channel_moments, channel_moments_reference, statistics_loss
from ddcore.methods import squeeze
from ddcore.methods.batch_norms import recorded
from ddcore.methods.known_gradient import known
from ddcore.methods.match import Batch, Features, Look, Match, Read, in_parts, unadjusted
from ddcore.methods.several import InTurn, Several, batches, each, joined
from ddcore.methods.squeeze import Squeeze
from ddcore.networks import Network
from ddcore.random import stream
from ddcore.settings import later, one_of, positive
from ddcore.synthetic import Synthetic, beginnings

REAL_BATCHES = ("init", "other")
THROUGH = ("adjusted", "teacher")


@dataclasses.dataclass(frozen=True)
class SRe2L:
    """Published setting for CIFAR. The j-th images of the classes are batch j; each is rolled by its own 0 to `roll` pixels down
    and right in every step. `teacher`, `seed_teacher`: the network (`ddcore.methods.squeeze`), the same one for every seed of the images.

    Published for ImageNet: `roll` 32, and before it a random resized crop of at least `crop_scale` = 0.08 of the images and, by chance,
    their mirror images (`flip`), one draw a batch and step; a batch holds `block` = 100 of the classes (0: all), so that the j-th images of
    the next 100 are a batch of their own, with its own draws and weights.

    SRe2L looks at no real image: with batch_real=0 the real side of its matches is empty, features included, and costs nothing;
    a plugin that compares with real features asks for `batch_real` images a class, drawn anew each step.

    A plugin that adjusts the weights does so before the first step, for every batch anew, by a real image of each class, rolled as the
    batch is in step 0. `batch` says which: 'init', as published, those that `Pixels` with init 'real' begins the batch with; 'other',
    random ones. `Match.network` is then the teacher, which reads the real side, and `Match.student` all the adjusted networks.
    `statistics_through` says whose inputs of batch norms are matched: 'adjusted', as in DWA's released code, those of the pass that the
    cross-entropy is taken from; 'teacher', as its Eq. 15 is printed, those of the teacher as it was, in a pass of its own. Without such a
    plugin both are the same pass.

    `at_once`: batches computed together; 0 for as many as there are in a chunk (`chunk`, images, `ddcore.compute`), but for one where they
    have networks of their own and a CPU, on which stacked weights were measured no faster. With 1 the bits of a batch do not depend on how
    many there are.
    """

    version: ClassVar[int] = 1
    versions: ClassVar[dict[str, int]] = squeeze.VERSIONS

    teacher: Squeeze = dataclasses.field(default_factory=Squeeze)
    r_bn: float = 0.01
    r_var: float = 1.0
    first_bn: float = 10.0
    roll: int = 4
    batch_real: int = 0
    precision: str = "float32"
    compiled: bool = False
    seed_teacher: int = 0
    batch: str = later("init")
    at_once: int = later(0)
    chunk: int | None = later(None)
    crop_scale: float = later(1.0)
    flip: bool = later(False)
    block: int = later(0)
    statistics_through: str = later("adjusted")

    def __post_init__(self):
        for name in ("r_bn", "r_var", "first_bn", "roll", "batch_real", "at_once", "block"):
            if getattr(self, name) < 0:
                raise BadInput(f"SRe2L: {name}={getattr(self, name)} must not be below 0")
        positive("SRe2L", chunk=self.chunk)
        crops.check("SRe2L", 0, self.crop_scale)
        one_of("SRe2L", compute.PRECISIONS, precision=self.precision)
        one_of("SRe2L", REAL_BATCHES, batch=self.batch)
        one_of("SRe2L", THROUGH, statistics_through=self.statistics_through)

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
        device, first, many = data.device, synthetic.first, synthetic.per_class
        teacher = squeeze.squeeze(data, self.teacher, self.seed_teacher)
        accelerate = functools.cache(
            functools.partial(compute.accelerate, at=device, precision=self.precision, compiled=self.compiled)
        )
        size = self.images_at_once(teacher, data, synthetic)

        blocks = torch.arange(data.classes, device=device).split(self.block or data.classes)
        rows = [len(classes) * many for classes in blocks]

        def views(step: int) -> list[crops.View]:
            return [
                self._views(step, seed, first + many, data, block).of(slice(first, None)).to(device)
                for block in range(len(blocks))
            ]

        seen = [[teacher] * many] * len(blocks)
        if look is not unadjusted:
            seen = self._adjusted(data, synthetic, teacher, look, seed, blocks, views(0))
        students = [
            teacher if all(one is teacher for one in of_block) else Several(of_block) for of_block in seen
        ]
        student = students[0] if all(one is students[0] for one in students) else InTurn(students, rows)
        apart = teacher if self.statistics_through == "teacher" else None
        objectives = [
            self.in_groups(of_block, len(classes), accelerate, size, apart)
            for of_block, classes in zip(seen, blocks, strict=True)
        ]
        place = torch.arange(max(rows), device=device) % many
        for step in itertools.count(start):
            if self.batch_real:
                batch = Batch(
                    data,
                    *data.sample_up_to(self.batch_real, stream(seed, "sre2l", "real", step, device=device)),
                )
                of_real = Features(lambda read, batch=batch: in_parts(read, teacher.features, batch, size))
            else:
                batch, of_real = Batch(data, torch.arange(0, device=device), (0,) * data.classes), ()
            parts = synthetic.images().split(rows)
            parts = [
                view.of(place[: len(part)]).through(part)
                for view, part in zip(views(step), parts, strict=True)
            ]
            losses = [
                loss(part, labels)
                for loss, part, labels in zip(objectives, parts, synthetic.labels.split(rows), strict=True)
            ]
            images = torch.cat(parts) if len(parts) > 1 else parts[0]
            yield Match(
                step,
                teacher,
                student,
                batch,
                images,
                synthetic.labels,
                of_real,
                Features(functools.partial(self._read, student, images, size)),
                sum(losses[1:], losses[0]),
            )

    def images_at_once(self, network: Network, data: Dataset, synthetic: Synthetic) -> int:
        """Images that pass a network together: at least one batch, whose statistics are matched."""
        return compute.chunk(
            network,
            data.shape,
            self.chunk,
            whole=min(self.block or data.classes, data.classes),
            compiled=self.compiled,
        )

    @staticmethod
    def _read(student: Network, images: Tensor, size: int, read: Read) -> tuple[Tensor, ...]:
        """`read(features)` of all synthetic images, each through its own network: in eval mode they are features of single images."""
        if isinstance(student, InTurn):
            found = [
                SRe2L._read(one, part, size, read)
                for one, part in zip(student.networks, images.split(student.sizes), strict=True)
            ]
            return tuple(map(torch.cat, zip(*found, strict=True)))
        if not isinstance(student, Several):
            return compute.in_chunks(lambda part: read(student.features(part)), images, size)
        found = [
            compute.in_chunks(lambda part, network=network: read(network.features(part)), own, size)
            for network, own in zip(student.networks, batches(images, len(student.networks)), strict=True)
        ]
        return tuple(joined(parts) for parts in zip(*found, strict=True))

    def _views(self, step: int, seed: int, many: int, data: Dataset, block: int) -> crops.View:
        """One a batch of the block, drawn on the CPU row by row, so that a batch is seen alike however many there are, on every device."""
        roll, flip, crop = (
            stream(seed, "sre2l", name, step, *[block] * (block > 0)) for name in ("roll", "flip", "crop")
        )
        shift = torch.randint(self.roll + 1, (many, 2), generator=roll)
        mirrored = torch.rand(many, generator=flip) < 0.5 if self.flip else None
        windows = (
            crops.windows(many, data.shape[1:], crop, scale=self.crop_scale) if self.crop_scale < 1 else None
        )
        return crops.View(shift, mirrored, windows)

    def _adjusted(
        self,
        data: Dataset,
        synthetic: Synthetic,
        teacher: Network,
        look: Look,
        seed: int,
        blocks: Sequence[Tensor],
        views: Sequence[crops.View],
    ) -> list[list[Network]]:
        """The network of every batch, by blocks of classes, which depends on no other batch, and not on the step at which a run goes on."""
        first, count = synthetic.first, synthetic.first + synthetic.per_class
        if self.batch == "init":
            index = beginnings(data, count, synthetic.settings.get("seed", seed))
        else:
            index = data.sample(count, stream(seed, "sre2l", "other", device=data.device))
        return [
            [
                look(
                    teacher,
                    view.of(torch.full_like(rows, place - first)).through(data.x_train[rows]),
                    data.y_train[rows],
                    stream(seed, "sre2l", "look", place, *[block] * (block > 0)),
                )
                for place, rows in enumerate(batches(index, count)[first:, classes], first)
            ]
            for block, (classes, view) in enumerate(zip(blocks, views, strict=True))
        ]

    def in_groups(
        self,
        seen: Sequence[Network],
        classes: int,
        accelerate: Callable,
        size: int,
        apart: Network | None = None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """(images, labels) -> the loss, batch j through network j, summed over the batches; statistics through `apart`, if it is given.

        They share no number: the gradient is found for as many at once as there are in a chunk of `size` images, at least one, and kept.
        """
        many, same = len(seen), all(one is seen[0] for one in seen)
        alone = not same and next(seen[0].parameters()).device.type == "cpu"
        together = self.at_once or (1 if alone else compute.evenly(many, max(1, size // classes)))
        if same and apart in (None, seen[0]):
            whole = accelerate(self.objective)
            groups = [
                lambda parts, labels: [
                    whole(seen[0], joined(parts), labels.repeat_interleave(len(parts)), len(parts))
                ]
            ] * many
        elif apart is None:
            one = self._alone if together == 1 else self._stacked
            groups = [each(one, seen[part], accelerate) for part in compute.slices(many, together)]
        else:
            matched = accelerate(self._statistics)
            groups = [
                self._apart(
                    each(self._cross_entropy, seen[part], accelerate), functools.partial(matched, apart)
                )
                for part in compute.slices(many, together)
            ]

        def objective(images: Tensor, labels: Tensor) -> Tensor:
            total, gradient = (
                images.new_zeros((), dtype=torch.promote_types(images.dtype, torch.float32)),
                torch.empty_like(images),
            )
            into = batches(gradient, many)
            for group, part in zip(groups, compute.slices(many, together), strict=False):
                with torch.enable_grad():
                    parts = batches(images.detach(), many)[part].clone().requires_grad_()
                    loss = torch.stack([one for (one,) in group(parts, labels[::many])]).sum()
                    (into[part],) = torch.autograd.grad(loss, parts)
                total = total + loss.detach()
            return known(total, [images], [gradient])

        return objective

    @staticmethod
    def _apart(crosses: Callable, matched: Callable) -> Callable[[Tensor, Tensor], list[tuple[Tensor]]]:
        """Both parts of the loss of the batches (m, n, ...), from passes of their own."""
        return lambda parts, labels: [*crosses(parts, labels), matched(joined(parts), len(parts))]

    def _alone(self, network: Network, images: Tensor, labels: Tensor) -> tuple[Tensor]:
        return self.objective(network, images, labels, 1)

    def _stacked(self, network: Network, images: Tensor, labels: Tensor) -> tuple[Tensor]:
        return self.objective(
            network, images, labels, 1, channel_moments_reference
        )  # the other forms have no rule for vmap

    def _cross_entropy(self, network: Network, images: Tensor, labels: Tensor) -> tuple[Tensor]:
        return (F.cross_entropy(network(images), labels),)

    def _statistics(self, network: Network, images: Tensor, many: int) -> tuple[Tensor]:
        with recorded() as inputs:
            network.features(images)
        return (self._matched(inputs, many),)

    def objective(
        self, network: Network, images: Tensor, labels: Tensor, many: int, moments: Callable = channel_moments
    ) -> tuple[Tensor]:
        """The loss, summed over the `many` batches; `moments` as in `statistics_loss`."""
        with recorded() as inputs:
            features = network.features(images)
        loss = F.cross_entropy(network.classifier(features[-1].flatten(1)), labels, reduction="sum") * (
            many / len(labels)
        )
        return (self._matched(inputs, many, loss, moments),)

    def _matched(
        self,
        inputs: Sequence[tuple[Tensor, Tensor, Tensor]],
        many: int,
        loss: Tensor | float = 0.0,
        moments: Callable = channel_moments,
    ) -> Tensor:
        """`loss` and the distances of the statistics of what the batch norms of a pass were given."""
        if not inputs:
            raise BadInput(
                "SRe2L: the network looked through has no batch norm, whose statistics it matches; use one that has"
            )
        for layer, (x, mean, var) in enumerate(inputs):
            term = statistics_loss(x, mean, var, many, self.r_var, moments=moments)
            loss = loss + self.r_bn * (1.0 if layer else self.first_bn) * term
        return loss

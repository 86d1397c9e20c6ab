"""Relabel: students trained on what a teacher says of each view of a synthetic image (Yin, Xing & Shen, *Squeeze, Recover and
Relabel*, NeurIPS 2023), the third stage of SRe2L and its protocol of evaluation.

As published for CIFAR: AdamW with a cosine to zero over the epochs, random crops and mirror images, mixup, and for each batch
KL(softmax(teacher / T) || softmax(student / T)) averaged over the batch, without a factor T^2. The labels are made anew in each
step and never stored: a set's stored numbers do not count the teacher, so a control must be given the same labels.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore import compute, networks
from ddcore.augment import crops, mixing
from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.methods import squeeze
from ddcore.methods.squeeze import Squeeze
from ddcore.networks import Network
from ddcore.optim import training
from ddcore.optim.adam import Adam
from ddcore.optim.sgd import cosine
from ddcore.random import stream
from ddcore.settings import later, one_of, positive

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Relabel:
    """Published setting for CIFAR. `teacher_mode`: 'train' labels with the statistics of the batch at hand, as published there,
    'eval' with those of the training set, as published for ImageNet. `labels`: 'hard' trains on the labels of the set instead,
    all else equal. `alpha`: 0.8 is published for mixup, 1 for cutmix. `crop`: pixels of padding, 0 for none; in its place, for ImageNet,
    `crop_scale`: the smallest part of an image that a random resized crop keeps, 0.08 published, 1 for none. `every`: epochs between two
    tests while a student is trained, for its best epoch beside its last (10 as published for CIFAR, which reports the best); 0 tests
    after the last alone.

    Students are trained one after another. `precision` and `compiled` hold for student and teacher.
    """

    at_once: ClassVar[int] = 1
    versions: ClassVar[dict[str, int]] = squeeze.VERSIONS | {"relabel": VERSION}

    network: str = "resnet18-bn"
    width: int | None = None
    epochs: int = 400
    batch: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.01
    temperature: float = 30.0
    mix: str = "mixup"
    alpha: float = 0.8
    crop: int = 4
    flip: bool = True
    labels: str = "soft"
    teacher: Squeeze = dataclasses.field(default_factory=Squeeze)
    teacher_mode: str = "train"
    precision: str = "float32"
    compiled: bool = False
    seed_teacher: int = 0
    every: int = later(0)
    crop_scale: float = later(1.0)

    def __post_init__(self):
        if self.every < 0:
            raise BadInput(
                f"relabel: every={self.every} must be 0, for no test before the end, or a number of epochs"
            )
        positive(
            "relabel",
            epochs=self.epochs,
            batch=self.batch,
            lr=self.lr,
            temperature=self.temperature,
            alpha=self.alpha,
        )
        crops.check("relabel", self.crop, self.crop_scale)
        one_of("relabel", mixing.MIXES, mix=self.mix)
        one_of("relabel", ("soft", "hard"), labels=self.labels)
        one_of("relabel", ("train", "eval"), teacher_mode=self.teacher_mode)
        one_of("relabel", compute.PRECISIONS, precision=self.precision)

    def train(
        self,
        images: Tensor,
        labels: Tensor,
        data: Dataset,
        seeds: tuple[int, ...],
        watch: Callable[[int, Network], None] | None = None,
    ) -> list[Network]:
        """One student a seed, each with its own initialisation, order and views; in training mode.

        images: (n, C, H, W); labels: (n,) classes or (n, classes) probabilities, which only 'hard' looks at. `watch(seed, student)` is
        called after each `every` epochs but the last, and may set the student's mode.
        """
        teacher = squeeze.squeeze(data, self.teacher, self.seed_teacher) if self.labels == "soft" else None
        return [_student(images, labels, data, seed, teacher, self, watch) for seed in seeds]


def soft_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)), a scalar: the sum over classes, the mean over the batch; no factor T^2.

    Its gradient in the student's logits is (softmax(student / T) - softmax(teacher / T)) / (T n).
    """
    return F.kl_div(
        F.log_softmax(logits / temperature, 1),
        F.softmax(teacher_logits / temperature, 1),
        reduction="batchmean",
    )


def labeller(teacher: Network, how: Relabel, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Images (n, C, H, W) -> logits (n, classes) of a copy of `teacher`, whose running statistics may then move, without a tape."""
    mine = copy.deepcopy(teacher).train(how.teacher_mode == "train")
    forward = compute.accelerate(lambda x: (mine(x),), device, precision=how.precision, compiled=how.compiled)
    sizes: dict[tuple[int, ...], int] = {}

    @torch.no_grad()
    def say(images: Tensor) -> Tensor:
        shape = images.shape
        if shape not in sizes:
            sizes[shape] = training.images_at_once(mine, shape[1:], len(images), compiled=how.compiled)
        return compute.in_chunks(forward, images, sizes[shape])[0]

    return say


def _student(
    images: Tensor,
    labels: Tensor,
    data: Dataset,
    seed: int,
    teacher: Network | None,
    how: Relabel,
    watch: Callable[[int, Network], None] | None = None,
) -> Network:
    device = images.device
    network = networks.build(
        how.network,
        data.shape,
        data.classes,
        width=how.width,
        device=device,
        dtype=images.dtype,
        generator=stream(seed, "relabel", "network", device=device),
    )
    generator = stream(seed, "relabel", "train", device=device)
    numbers = np.random.default_rng(stream(seed, "relabel", "mix").initial_seed())
    say = labeller(teacher, how, device) if teacher is not None else None
    forward = compute.accelerate(network, device, precision=how.precision, compiled=how.compiled)
    parameters, fill = list(network.parameters()), crops.black(data)
    size = training.images_at_once(network, data.shape, min(how.batch, len(images)), compiled=how.compiled)
    optimiser = Adam(parameters, lr=how.lr, weight_decay=how.weight_decay)
    for epoch in range(how.epochs):
        optimiser.lr = how.lr * cosine(epoch, how.epochs)
        for rows in squeeze.batches(len(images), how.batch, generator):
            view = images[rows]
            if how.crop_scale < 1:
                view = crops.resized(
                    view, crops.windows(len(rows), data.shape[1:], generator, scale=how.crop_scale)
                )
            view = crops.apply(crops.draw(len(rows), generator, pad=how.crop, flip=how.flip), view, fill)
            mixed = mixing.draw(how.mix, view, how.alpha, generator, numbers)
            view = mixing.apply(mixed, view)
            loss = _soft_part(say(view), how.temperature) if say else _hard_part(labels[rows], mixed)
            optimiser.step(training.gradient(forward, parameters, view, loss, size))
        if watch and how.every and (epoch + 1) % how.every == 0 and epoch + 1 < how.epochs:
            watch(seed, network)
            network.train()
    return network


def _soft_part(said: Tensor, temperature: float) -> training.Loss:
    def loss(logits: Tensor, rows: slice) -> Tensor:
        return soft_loss(logits, said[rows], temperature) * (len(logits) / len(said))

    return loss


def _hard_part(labels: Tensor, mixed: mixing.Mix | None) -> training.Loss:
    own = training.cross_entropy(labels)
    if mixed is None:
        return own
    partner = training.cross_entropy(labels[mixed.partner])
    return lambda logits, rows: mixed.share * own(logits, rows) + (1 - mixed.share) * partner(logits, rows)

"""DM: distribution matching (Zhao & Bilen, *Dataset Condensation with Distribution Matching*, WACV 2023).

Each step draws a fresh network psi and minimises sum_c || mean_{B real} psi(A(x)) - mean_{n'} psi(A(s)) ||^2 over penultimate
features (sum over features, no averaging). The published code embeds class by class; here all classes go
through the network at once and the means are taken by class, which is the same function of the same numbers.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ddcore import augment, compute, networks
from ddcore.data import Dataset
from ddcore.kernels.class_means import class_mean_distance
from ddcore.methods.match import Look, Match, unadjusted
from ddcore.random import stream
from ddcore.settings import one_of, positive
from ddcore.synthetic import Synthetic


@dataclasses.dataclass(frozen=True)
class DM:
    """Published setting: ConvNet-3 of width 128, 256 real images a class, Siamese augmentation by DSA's full strategy.

    `precision` and `compiled` say how the network is computed (`ddcore.compute`): 'bfloat16' is not the exact mode.
    """

    version: ClassVar[int] = 1

    network: str = "convnet"
    width: int | None = None
    batch_real: int = 256
    strategy: str = augment.DSA
    precision: str = "float32"
    compiled: bool = False

    def __post_init__(self):
        positive("DM", batch_real=self.batch_real)
        one_of("DM", compute.PRECISIONS, precision=self.precision)
        augment.families(self.strategy)

    def matches(self, data: Dataset, synthetic: Synthetic, *, seed: int, start: int = 0,
                look: Look = unadjusted, memory: dict[str, Tensor] | None = None) -> Iterator[Match]:
        data.need(self.batch_real, f"DM with batch_real={self.batch_real}")
        device = data.device
        net = networks.build(self.network, data.shape, data.classes, width=self.width, device=device, dtype=data.x_train.dtype,
                             generator=stream(seed, "dm", "network", start, device=device)).requires_grad_(False)
        embed = compute.accelerate(lambda seen, images: seen.features(images), device, precision=self.precision, compiled=self.compiled)
        for step in itertools.count(start):
            networks.initialise(net, stream(seed, "dm", "network", step, device=device))
            index = data.sample(self.batch_real, stream(seed, "dm", "real", step, device=device))
            drawn = augment.draw(self.strategy, data.classes, stream(seed, "dm", "augment", step, device=device))
            real_labels = data.y_train[index]
            real = augment.apply(drawn, data.x_train[index], real_labels)
            fake = augment.apply(drawn, synthetic.images(), synthetic.labels)
            seen = look(net, real, real_labels, stream(seed, "dm", "look", step))
            with torch.no_grad():
                real_features = embed(seen, real)
            fake_features = embed(seen, fake)
            embedded = (fake_features[-1].flatten(1), synthetic.labels, real_features[-1].flatten(1), real_labels)
            loss = class_mean_distance(*embedded, data.classes)
            yield Match(step, seen, seen, real, fake, real_labels, synthetic.labels, real_features, fake_features, loss)

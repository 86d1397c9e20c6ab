"""SRe2L's recover: images that a trained network knows, with the batch statistics that it keeps (Yin, Xing & Shen, *Squeeze,
Recover and Relabel*, NeurIPS 2023).

A batch holds one image a class. Its loss is the cross-entropy of the network in eval mode plus r_bn * sum_l w_l
(||mu_l - mu_hat_l||_2 + r_var ||sigma2_l - sigma2_hat_l||_2): mean and biased variance of each channel of a batch norm's input
against its running ones, w = `first_bn` for the first and 1 for the others. The published code recovers the batches one after
another; here all go through the network at once, statistics taken batch by batch, and the loss is the sum of theirs, which
share no number. The published optimiser is a setting of the loop: `distill(..., optimiser="adam", lr_img=0.25, momentum=0.5,
schedule="cosine")` on `Pixels(init="noise", clip=True)`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore import compute, crops, squeeze
from ddcore.batch_norms import recorded
from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.kernels.statistics import statistics_loss
from ddcore.methods.match import Match, unadjusted
from ddcore.networks import Network
from ddcore.random import stream
from ddcore.settings import one_of
from ddcore.squeeze import Squeeze
from ddcore.synthetic import Synthetic


@dataclasses.dataclass(frozen=True)
class SRe2L:
    """Published setting for CIFAR. The j-th images of the classes are batch j; each is rolled by its own 0 to `roll` pixels down
    and right in every step. `teacher`, `seed_teacher`: the network (`ddcore.squeeze`), the same one for every seed of the images.

    SRe2L looks at no real image: with batch_real=0 the real side of its matches is empty, features included, and costs nothing;
    a plugin that compares with real features asks for `batch_real` images a class, drawn anew each step.
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

    def __post_init__(self):
        for name in ("r_bn", "r_var", "first_bn", "roll", "batch_real"):
            if getattr(self, name) < 0:
                raise BadInput(f"SRe2L: {name}={getattr(self, name)} must not be below 0")
        one_of("SRe2L", compute.PRECISIONS, precision=self.precision)

    def matches(self, data: Dataset, synthetic: Synthetic, *, seed: int, start: int = 0,
                look: Callable[[Network, Tensor], Network] = unadjusted, memory: dict[str, Tensor] | None = None) -> Iterator[Match]:
        data.need(self.batch_real, f"SRe2L with batch_real={self.batch_real}")
        device, many = data.device, synthetic.per_class
        teacher = squeeze.squeeze(data, self.teacher, self.seed_teacher)
        how = {"precision": self.precision, "compiled": self.compiled}
        objective = compute.accelerate(lambda seen, images, labels: self.objective(seen, images, labels, many), device, **how)
        embed = compute.accelerate(lambda seen, images: seen.features(images), device, **how) if self.batch_real else None
        group = torch.arange(len(synthetic.labels), device=device) % many
        nothing = torch.arange(0, device=device)
        for step in itertools.count(start):
            # Drawn on the CPU row by row, so that a batch is rolled alike however many there are, on every device.
            shifts = torch.randint(self.roll + 1, (many, 2), generator=stream(seed, "sre2l", "roll", step)).to(device, non_blocking=True)
            index = data.sample(self.batch_real, stream(seed, "sre2l", "real", step, device=device)) if embed else nothing
            real = data.x_train[index]
            seen = look(teacher, real)
            with torch.no_grad():
                real_features = embed(seen, real) if embed else ()
            images = crops.roll(synthetic.images(), shifts[group])
            loss, *features = objective(seen, images, synthetic.labels)
            yield Match(step, seen, seen, real, images, data.y_train[index], synthetic.labels, real_features, tuple(features), loss)

    def objective(self, network: Network, images: Tensor, labels: Tensor, many: int) -> tuple[Tensor, ...]:
        """The loss, summed over the `many` batches, and the features of every block."""
        with recorded() as inputs:
            features = network.features(images)
        if not inputs:
            raise BadInput("SRe2L: the network looked through has no batch norm, whose statistics it matches; use one that has")
        loss = F.cross_entropy(network.classifier(features[-1].flatten(1)), labels, reduction="sum") * (many / len(labels))
        for layer, (x, mean, var) in enumerate(inputs):
            loss = loss + self.r_bn * (1.0 if layer else self.first_bn) * statistics_loss(x, mean, var, many, self.r_var)
        return loss, *features

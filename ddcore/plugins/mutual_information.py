"""MIM4DD: mutual information between the features of synthetic and real images, raised by a contrast of their labels (Shang, Yuan & Yan,
*MIM4DD: Mutual Information Maximization for Dataset Distillation*, NeurIPS 2023).

No code of it is public, and of the paper's numbers none could be read: this is our reconstruction from its abstract and figure, from
its authors' CMIM (ECCV 2022) and from CRD (Tian et al., ICLR 2020). Where CMIM keeps the features of all images in a bank, real
features here are those of the batch: most methods look through another network in every step, whose features are not comparable.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore.errors import BadInput
from ddcore.kernels.class_means import class_means
from ddcore.kernels.contrast import contrast
from ddcore.methods.match import Match
from ddcore.random import stream
from ddcore.settings import one_of, positive

CRITICS = ("nce", "infonce", "mean")
NEGATIVES = ("other classes", "all others")
NORMALISERS = ("running", "none")


@dataclasses.dataclass(frozen=True)
class MutualInformation:
    """weight * sum_k beta^(k - K + 1) L_k over the blocks k = 0 ... K - 1 of the network, or those of `layers`.

    L_k is the contrast (`ddcore.kernels.contrast`) of the block's features, flattened, projected to `width` numbers and of norm one.
    The projections are Gaussian, drawn from `seed` and never trained, as in CMIM: a learned one could satisfy the loss without the
    images. Positives are the real images of the same class, whose network is `Match.network` and that of the images `Match.student`.

    critic: 'nce', as published; 'infonce'; 'mean', -<u_i, class mean> / temperature, which is 'infonce' without its repulsion.
    negatives: 'other classes', as published, with which log N + mean log h is no lower bound of the mutual information; 'all others':
        every real image, the own class included, as the product of the marginals in the bound has it.
    normaliser of 'nce': 'running', the mean of exp(s) over the steps with weight 1 - `decay` on the newest, from the first batch on;
        'none', h = e^s / (e^s + N / M) with M the real images of the batch in place of the training set.
    """

    version: ClassVar[int] = 1

    weight: float = 0.1
    critic: str = "nce"
    negatives: str = "other classes"
    temperature: float = 0.1
    layers: tuple[int, ...] | None = None
    beta: float = 2.0
    width: int = 128
    normaliser: str = "running"
    decay: float = 0.99
    seed: int = 0

    def __post_init__(self):
        positive(
            "MutualInformation",
            weight=self.weight,
            temperature=self.temperature,
            beta=self.beta,
            width=self.width,
        )
        one_of("MutualInformation", CRITICS, critic=self.critic)
        one_of("MutualInformation", NEGATIVES, negatives=self.negatives)
        one_of("MutualInformation", NORMALISERS, normaliser=self.normaliser)
        if not 0 < self.decay < 1:
            raise BadInput(f"MutualInformation: decay={self.decay} must lie between 0 and 1")
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise BadInput(
                f"MutualInformation: layers={self.layers} must name blocks by numbers from 0 on; leave it None for all"
            )

    def loss(self, match: Match, memory: dict[str, Tensor]) -> Tensor:
        """The term of one match; `memory` holds the normaliser's logarithm, (layers,). Raises BadInput for a match it can't contrast."""
        sides, blocks = self._sides(match), len(match.network.blocks)
        layers = range(blocks) if self.layers is None else self.layers
        weights = sides[0].new_tensor([self.beta ** (layer + 1 - blocks) for layer in layers])
        return self.weight * weights @ self._losses(sides, memory)

    def information(self, match: Match) -> Tensor:
        """(layers,) estimates of the mutual information in nats, log N - InfoNCE over all real images: at most log classes if the batch
        has as many of each class. The mean over batches is a lower bound but for the bias of a finite N."""
        fake, *others = self._sides(match)
        found = contrast(fake.detach(), *others, temperature=self.temperature, critic="infonce", own=True)
        return found.log_h + math.log(len(match.real_labels))

    def read(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """(n, width) for each of the layers: their features projected, of norm one."""
        layers = range(len(features)) if self.layers is None else self.layers
        if max(layers) >= len(features):
            raise BadInput(
                f"MutualInformation: layers={self.layers}, but the network has {len(features)} blocks; name some of 0 to "
                f"{len(features) - 1}"
            )
        return tuple(self._embed(features[layer], layer) for layer in layers)

    def _sides(self, match: Match) -> tuple:
        classes = match.network.classifier.out_features
        if classes < 2:
            raise BadInput(
                "MutualInformation: one class has no other to contrast with; give two classes or more"
            )
        if not len(match.real_labels):
            raise BadInput(
                "MutualInformation: the match has no real images to contrast with; give the method a batch_real above 0"
            )
        real, fake = map(torch.stack, match.read(self.read))
        return fake, match.synthetic_labels, real, match.real_labels, classes

    def _embed(self, features: Tensor, layer: int) -> Tensor:
        flat = features.flatten(1)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        return F.normalize(
            flat @ projection(self.seed, layer, flat.shape[1], self.width, flat.device, flat.dtype)
        )

    def _losses(self, sides: list, memory: dict[str, Tensor]) -> Tensor:
        fake, labels, real, real_labels, classes = sides
        if self.critic == "mean":
            means = torch.stack([class_means(layer, real_labels, classes)[labels] for layer in real])
            return -(fake * means).sum(2).mean(1) / self.temperature
        how = {"temperature": self.temperature, "own": self.negatives == "all others"}
        if self.critic == "infonce":
            return contrast(*sides, critic="infonce", **how).loss
        if self.normaliser == "none":
            return contrast(*sides, log_z=fake.new_full((len(fake),), -math.log(real.shape[1])), **how).loss
        if "log_z" not in memory:
            memory["log_z"] = contrast(fake.detach(), *sides[1:], **how).log_mean_exp
        found = contrast(*sides, log_z=memory["log_z"], **how)
        memory["log_z"] = torch.logaddexp(
            memory["log_z"] + math.log(self.decay), found.log_mean_exp + math.log1p(-self.decay)
        )
        return found.loss


@functools.lru_cache(maxsize=8)
def projection(
    seed: int, layer: int, features: int, width: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(features, width) standard normal numbers, the same on every device."""
    return torch.randn(features, width, generator=stream(seed, "mutual information", "projection", layer)).to(
        device, dtype
    )

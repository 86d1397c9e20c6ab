"""DWA: directed weight adjustment (Du et al., *Diversity-Driven Synthesis: Enhancing Dataset Distillation through Directed Weight
Adjustment*, NeurIPS 2024), its published setting for CIFAR.

Every ipc batch of SRe2L is recovered through weights of its own: the teacher's, moved a length of at most rho up the cross-entropy of the
real images B that the batch is begun from. Read from the released code; of the paper only the abstract could be read. Where that code
leaves the moved weights to the next block of classes, and the gradients of the ascent in the images' first step, here every adjustment
starts from the network given, which stays as it was. As a plugin it may be added to any method.
"""

import copy
import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from ddcore.errors import BadInput
from ddcore.networks import Network
from ddcore.optim import training
from ddcore.settings import one_of, positive

DIRECTIONS = ("ascent", "descent", "gaussian", "fisher")


@dataclasses.dataclass(frozen=True)
class WeightAdjustment:
    """theta + Delta with |Delta| <= rho, the norm over all parameters together.

    Published for ImageNet: 15 `steps` by the released script, 12 by the text.

    direction: 'ascent', as published: `steps` steps of length rho / steps along the gradient of the mean cross-entropy of B; 'descent':
        against it. Controls of length rho, in one step: 'gaussian', isotropic noise; 'fisher', sum_i eps_i g_i with eps ~ N(0, 1) and
        g_i the gradient of image i of B, noise whose covariance is that of the gradients.
    """

    version: ClassVar[int] = 1

    rho: float = 0.015
    steps: int = 12
    direction: str = "ascent"

    def __post_init__(self):
        if not self.rho >= 0:
            raise BadInput(f"WeightAdjustment: rho={self.rho} must not be below 0")
        positive("WeightAdjustment", steps=self.steps)
        one_of("WeightAdjustment", DIRECTIONS, direction=self.direction)

    def adjust(self, network: Network, batch: Tensor, labels: Tensor, generator: torch.Generator) -> Network:
        """A frozen copy of `network` with the weights moved, its buffers and mode those of `network`; at rho = 0 `network` itself."""
        if self.rho == 0:
            return network
        moves = self.displacement(network, batch, labels, generator)
        moved = copy.deepcopy(network).requires_grad_(False)
        for name, parameter in moved.named_parameters():
            parameter += moves[name]
        return moved

    def displacement(self, network: Network, batch: Tensor, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Delta by the names of the parameters, for B = batch (n, C, H, W) and its labels (n,).

        A network in eval mode uses the statistics that its batch norms keep, one in train mode those of B; those kept never change.
        Raises BadInput for a batch without images and for labels that are not one class of the network an image.
        """
        if not len(batch):
            raise BadInput("WeightAdjustment: the batch has no image to take a gradient of; give the method real images")
        classes = network.classifier.out_features
        if labels.shape != batch.shape[:1] or labels.is_floating_point() or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise BadInput(f"WeightAdjustment: the labels of {len(batch)} images must be as many whole numbers from 0 to {classes - 1}")
        theta = {name: parameter.detach() for name, parameter in network.named_parameters()}
        if self.direction == "gaussian":
            noise = {name: _normal(one.shape, generator, one) for name, one in theta.items()}
            return _of_length(self.rho, noise)
        if self.direction == "fisher":
            return _of_length(self.rho, _gradient(network, theta, batch, labels, _normal(labels.shape, generator, batch)))
        share, moves = batch.new_full(labels.shape, 1 / len(batch)), {name: torch.zeros_like(one) for name, one in theta.items()}
        length = self.rho / self.steps * (1 if self.direction == "ascent" else -1)
        for _ in range(self.steps):
            at = {name: one + moves[name] for name, one in theta.items()}
            step = _of_length(length, _gradient(network, at, batch, labels, share))
            moves = {name: one + step[name] for name, one in moves.items()}
        return moves


def _gradient(network: Network, at: dict[str, Tensor], batch: Tensor, labels: Tensor, share: Tensor) -> dict[str, Tensor]:
    """Of sum_i share_i CE_i in the parameters, at `at`."""
    free = {name: one.detach().requires_grad_() for name, one in at.items()}
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}

    def loss(logits: Tensor, rows: slice) -> Tensor:
        return F.cross_entropy(logits, labels[rows], reduction="none") @ share[rows]

    with torch.enable_grad():
        size = training.images_at_once(network, batch.shape[1:], len(batch))
        found = training.gradient(lambda images: functional_call(network, free | kept, (images,)), list(free.values()), batch, loss, size)
    return dict(zip(free, found, strict=True))


def _of_length(length: float, vector: dict[str, Tensor]) -> dict[str, Tensor]:
    norm = torch.stack([one.norm() for one in vector.values()]).norm()
    return {name: length / (norm + 1e-12) * one for name, one in vector.items()}


def _normal(shape: torch.Size, generator: torch.Generator, like: Tensor) -> Tensor:
    """Drawn where the generator is, in the dtype of `like`."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)

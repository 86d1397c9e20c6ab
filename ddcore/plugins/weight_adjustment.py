"""DWA: directed weight adjustment (Du et al., *Diversity-Driven Synthesis: Enhancing Dataset Distillation through Directed Weight
Adjustment*, NeurIPS 2024), its published setting for CIFAR.

Every ipc batch of SRe2L is recovered through weights of its own: the teacher's, moved a length of at most rho up the cross-entropy of the
real images B that the batch is begun from. As a plugin it may be added to any method.

The paper's text and its released code differ in two places; the code is the default here, the text an option:

- Which weights the batch norms' statistics pass through. The released code takes the cross-entropy and the statistics from one pass of
  the adjusted network; Eq. 15 as printed takes the statistics through the teacher as it was, and the cross-entropy alone through the
  adjusted one: `statistics_through` of `ddcore.methods.statistics.SRe2L`, 'adjusted' or 'teacher'.
- How long a step of the ascent is. The released code divides the gradient by its norm; Algorithm 1 as printed does not, its losses are
  sums over B, and rho / K is a rate: `normalised`, True or False.

For all datasets the text has K = 12 and rho = 0.015; the released script for ImageNet has K = 15. Where that code leaves the moved weights
to the next block of classes, and the gradients of the ascent in the images' first step, here every adjustment starts from the network
given, which stays as it was.
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
from ddcore.settings import later, one_of, positive

ALONG_THE_GRADIENT = ("ascent", "descent")
DIRECTIONS = (*ALONG_THE_GRADIENT, "gaussian", "fisher")


@dataclasses.dataclass(frozen=True)
class WeightAdjustment:
    """theta + Delta with |Delta| <= rho, the norm over all parameters together, if the steps are `normalised`.

    direction: 'ascent', as published: `steps` steps of length rho / steps along the gradient of the mean cross-entropy of B; 'descent':
        against it. Controls of length rho, in one step: 'gaussian', isotropic noise; 'fisher', sum_i eps_i g_i with eps ~ N(0, 1) and
        g_i the gradient of image i of B, noise whose covariance is that of the gradients.
    normalised: of ascent and descent; False for Algorithm 1 as printed, steps of rho / steps times the gradient of the *sum* of the
        cross-entropies of B, whose length nothing bounds.
    """

    version: ClassVar[int] = 1

    rho: float = 0.015
    steps: int = 12
    direction: str = "ascent"
    normalised: bool = later(True)

    def __post_init__(self):
        if not self.rho >= 0:
            raise BadInput(f"WeightAdjustment: rho={self.rho} must not be below 0")
        positive("WeightAdjustment", steps=self.steps)
        one_of("WeightAdjustment", DIRECTIONS, direction=self.direction)
        if not self.normalised and self.direction not in ALONG_THE_GRADIENT:
            raise BadInput(
                f"WeightAdjustment: normalised=False has no meaning for direction='{self.direction}', noise of length rho; "
                f"leave it out, or choose one of {', '.join(ALONG_THE_GRADIENT)}"
            )

    def adjust(self, network: Network, batch: Tensor, labels: Tensor, generator: torch.Generator) -> Network:
        """A frozen copy of `network` with the weights moved, its buffers and mode those of `network`; at rho = 0 `network` itself."""
        if self.rho == 0:
            return network
        moves = self.displacement(network, batch, labels, generator)
        moved = copy.deepcopy(network).requires_grad_(False)
        for name, parameter in moved.named_parameters():
            parameter += moves[name]
        return moved

    def displacement(
        self, network: Network, batch: Tensor, labels: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Delta by the names of the parameters, for B = batch (n, C, H, W) and its labels (n,).

        A network in eval mode uses the statistics that its batch norms keep, one in train mode those of B; those kept never change.
        Raises BadInput for a batch without images and for labels that are not one class of the network an image.
        """
        if not len(batch):
            raise BadInput(
                "WeightAdjustment: the batch has no image to take a gradient of; give the method real images"
            )
        classes = network.classifier.out_features
        if (
            labels.shape != batch.shape[:1]
            or labels.is_floating_point()
            or not 0 <= int(labels.min()) <= int(labels.max()) < classes
        ):
            raise BadInput(
                f"WeightAdjustment: the labels of {len(batch)} images must be as many whole numbers from 0 to {classes - 1}"
            )
        theta = {name: parameter.detach() for name, parameter in network.named_parameters()}
        if self.direction == "gaussian":
            noise = {name: _normal(one.shape, generator, one) for name, one in theta.items()}
            return _of_length(self.rho, noise)
        if self.direction == "fisher":
            return _of_length(
                self.rho, _gradient(network, theta, batch, labels, _normal(labels.shape, generator, batch))
            )
        share = batch.new_full(labels.shape, 1 / len(batch) if self.normalised else 1.0)
        moves = {name: torch.zeros_like(one) for name, one in theta.items()}
        length = self.rho / self.steps * (1 if self.direction == "ascent" else -1)
        for _ in range(self.steps):
            at = {name: one + moves[name] for name, one in theta.items()}
            step = _gradient(network, at, batch, labels, share)
            step = (
                _of_length(length, step)
                if self.normalised
                else {name: length * one for name, one in step.items()}
            )
            moves = {name: one + step[name] for name, one in moves.items()}
        return moves


def _gradient(
    network: Network, at: dict[str, Tensor], batch: Tensor, labels: Tensor, share: Tensor
) -> dict[str, Tensor]:
    """Of sum_i share_i CE_i in the parameters, at `at`."""
    free = {name: one.detach().requires_grad_() for name, one in at.items()}
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}

    def loss(logits: Tensor, rows: slice) -> Tensor:
        return F.cross_entropy(logits, labels[rows], reduction="none") @ share[rows]

    with torch.enable_grad():
        size = training.images_at_once(network, batch.shape[1:], len(batch))
        found = training.gradient(
            lambda images: functional_call(network, free | kept, (images,)),
            list(free.values()),
            batch,
            loss,
            size,
        )
    return dict(zip(free, found, strict=True))


def _of_length(length: float, vector: dict[str, Tensor]) -> dict[str, Tensor]:
    norm = torch.stack([one.norm() for one in vector.values()]).norm()
    return {name: length / (norm + 1e-12) * one for name, one in vector.items()}


def _normal(shape: torch.Size, generator: torch.Generator, like: Tensor) -> Tensor:
    """Drawn where the generator is, in the dtype of `like`."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)

"""The gradient of a student's distance to a goal, through the steps that the student takes on the synthetic set.

theta_{i+1} = theta_i - alpha g_i(theta_i, x_i, y_i) for T steps of SGD on the cross-entropy; L = ||theta_T - goal||^2 / ||theta_0 -
goal||^2 (MTT, Cazenavette et al., CVPR 2022, eq. 3). Three ways to the gradient in images, targets and alpha, of one signature:
`unrolled` keeps the tape of all T steps, as published; `adjoint` finds the same gradient with the tape of one step at a time;
`tesla` (Cui et al., ICML 2023) holds every theta_i constant, an approximation.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore import augment, compute
from ddcore.methods.known_gradient import known


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the student: the rows it trains on, (b,) int64, and their augmentation, one group an image."""

    rows: Tensor
    drawn: augment.Draw

    def augmented(self, images: Tensor) -> Tensor:
        """(b, C, H, W) as the student sees them, from the b images of `rows`."""
        return augment.apply(self.drawn, images, torch.arange(len(images), device=images.device))

    def parts(self, size: int | None) -> list["Step"]:
        """The same step on its images, at most `size` of them at a time; None for all."""
        if size is None or len(self.rows) <= size:
            return [self]
        return [
            Step(self.rows[part], augment.Draw(self.drawn.family[part], self.drawn.uniform[part]))
            for part in compute.slices(len(self.rows), compute.evenly(len(self.rows), size))
        ]


Forward = Callable[[Tensor, Tensor], Tensor]
"""Flat parameters (P,) and images (b, C, H, W) to logits (b, classes)."""


def unrolled(
    forward: Forward,
    start: Tensor,
    goal: Tensor,
    images: Tensor,
    targets: Tensor,
    alpha: Tensor,
    steps: Sequence[Step],
) -> tuple[Tensor, Tensor]:
    """The loss, a scalar differentiable in `images` (n, C, H, W), `targets` ((n,) classes or (n, classes) probabilities) and
    `alpha` (a scalar), and the student's last parameters (P,) without tape; `start` and `goal` are (P,)."""
    theta = start.detach().requires_grad_()
    for step in steps:
        theta = theta - alpha * _gradient(
            forward, theta, step.augmented(images[step.rows]), targets[step.rows], create_graph=True
        )
    return _distance(theta, goal, start), theta.detach()


def adjoint(
    forward: Forward,
    start: Tensor,
    goal: Tensor,
    images: Tensor,
    targets: Tensor,
    alpha: Tensor,
    steps: Sequence[Step],
    *,
    size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`unrolled` to rounding: T + 1 parameter vectors are kept, and a reverse sweep records each step anew, `size` images at a time
    (None: all of the step's; a network whose batch norms take their statistics from the batch needs them all).

    lambda_T = 2 (theta_T - goal) / ||theta_0 - goal||^2; at step i, with s = <g_i(theta_i, x_i, y_i), lambda_{i+1}>: the gradient in
    x_i is -alpha ds/dx_i, in y_i likewise, in alpha -s, and lambda_i = lambda_{i+1} - alpha ds/dtheta_i.
    """
    return _swept(forward, start, goal, images, targets, alpha, steps, constant=False, factor=2, size=size)


def tesla(
    forward: Forward,
    start: Tensor,
    goal: Tensor,
    images: Tensor,
    targets: Tensor,
    alpha: Tensor,
    steps: Sequence[Step],
    *,
    factor: int = 2,
    size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The gradient of ||theta_0 - alpha sum_i g_i(theta_i, x_i, y_i) - goal||^2 / ||theta_0 - goal||^2 with every theta_i held constant.

    That is the reverse sweep of `adjoint` with lambda_i = lambda_T throughout. `factor` 2 is this formula; 1 halves the gradient in
    images and targets, not in alpha, as the code published with the paper does.
    """
    return _swept(
        forward, start, goal, images, targets, alpha, steps, constant=True, factor=factor, size=size
    )


def _distance(theta: Tensor, goal: Tensor, start: Tensor) -> Tensor:
    return (theta - goal).square().sum() / (start - goal).square().sum()


def _gradient(forward: Forward, theta: Tensor, x: Tensor, y: Tensor, *, create_graph: bool = False) -> Tensor:
    return torch.autograd.grad(F.cross_entropy(forward(theta, x), y), theta, create_graph=create_graph)[0]


def _swept(
    forward, start, goal, images, targets, alpha, steps, *, constant: bool, factor: int, size: int | None
) -> tuple[Tensor, Tensor]:
    learned = [images, targets] if targets.is_floating_point() else [images]
    pool, labels, rate = images.detach(), targets.detach(), alpha.detach()
    thetas = [start.detach()]
    for step in steps:
        theta = thetas[-1].detach().requires_grad_()
        whole = sum(
            _gradient(forward, theta, part.augmented(pool[part.rows]), labels[part.rows])
            * (len(part.rows) / len(step.rows))
            for part in step.parts(size)
        )
        thetas.append(thetas[-1] - rate * whole)
    gradients, slope = (
        [torch.zeros_like(one) for one in (pool, labels)[: len(learned)]],
        torch.zeros_like(rate),
    )
    adjoint = 2 * (thetas[-1] - goal) / (thetas[0] - goal).square().sum()
    for number in reversed(range(len(steps))):
        back = torch.zeros_like(adjoint)
        for part in steps[number].parts(size):
            theta = thetas[number].detach().requires_grad_()
            batch = [one.detach()[part.rows].requires_grad_() for one in learned]
            x, y = part.augmented(batch[0]), batch[1] if len(batch) > 1 else labels[part.rows]
            share = len(part.rows) / len(steps[number].rows)
            s = _gradient(forward, theta, x, y, create_graph=True) @ adjoint * share
            further = [] if constant or number == 0 else [theta]
            (*found,) = torch.autograd.grad(s, batch + further)
            for gradient, own in zip(gradients, found, strict=False):
                gradient.index_add_(0, part.rows, own, alpha=-1)
            slope -= s.detach()
            if further:
                back += found[-1]
        adjoint = adjoint - rate * back
    gradients = [gradient * (rate * factor / 2) for gradient in gradients]
    return known(_distance(thetas[-1], goal, start), [*learned, alpha], [*gradients, slope]), thetas[-1]

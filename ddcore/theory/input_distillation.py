"""The inputs of a distilled set: one step of gradient matching, by real autograd, and what it equals.

After that step a point is a random combination of the columns of the Hessian H of the task, so the points span the task's
directions. *Our reconstruction*; see `ddcore.theory.multi_index`.
"""

import math

import torch
from torch import Tensor

from ddcore.settings import one_of
from ddcore.theory.multi_index import ACTIVATIONS, Affine, Inits, Task, unit_rows

DISTANCES = ("inner product", "l2")


def matching_step(
    points: Tensor,
    slopes: Tensor,
    inits: Inits,
    activation: str = "relu",
    *,
    labels: Tensor | None = None,
    distance: str = "inner product",
) -> Tensor:
    """The ascent direction in the points (M, d): the gradient of how well the student's first gradient matches the teacher's.

    mean over inits of <G_T, G_S>, or of -|G_T - G_S|^2 / 2 for 'l2', where G_S is the gradient in all L neurons of
    the student's loss mean_m (f(x_m) - y_m)^2 / 2 and G_T = -a g that of the teacher (`slopes`: g, of `gradients`).
    """
    one_of("matching", DISTANCES, distance=distance)
    points = points.detach().requires_grad_()
    labels = torch.ones_like(points[:, 0]) if labels is None else labels
    weights = torch.cat([inits.weights, inits.weights], 1).requires_grad_()
    signs = torch.ones_like(weights[0, :, 0])
    signs[len(signs) // 2 :] = -1
    outputs = ACTIVATIONS[activation].value(points @ weights.mT) @ signs
    loss = (outputs - labels).square().mean(1).sum() / 2
    ours = torch.autograd.grad(loss, weights, create_graph=True)[0]
    theirs = -signs[:, None] * torch.cat([slopes, slopes], 1)
    matched = (ours * theirs).sum() if distance == "inner product" else -(ours - theirs).square().sum() / 2
    return torch.autograd.grad(matched / len(weights), points)[0]


def closed_form(
    points: Tensor, slopes: Tensor, inits: Inits, activation: str = "relu", labels: Tensor | None = None
) -> Tensor:
    """What `matching_step` computes for the inner product, derived: with f = 0 the residuals are -y_m and constant, so that

    x_m -> (y_m / M) mean_j sum_i a_i^2 (sigma'(w_i . x_m) g(w_i) + sigma''(w_i . x_m) (g(w_i) . x_m) w_i), i over all L neurons.
    """
    labels = torch.ones_like(points[:, 0]) if labels is None else labels
    z = points @ inits.weights.mT
    found = (
        ACTIVATIONS[activation].first(z) @ slopes
        + (ACTIVATIONS[activation].second(z) * (points @ slopes.mT)) @ inits.weights
    )
    return 2 * labels[:, None] / len(points) * found.mean(0)


def kernel_limit(task: Task, residual: Affine, points: Tensor) -> Tensor:
    """The same for ReLU and infinitely many initialisations, by the arc-cosine kernel of order 0, up to the factor L y_m / M:

    mean over samples of (y - alpha - beta . x) x kappa(x_m, x), kappa = 1/4 + arcsin(cos of their angle) / (2 pi).
    """
    total, unit = torch.zeros_like(points, dtype=torch.float64), torch.nn.functional.normalize(points)
    for x, y in task.chunks():
        kappa = 0.25 + (unit @ torch.nn.functional.normalize(x).T).clamp(-1, 1).arcsin() / (2 * math.pi)
        total += kappa @ ((y - residual(x))[:, None] * x)
    return (total / task.samples).to(points)


def distill_inputs(
    points: Tensor, slopes: Tensor, inits: Inits, activation: str = "relu", *, steps: int = 1
) -> Tensor:
    """(M, d) -> (M, d): `steps` matching steps at the weight decay 1 / (step size), which forgets the point before.

    The points are scaled to mean square norm d, that of the inputs. Their labels are 1: there is nothing to store.
    """
    for _ in range(steps):
        points = matching_step(points, slopes, inits, activation)
        points = points * (math.sqrt(points.shape[1]) / points.square().sum(1).mean().sqrt())
    return points


def student_layer(points: Tensor, inits: Inits, activation: str = "relu") -> Tensor:
    """(M, d) -> v (J, L/2, d): the student's giant step on the points with labels 1; every row is in their span."""
    gates = ACTIVATIONS[activation].first(points @ inits.weights.mT)
    return unit_rows(gates.mT @ points / len(points))

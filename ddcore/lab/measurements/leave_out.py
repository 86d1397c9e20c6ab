"""Leaving a batch out of a convex problem: where its minimum goes, and where steps uphill on the batch lead.

DWA's reading of its adjustment is that weights moved up the loss of a batch are those of a network trained without it. In softmax
regression with weight decay both can be had to rounding (`ddcore.theory.adjustment` has the algebra).
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.errors import BadInput, Diverged
from ddcore.random import stream
from ddcore.settings import positive, versioned


@dataclasses.dataclass(frozen=True)
class SoftmaxRegression:
    """L(theta) = sum_i w_i CE_i + N decay |theta|^2 / 2 for x (N, p), y (N,), weights w (N,) of 0 or 1 and theta ((C - 1) p,).

    The logits are x theta' Q' with Q (C, C - 1) orthonormal, of columns that sum to zero: a shift of all logits, which no loss sees, is
    no direction of theta.
    """

    x: Tensor
    y: Tensor
    classes: int
    decay: float

    def logits(self, theta: Tensor) -> Tensor:
        return self.x @ theta.view(self.classes - 1, -1).T @ self._frame().T

    def loss(self, theta: Tensor, w: Tensor) -> Tensor:
        """A scalar."""
        each = torch.nn.functional.cross_entropy(self.logits(theta), self.y, reduction="none")
        return w @ each + len(self.x) * self.decay * theta.square().sum() / 2

    def gradients(self, theta: Tensor) -> Tensor:
        """(N, (C - 1) p): of each image's cross-entropy, without the weight decay."""
        apart = self.logits(theta).softmax(1) - torch.nn.functional.one_hot(self.y, self.classes)
        return ((apart @ self._frame())[:, :, None] * self.x[:, None]).flatten(1)

    def hessian(self, theta: Tensor, w: Tensor) -> Tensor:
        """((C - 1) p, (C - 1) p)."""
        p, frame = self.logits(theta).softmax(1), self._frame()
        curved = w[:, None, None] * (
            (frame.T * p[:, None]) @ frame - (p @ frame)[:, :, None] * (p @ frame)[:, None]
        )
        blocks = [
            (curved[:, a, :, None] * self.x[:, None]).flatten(1).T @ self.x for a in range(self.classes - 1)
        ]
        identity = torch.eye(len(theta), dtype=theta.dtype, device=theta.device)
        return torch.cat(blocks, 1) + len(self.x) * self.decay * identity

    def minimum(self, w: Tensor, start: Tensor | None = None) -> Tensor:
        """By Newton steps, halved where they would climb. Raises Diverged if the gradient is not zero to rounding after 100 of them."""
        theta = self.x.new_zeros((self.classes - 1) * self.x.shape[1]) if start is None else start
        for _ in range(100):
            gradient = w @ self.gradients(theta) + len(self.x) * self.decay * theta
            if gradient.norm() < 1e-9 * len(self.x):
                return theta
            step, before = torch.linalg.solve(self.hessian(theta, w), gradient), self.loss(theta, w)
            while self.loss(theta - step, w) > before + 1e-12 * before:
                step = step / 2
            theta = theta - step
        raise Diverged("softmax regression: Newton's method did not converge; use a larger decay")

    def _frame(self) -> Tensor:
        k = torch.arange(1, self.classes, dtype=self.x.dtype, device=self.x.device)
        q = torch.cat([torch.ones_like(torch.diag(k)).triu(), torch.zeros_like(k)[None]])
        q[1:].diagonal().copy_(-k)
        return q / (k * (k + 1)).sqrt()


def regression(data: Dataset, *, images: int, components: int, decay: float, seed: int) -> SoftmaxRegression:
    """`images` training images, equally many a class, in their first principal components (the first of unit variance) and a constant."""
    positive("leave_out", images=images, components=components, decay=decay)
    each = max(1, images // data.classes)
    data.need(each, f"leave_out with images={images}")
    index = data.sample(each, stream(seed, "leave_out", device=data.device))
    flat = data.x_train[index].double().flatten(1)
    if components > min(flat.shape):
        raise BadInput(
            f"leave_out: components={components}, but {len(flat)} images of {flat.shape[1]} numbers have {min(flat.shape)}"
        )
    _, values, right = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    right = right[:components] * right[:components].sum(1, keepdim=True).sign()  # of either sign as it comes
    scores = (flat - flat.mean(0)) @ right.T / values[0] * len(flat) ** 0.5
    return SoftmaxRegression(
        torch.cat([scores, torch.ones_like(scores[:, :1])], 1), data.y_train[index], data.classes, decay
    )


def ascend(gradient: Callable[[Tensor], Tensor], theta: Tensor, length: float, steps: int) -> Tensor:
    """DWA's adjustment: `steps` normalised steps uphill of length / steps each; returns the displacement."""
    at = theta
    for _ in range(steps):
        uphill = gradient(at)
        at = at + length / steps * uphill / uphill.norm()
    return at - theta


@versioned(version=1)
def leave_out(
    data: Dataset,
    *,
    seed: int,
    images: int,
    components: int,
    decays: tuple[float, ...],
    batches: int,
    steps: int,
    lengths: tuple[float, ...],
) -> list[dict]:
    """`batches` batches B of one image a class, each left out once at each weight decay.

    The arms are directions from the minimum theta_T: 'retrained' (to the minimum without B), 'Newton' (H^-1 g_B), 'gradient' (g_B),
    'ascent' (`steps` normalised steps, in all as long as 'retrained'), 'other batch' (the gradient of another B), 'Gaussian'. Columns:
    decay, batch, arm, quantity, length, value. Quantities: 'condition' number of the Hessian H of the rest; 'cosine' with 'retrained';
    'change' of the rest's loss at `length` times the distance to the minimum without B, over what it falls by there, mean over batches;
    'safe', 'share' and 'floor' of the gradient: `adjustment.safe_length` in those lengths, `adjustment.share`, `adjustment.share_floor`.
    """
    positive(
        "leave_out",
        batches=batches,
        steps=steps,
        **{f"decays[{place}]": decay for place, decay in enumerate(decays)},
    )
    table = []
    for decay in decays:
        problem = regression(data, images=images, components=components, decay=decay, seed=seed)
        everything = torch.ones_like(problem.x[:, 0])
        theta = problem.minimum(everything)
        each = len(problem.y) // data.classes
        drawn = torch.randint(
            each,
            (batches + 1, data.classes),
            generator=stream(seed, "leave_out", "batches", device=data.device),
            device=data.device,
        )
        chosen = drawn + each * torch.arange(data.classes, device=data.device)
        uphill = [problem.gradients(theta)[rows].sum(0) for rows in chosen]
        changes: dict[tuple[str, float], float] = {}
        for batch, rows in enumerate(chosen[:-1]):
            rest = everything.index_fill(0, rows, 0)
            noise = torch.randn(
                len(theta),
                generator=stream(seed, "leave_out", "noise", batch, device=data.device),
                dtype=theta.dtype,
                device=data.device,
            )
            found, along = _one(problem, theta, rest, uphill[batch], uphill[batch + 1], noise, steps, lengths)
            table += [
                {"decay": decay, "batch": batch, "arm": arm, "quantity": name, "value": float(f"{value:.6g}")}
                for (arm, name), value in found.items()
            ]
            changes = {key: changes.get(key, 0.0) + value / batches for key, value in along.items()}
        table += [
            {
                "decay": decay,
                "arm": arm,
                "quantity": "change",
                "length": length,
                "value": float(f"{value:.6g}"),
            }
            for (arm, length), value in changes.items()
        ]
    return table


def _one(
    problem: SoftmaxRegression,
    theta: Tensor,
    rest: Tensor,
    g: Tensor,
    other: Tensor,
    noise: Tensor,
    steps: int,
    lengths: tuple[float, ...],
) -> tuple[dict[tuple[str, str], float], dict[tuple[str, float], float]]:
    """(arm, quantity) -> value, and (arm, length) -> change."""
    hessian = problem.hessian(theta, rest)
    away = problem.minimum(rest, theta) - theta
    newton, distance, before = torch.linalg.solve(hessian, g), away.norm(), problem.loss(theta, rest)
    ascent = ascend(lambda at: (1 - rest) @ problem.gradients(at), theta, float(distance), steps)
    arms = {
        "retrained": away,
        "Newton": newton,
        "gradient": g,
        "ascent": ascent,
        "other batch": other,
        "Gaussian": noise,
    }
    values, bend = torch.linalg.eigvalsh(hessian), g @ hessian @ g
    kappa, fall = float(values[-1] / values[0]), before - problem.loss(theta + away, rest)
    found = {(arm, "cosine"): float(torch.cosine_similarity(one, away, 0)) for arm, one in arms.items()}
    found |= {
        ("gradient", "safe"): float(2 * g.norm() ** 3 / bend / distance),
        ("gradient", "floor"): 4 * kappa / (1 + kappa) ** 2,
        ("gradient", "share"): float(g.norm() ** 4 / (bend * (g @ newton))),
        ("gradient", "condition"): kappa,
    }
    along = {
        (arm, length): float(
            (problem.loss(theta + length * distance * one / one.norm(), rest) - before) / fall
        )
        for arm, one in arms.items()
        for length in lengths
    }
    return found, along

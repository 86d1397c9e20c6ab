"""The labels of a distilled set: performance matching of the student's head, and the set as an object that counts its numbers.

The head is a ridge regression on inputs that are drawn from a seed and cost nothing; its labels are what is learned, and its
error over the samples is a convex quadratic in them. *Our reconstruction*; see `ddcore.theory.multi_index`.
"""

import dataclasses

import torch
from torch import Tensor

from ddcore.errors import BadInput
from ddcore.theory.input_distillation import student_layer
from ddcore.theory.multi_index import Affine, Inits, Model, Network, Task

RHO = 1e-5


def seeded_inputs(count: int, like: Task, spread: float = 1.0) -> Tensor:
    """(count, d) from the seed of the task: Gaussian, the m-th of them scaled by spread^(m / (count - 1)).

    A `spread` of 30 reaches neurons whose kink is far from the origin, which an exact head needs.
    """
    (x,) = like.normal(("inputs",), (count, like.d))
    return x * spread ** torch.linspace(0, 1, count, device=x.device, dtype=x.dtype)[:, None]


def head_map(features: Tensor, rho: float = RHO) -> Tensor:
    """(..., M, L) -> A (..., L, M): the head of labels y is A y = (phi'phi / M + rho I)^-1 phi'y / M."""
    features = features.double()
    count, width = features.shape[-2:]
    gram = features.mT @ features / count + rho * torch.eye(
        width, dtype=features.dtype, device=features.device
    )
    return torch.cholesky_solve(features.mT / count, torch.linalg.cholesky(gram))


def exact_labels(features: Tensor, head: Tensor, rho: float = RHO) -> Tensor:
    """(M, L), (L,) -> (M,): labels whose ridge head is `head` at every rho, if `features` have rank L."""
    features, head = features.double(), head.double()
    wanted = features.mT @ (features @ head) / len(features) + rho * head
    return len(features) * torch.linalg.pinv(features.mT) @ wanted


class Performance:
    """The error of the student's head over the samples as a function of the labels: mean over initialisations, y'Q y - 2 q'y + const.

    `maps` A (J, L, M) of `head_map`; `gram` (J, L, L) and `cross` (J, L), the `moments` of the student's features:
    Q = mean A' gram A, q = mean A' cross. Eigenvalues of Q that rounding made negative count as 0.
    """

    def __init__(self, maps: Tensor, gram: Tensor, cross: Tensor):
        values, self.vectors = torch.linalg.eigh((maps.mT @ gram @ maps).mean(0))
        self.values, self.q = values.clamp(min=0), (maps.mT @ cross[..., None]).mean(0)[:, 0]

    def gradient_method(self, iterations: int = 500) -> Tensor:
        """(M,): labels after so many iterations of Nesterov's method from 0 at the step 1 / (largest eigenvalue), in the eigenbasis."""
        target, step = self.vectors.T @ self.q, 1 / self.values[-1]
        now = before = torch.zeros_like(target)
        for k in range(iterations):
            ahead = now + k / (k + 3) * (now - before)
            now, before = ahead - step * (self.values * ahead - target), now
        return self.vectors @ now

    def optimum(self) -> Tensor:
        """(M,): the labels of least error, in closed form; eigenvalues below 1e-10 of the largest count as 0."""
        kept = self.values > 1e-10 * self.values[-1]
        return self.vectors[:, kept] @ ((self.vectors[:, kept].T @ self.q) / self.values[kept])


@dataclasses.dataclass(frozen=True)
class DistilledData:
    """What is stored: `points` (M1, d), `labels` (M2,), and the task's linear part. Beside these numbers, a seed and `spread`.

    The labels of the points are 1, and the inputs of the labels, `seeded_inputs`, come from the seed.
    """

    points: Tensor
    labels: Tensor
    linear: Affine
    spread: float = 1.0

    @property
    def stored_numbers(self) -> int:
        """M1 d + M2 + d + 1, counted from the tensors."""
        return sum(tensor.numel() for tensor in (self.points, self.labels, *self.linear))

    def train(self, inits: Inits, like: Task, activation: str = "relu", rho: float = RHO) -> Model:
        """The student of each initialisation, from nothing but what is stored."""
        network = Network(student_layer(self.points, inits, activation), inits.biases, activation)
        maps = head_map(network.features(seeded_inputs(len(self.labels), like, self.spread)), rho)
        return Model(self.linear, network, maps @ self.labels.to(maps))


def fits(memory: int, points: int, labels: int, d: int) -> None:
    """Raise BadInput unless M1 points, M2 labels and the linear part are at most `memory` numbers."""
    need = points * d + labels + d + 1
    if need > memory:
        most = max(0, (memory - labels - d - 1) // d)
        raise BadInput(
            f"distilled set: {points} points and {labels} labels in d={d} are {need} numbers, more than the memory of {memory}; "
            f"at most {most} points fit beside {labels} labels"
        )

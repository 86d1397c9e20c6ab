"""Mutual information of label-paired samples and its noise-contrastive bounds, in nats: exact, by quadrature, or from drawn samples.

A side is known by its values' probabilities and by P(class | value); classes are equally frequent. A pair (s, t) is joint (of one class,
otherwise independent), independent, or independent of two classes. `ddcore.theory.information` derives what is computed here.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ddcore.errors import BadInput
from ddcore.settings import one_of, positive

NEGATIVES = ("all", "other classes")
REACH = 9.0  # standard deviations that quadrature goes beyond the outer means


class Side(NamedTuple):
    """`weight` (n,): the probability of each value; `posterior` (n, C): P(class | value). float64."""

    weight: Tensor
    posterior: Tensor

    def through(self, feature: Tensor) -> "Side":
        """The same side seen through a map: `feature` (n,) of each value; values that it makes equal become one."""
        kept, place = feature.unique(return_inverse=True)
        joint = torch.zeros(len(kept), self.posterior.shape[1]).to(self.posterior)
        joint.index_add_(0, place, self.weight[:, None] * self.posterior)
        return Side(joint.sum(1), joint / joint.sum(1, keepdim=True))


def table(likelihood: Tensor) -> Side:
    """(C, n) P(value | class) -> the side of those n values. Raises BadInput unless the rows, two or more, are distributions."""
    good = likelihood.ndim == 2 and len(likelihood) > 1 and (likelihood >= 0).all()
    if not good or not torch.allclose(likelihood.sum(1), likelihood.new_ones(())):
        raise BadInput(
            f"likelihood of shape {tuple(likelihood.shape)} must be (C, n) with C >= 2 rows of probabilities, each of sum 1"
        )
    joint = likelihood.double() / len(likelihood)
    joint = joint[:, joint.sum(0) > 0].T
    return Side(joint.sum(1), joint / joint.sum(1, keepdim=True))


def spaced(classes: int, separation: float, device: torch.device | str = "cpu") -> Tensor:
    """(C, 1) class means on a line, `separation` standard deviations between neighbours."""
    positive("label pairs", separation=separation)
    return separation * torch.arange(_classes(classes), dtype=torch.float64, device=device)[:, None]


def simplex(classes: int, separation: float, device: torch.device | str = "cpu") -> Tensor:
    """(C, C) class means, all `separation` standard deviations from one another."""
    positive("label pairs", separation=separation)
    return separation / math.sqrt(2) * torch.eye(_classes(classes), dtype=torch.float64, device=device)


def quadrature(means: Tensor) -> Side:
    """The mixture of N(mean_c, 1) for means (C, 1), on an even grid: the trapezoidal rule, exact to rounding for analytic integrands.

    Raises BadInput for means in more than one dimension, or so far apart that the grid has over 20,000 points.
    """
    if means.shape[1] != 1:
        raise BadInput(
            f"means of shape {tuple(means.shape)}: quadrature is for one dimension, (C, 1); take `draw` for more"
        )
    low, high = float(means.min()) - REACH, float(means.max()) + REACH
    gap = float(means.flatten().sort().values.diff().max())
    points = (
        math.ceil((high - low) / (0.4 / max(4.0, gap))) + 1
    )  # poles of the posterior lie at a height of pi / gap
    if points > 20_000:
        raise BadInput(
            f"means {float(means.min()):g} to {float(means.max()):g} take {points} points of quadrature; bring them nearer"
        )
    grid = torch.linspace(low, high, points, dtype=means.dtype, device=means.device)
    weight = (-(grid[:, None] - means.T).square() / 2).exp().mean(1)
    return Side(weight / weight.sum(), posterior(grid[:, None], means))


def posterior(samples: Tensor, means: Tensor) -> Tensor:
    """(n, D), (C, D) -> (n, C): P(class | sample) under N(mean_c, I)."""
    return (samples @ means.T - means.square().sum(1) / 2).softmax(1)


def draw(means: Tensor, each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`each` samples of every class N(mean_c, I), means (C, D) -> labels (n,) and P(class | sample) (n, C)."""
    positive("label pairs", each=each)
    labels = torch.arange(len(means), device=means.device).repeat_interleave(each)
    noise = torch.randn(
        len(labels), means.shape[1], generator=generator, dtype=means.dtype, device=means.device
    )
    return labels, posterior(means[labels] + noise, means)


class Pairs(NamedTuple):
    """All pairs (n, m) of a synthetic and a real value. `ratio`: p(s,t) / (p(s) p(t)); `other_ratio`: the same of pairs of two classes;
    `joint`, `independent`, `other`: the probability of the pair as each of the three kinds, each of sum 1."""

    ratio: Tensor
    other_ratio: Tensor
    joint: Tensor
    independent: Tensor
    other: Tensor


def _ratios(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Posteriors (n, C), (m, C) -> C a'b and C / (C - 1) sum_{c != c'} a_c b_c', the latter without the cancellation of 1 - a'b."""
    classes = s.shape[1]
    different = 1 - torch.eye(classes, dtype=s.dtype, device=s.device)
    return classes * s @ t.T, classes / (classes - 1) * s @ different @ t.T


def exact(s: Side, t: Side) -> Pairs:
    """All pairs of values of two sides, with their probabilities. Raises BadInput for sides of unequally many classes."""
    if s.posterior.shape[1] != t.posterior.shape[1]:
        raise BadInput(
            f"sides of {s.posterior.shape[1]} and {t.posterior.shape[1]} classes can't be paired by label; give both the same"
        )
    ratio, other_ratio = _ratios(s.posterior, t.posterior)
    independent = s.weight[:, None] * t.weight
    return Pairs(ratio, other_ratio, ratio * independent, independent, other_ratio * independent)


def sampled(s: tuple[Tensor, Tensor], t: tuple[Tensor, Tensor]) -> Pairs:
    """All pairs of samples as `draw` gives them, joint ones told by their labels: what a loss over batches sees."""
    same = (s[0][:, None] == t[0]).double()
    kinds = (same, torch.ones_like(same), 1 - same)
    return Pairs(*_ratios(s[1], t[1]), *(kind / kind.sum() for kind in kinds))


def log_ratio(pairs: Pairs, negatives: str = "all") -> Tensor:
    """u (n, m), the log ratio of the joint density to that of the negatives: the logit of the best critic is u - log N."""
    one_of("the bound", NEGATIVES, negatives=negatives)
    logs = [
        ratio.clamp(min=torch.finfo(ratio.dtype).tiny).log() for ratio in (pairs.ratio, pairs.other_ratio)
    ]
    return logs[0] if negatives == "all" else logs[0] - logs[1]


def information(pairs: Pairs) -> float:
    """I(s; t) = E log r over joint pairs."""
    return float((pairs.joint * log_ratio(pairs)).sum())


def bound(pairs: Pairs, u: Tensor, N: float, negatives: str = "all") -> tuple[float, float]:
    """log N + E log h over joint pairs, and log N + L_NCE, which has N E log(1 - h) over negatives as well: h the sigmoid of u - log N.

    With 'all' negatives (independent pairs) the second is a lower bound of I for every u, the first for the best alone. With those of
    'other classes' neither is.
    """
    one_of("the bound", NEGATIVES, negatives=negatives)
    positive("the bound", N=N)
    logit = u - math.log(N)
    first = math.log(N) + float((pairs.joint * logsigmoid(logit)).sum())
    return first, first + N * float(
        ((pairs.independent if negatives == "all" else pairs.other) * logsigmoid(-logit)).sum()
    )


def least_gap(N: float) -> float:
    """(N + 1) log(1 + 1/N): log N + L_NCE plus this is a lower bound of I still (`ddcore.theory.information.least_gap`)."""
    return (N + 1) * math.log1p(1 / N)


def repaired(pairs: Pairs, u: Tensor, classes: int) -> float:
    """E log r over joint pairs with r = C e^u / (C - 1 + e^u), u from negatives of other classes: I at the best u. Never above log C."""
    return math.log(classes) + float((pairs.joint * logsigmoid(u - math.log(_classes(classes) - 1))).sum())


def _classes(classes: int) -> int:
    if classes < 2:
        raise BadInput(
            f"classes={classes}: pairs of one class and pairs of several are told apart from 2 classes on"
        )
    return classes

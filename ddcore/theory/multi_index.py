"""A multi-index task and the two-layer network that learns it in two stages: one giant gradient step, then a ridge head.

*Our reconstruction* of the setting, after Damian, Lee and Soltanolkotabi (2022): the body of the paper on distillation was not
available to us. x ~ N(0, I_d), y = sigma*(B x) + noise with B of shape (r, d), B B' = I; f(x) = sum_i a_i sigma(w_i . x + b_i)
with L neurons. Samples are never held: they are drawn anew, chunk by chunk, from named streams.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddcore.errors import BadInput
from ddcore.random import stream
from ddcore.settings import one_of, positive

CHUNK = 4096  # samples drawn from one stream
RHOS = tuple(
    10.0**power for power in range(-7, 3)
)  # among which the ridge of a network trained on real data is chosen


def hermite(z: Tensor, order: int) -> Tensor:
    """(...) -> (..., order + 1): He_0(z) to He_order(z), the probabilists' Hermite polynomials."""
    found = [torch.ones_like(z), z]
    for k in range(1, order):
        found.append(z * found[k] - k * found[k - 1])
    return torch.stack(found[: order + 1], -1)


@dataclasses.dataclass(frozen=True)
class Link:
    """sigma*(z) = sum of c prod_k He_{q_k}(z_k) over `terms` (c, (q_1, ..., q_r)), each c not 0."""

    terms: tuple[tuple[float, tuple[int, ...]], ...]

    @property
    def r(self) -> int:
        """The number of directions."""
        return len(self.terms[0][1])

    @property
    def exponent(self) -> int:
        """The information exponent: the lowest order of a term that is not constant."""
        return min(sum(orders) for _, orders in self.terms if sum(orders))

    @property
    def variance(self) -> float:
        """Of sigma*(z) for z ~ N(0, I_r), exactly."""
        return sum(c * c * math.prod(map(math.factorial, orders)) for c, orders in self.terms if sum(orders))

    def moment(self, order: int) -> Tensor:
        """C_k = E of the k-th derivative of sigma*: (r,) * k, float64. Raises BadInput if the link has no term of that order."""
        have = sorted({sum(orders) for _, orders in self.terms})
        if order not in have:
            raise BadInput(
                f"link: it has no Hermite term of order {order}, only of {have}; ask for one of these or add a coefficient"
            )
        found, coefficients = (
            torch.zeros((self.r,) * order, dtype=torch.float64),
            {orders: c for c, orders in self.terms},
        )
        for place in itertools.product(range(self.r), repeat=order):
            orders = tuple(Counter(place)[k] for k in range(self.r))
            found[place] = coefficients.get(orders, 0.0) * math.prod(map(math.factorial, orders))
        return found

    def __call__(self, z: Tensor) -> Tensor:
        """(n, r) -> (n,)."""
        values = hermite(z, max(max(orders) for _, orders in self.terms))
        return sum(
            math.prod((values[:, k, q] for k, q in enumerate(orders) if q), start=c * values[:, 0, 0])
            for c, orders in self.terms
        )


LINKS: dict[str, dict] = {
    "mixed": {"orders": {1: 0.3, 2: 1.0, 3: 0.4, 4: 0.2}, "cross": 0.4, "constant": 0.5},
    "He1 + He2": {"orders": {1: 1.0, 2: 1.0}},
    "He1 + He3": {"orders": {1: 1.0, 3: 1.0}},
    "He2 + He3": {"orders": {2: 1.0, 3: 0.4}},
    "He3": {"orders": {3: 1.0}},
}


def link(
    r: int,
    orders: Mapping[int, float],
    *,
    cross: float = 0.0,
    constant: float = 0.0,
    eigenvalues: Sequence[float] | None = None,
) -> Link:
    """constant + sum_k sum_q orders[q] s_k He_q(z_k) / sqrt(r q!) + cross sum_k He_2(z_k) z_{k-1} / sqrt(2 r).

    The terms of order q in one coordinate have variance orders[q]^2 together. At q = 2 the signs s_k alternate, and `eigenvalues`
    (r of them, brought to mean square 1) are the relative eigenvalues of the Hessian; elsewhere s_k = 1.
    """
    relative = torch.tensor([1.0] * r if eigenvalues is None else list(eigenvalues), dtype=torch.float64)
    if len(relative) != r or not relative.any():
        raise BadInput(f"link: eigenvalues={eigenvalues} must be r={r} numbers, not all of them 0")
    signed = (
        relative / relative.square().mean().sqrt() * torch.tensor([(-1.0) ** k for k in range(r)])
    ).tolist()

    def at(**places: int) -> tuple[int, ...]:
        return tuple(places.get(f"z{k}", 0) for k in range(r))

    terms = {at(): constant}
    for k in range(r):
        terms |= {
            at(**{f"z{k}": q}): c * (signed[k] if q == 2 else 1.0) / math.sqrt(r * math.factorial(q))
            for q, c in orders.items()
        }
        if k:
            terms[at(**{f"z{k}": 2, f"z{k - 1}": 1})] = cross / math.sqrt(2 * r)
    return Link(tuple((c, place) for place, c in terms.items() if c))


@dataclasses.dataclass(frozen=True)
class Task:
    """N = `samples` draws of x ~ N(0, I_d), y = link(B x) + noise; `directions` is B (r, d), its device and dtype are the task's."""

    directions: Tensor
    link: Link
    samples: int
    noise: float
    seed: int

    @property
    def d(self) -> int:
        """The dimension of the inputs."""
        return self.directions.shape[1]

    def first(self, count: int) -> "Task":
        """The first `count` samples. Raises BadInput if there are fewer."""
        if not 0 < count <= self.samples:
            raise BadInput(
                f"task: {count} samples asked for, but it has {self.samples}; ask for 1 to {self.samples}"
            )
        return dataclasses.replace(self, samples=count)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y) by at most CHUNK samples, each chunk from its own stream: the same whenever it is drawn."""
        for at in range(0, self.samples, CHUNK):
            x, y = self.draw(CHUNK, "train", at // CHUNK)
            size = min(CHUNK, self.samples - at)
            yield x[:size], y[:size]

    def draw(self, count: int, *name: str | int, noise: float | None = None) -> tuple[Tensor, Tensor]:
        """`count` samples of the stream `name`: x (count, d), y (count,)."""
        x, unit = self.normal(name, (count, self.d), (count,))
        return x, self.link(x @ self.directions.T) + (self.noise if noise is None else noise) * unit

    def normal(self, name: Iterable[str | int], *shapes: tuple[int, ...]) -> list[Tensor]:
        """N(0, 1) of these shapes from the stream `name`: the same numbers in float32 and float64."""
        at = self.directions.device
        generator = stream(self.seed, "multi-index", *name, device=at)
        return [
            torch.randn(shape, generator=generator, device=at, dtype=torch.float32).to(self.directions)
            for shape in shapes
        ]

    def hessian(self) -> Tensor:
        """H = E of the Hessian of x -> link(B x): (d, d). Raises BadInput for a link without a term of order 2."""
        return self.directions.T @ self.link.moment(2).to(self.directions) @ self.directions


def make_task(
    d: int,
    of: Link,
    samples: int,
    *,
    noise: float = 0.1,
    seed: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Task:
    """A task whose B is uniform over r orthonormal directions. Raises BadInput for r > d and for fewer than d^2 samples."""
    positive("multi-index task", d=d)
    if of.r > d:
        raise BadInput(
            f"multi-index task: r={of.r} directions do not fit into d={d} dimensions; r may be 1 to d"
        )
    if samples < d * d:
        raise BadInput(
            f"multi-index task: N={samples} samples are fewer than d^2={d * d}, below which one gradient step does not see the "
            f"directions; take N >= {d * d}"
        )
    rows = torch.randn(d, of.r, generator=stream(seed, "multi-index", "directions"), dtype=torch.float64)
    return Task(torch.linalg.qr(rows).Q.T.to(device, dtype), of, samples, noise, seed)


class Affine(NamedTuple):
    """alpha + beta . x, taken off the labels before training: `intercept` (), `slope` (d,)."""

    intercept: Tensor
    slope: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.intercept + x @ self.slope


def affine(task: Task, shrink: float = 0.0) -> Affine:
    """Least squares over the samples, with the penalty `shrink` |beta|^2 beside the mean squared error."""
    moments, cross = (
        torch.zeros(task.d + 1, *more, dtype=torch.float64, device=task.directions.device)
        for more in ((task.d + 1,), ())
    )
    for x, y in task.chunks():
        x = torch.cat([torch.ones_like(x[:, :1]), x], 1)
        moments += x.T @ x
        cross += x.T @ y
    penalty = torch.full_like(cross, shrink)
    penalty[0] = 0
    found = torch.linalg.solve(moments / task.samples + penalty.diag(), cross / task.samples).to(
        task.directions.dtype
    )
    return Affine(found[0], found[1:])


class Activation(NamedTuple):
    """sigma and its first two derivatives (almost everywhere)."""

    value: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]


def _erf(shift: float) -> Activation:
    def first(z: Tensor) -> Tensor:
        return (z + shift).square().div(-2).exp() * math.sqrt(2 / math.pi)

    return Activation(
        lambda z: torch.erf((z + shift) / math.sqrt(2)), first, lambda z: -(z + shift) * first(z)
    )


ACTIVATIONS = {
    "relu": Activation(torch.relu, lambda z: (z > 0).to(z), torch.zeros_like),
    "leaky relu": Activation(
        lambda z: torch.nn.functional.leaky_relu(z, 0.1),
        lambda z: (z > 0).to(z) * 0.9 + 0.1,
        torch.zeros_like,
    ),
    "quadratic": Activation(torch.square, lambda z: 2 * z, lambda z: torch.full_like(z, 2)),
    "erf": _erf(0.0),
    "erf(z + 1)": _erf(1.0),
}


class Inits(NamedTuple):
    """J symmetric initialisations: neurons i and L/2 + i share w_i, |w_i| = 1, with a = 1 and a = -1, so that f is 0 everywhere.

    `weights` (J, L/2, d); `biases` (J, L) are those redrawn from N(0, 1) after the first step, before which they are 0.
    """

    weights: Tensor
    biases: Tensor


def symmetric_inits(width: int, like: Task, names: Sequence[str | int]) -> Inits:
    """One initialisation of `width` = L neurons a name, each from its own stream. Raises BadInput for an odd width."""
    if width < 2 or width % 2:
        raise BadInput(f"symmetric initialisation: width L={width} must be even, since neurons come in pairs")
    drawn = [like.normal(("init", name), (width // 2, like.d), (width,)) for name in names]
    weights, biases = (torch.stack(part) for part in zip(*drawn, strict=True))
    return Inits(torch.nn.functional.normalize(weights, dim=-1), biases)


def _blocks(task: Task, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples in blocks whose activations, `width` a sample, stay in the cache of a CPU, or fill a GPU."""
    rows = max(1, (1 << (26 if task.directions.is_cuda else 20)) // width)
    for chunk in task.chunks():
        yield from zip(*(part.split(rows) for part in chunk), strict=True)


def gradients(task: Task, residual: Affine, weights: Tensor, activation: str = "relu") -> Tensor:
    """(J, L/2, d) -> the same: g(w) = mean over samples of (y - alpha - beta . x) x sigma'(w . x); a neuron's gradient is -a g(w)."""
    flat, first = weights.flatten(0, 1), ACTIVATIONS[activation].first
    total = torch.zeros_like(flat, dtype=torch.float64)
    for x, y in _blocks(task, len(flat)):
        total += first(x @ flat.T).T @ ((y - residual(x))[:, None] * x)
    return (total / task.samples).to(weights).view_as(weights)


def unit_rows(v: Tensor) -> Tensor:
    """(J, L/2, d) -> the same, each (L/2, d) scaled to rows of mean square norm 1: the step size, free of any number to store."""
    return v / v.square().sum(-1).mean(-1).sqrt().clamp(min=torch.finfo(v.dtype).tiny)[:, None, None]


@dataclasses.dataclass(frozen=True)
class Network:
    """J networks after the first step: neurons i and L/2 + i have weights v_i and -v_i. `v` (J, L/2, d), `biases` (J, L)."""

    v: Tensor
    biases: Tensor
    activation: str = "relu"

    def __post_init__(self):
        one_of("network", ACTIVATIONS, activation=self.activation)

    def features(self, x: Tensor) -> Tensor:
        """(n, d) -> (J, n, L)."""
        z = x @ self.v.mT
        return ACTIVATIONS[self.activation].value(torch.cat([z, -z], -1) + self.biases[:, None])

    def predict(self, heads: Tensor, x: Tensor) -> Tensor:
        """The heads (J, L) or (J, L, k) at x (n, d): (J, n) or (J, n, k)."""
        rows = max(1, (1 << 22) // self.biases.numel())
        columns = heads.to(x).reshape(*self.biases.shape, -1)
        found = torch.cat([self.features(part) @ columns for part in x.split(rows)], 1)
        return found if heads.ndim == 3 else found[..., 0]

    def moments(self, task: Task, residual: Affine) -> tuple[Tensor, Tensor]:
        """(J, L, L) and (J, L), float64: means over samples of phi phi' and of phi (y - alpha - beta . x)."""
        gram = torch.zeros(
            *self.biases.shape, self.biases.shape[1], dtype=torch.float64, device=self.v.device
        )
        cross = torch.zeros_like(self.biases, dtype=torch.float64)
        for x, y in _blocks(task, self.biases.numel()):
            phi = self.features(x)
            gram += phi.mT @ phi
            cross += phi.mT @ (y - residual(x))
        return gram / task.samples, cross / task.samples


@dataclasses.dataclass(frozen=True)
class Model:
    """alpha + beta . x + head . phi(x), for each of J networks; `heads` (J, L)."""

    linear: Affine
    network: Network
    heads: Tensor

    def error(self, x: Tensor, y: Tensor, variance: float) -> Tensor:
        """(J,): mean squared error over `variance`."""
        return (self.network.predict(self.heads, x) - (y - self.linear(x))).square().mean(1) / variance


def fit_head(task: Task, linear: Affine, network: Network, validation: tuple[Tensor, Tensor]) -> Model:
    """The head by ridge on all samples of the task, its rho among RHOS by the error on (x, y) of `validation`."""
    gram, cross = network.moments(task, linear)
    x, y = validation
    heads = []
    for rho in RHOS:
        shifted = rho * float(gram.diagonal(dim1=-2, dim2=-1).mean())
        factor, failed = torch.linalg.cholesky_ex(
            gram + shifted * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        )
        if not failed.any():
            heads.append(torch.cholesky_solve(cross[..., None], factor)[..., 0])
    heads = torch.stack(heads, -1)
    errors = (network.predict(heads, x) - (y - linear(x))[:, None]).square().mean(1)
    best = errors.argmin(-1)[:, None, None].expand(*heads.shape[:2], 1)
    return Model(linear, network, heads.gather(-1, best)[..., 0])


def teacher(
    task: Task,
    linear: Affine,
    inits: Inits,
    validation: tuple[Tensor, Tensor],
    activation: str = "relu",
    slopes: Tensor | None = None,
) -> Model:
    """Both stages on the samples of the task, for each initialisation. `slopes`: their `gradients`, if known."""
    slopes = gradients(task, linear, inits.weights, activation) if slopes is None else slopes
    return fit_head(task, linear, Network(unit_rows(slopes), inits.biases, activation), validation)


def factored(v: Tensor, rank: int) -> Tensor:
    """(J, L/2, d) -> the same: the best approximation of that rank, r (d + L) numbers instead of L d."""
    u, s, w = torch.linalg.svd(v, full_matrices=False)
    return (u[..., :rank] * s[..., None, :rank]) @ w[..., :rank, :]

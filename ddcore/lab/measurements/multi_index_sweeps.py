"""Measurements of the multi-index simulation: distilled sets and what they are compared with, over d, r, L, N, points and labels.

They need no dataset. Errors are mean squared errors on 20,000 fresh samples without noise, over the variance of the task.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ddcore.errors import BadInput
from ddcore.settings import one_of, positive, versioned
from ddcore.theory.input_distillation import distill_inputs, student_layer
from ddcore.theory.label_distillation import DistilledData, Performance, fits, head_map, seeded_inputs
from ddcore.theory.multi_index import (
    ACTIVATIONS,
    LINKS,
    Affine,
    Inits,
    Model,
    Network,
    Task,
    affine,
    factored,
    fit_head,
    gradients,
    link,
    make_task,
    symmetric_inits,
    teacher,
)
from ddcore.theory.subspaces import effective_rank, energy_share, principal_angles, principal_directions

ARMS = ("teacher", "same", "fresh", "undistilled", "real", "random features", "factored")
LABELLED = ("same", "fresh", "undistilled")  # the arms with distilled labels
UNSEEN = 4  # initialisations that the labels of the arm 'fresh' have not seen
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One task and one network on it, and what all points of a sweep on it share, each made when first asked for.

    `ratio` is N / d^2; `inits` the least number J of initialisations matched over, more where J L < 10 d; `decay` the ratio of
    successive eigenvalues of the Hessian. Raises BadInput for what `make_task`, `link` or `symmetric_inits` refuse.
    """

    device: torch.device
    seed: int
    d: int
    r: int
    L: int
    ratio: float
    link: str = "mixed"
    activation: str = "relu"
    inits: int = 8
    decay: float = 1.0
    precision: str = "float32"

    def __post_init__(self):
        positive("multi-index sweep", d=self.d, r=self.r, L=self.L, inits=self.inits, decay=self.decay)
        one_of("multi-index sweep", LINKS, link=self.link)
        one_of("multi-index sweep", ACTIVATIONS, activation=self.activation)
        one_of("multi-index sweep", PRECISIONS, precision=self.precision)
        self.init(0)  # makes the task as well

    @functools.cached_property
    def task(self) -> Task:
        """The task, from the seed."""
        of = link(self.r, **LINKS[self.link], eigenvalues=[self.decay**k for k in range(self.r)])
        return make_task(
            self.d,
            of,
            round(self.ratio * self.d**2),
            seed=self.seed,
            device=self.device,
            dtype=PRECISIONS[self.precision],
        )

    def init(self, *names: str | int) -> Inits:
        """The initialisations of these names; 0 is the teacher's."""
        return symmetric_inits(self.L, self.task, names)

    @functools.cached_property
    def matched(self) -> Inits:
        """Those that the inputs are distilled over, the teacher's among them."""
        return self.init(*range(max(self.inits, -(-10 * self.d // self.L))))

    @functools.cached_property
    def linear(self) -> Affine:
        """Taken off the labels."""
        return affine(self.task)

    @functools.cached_property
    def slopes(self) -> Tensor:
        """The teacher's first gradients at `matched`."""
        return gradients(self.task, self.linear, self.matched.weights, self.activation)

    @functools.cached_property
    def validation(self) -> tuple[Tensor, Tensor]:
        """What the ridge of networks trained on real data is chosen on."""
        return self.task.draw(8192, "validation")

    @functools.cached_property
    def test(self) -> tuple[Tensor, Tensor]:
        """What errors are measured on."""
        return self.task.draw(20000, "test", noise=0.0)

    @functools.cached_property
    def teacher(self) -> Model:
        """Trained on all N samples."""
        return teacher(
            self.task, self.linear, self.init(0), self.validation, self.activation, self.slopes[:1]
        )

    def start(self, points: int) -> Tensor:
        """Gaussian points, before distillation: fewer are the first of more."""
        return torch.stack([self.task.normal(("point", m), (self.d,))[0] for m in range(points)])

    def distilled(self, points: int, steps: int = 1) -> Tensor:
        """Points after `steps` matching steps; no point depends on how many others there are, but for the scale of all."""
        return distill_inputs(self.start(points), self.slopes, self.matched, self.activation, steps=steps)

    def energy(self, vectors: Tensor) -> float:
        """The share of their squared norm in the span of B."""
        return energy_share(vectors, self.task.directions.T.double())

    def error(self, model: Model) -> float:
        """Mean over the networks of the model."""
        return float(model.error(*self.test, self.task.link.variance).mean())

    def students(
        self,
        points: Tensor,
        labels: Sequence[int],
        inits: Inits,
        unseen: Inits | None = None,
        samples: int = 64,
    ) -> list[tuple[DistilledData, float]]:
        """For each number of labels: the set whose labels are learned over `inits`, and the error of students trained on it from
        `unseen` (the same if None). The samples of the label distillation are the first `samples` L of the task."""
        network = Network(student_layer(points, inits, self.activation), inits.biases, self.activation)
        moments = network.moments(self.task.first(min(self.task.samples, samples * self.L)), self.linear)
        found = []
        for count in labels:
            maps = head_map(network.features(seeded_inputs(count, self.task)))
            learned = Performance(maps, *moments).gradient_method()
            kept = DistilledData(points, learned.to(points), self.linear)
            found.append((kept, self.error(kept.train(unseen or inits, self.task, self.activation))))
        return found

    def real(self, count: int, trained: bool) -> float:
        """The error of the first `count` samples with the teacher's trainer, or with a ridge head on random features.

        The penalty of the linear part, which few samples need, is chosen on the validation samples as well."""
        subset, init, (x, y) = self.task.first(count), self.init(0), self.validation
        linear = min(
            (affine(subset, shrink * self.d / count) for shrink in (0.01, 1.0, 10.0, 100.0)),
            key=lambda one: float((y - one(x)).square().mean()),
        )
        if trained:
            return self.error(teacher(subset, linear, init, self.validation, self.activation))
        return self.error(
            fit_head(subset, linear, Network(init.weights, init.biases, self.activation), self.validation)
        )


def _fraction(value: float) -> float:
    return float(f"{value:.6g}")


@versioned(version=1, of_data=False)
def multi_index_sweep(
    device: torch.device,
    *,
    seed: int,
    d: tuple[int, ...],
    r: tuple[int, ...],
    L: tuple[int, ...],
    ratio: tuple[float, ...],
    points: tuple[int, ...],
    labels: tuple[float, ...],
    arms: tuple[str, ...],
    link: tuple[str, ...] = ("mixed",),
    activation: tuple[str, ...] = ("relu",),
    real: tuple[float, ...] = (),
    fresh: int = 16,
    inits: int = 8,
    memory: int = 0,
    precision: str = "float32",
) -> list[dict]:
    """Every combination of d, r, L, N / d^2 = `ratio`, `link` and `activation`: one row an arm and point.

    `points`: numbers of points M1; `labels`: numbers of labels as M2 / L; `memory`: no set may be of more numbers, 0 for any. Arms:
    'teacher' (all N samples), with it 'network' (the same, by its own numbers); 'same' (the student has the teacher's
    initialisation) and 'fresh' (labels learned over `fresh` initialisations, error on 4 others); 'undistilled' (the points before
    distillation); 'real' and 'random features' (subsets of `real` times the numbers of the largest set); 'factored' (the teacher's
    first layer at rank r, its head fitted anew). Columns: d, r, L, N, link, activation, arm, M1, M2, stored (numbers), error, energy
    (share of the points' squared norm in the span of B), rank (effective, of the points).
    """
    for arm in arms:
        one_of("multi-index sweep", ARMS, arm=arm)
    positive("multi-index sweep", fresh=fresh, points=points, labels=labels, real=real)
    if not points or not labels:
        raise BadInput(
            f"multi-index sweep: points={list(points)} and labels={list(labels)} must each hold at least one number"
        )
    places = list(itertools.product(d, r, L, ratio, link, activation))
    for place in places:  # all are checked before the first is computed
        cell = Cell(device, seed, *place, inits=inits, precision=precision)
        if memory:
            fits(memory, max(points), round(max(labels) * cell.L), cell.d)
    rows = []
    for place in places:
        cell = Cell(device, seed, *place, inits=inits, precision=precision)
        named = {
            "d": cell.d,
            "r": cell.r,
            "L": cell.L,
            "N": cell.task.samples,
            "link": cell.link,
            "activation": cell.activation,
        }
        counts = sorted({max(1, round(one * cell.L)) for one in labels})
        rows += [named | row for row in _rows(cell, points, counts, arms, real, fresh)]
    return rows


def _rows(
    cell: Cell,
    points: Sequence[int],
    labels: Sequence[int],
    arms: Sequence[str],
    real: Sequence[float],
    fresh: int,
) -> list[dict]:
    d, L, r, N = cell.d, cell.L, cell.r, cell.task.samples
    rows, largest = [], max(points) * d + max(labels) + d + 1
    first, start = cell.init(0), cell.start(max(points))

    def add(arm: str, stored: int, error: float, **more) -> None:
        none = dict.fromkeys(("M1", "M2", "energy", "rank"))
        rows.append({"arm": arm} | none | more | {"stored": stored, "error": _fraction(error)})

    if "teacher" in arms:
        add("teacher", N * (d + 1), cell.error(cell.teacher))
        add("network", L * (d + 2) + d + 1, rows[-1]["error"])
    if "factored" in arms:
        network = Network(factored(cell.teacher.network.v, r), first.biases, cell.activation)
        add(
            "factored",
            r * (d + L) + 2 * L + d + 1,
            cell.error(fit_head(cell.task, cell.linear, network, cell.validation)),
        )
    for arm in [arm for arm in LABELLED if arm in arms]:
        every = start if arm == "undistilled" else cell.distilled(max(points))
        many = (
            cell.init(*(f"label {j}" for j in range(fresh))),
            cell.init(*(f"unseen {j}" for j in range(UNSEEN))),
            32,
        )
        for count in points:
            for kept, error in cell.students(every[:count], labels, *(many if arm == "fresh" else (first,))):
                add(
                    arm,
                    kept.stored_numbers,
                    error,
                    M1=count,
                    M2=len(kept.labels),
                    energy=_fraction(cell.energy(kept.points)),
                    rank=_fraction(effective_rank(kept.points)),
                )
    for arm in [arm for arm in ("real", "random features") if arm in arms]:
        for count in sorted({min(N, max(1, int(multiple * largest / (d + 1)))) for multiple in real}):
            add(arm, count * (d + 1), cell.real(count, arm == "real"))
    return rows


@versioned(version=1, of_data=False)
def multi_index_subspace(
    device: torch.device,
    *,
    seed: int,
    d: int,
    r: int,
    L: int,
    ratio: float,
    points: int,
    inits: int = 8,
    precision: str = "float32",
) -> list[dict]:
    """What lies where, before and after: `rows` of 'random points', 'distilled points', "teacher's first layer", "student's first layer".

    Columns: rows, quantity, index (from 1), value. Quantities: 'singular value' (over the largest), 'angle' (principal angles in
    degrees between the top r right singular vectors and span B), 'energy' (share of the squared norm in span B), 'effective rank'.
    """
    positive("multi-index subspace", points=points)
    cell, table = Cell(device, seed, d, r, L, ratio, inits=inits, precision=precision), []
    after, first = cell.distilled(points), cell.init(0)
    of = {
        "random points": cell.start(points),
        "distilled points": after,
        "teacher's first layer": cell.teacher.network.v[0],
        "student's first layer": student_layer(after, first)[0],
    }
    for name, rows in of.items():
        angles = principal_angles(principal_directions(rows, r), cell.task.directions.T.double())
        values = torch.linalg.svdvals(rows.double())
        quantities = {
            "singular value": (values / values[0]).tolist(),
            "angle": angles.tolist(),
            "energy": [cell.energy(rows)],
            "effective rank": [effective_rank(rows)],
        }
        table += [
            {"rows": name, "quantity": quantity, "index": place, "value": _fraction(value)}
            for quantity, values in quantities.items()
            for place, value in enumerate(values, 1)
        ]
    return table


@versioned(version=1, of_data=False)
def multi_index_collapse(
    device: torch.device,
    *,
    seed: int,
    d: int,
    r: int,
    L: int,
    ratio: float,
    points: int,
    steps: tuple[int, ...],
    decay: tuple[float, ...],
    inits: int = 8,
    precision: str = "float32",
) -> list[dict]:
    """More matching steps, for Hessians whose eigenvalues decay by `decay`. Columns: decay, steps, condition (of the points: first
    singular value over the r-th), energy, error (arm 'same', M2 = L), teacher (its error)."""
    positive("multi-index collapse", points=points, steps=steps)
    if points < r:
        raise BadInput(
            f"multi-index collapse: points={points} can't span r={r} directions; take at least r of them"
        )
    cells, table = (
        [Cell(device, seed, d, r, L, ratio, inits=inits, decay=one, precision=precision) for one in decay],
        [],
    )
    for cell in cells:
        for count in steps:
            after = cell.distilled(points, count)
            ((_, error),) = cell.students(after, [L], cell.init(0))
            values = torch.linalg.svdvals(after.double())
            table.append(
                {
                    "decay": cell.decay,
                    "steps": count,
                    "condition": _fraction(float(values[0] / values[r - 1])),
                    "energy": _fraction(cell.energy(after)),
                    "error": _fraction(error),
                    "teacher": _fraction(cell.error(cell.teacher)),
                }
            )
    return table

"""Each statement of `ddcore.theory.hermite` against the simulator: the algebra and the numbers are of one and the same thing."""

import math

import pytest
import sympy
import torch

from ddcore.random import stream
from ddcore.theory import hermite as theory
from ddcore.theory import multi_index
from ddcore.theory.hermite import M1, M2, L, d, r, rho, z
from ddcore.theory.input_distillation import kernel_limit, student_layer
from ddcore.theory.label_distillation import RHO, DistilledData, exact_labels, head_map
from ddcore.theory.multi_index import (
    LINKS,
    Affine,
    Inits,
    affine,
    gradients,
    link,
    make_task,
    symmetric_inits,
)

X = sympy.symbols("x:3", real=True)
COEFFICIENTS = {
    "relu": theory.relu_coefficient,
    "leaky relu": lambda k: theory.leaky_relu_coefficient(k, sympy.Rational(1, 10)),
    "erf": lambda k: theory.erf_coefficient(k, 1 / sympy.sqrt(2)),
}


def normal(name, *shape):
    return torch.randn(shape, generator=stream(0, "symbols", name), dtype=torch.float64)


def polynomial(of, variables=X):
    """The link as an expression."""
    return sum(
        sympy.Float(c, 30) * sympy.prod(theory.hermite(q).subs(z, variables[k]) for k, q in enumerate(orders))
        for c, orders in of.terms
    )


def numbers(matrix):
    return torch.tensor([[float(entry) for entry in row] for row in matrix.tolist()], dtype=torch.float64)


def test_polynomials_are_the_same():
    at = normal("z", 20)
    found = torch.stack(
        [sympy.lambdify(z, theory.hermite(k), "numpy")(at) * torch.ones_like(at) for k in range(7)], -1
    )
    assert torch.allclose(multi_index.hermite(at, 6), found)


@pytest.mark.parametrize("name", LINKS)
def test_a_link_has_the_coefficients_and_the_exponent_of_its_expression(name):
    of = link(1, **LINKS[name])
    expression = polynomial(of, [z])
    assert theory.information_exponent(expression) == of.exponent
    for order in {sum(orders) for _, orders in of.terms}:
        assert float(theory.coefficients(expression)[order]) == pytest.approx(float(of.moment(order)))


def test_the_hessian_is_that_of_the_expression():
    of = link(3, **LINKS["mixed"])
    assert torch.allclose(numbers(theory.mean_hessian(polynomial(of), X)), of.moment(2), atol=1e-12)


@pytest.mark.parametrize("activation", COEFFICIENTS)
@pytest.mark.parametrize("name", ["mixed", "He2 + He3"])
def test_the_first_gradient_is_its_series(name, activation):
    of = link(2, **LINKS[name])
    task = make_task(2, of, 1_600_000, noise=0.0, seed=0)
    residual = multi_index.Link(tuple(term for term in of.terms if sum(term[1]) > 1))
    w = sympy.Matrix([sympy.Rational(3, 5), sympy.Rational(4, 5)])
    series = numbers(theory.first_gradient(polynomial(residual), X[:2], w, COEFFICIENTS[activation]))[:, 0]
    weights = (task.directions.T @ numbers(w)[:, 0]).view(1, 1, 2)
    found = task.directions @ gradients(task, affine(task), weights, activation)[0, 0]
    assert torch.allclose(found, series, atol=0.006)
    assert series.norm() > 0.03


def test_two_gates_are_open_together_as_the_kernel_says():
    task = make_task(4, link(1, **LINKS["He3"]), 16, seed=0)
    inits = symmetric_inits(20_000, task, range(4))
    pair = normal("pair", 2, 4)
    cosine = float(torch.cosine_similarity(pair[0], pair[1], dim=0))
    both = (inits.weights @ pair.T > 0).all(-1).double()
    assert float(both.mean()) == pytest.approx(
        float(theory.arc_cosine_kernel().subs(rho, cosine)), abs=4 * 0.5 / both.numel() ** 0.5
    )


def test_a_distilled_point_is_the_derived_one():
    of = link(3, orders={2: 1.0}, eigenvalues=[1.0, 0.7, 0.4])
    task = make_task(3, of, 400_000, noise=0.0, seed=0)
    unit = torch.tensor([[2.0, -1.0, 2.0]], dtype=torch.float64) / 3
    nothing = Affine(torch.zeros((), dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    found = task.directions @ kernel_limit(task, nothing, unit @ task.directions)[0]
    H = sympy.Matrix(3, 3, lambda i, j: sympy.Float(float(of.moment(2)[i, j]), 30))
    u = sympy.Matrix([sympy.Rational(2, 3), -sympy.Rational(1, 3), sympy.Rational(2, 3)])
    derived = numbers(theory.distilled_point(H, u, sympy.Integer(3)))[:, 0]
    assert torch.allclose(found, derived, atol=0.01)
    assert derived.norm() > 0.05


def test_the_students_step_on_many_points_is_the_derived_one():
    H = torch.diag(torch.tensor([1.0, -0.6, 0.3], dtype=torch.float64))
    points, w = normal("many", 200_000, 3) @ H, torch.tensor([[[2.0, 1.0, -2.0]]], dtype=torch.float64) / 3
    step = student_layer(points, Inits(w, torch.zeros(1, 2, dtype=torch.float64)))[0, 0]
    derived = numbers(theory.student_step(sympy.diag(1, -0.6, 0.3), sympy.Matrix([2, 1, -2]) / 3))[:, 0]
    assert float(torch.cosine_similarity(step, derived, dim=0)) > 0.999


def test_ridge_and_the_labels_that_invert_it_are_the_same():
    phi, head = sympy.Matrix([[1, 2], [0, 1], [3, -1]]), sympy.Matrix([2, -5])
    penalty = len(numbers(phi)) * sympy.Float(
        RHO, 30
    )  # the simulator divides phi'phi by the number of labels
    maps, labels = head_map(numbers(phi)), exact_labels(numbers(phi), numbers(head)[:, 0])
    assert torch.allclose(
        maps @ labels, numbers(theory.ridge(phi, theory.inverted_labels(phi, head, penalty), penalty))[:, 0]
    )
    assert torch.allclose(labels, numbers(theory.inverted_labels(phi, head, penalty))[:, 0])


def test_the_memory_is_counted_alike():
    at = {d: 7, r: 2, L: 10, M1: 5, M2: 9}
    linear = Affine(torch.zeros(()), torch.zeros(at[d]))
    kept = DistilledData(torch.zeros(at[M1], at[d]), torch.zeros(at[M2]), linear)
    assert kept.stored_numbers == theory.distilled_numbers().subs(at)
    task = make_task(at[d], link(at[r], **LINKS["He2 + He3"]), at[d] ** 2, seed=0)
    layer, biases = symmetric_inits(at[L], task, [0])
    neurons = torch.cat([layer, -layer], 1)[0]
    assert neurons.numel() + biases.numel() + at[L] == theory.network_numbers().subs(at)
    u, s, v = torch.linalg.svd(neurons, full_matrices=False)
    assert (u[:, : at[r]] * s[: at[r]]).numel() + v[: at[r]].numel() + 2 * at[
        L
    ] == theory.factored_numbers().subs(at)
    assert math.prod(next(task.chunks())[0].shape) + task.samples == theory.data_numbers().subs(
        at | {theory.N: task.samples}
    )

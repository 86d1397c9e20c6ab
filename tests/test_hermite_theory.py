"""The symbolic statements of ddcore.theory.hermite: each against its definition, by exact integrals or by numbers. S1..S16 name the steps
of the derivation in notebook 30."""

import itertools
import math

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from sympy import Integer, Matrix, Rational, oo, pi, sqrt

from ddcore.random import stream
from ddcore.theory import hermite as theory
from ddcore.theory.hermite import M1, M2, L, N, d, kappa, mean, p, r, rho, z

x, y, u, v = sympy.symbols("x y u v", real=True)
t = sympy.symbols("t", real=True)
ANY_UNIT = Matrix([(1 - t**2) / (1 + t**2), 2 * t / (1 + t**2)])  # every direction of the plane but (-1, 0)
h1, h2, h3 = sympy.symbols("h1:4", real=True)
rationals = st.fractions(-3, 3, max_denominator=7).map(
    lambda found: Rational(found.numerator, found.denominator)
)


def zero(expression) -> bool:
    return sympy.simplify(expression) == (sympy.zeros(*expression.shape) if expression.is_Matrix else 0)


def step_gradient(f, w):
    """E[f x 1{w . x > 0}] in the plane from its definition: half of the moments along w, all of them across."""
    turned = dict(zip((x, y), u * w + v * Matrix([-w[1], w[0]]), strict=True))
    return Matrix(
        [mean(sympy.expand((f * one).subs(turned, simultaneous=True)), u, v, positive=u) for one in (x, y)]
    )


# Hermite expansions


def test_hermite_polynomials_are_orthogonal():
    """S1, and the recurrence from which all of it follows."""
    for j, k in itertools.product(range(8), repeat=2):
        assert mean(theory.hermite(j) * theory.hermite(k), z) == (sympy.factorial(k) if j == k else 0)
    for k in range(1, 8):
        assert sympy.expand(theory.hermite(k + 1) - z * theory.hermite(k) + k * theory.hermite(k - 1)) == 0
        assert zero((theory.hermite(k - 1) * theory.density()).diff(z) + theory.hermite(k) * theory.density())


def test_moments_are_integrals():
    for n in range(7):
        assert mean(z**n, z) == sympy.integrate(z**n * theory.density(), (z, -oo, oo))
        assert zero(mean(z**n, z, positive=z) - sympy.integrate(z**n * theory.density(), (z, 0, oo)))
    assert mean(x**2 * y**4 * t + x * y, x, y) == 3 * t


def test_relu_coefficients():
    """S2: the closed form is E[relu He_k], double factorials at even k, zero at odd k from 3 on; S3: the step has c_{k+1}."""
    for k in range(13):
        assert zero(theory.relu_coefficient(k) - mean(z * theory.hermite(k), z, positive=z))
        assert zero(theory.relu_coefficient(k + 1) - mean(theory.hermite(k), z, positive=z))
    for k in range(1, 8):
        assert zero(
            theory.relu_coefficient(2 * k) - (-1) ** (k - 1) * sympy.factorial2(2 * k - 3) / sqrt(2 * pi)
        )
        assert theory.relu_coefficient(2 * k + 1) == 0
        assert zero(theory.relu_coefficient(k + 1) - theory.hermite(k - 1).subs(z, 0) / sqrt(2 * pi))
    assert (theory.relu_coefficient(0), theory.relu_coefficient(1)) == (
        sqrt(2) / (2 * sqrt(pi)),
        Rational(1, 2),
    )


@pytest.mark.parametrize("k", range(8))
def test_coefficients_of_other_activations(k):
    points, weights = np.polynomial.hermite_e.hermegauss(120)
    he = special.eval_hermitenorm(k, points)
    for scale in (1, sqrt(Rational(1, 2))):
        by_quadrature = (weights * special.erf(float(scale) * points) * he).sum() / math.sqrt(2 * math.pi)
        assert float(theory.erf_coefficient(k, scale)) == pytest.approx(by_quadrature, abs=1e-10)
    slope = Rational(1, 10)
    backward = slope * mean((-z) * theory.hermite(k).subs(z, -z), z, positive=z)  # E over z < 0, turned round
    assert zero(
        theory.leaky_relu_coefficient(k, slope) - mean(z * theory.hermite(k), z, positive=z) - backward
    )
    assert zero(theory.leaky_relu_coefficient(k, 1) - int(k == 1))


@given(st.lists(rationals, min_size=1, max_size=6))
def test_a_polynomial_is_its_hermite_series(numbers):
    link = sympy.Add(*(number * z**k for k, number in enumerate(numbers)))
    found = theory.coefficients(link)
    assert (
        sympy.expand(sum(c * theory.hermite(k) / sympy.factorial(k) for k, c in enumerate(found)) - link) == 0
    )
    assert mean(link**2, z) == sum(c**2 / sympy.factorial(k) for k, c in enumerate(found)), "Parseval"
    assert found == [mean(link.diff(z, k), z) for k in range(len(found))], "Stein: c_k = E f^(k)"


@pytest.mark.parametrize(("link", "coefficients", "exponent"), [
    (z**2, [1, 0, 2], 2), (z**3, [0, 3, 0, 6], 1), (z**4, [3, 0, 12, 0, 24], 2), (z**3 - 3 * z, [0, 0, 0, 6], 3),
    ((z**2 - 1) / sqrt(2), [0, 0, sqrt(2)], 2), (z**2 - 1 + (z**3 - 3 * z) / 2, [0, 0, 2, 3], 2),
    (z**4 - 6 * z**2 + 3, [0, 0, 0, 0, 24], 4)], ids=str)  # fmt: skip
def test_links(link, coefficients, exponent):
    """S16."""
    assert theory.coefficients(link) == coefficients
    assert theory.information_exponent(link) == exponent


def test_stein():
    """S4, for every function at once, then first and second order in the plane."""
    f = sympy.Function("f")(z)
    for k in range(1, 6):
        difference = (
            theory.stein_remainder(f, k).diff(z) - (f.diff(z, k) - theory.hermite(k) * f) * theory.density()
        )
        assert sympy.expand(sympy.expand(difference) / theory.density()) == 0
    monomials = [x**i * y**j for i in range(5) for j in range(5 - i)]
    any_quartic = sum(
        number * monomial for number, monomial in zip(sympy.symbols("c:15"), monomials, strict=True)
    )
    for one in (x, y):
        assert zero(mean(one * any_quartic - any_quartic.diff(one), x, y))
        for other in (x, y):
            assert zero(
                mean((one * other - int(one == other)) * any_quartic - any_quartic.diff(one, other), x, y)
            )


# The first gradient


def test_first_gradient_of_any_quadratic_in_any_direction():
    """S5: H w / sqrt(2 pi) + (c_4 / 2) (w'Hw) w and nothing more."""
    f = (h1 * (x**2 - 1) + 2 * h2 * x * y + h3 * (y**2 - 1)) / 2
    H = theory.mean_hessian(f, (x, y))
    assert Matrix([[h1, h2], [h2, h3]]) == H
    found = theory.first_gradient(f, (x, y), ANY_UNIT)
    assert zero(found - step_gradient(f, ANY_UNIT))
    assert zero(
        found
        - H * ANY_UNIT / sqrt(2 * pi)
        - theory.relu_coefficient(4) / 2 * ANY_UNIT.dot(H * ANY_UNIT) * ANY_UNIT
    )


@pytest.mark.parametrize(
    "w", [Matrix([Rational(3, 5), Rational(4, 5)]), Matrix([Rational(5, 13), Rational(-12, 13)])], ids=str
)
def test_first_gradient_of_all_polynomials_to_degree_five(w):
    for i in range(6):
        for j in range(6 - i):
            assert zero(theory.first_gradient(x**i * y**j, (x, y), w) - step_gradient(x**i * y**j, w))


@pytest.mark.parametrize(
    ("activation", "c"), [(z**2, [1, 0, 2]), (z**3 + z, [0, 4, 0, 6]), (z**4, [3, 0, 12, 0, 24])], ids=str
)
def test_first_gradient_with_other_activations(activation, c):
    w = Matrix([Rational(2, 3), Rational(1, 3), Rational(-2, 3)])
    where = (x, y, z)
    for f in (x**2 - y * z, x * y * z + x**3 - x, x**2 * y**2 - z):
        expected = [
            mean(sympy.expand(f * one * activation.diff(z).subs(z, w.dot(Matrix(where)))), *where)
            for one in where
        ]
        found = theory.first_gradient(f, where, w, lambda k: Integer((c + [0] * 6)[k]))
        assert zero(found - Matrix(expected))


def test_one_step_sees_nothing_of_he_3_and_its_subspace_in_he_2():
    """S16: with C_1 = C_2 = 0 and a cubic link, only c_3 and c_5 could speak, and ReLU has neither."""
    he_3 = theory.hermite(3).subs(z, x)
    assert theory.mean_hessian(he_3, (x, y)) == sympy.zeros(2)
    assert zero(theory.first_gradient(he_3, (x, y), ANY_UNIT))
    by_erf = theory.first_gradient(he_3, (x, y), ANY_UNIT, theory.erf_coefficient)
    assert not zero(by_erf), "erf has c_3, and so a gradient of order |w_1|^2"
    c3, c5, w1 = theory.erf_coefficient(3), theory.erf_coefficient(5), ANY_UNIT[0]
    assert zero(by_erf - 3 * c3 * w1**2 * Matrix([1, 0]) - c5 * w1**3 * ANY_UNIT)
    mixed = theory.hermite(2).subs(z, x) + he_3
    assert zero(
        theory.first_gradient(mixed, (x, y), ANY_UNIT) - theory.first_gradient(mixed - he_3, (x, y), ANY_UNIT)
    )


# What is written into a point


def test_kernel():
    """S6: the wedge, its series to rho^11, and every coefficient at once."""
    angle = sympy.acos(rho)
    assert (
        sympy.simplify(theory.arc_cosine_kernel() - (pi - angle) / (2 * pi)).rewrite(sympy.acos).simplify()
        == 0
    )
    assert zero(theory.arc_cosine_kernel().series(rho, 0, 12).removeO() - theory.kernel_series(12))
    m = sympy.symbols("m", integer=True, nonnegative=True)
    of_asin = sympy.binomial(2 * m, m) / (4**m * (2 * m + 1)) / (2 * pi)
    assert (
        sympy.simplify(
            sympy.gammasimp(theory.relu_coefficient(2 * m + 2) ** 2 / sympy.factorial(2 * m + 1) / of_asin)
        )
        == 1
    )


def test_kernel_of_erf():
    """E[s'(a) s'(b)] of correlated normals is a Gaussian integral: (4 / pi) / sqrt(9 - 4 rho^2) at scale 1."""
    exact = 4 / pi / sqrt(9 - 4 * rho**2)
    assert zero(exact.series(rho, 0, 8).removeO() - theory.kernel_series(8, theory.erf_coefficient))


def test_half_space_means():
    """S7 and S8, from polar integrals in the plane, of any quadratic form."""
    assert mean(z, z, positive=z) == theory.half_space_mean(Matrix([1]))[0] == 1 / sqrt(2 * pi)
    direction, across = Matrix([3, 4]) / 5, Matrix([-4, 3]) / 5
    g = u * (sympy.cos(v) * direction + sympy.sin(v) * across)

    def polar(vector):
        density = u * sympy.exp(-(u**2) / 2) / (2 * pi)
        return vector.applyfunc(
            lambda one: sympy.integrate(
                sympy.integrate(sympy.expand(one), (v, -pi / 2, pi / 2)) * density, (u, 0, oo)
            )
        )

    assert zero(polar(g) - theory.half_space_mean(3 * direction))
    H = Matrix([[h1, h2], [h2, h3]])
    assert zero(polar(g.dot(H * g) * g) - theory.half_space_quadratic_mean(H, direction))


def test_the_student_sees_the_hessian_squared():
    """S8: E_u[H u 1{w . H u > 0}] by its definition, H acting on a half-space mean."""
    H, w = Matrix([[2, 1], [1, 3]]), Matrix([1, -1])
    found = theory.student_step(H, w)
    assert zero(found * sqrt((H * w).dot(H * w)) * sqrt(2 * pi) - H**2 * w)
    g = normal(400_000, 2, name="student")
    h, direction = as_numbers(H), as_numbers(w)[:, 0]
    steps = (g @ h) * ((g @ h @ direction) > 0)[:, None]
    within_four_errors(steps, as_numbers(found)[:, 0])


def test_the_boundary_term():
    """S9: J from its definition, its gradient, and what autograd holds fixed."""
    H = Matrix([[h1, h2], [h2, h3]])
    where = Matrix(sympy.symbols("x1:3", real=True))
    unit, length = where / sqrt(where.dot(where)), sqrt(where.dot(where))
    missing = theory.boundary_term(H, where)
    assert zero(missing - (H * unit - unit.dot(H * unit) * unit) / sqrt(2 * pi))
    assert zero(missing.dot(where)), "J is homogeneous of degree one: nothing is missing along x itself"
    assert zero(theory.inner_product_match(H, where) * sqrt(2 * pi) * length - where.dot(H * where))
    assert theory.boundary_term(sympy.eye(2), where).applyfunc(sympy.simplify) == sympy.zeros(2, 1), (
        "isotropic: nothing to turn towards"
    )


def test_a_distilled_point_in_the_plane():
    """From the kernel's side: E[f x kappa_0(angle of x and u)] by an exact polar integral, for a quadratic f and u = e_1."""
    f = (h1 * (x**2 - 1) + 2 * h2 * x * y + h3 * (y**2 - 1)) / 2
    polar = {x: u * sympy.cos(v), y: u * sympy.sin(v)}
    density = u * sympy.exp(-(u**2) / 2) / (2 * pi)
    found = []
    for one in (x, y):
        weighted = sympy.expand((f * one).subs(polar))
        halves = [
            sympy.integrate(sympy.expand(weighted * (Rational(1, 2) - side * v / (2 * pi))), (v, *ends))
            for side, ends in ((1, (0, pi)), (-1, (-pi, 0)))
        ]
        found.append(sympy.integrate(sympy.expand(sum(halves)) * density, (u, 0, oo)))
    assert zero(
        Matrix(found) - theory.distilled_point(Matrix([[h1, h2], [h2, h3]]), Matrix([1, 0]), Integer(2))
    )


def test_a_distilled_point_in_more_dimensions():
    """The same by Monte Carlo in d = 6, with a Hessian of rank 2; the mean 1/4 of the kernel meets E[f x] = 0."""
    samples, dims = 400_000, 6
    H, direction = sympy.diag(3, 2, 0, 0, 0, 0), Matrix([2, 1, 2, 3, 3, 3]) / 6
    data, unit = normal(samples, dims, name="point"), as_numbers(direction)[:, 0]
    f = (3 * (data[:, 0].square() - 1) + 2 * (data[:, 1].square() - 1)) / 2
    cosine = (data @ unit) / data.norm(dim=1)
    weights = f * sympy.lambdify(
        rho, theory.arc_cosine_kernel() - Rational(1, 4), {"asin": torch.asin, "pi": math.pi}
    )(cosine)
    whole = theory.distilled_point(H, direction, Integer(dims))
    within_four_errors(weights[:, None] * data, as_numbers(whole)[:, 0])
    assert (weights[:, None] * data)[:, 2:].mean(0).sum() < 0.8 * float(sum(whole[2:])) < 0, (
        "the part along u shows"
    )
    assert zero(whole[:2, :] - theory.distilled_point(H[:2, :2], direction[:2, :], d).subs(d, dims)), (
        "the block alone"
    )


def test_mean_length():
    for dims in range(1, 6):
        radial = u ** (dims - 1) * sympy.exp(-(u**2) / 2)
        first, third, whole = (sympy.integrate(u**power * radial, (u, 0, oo)) for power in (1, 3, 0))
        assert zero(theory.mean_length(Integer(dims)) - first / whole)
        assert zero(third / first - (dims + 1))
    assert [round(float(theory.mean_length(Integer(dims))) / dims**0.5, 2) for dims in (10, 100, 10_000)] == [
        0.98,
        1.0,
        1.0,
    ]


def test_noise():
    """S14: E|x|^2 (x . u)^2 = d + 2 by Wick's pairings, in one to four explicit dimensions; with labels, by brute force."""
    assert theory.noise_moment() == d + 2
    for dims in (1, 2, 3, 4):
        where = sympy.symbols(f"x:{dims}", real=True)
        square = sum(one**2 for one in where)
        assert mean(sympy.expand(square * where[0] ** 2), *where) == theory.noise_moment().subs(d, dims)
        for link in (z, z**2 - 1, z**3 - 3 * z + 1):
            direct = mean(sympy.expand((link**2).subs(z, where[0]) * square**2), *where) / dims
            assert theory.noise_moment(link).subs(d, dims) == direct


def test_signal_to_noise():
    """S15: N of order d^2 for a given ratio; a label that depends on x changes it by 1 + O(1/d)."""
    ratio = theory.signal_to_noise()
    assert zero(ratio - N * theory.frobenius**2 / (theory.variance * d * (d + 2)))
    assert sympy.limit(ratio.subs(N, d**2), d, oo) == theory.frobenius**2 / theory.variance
    for link in (theory.hermite(2) / sqrt(2), theory.hermite(3) / sqrt(6)):
        assert mean(link**2, z) == 1
        assert sympy.limit(theory.noise_moment(link) / theory.noise_moment(), d, oo) == 1


# How many points


def test_dimension_counts():
    """S11: the dimension of forms is the rank of the powers (v . x)^p over enough directions v."""
    for variables, degree in ((1, 3), (2, 4), (3, 2), (3, 4)):
        exponents = [
            powers
            for powers in itertools.product(range(degree + 1), repeat=variables)
            if sum(powers) == degree
        ]
        count = theory.forms(Integer(variables), Integer(degree))
        assert count == len(exponents)
        directions = normal(int(count) + 3, variables, name="forms")
        powers = torch.stack(
            [torch.stack([directions[:, i] ** n for i, n in enumerate(one)]).prod(0) for one in exponents], 1
        )
        assert torch.linalg.matrix_rank(powers).item() == count
    assert theory.forms().subs({r: 3, p: 4}) == 15


@pytest.mark.parametrize(("points", "dims"), [(3, 3), (4, 2), (6, 3), (5, 4)])
def test_dichotomies_by_enumeration(points, dims):
    u = normal(points, dims, name="dichotomies")
    cuts = (normal(50_000, dims, name="half-spaces") @ u.T) > 0
    assert len(torch.unique(cuts, dim=0)) == theory.dichotomies(Integer(points), Integer(dims))
    assert sympy.simplify(theory.dichotomies(r, r) - 2**r) == 0


def test_sufficient_points():
    assert theory.sufficient_points() == kappa**2 * r**2
    assert theory.sufficient_points(sympy.log(2 * L * r)) == kappa**2 * r * sympy.log(2 * L * r)


# The second layer


@pytest.mark.parametrize("rows", [2, 3])
def test_labels_that_carry_the_head(rows):
    """S12, for every head and penalty, on every square feature matrix of two neurons, and on one with a row more."""
    phi = Matrix(2, 2, sympy.symbols("phi:4", real=True)).col_join(Matrix([[3, -2]])[: rows - 2, :])
    head, penalty = Matrix(sympy.symbols("a:2", real=True)), sympy.symbols("lambda", positive=True)
    assert zero(theory.ridge(phi, theory.inverted_labels(phi, head, penalty), penalty) - head)


def test_fewer_labels_than_neurons_carry_no_general_head():
    phi, head = Matrix([[1, 2, 0], [0, 1, 1]]), Matrix([1, 1, 1])
    free = Matrix(sympy.symbols("y:2"))
    for penalty in (Rational(1, 10), Integer(1)):
        assert sympy.solve(list(theory.ridge(phi, free, penalty) - head), list(free)) == []


@pytest.mark.parametrize("width", [1, 3, 5])
def test_hinges(width):
    """S13: with a point after each kink, triangular, and the determinant is the product of the distances."""
    gaps = sympy.symbols(f"g:{2 * width}", positive=True)
    places = [sum(gaps[: index + 1]) for index in range(2 * width)]
    kinks, points = places[::2], places[1::2]
    matrix = theory.hinge_matrix(points, kinks)
    assert matrix.is_lower
    assert zero(matrix.det() - sympy.prod(point - kink for point, kink in zip(points, kinks, strict=True)))
    if width > 1:
        assert zero(theory.hinge_matrix([kinks[0] - 1, *points[1:]], kinks).det()), (
            "a point before all kinks sees no neuron"
        )


# Memory


def test_memory():
    """S10: the distilled set is r^2 d + L up to the d numbers of the linear part; ratios to data, network and factored network."""
    stored = theory.distilled_numbers().subs({M1: r**2, M2: L})
    assert zero(stored - (r**2 * d + L) - (d + 1))
    assert stored.subs({d: 40, r: 6, L: 512}) == 36 * 40 + 41 + 512 == 1993
    assert sympy.limit(theory.network_numbers() / stored, L, oo) == d + 2
    samples = theory.data_numbers().subs(N, d**2 * r)
    assert zero(sympy.limit(samples / stored / d**2, d, oo) - r / (r**2 + 1))
    assert zero(
        sympy.solve(sympy.Eq(theory.factored_numbers(), r**2 * d + L), L)[0] - r * (r - 1) * d / (r + 1)
    )
    assert theory.network_numbers().subs({d: 40, L: 512}) == 512 * 40 + 512 + 512


# Bad input


@pytest.mark.parametrize(("call", "words"), [
    (lambda: theory.mean(sympy.exp(z), z), ("exp(z)", "polynomial in z")),
    (lambda: theory.coefficients(sympy.erf(z)), ("erf(z)", "polynomial")),
    (lambda: theory.information_exponent(Integer(2)), ("link 2", "constant")),
    (lambda: theory.relu_coefficient(-1), ("k=-1", "from 0 on")),
    (lambda: theory.hermite(Rational(1, 2)), ("k=1/2", "integer")),
    (lambda: theory.first_gradient(x**2, (x, y), Matrix([1, 1])), ("[1, 1]", "|w| = 1")),
    (lambda: theory.inverted_labels(sympy.ones(2, 2), Matrix([1, 2]), Integer(0)), ("rank 1", "2 separate inputs")),
], ids=range(7))  # fmt: skip
def test_refuses(refuses, call, words):
    with refuses(*words):
        call()


# Numbers


def normal(*shape, name):
    return torch.randn(*shape, generator=stream(0, "test hermite", name), dtype=torch.float64)


def as_numbers(matrix) -> torch.Tensor:
    return torch.tensor(np.array(matrix.evalf(), dtype=float))


def within_four_errors(values, expected):
    error = values.std(0) / len(values) ** 0.5
    assert ((values.mean(0) - expected).abs() < 4 * error).all()
    assert error.max() < 0.02 * expected.norm()

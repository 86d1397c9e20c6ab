"""From Hermite polynomials to r^2 d + L in sympy: what one gradient step knows of a multi-index task, and what a distilled set stores.

The setting: x ~ N(0, I_d), y = f(x) with f = link(B x), B of r orthonormal rows; a two-layer network sum_i a_i s(w_i . x + b_i) of
width L, |w_i| = 1, b_i = 0, that starts as the zero function. C_k = E[grad^k f] (a symmetric tensor, zero off the span of B), H = C_2,
and c_k = E[s He_k]. The labels have lost their constant and linear part: C_0 = C_1 = 0.

Of Kinoshita, Nishikawa and Toyoizumi (ICML 2026) only the abstract could be read. This is our reconstruction, along the lines of Damian,
Lee and Soltanolkotabi (COLT 2022): it leads to the bound of the abstract, and reproduces no theorem of the paper.
"""

from collections.abc import Callable, Sequence

import sympy
from sympy import Expr, Integer, Matrix, MatrixBase, Rational, S, Symbol, pi, sqrt

from ddcore.errors import BadInput

d, r, p, L, N, M1, M2 = sympy.symbols("d r p L N M1 M2", positive=True, integer=True)
kappa, variance, frobenius = sympy.symbols(
    "kappa sigma^2 H_F", positive=True
)  # condition number of H, variance of y, |H|_F
z, rho = sympy.symbols("z rho", real=True)


# Hermite expansions


def hermite(k: int) -> Expr:
    """He_k(z), the probabilists' Hermite polynomial."""
    return sympy.hermite_prob(_order(k), z)


def density() -> Expr:
    """The density of N(0, 1) at z."""
    return sympy.exp(-(z**2) / 2) / sqrt(2 * pi)


def mean(polynomial: Expr, *normals: Symbol, positive: Symbol | None = None) -> Expr:
    """E of a polynomial in independent N(0, 1) variables, term by term; on the event positive > 0 alone if `positive` is one of them.

    E z^n = (n - 1)!! for even n, and E z^n 1{z > 0} = 2^(n/2 - 1) Gamma((n + 1)/2) / sqrt(pi). Raises BadInput for what is no polynomial.
    """

    def moment(variable: Symbol, n: int) -> Expr:
        if variable == positive:
            return 2 ** (Rational(n, 2) - 1) * sympy.gamma(Rational(n + 1, 2)) / sqrt(pi)
        return Integer(0) if n % 2 else sympy.factorial2(n - 1)

    return sympy.Add(
        *(
            scale * sympy.prod(map(moment, normals, powers))
            for powers, scale in _polynomial(polynomial, normals).terms()
        )
    )


def coefficients(link: Expr) -> list[Expr]:
    """c_0 .. c_p of a polynomial link in z: link = sum_k c_k He_k / k!."""
    degree = max(0, _polynomial(link, [z]).degree())
    return [sympy.expand(mean(link * hermite(k), z)) for k in range(degree + 1)]


def information_exponent(link: Expr) -> int:
    """The first k >= 1 with c_k != 0. Raises BadInput for a constant link."""
    found = [k for k, coefficient in enumerate(coefficients(link)) if k and coefficient != 0]
    if not found:
        raise BadInput(
            f"link {link} is constant in z and has no information exponent; give a polynomial in z"
        )
    return found[0]


def relu_coefficient(k: int | Expr) -> Expr:
    """c_k = 2^((k - 3)/2) / Gamma((3 - k)/2) of ReLU, for every k >= 0; those of its derivative, the step, are c_{k+1}.

    c_k = He_{k-2}(0) / sqrt(2 pi) from k = 2 on, by two Stein steps: the second derivative of ReLU is a unit mass at 0.
    """
    return 2 ** ((_order(k) - 3) / Integer(2)) / sympy.gamma((3 - _order(k)) / Integer(2))


def leaky_relu_coefficient(k: int | Expr, slope: Expr) -> Expr:
    """c_k of s(z) = max(z, 0) - slope max(-z, 0)."""
    return relu_coefficient(k) * (1 - slope * (-1) ** _order(k))


def erf_coefficient(k: int, scale: Expr = S.One) -> Expr:
    """c_k of s(z) = erf(scale z), zero for even k.

    By one Stein step c_k = E[s' He_{k-1}]; s' density is again a Gaussian, of variance v = 1 / (1 + 2 scale^2), under which
    E He_{2m} = (v - 1)^m (2m - 1)!!.
    """
    m = (_order(k) - 1) / Integer(2)
    v = 1 / (1 + 2 * scale**2)
    return (
        2 * scale * sqrt(v / pi) * (v - 1) ** m * sympy.factorial2(2 * m - 1) if m.is_integer else Integer(0)
    )


def stein_remainder(f: Expr, k: int) -> Expr:
    """R = sum_{j<k} f^(k-1-j) He_j density, with R' = (f^(k) - He_k f) density: so E f^(k) = E He_k f for every f that lets R vanish
    at both ends."""
    return sympy.Add(*(f.diff(z, k - 1 - j) * hermite(j) * density() for j in range(_order(k))))


def _polynomial(f: Expr, variables: Sequence[Symbol]) -> sympy.Poly:
    if not sympy.sympify(f).is_polynomial(*variables):
        raise BadInput(
            f"{f} is no polynomial in {', '.join(map(str, variables))}; give one, or integrate it against density() yourself"
        )
    return sympy.Poly(f, *variables)


def _order(k: int | Expr) -> Expr:
    k = sympy.sympify(k)
    if k.is_integer is False or k.is_negative:
        raise BadInput(f"order k={k} must be an integer from 0 on")
    return k


# The teacher's first gradient


def mean_hessian(f: Expr, x: Sequence[Symbol]) -> MatrixBase:
    """H = E[grad^2 f] of a polynomial f in x."""
    return sympy.hessian(f, x).applyfunc(lambda entry: mean(entry, *x))


def first_gradient(
    f: Expr, x: Sequence[Symbol], w: MatrixBase, coefficient: Callable[[int], Expr] = relu_coefficient
) -> MatrixBase:
    """E[f(x) x s'(w . x)] = sum_k c_{k+1}/k! C_{k+1}(w^k) + w sum_k c_{k+2}/k! C_k(w^k) for a polynomial f and |w| = 1: exact, as C_k = 0
    beyond the degree of f. `coefficient` gives the c_k of the activation s. Raises BadInput unless |w| = 1."""
    if sympy.simplify(w.dot(w) - 1) != 0:
        raise BadInput(
            f"direction w={list(w)} has squared length {w.dot(w)}; the expansion holds for |w| = 1, divide w by its length"
        )
    total, along, k = (
        sympy.zeros(len(x), 1),
        sympy.expand(f),
        0,
    )  # along: the k-th derivative of f in direction w
    while along != 0:
        into = Matrix([mean(along.diff(one), *x) for one in x])
        total += (coefficient(k + 1) * into + coefficient(k + 2) * mean(along, *x) * w) / sympy.factorial(k)
        along, k = sympy.expand(sum(step * along.diff(one) for step, one in zip(w, x, strict=True))), k + 1
    return total


# What one step of gradient matching writes into a point


def arc_cosine_kernel() -> Expr:
    """P(w . x > 0 and w . y > 0) = 1/4 + asin(rho) / (2 pi) for a random w and x, y at cosine rho: the wedge of angle pi - acos(rho)."""
    return Rational(1, 4) + sympy.asin(rho) / (2 * pi)


def kernel_series(order: int, coefficient: Callable[[int], Expr] = relu_coefficient) -> Expr:
    """sum_{k < order} c_{k+1}^2 rho^k / k!: E[s'(w . x) s'(w . y)] for unit x, y and w ~ N(0, I)."""
    return sympy.Add(*(coefficient(k + 1) ** 2 * rho**k / sympy.factorial(k) for k in range(order)))


def half_space_mean(v: MatrixBase) -> MatrixBase:
    """E[g 1{v . g > 0}] = v / (|v| sqrt(2 pi)) for g ~ N(0, I)."""
    return v / (sqrt(v.dot(v)) * sqrt(2 * pi))


def half_space_quadratic_mean(H: MatrixBase, u: MatrixBase) -> MatrixBase:
    """E[(g'Hg) g 1{u . g > 0}] = (tr(H) u + 2 H u - (u'Hu) u) / sqrt(2 pi) for g ~ N(0, I) and |u| = 1."""
    return (H.trace() * u + 2 * H * u - u.dot(H * u) * u) / sqrt(2 * pi)


def mean_length(dimension: Expr = d) -> Expr:
    """E |x| = sqrt(2) Gamma((d + 1)/2) / Gamma(d/2), close to sqrt(d); and E |x|^3 = (d + 1) E |x|."""
    return sqrt(2) * sympy.gamma((dimension + 1) / Integer(2)) / sympy.gamma(dimension / Integer(2))


def distilled_point(H: MatrixBase, u: MatrixBase, dimension: Expr = d) -> MatrixBase:
    """E_w[1{w . u > 0} E[f x 1{w . x > 0}]] over the unit sphere, |u| = 1, exact for the quadratic f = (x'Hx - tr H)/2 and ReLU.

    This is the direction of a point after one step of inner-product gradient matching from u: H u / (2 pi sqrt(d)), and along u a part
    smaller by about |tr H| / (2 |H|_F sqrt(d)). H may be its block (r, r) that is not zero, u the r coordinates there of the unit vector.
    """
    c2, c4 = relu_coefficient(2), relu_coefficient(4)
    return (
        c2 * H * u / sqrt(2 * pi) + c4 / 2 * half_space_quadratic_mean(H, u) / (dimension + 1)
    ) / mean_length(dimension)


def inner_product_match(H: MatrixBase, x: MatrixBase) -> Expr:
    """J(x) = E_w[(Hw) . x 1{w . x > 0}] = x'Hx / (|x| sqrt(2 pi)), w ~ N(0, I): what matching with very many neurons maximises, to first
    order in H and up to a constant."""
    return (H * x).dot(half_space_mean(x))


def boundary_term(H: MatrixBase, x: MatrixBase) -> MatrixBase:
    """grad J minus what autograd returns: (Hu - (u'Hu) u) / sqrt(2 pi) with u = x / |x|. Autograd holds every 1{w . x > 0} constant, and
    gives H u / sqrt(2 pi)."""
    return Matrix([inner_product_match(H, x).diff(one) for one in x]) - H * half_space_mean(x)


def noise_moment(link: Expr = S.One) -> Expr:
    """E[y^2 |x|^2 (x . u)^2] on average over unit u, for y = link(z), z one coordinate of x: E[y^2 |x|^4] / d. It is d + 2 for y = 1."""
    others = Symbol("others")  # |x|^2 - z^2, chi-square with d - 1 degrees of freedom
    in_z = sympy.Poly(sympy.expand((z**2 + others) ** 2), others)
    moments = [Integer(1), d - 1, (d - 1) * (d + 1)]
    return sympy.factor(sum(mean(link**2 * term, z) * moments[power] for (power,), term in in_z.terms()) / d)


def signal_to_noise() -> Expr:
    """SNR^2 = N |H|_F^2 / (sigma^2 d (d + 2)) of a distilled point from N samples: |H u|^2 = |H|_F^2 / d on average, against the variance
    sigma^2 (d + 2) / N: exact for labels of variance sigma^2 independent of x, and right to 1 + O(1/d) for y = f(x)."""
    return N * frobenius**2 / d / (variance * noise_moment())


# How many points the student needs


def student_step(H: MatrixBase, w: MatrixBase) -> MatrixBase:
    """E_u[H u 1{w . H u > 0}] = H^2 w / (|H w| sqrt(2 pi)): the student's first step on very many points H u with label 1, symmetric H."""
    return H * half_space_mean(H * w)


def forms(variables: Expr = r, degree: Expr = p) -> Expr:
    """C(r + p - 1, p), the dimension of the forms of degree p in r variables: as many directions v span the (v . x)^p."""
    return sympy.binomial(variables + degree - 1, degree)


def dichotomies(points: Expr = M1, dimension: Expr = r) -> Expr:
    """2 sum_{k<r} C(M1 - 1, k) (Cover 1965): the subsets that half-spaces {v . u > 0} cut from points in general position, hence the most
    directions that the student's step can take. It is 2^r at M1 = r."""
    k = Symbol("k", integer=True)
    return 2 * sympy.Sum(sympy.binomial(points - 1, k), (k, 0, dimension - 1)).doit()


def sufficient_points(complexity: Expr = r) -> Expr:
    """kappa^2 r complexity: the M1 at which the error sqrt(complexity / M1) of a coordinate is as small as the weakest coordinate,
    1 / (kappa sqrt(r)), of a unit vector H w / |H w|. The complexity of all directions at once is r, the VC dimension of half-spaces
    (constants and logarithms dropped), hence kappa^2 r^2; of L neurons drawn independently of the points it is log(L r), a union bound."""
    some = Symbol("complexity", positive=True)
    return sympy.solve(sympy.Eq(sqrt(some / M1), 1 / (kappa * sqrt(r))), M1)[0].subs(some, complexity)


# The second layer


def ridge(phi: MatrixBase, y: MatrixBase, penalty: Expr) -> MatrixBase:
    """(phi'phi + penalty I)^-1 phi'y for features phi (M2, L)."""
    return (phi.T * phi + penalty * sympy.eye(phi.cols)).inv() * phi.T * y


def inverted_labels(phi: MatrixBase, head: MatrixBase, penalty: Expr) -> MatrixBase:
    """The labels on which `ridge` returns `head`, phi (phi'phi)^-1 (phi'phi + penalty I) head. Raises BadInput unless phi has rank L."""
    if phi.rank() < phi.cols:
        raise BadInput(
            f"features of rank {phi.rank()} can't carry a head of {phi.cols} numbers; take {phi.cols} separate inputs or more"
        )
    gram = phi.T * phi
    return phi * gram.inv() * (gram + penalty * sympy.eye(phi.cols)) * head


def hinge_matrix(points: Sequence[Expr], kinks: Sequence[Expr]) -> MatrixBase:
    """max(t_m - kink_i, 0): the features of inputs t_m v on one line, of neurons that open the same way. With one point after each kink and
    before the next it is triangular, of determinant prod(t_i - kink_i) > 0."""
    return Matrix([[sympy.Max(point - kink, 0) for kink in kinks] for point in points])


# Memory, in stored numbers


def distilled_numbers() -> Expr:
    """M1 points, the constant and linear part of the labels, M2 labels (their inputs come from a seed): M1 d + (d + 1) + M2."""
    return M1 * d + (d + 1) + M2


def data_numbers() -> Expr:
    """N (d + 1)."""
    return N * (d + 1)


def network_numbers() -> Expr:
    """L (d + 2): first layer, biases, head."""
    return L * (d + 2)


def factored_numbers() -> Expr:
    """r (d + L) + 2 L: the same network with its first layer stored at rank r."""
    return r * (d + L) + 2 * L

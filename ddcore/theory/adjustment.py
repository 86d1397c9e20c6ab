"""Directed weight adjustment in sympy: what matching a variance does to a batch, where steps uphill on a batch lead, what labels cost.

The method is DWA (Du et al., NeurIPS 2024) on SRe2L (Yin et al., NeurIPS 2023) as the released code has it; where the paper's text
differs is said in `ddcore.plugins.weight_adjustment`. What follows is our reconstruction of why it should work and our own analysis of
when it does; no theorem of the paper is reproduced.

A batch is z (C, n), the n = N P inputs of a batch norm in each of C channels, or z (N, P), one channel of N images at P positions.
"""

from collections.abc import Sequence

import sympy
from sympy import Expr, Matrix, MatrixBase, sqrt

N, B, C, n = sympy.symbols(
    "N B C n", positive=True, integer=True
)  # training images, images of a batch, classes, numbers of a channel
K, ipc, epochs, iterations, H, W = sympy.symbols("K ipc epochs iterations H W", positive=True, integer=True)
rho, slope, curvature, eta, kappa, T = sympy.symbols("rho slope curvature eta kappa T", positive=True)
cosine, h, j = sympy.symbols("cosine h j", real=True)


# The two statistics of a batch


def within(z: MatrixBase) -> Expr:
    """z (N, P): the variance over positions, mean over images."""
    return _mean([_variance(z.row(image)) for image in range(z.rows)])


def between(z: MatrixBase) -> Expr:
    """z (N, P): the variance over images of the mean over positions. With `within` it adds up to the variance of the batch."""
    return _variance([_mean(z.row(image)) for image in range(z.rows)])


def mean_loss(z: MatrixBase, target: Sequence[Expr]) -> Expr:
    """|mu - target|_2 over the channels of z (C, n)."""
    return sqrt(sum((_mean(z.row(c)) - one) ** 2 for c, one in enumerate(target)))


def variance_loss(z: MatrixBase, target: Sequence[Expr]) -> Expr:
    """|sigma^2 - target|_2, with the biased variance."""
    return sqrt(sum((_variance(z.row(c)) - one) ** 2 for c, one in enumerate(target)))


def translation(z: MatrixBase, target: Sequence[Expr]) -> MatrixBase:
    """The gradient of `mean_loss`, (mu_c - target_c) / (loss n): the same for all numbers of a channel."""
    loss = mean_loss(z, target)
    return Matrix(z.rows, z.cols, lambda c, i: (_mean(z.row(c)) - target[c]) / (loss * z.cols))


def dispersion(z: MatrixBase, target: Sequence[Expr]) -> MatrixBase:
    """The gradient of `variance_loss`, 2 u_c (z - mu_c) / n with u = (sigma^2 - target) / loss: it sums to 0 over a channel."""
    loss = variance_loss(z, target)
    return Matrix(
        z.rows,
        z.cols,
        lambda c, i: 2 * (_variance(z.row(c)) - target[c]) / loss * (z[c, i] - _mean(z.row(c))) / z.cols,
    )


def translation_size() -> Expr:
    """1 / sqrt(n): the length of `translation`, however far the means are from their targets."""
    return 1 / sqrt(n)


def dispersion_size(shares: Sequence[Expr], variances: Sequence[Expr]) -> Expr:
    """2 sqrt(sum_c u_c^2 sigma_c^2 / n): the length of `dispersion`, u the unit vector of the mismatches."""
    return 2 * sqrt(sum(share**2 * variance for share, variance in zip(shares, variances, strict=True)) / n)


def dispersion_factor(share: Expr, step: Expr = eta) -> Expr:
    """A step -eta dispersion multiplies every distance from the mean of channel c by 1 - 2 eta u_c / n, so that `within` and `between`
    both grow by its square: in free features it can't change the share of either."""
    return 1 - 2 * step * share / n


def expected_between(of_means: Expr, spread: Expr, images: Expr = B) -> Expr:
    """E of the biased variance of independent numbers x_i: the variance of their expectations, plus (1 - 1/B) times their mean variance.

    For image means of variance b between classes and w within: (0, b + w) if images are drawn from all classes, (0, w) from one,
    (b, w) one from each.
    """
    return of_means + (1 - 1 / images) * spread


def response(steps: Expr = iterations) -> Expr:
    """What a weight displacement does to a pixel: gradient descent from 0 on h s^2 / 2 + j s, with j = d^2 L / (ds dtheta) times it, is at
    -(1 - (1 - eta h)^steps) j / h. Linear in the displacement: noise of covariance S there has covariance J S J' / h^2 in the end."""
    return -(1 - (1 - eta * h) ** steps) * j / h


def _mean(values: Sequence[Expr]) -> Expr:
    return sum(values) / len(values)


def _variance(values: Sequence[Expr]) -> Expr:
    return _mean([(one - _mean(values)) ** 2 for one in values])


# Where the adjustment leads. L is a sum over images plus N decay |theta|^2 / 2, minimal at theta_T; g = grad L_B there.


def rest_gradient() -> Expr:
    """grad L_rest = -g at theta_T for L_rest = L_{T without B} + N decay |theta|^2 / 2: the regulariser belongs to the rest."""
    of_batch, of_others, regulariser = sympy.symbols("g g_others N_decay_theta")
    others = sympy.solve(sympy.Eq(of_batch + of_others + regulariser, 0), of_others)[0]
    return others + regulariser


def rest_change(length: Expr = rho) -> Expr:
    """L_rest(theta_T + length g / |g|) - L_rest(theta_T) to second order: slope = |g|, curvature = g'Hg / |g|^2, H of L_rest."""
    return -slope * length + curvature * length**2 / 2


def safe_length() -> Expr:
    """2 |g|^3 / g'Hg: the step that leaves L_rest where it was; a longer one raises it."""
    return sympy.solve(sympy.Eq(rest_change(), 0), rho)[0]


def best_length() -> Expr:
    """Half of it."""
    return sympy.solve(sympy.Eq(rest_change().diff(rho), 0), rho)[0]


def newton(hessian: MatrixBase, g: MatrixBase) -> MatrixBase:
    """theta_{T without B} - theta_T = H^-1 g, H of L_rest: exact if that is quadratic."""
    return hessian.inv() * g


def share(hessian: MatrixBase, g: MatrixBase) -> Expr:
    """|g|^4 / (g'Hg g'H^-1 g): how much of what L_rest can fall its best point along g reaches, L_rest quadratic."""
    return (g.dot(g)) ** 2 / (g.dot(hessian * g) * g.dot(newton(hessian, g)))


def share_floor() -> Expr:
    """4 kappa / (1 + kappa)^2 (Kantorovich): the least `share` of a Hessian with condition number kappa, met between its outer
    eigenvectors. Derived here in their plane."""
    weight = sympy.Symbol("weight", positive=True)
    found = share(sympy.diag(1, kappa), Matrix([sqrt(weight), sqrt(1 - weight)]))
    return sympy.factor(found.subs(weight, sympy.solve(found.diff(weight), weight)[0]))


def cosine_floor() -> Expr:
    """2 sqrt(kappa) / (1 + kappa): the least cosine of g and H^-1 g, whose square is the `share` of H^(-1/2) g."""
    return sqrt(share_floor())


def adjustment_length(mean_cosine: Expr = cosine) -> Expr:
    """|Delta| = rho sqrt(1/K + (1 - 1/K) cosine) for K unit steps of length rho / K, `cosine` the mean over their pairs: rho at most."""
    return rho * sqrt(1 / K + (1 - 1 / K) * mean_cosine)


def batch_covariance() -> Expr:
    """Cov(g_B) = B (N - B) / (N - 1) Sigma for a random B at a stationary point of the sum, where E g_B = 0; Sigma is that of one image.

    An image is in B with probability B/N, two with B (B - 1) / (N (N - 1)), and the sum over all pairs is minus that over all images.
    """
    one, two = B / N, B * (B - 1) / (N * (N - 1))
    return sympy.factor(N * (one - two))


def square_cosine(eigenvalues: Sequence[Expr]) -> Expr:
    """tr S^2 / (tr S)^2 = E (a.b)^2 / (E |a|^2)^2 for independent a, b of mean 0 and covariance S; 1/p if S is isotropic in R^p."""
    return sum(one**2 for one in eigenvalues) / sum(eigenvalues) ** 2


def stale_statistics(
    w: MatrixBase, delta: MatrixBase, mean: MatrixBase, covariance: MatrixBase
) -> tuple[Expr, Expr]:
    """How far mean and variance of w . x move when w moves by delta: (delta . mean, 2 w'S delta + delta'S delta). A batch norm that keeps
    the old ones holds even the real images to them."""
    return delta.dot(mean), 2 * w.dot(covariance * delta) + delta.dot(covariance * delta)


# Labels and cost


def soft_gradient(student: MatrixBase, teacher: MatrixBase) -> MatrixBase:
    """Of KL(softmax(teacher / T) || softmax(student / T)) in the student's logits: (softmax(student / T) - softmax(teacher / T)) / T."""
    ours, theirs = (Matrix([sympy.exp(one / T) for one in logits]) for logits in (student, teacher))
    return (ours / sum(ours) - theirs / sum(theirs)) / T


def hot_gradient(student: MatrixBase, teacher: MatrixBase) -> MatrixBase:
    """The limit of T^2 `soft_gradient` at high T: the centred difference of the logits over the number of classes."""
    apart = student - teacher
    return (apart - sympy.ones(len(apart), 1) * sum(apart) / len(apart)) / len(apart)


def label_bytes(numbers: Expr = C) -> Expr:
    """Soft labels stored in half precision, one for each of the ipc C images and epochs: `numbers` is C, or 2k for the k largest and
    their places."""
    return 2 * ipc * C * epochs * numbers


def label_share() -> Expr:
    """Over the bytes of the images themselves, three channels of 8 bits."""
    return label_bytes() / (3 * H * W * ipc * C)


def adjustment_overhead(frozen: bool = True) -> Expr:
    """Passes of a batch, in units of recovering it with frozen weights (2 an iteration: forward, backward to the pixels), minus 1.

    A step of the adjustment takes 3 (the gradient in the weights as well). As released the weights are not frozen: 3 an iteration.
    """
    return (3 * K + (2 if frozen else 3) * iterations) / (2 * iterations) - 1

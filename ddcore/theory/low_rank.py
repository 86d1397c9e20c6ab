"""Low-rank images X = U V in sympy: what they cost, what one gradient step on the factors does to the image.

The parametrisation is LoDC's (Yang et al., NeurIPS 2023), read from its published code; `images_per_class_of_the_scripts` and
`images_per_class` are the two rounding rules found there. The rest (gauge, image step, expected gains) is our own analysis:
no theorem of the paper is reproduced here.
"""

import sympy
from sympy import Expr, MatrixExpr, MatrixSymbol
from sympy.stats import E, Normal

H, W, r, ipc, n = sympy.symbols("H W r ipc n", positive=True, integer=True)
eta = sympy.symbols("eta", positive=True)
U, V, G = (
    MatrixSymbol("U", H, r),
    MatrixSymbol("V", r, W),
    MatrixSymbol("G", H, W),
)  # G is the gradient of the loss in X


def value(expression: Expr, **numbers: int) -> int | float:
    """The expression at given numbers, by symbol name: value(multiplier(), H=28, W=28, r=2) is 7."""
    found = expression.subs({symbol: numbers[symbol.name] for symbol in expression.free_symbols})
    return int(found) if found.is_integer else float(found)


def pixel_storage() -> Expr:
    """Numbers that one channel of an image takes as pixels: H W."""
    return H * W


def factor_storage() -> Expr:
    """Numbers that it takes as factors U (H, r) and V (r, W): r (H + W)."""
    return sympy.factor(H * r + r * W)


def multiplier() -> Expr:
    """m = HW / (r (H + W)): low-rank images that fit into the storage of one pixel image."""
    return pixel_storage() / factor_storage()


def break_even_rank() -> Expr:
    """The r at which m = 1; factors save storage below it."""
    return sympy.solve(sympy.Eq(factor_storage(), pixel_storage()), r)[0]


def images_per_class() -> Expr:
    """floor(ipc m), the rule of the paper's README, and that of `ddcore.LowRank`."""
    return sympy.floor(ipc * multiplier())


def images_per_class_of_the_scripts() -> Expr:
    """ipc floor(m), the rule of the paper's training scripts."""
    return ipc * sympy.floor(multiplier())


def budget_used(images: Expr) -> Expr:
    """Share of the storage of `ipc` pixel images that `images` low-rank images take."""
    return images * factor_storage() / (ipc * pixel_storage())


def gauge_dimension() -> Expr:
    """r^2: U A and A^-1 V give the same image for every invertible A (r, r), so that many stored numbers say nothing."""
    return r**2


def degrees_of_freedom() -> Expr:
    """r (H + W - r), the dimension of the manifold of matrices of rank r."""
    return r * sympy.expand((factor_storage() - gauge_dimension()) / r)


def class_mean_rank(images: Expr = n) -> Expr:
    """min(n r, H, W): the highest rank of the mean of n images of rank r."""
    return sympy.Min(images * r, H, W)


def factor_gradients() -> tuple[MatrixExpr, MatrixExpr]:
    """(dL/dU, dL/dV) for a loss with gradient G in X = U V, by the chain rule: the gradient of trace(G' X) with G held fixed."""
    through = sympy.trace(G.T * U * V)
    return through.diff(U), through.diff(V)


def image_change() -> MatrixExpr:
    """(U - eta dL/dU)(V - eta dL/dV) - U V, expanded: exact for one step of gradient descent at rate eta."""
    by_u, by_v = factor_gradients()
    return ((U - eta * by_u) * (V - eta * by_v) - U * V).expand().doit()


def image_step() -> MatrixExpr:
    """The part of `image_change` that is linear in eta, divided by it: -(G V'V + U U'G)."""
    terms = [term.as_coeff_mmul() for term in image_change().args]
    return sympy.MatAdd(*(scale / eta * matrix for scale, matrix in terms if sympy.degree(scale, eta) == 1))


def expected_gain() -> Expr:
    """E <G, D> / ||G||^2 = 2r for D = G V'V + U U'G, factors from N(0, 1) and a G independent of them.

    E U U' = r E[u^2] I and E V'V = r E[v^2] I: each entry on a diagonal is a sum of r squares, the others have mean zero.
    """
    u, v = Normal("u", 0, 1), Normal("v", 0, 1)
    return r * E(u**2) + r * E(v**2)


def expected_square_gain() -> Expr:
    """E ||D||^2 / ||G||^2 = r (H + W + 4r + 2), under the same assumptions.

    An entry on the diagonal of E (U U')^2 holds, for each pair of columns a, b and each row j, E[u_ia u_ja u_jb u_ib]:
    a = b and j = i gives E[u^4], a = b or j = i alone gives E[u^2]^2. The cross term is 2 E[U U'] E[V'V] = 2 r^2.
    """
    u = Normal("u", 0, 1)
    second, fourth = E(u**2), E(u**4)

    def gram_square(side: Expr) -> Expr:
        return r * fourth + r * (side - 1) * second**2 + r * (r - 1) * second**2

    return sympy.factor(gram_square(H) + gram_square(W) + 2 * (r * second) ** 2)


def alignment() -> Expr:
    """2r / sqrt(E ||D||^2 / ||G||^2): about the cosine between the pixel gradient and the step that the factors take."""
    return sympy.simplify(expected_gain() / sympy.sqrt(expected_square_gain()))

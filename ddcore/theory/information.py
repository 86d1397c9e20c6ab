"""The noise-contrastive bound on mutual information, in sympy: its proof, its gaps, what other negatives and another bias make of it.

A pair (s, t) of a synthetic and a real sample comes from the joint density p = p(s, t) (D = 1) or from the independent one q = p(s) p(t)
(D = 0), N independent pairs for each joint one; r = p / q. Samples of C equally frequent classes are paired by label: given the class they
are independent, so that r = C sum_c P(c|s) P(c|t) <= C. A critic h(s, t) in (0, 1) guesses P(D = 1 | s, t), and
L_NCE = E_p log h + N E_q log(1 - h), in nats.

Of Shang, Yuan and Yan (MIM4DD, NeurIPS 2023) the opening and a figure's caption could be read, no equation. The bound and its proof are
those of contrastive representation distillation (Tian, Krishnan and Isola, ICLR 2020), which their earlier code follows.
The gaps, the correction, the overshoot and its repair are our own analysis.
"""

import sympy
from sympy import Expr, exp, log

p, q, r, C, N, M, tau, D = sympy.symbols("p q r C N M tau D", positive=True)
h = sympy.Symbol("h", positive=True)
u, cosine = sympy.symbols("u cosine", real=True)


# The proof


def posterior() -> Expr:
    """Bayes, with one joint pair to N independent ones: P(D = 1 | s, t) = p / (p + N q)."""
    prior = 1 / (N + 1)
    return sympy.simplify(prior * p / (prior * p + (1 - prior) * q))


def optimal_critic() -> Expr:
    """h* = r / (r + N), the posterior by the density ratio alone."""
    return sympy.simplify(posterior().subs(p, r * q))


def slack() -> Expr:
    """log r - (log N + log h*) = log(1 + r / N) > 0: what the inequality log h* <= -log N + log r gives away at a pair."""
    return log(sympy.expand(r / (N * optimal_critic())))


def objective() -> Expr:
    """p log h + N q log(1 - h): L_NCE at one pair. It is concave in h and largest at h* (Gibbs)."""
    return p * log(h) + N * q * log(1 - h)


# The gaps. Each is an expectation over independent pairs, under which E r = 1.


def negative_sum() -> Expr:
    """-N log(1 - h*) = N log(1 + r / N) <= r, the negatives' part of -L_NCE at a pair: at most 1 in the mean, and 1 as N grows."""
    return N * log(sympy.expand(sympy.cancel(1 / (1 - optimal_critic()))))


def whole_gap() -> Expr:
    """I - (log N + L_NCE(h*)) = E_q of (N + r) log(1 + r / N), convex in r: the slack, with the weight r of p, and the negatives' part."""
    return sympy.factor(r * slack() + negative_sum())


def least_gap() -> Expr:
    """(N + 1) log(1 + 1/N) > 1, by Jensen: no distribution has a smaller one; independent samples have it. It tends to 1 as N grows.

    So log N + L_NCE(h) + (N + 1) log(1 + 1/N) is a bound as well, for every critic: it is (N + 1) I(D; s, t), nothing for independent
    samples, and I - E_q[...] vanishes as N grows.
    """
    return whole_gap().subs(r, 1)


def greatest_gap() -> Expr:
    """(1 + N/C) log(1 + C/N), from the chord of a convex function over 0 <= r <= C: separated classes have it. It tends to 1 as well."""
    return whole_gap().subs(r, C) / C


# Negatives of other classes


def other_ratio() -> Expr:
    """e^u = p / p_other = r (C - 1) / (C - r), where q = p / C + (1 - 1/C) p_other: an independent pair is of one class in C cases."""
    other = sympy.Symbol("other")
    found = sympy.solve(sympy.Eq(q, p / C + (1 - 1 / C) * other), other)[0]
    return r / sympy.simplify(found.subs(p, r * q) / q)


def overshoot() -> Expr:
    """u - log r = log((C - 1) / (C - r)), whose expectation under p is KL(p || p_other) - I: at least log((C - 1) / (C - 1 - chi^2)) by
    Jensen, with chi^2 = E_q r^2 - 1, hence never negative; infinite for separated classes."""
    return log(sympy.simplify(other_ratio() / r))


def repaired_ratio() -> Expr:
    """r = C e^u / (C - 1 + e^u) from the logit u - log N of a critic that saw other classes only; C times the sigmoid of u - log(C - 1)."""
    return sympy.simplify(sympy.solve(sympy.Eq(exp(u), other_ratio()), r)[0])


# The critic on features


def printed_critic() -> Expr:
    """e^(cosine/tau) / (e^(cosine/tau) + N/M), M the number of real samples: as contrastive representation distillation prints it."""
    return exp(cosine / tau) / (exp(cosine / tau) + N / M)


def printed_bias() -> Expr:
    """b = log(N/M), at which that critic is the sigmoid of cosine / tau - b. The optimal logit is log r - log N: it takes M e^(cosine/tau)
    for r."""
    return sympy.expand(cosine / tau - log(sympy.cancel(1 / (1 / printed_critic() - 1))))


def normaliser() -> Expr:
    """Z = E e^(cosine/tau) = Gamma(D/2) (2 tau)^(D/2 - 1) I_{D/2-1}(1/tau) for independent directions in D dimensions. With the bias
    log(N Z) the critic takes e^(cosine/tau) / Z for r, which has mean 1 over independent pairs as r must: `negative_sum` holds of it."""
    return sympy.gamma(D / 2) * (2 * tau) ** (D / 2 - 1) * sympy.besseli(D / 2 - 1, 1 / tau)

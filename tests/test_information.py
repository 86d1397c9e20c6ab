"""The noise-contrastive bound: each statement of ddcore.theory.information by sympy, and by numbers on tables, mixtures and features."""

import math

import numpy as np
import pandas as pd
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

from ddcore import figures
from ddcore.lab.measurement import Measurement
from ddcore.lab.measurements import information_sweeps as sweeps
from ddcore.random import stream
from ddcore.theory import information as theory
from ddcore.theory import label_pairs
from ddcore.theory.information import C, M, N, h, p, q, r, tau, u
from ddcore.theory.label_pairs import Side, exact, quadrature, simplex, spaced, table

CPU = torch.device("cpu")


def close(value, rel=1e-12, abs=1e-12):
    return pytest.approx(value, rel=rel, abs=abs)


def number(expression, **at):
    return float(expression.subs({symbol: at[symbol.name] for symbol in expression.free_symbols}))


@st.composite
def sides(draw) -> tuple[Side, Side]:
    """Two sides of 2 to 4 classes, of any values from 2 to 6."""
    classes = draw(st.integers(2, 4))
    sizes = [draw(st.integers(2, 6)) for _ in range(2)]
    raw = [
        np.array(draw(st.lists(st.floats(0.01, 1), min_size=classes * n, max_size=classes * n))).reshape(
            classes, n
        )
        for n in sizes
    ]
    return tuple(table(torch.from_numpy(one / one.sum(1, keepdims=True))) for one in raw)


def joint_of(s: Side, t: Side, same: bool):
    """sum over classes of P(s, c) P(t, c'), c = c' or not, normalised: from the definition."""
    a, b = (side.weight[:, None] * side.posterior for side in (s, t))
    classes = a.shape[1]
    found = sum(
        torch.outer(a[:, c], b[:, other])
        for c in range(classes)
        for other in range(classes)
        if (c == other) == same
    )
    return found / found.sum()


many = st.sampled_from([1, 3, 64, 4096])


# The proof


def test_bayes():
    assert sympy.simplify(theory.posterior() - p / (p + N * q)) == 0
    assert sympy.simplify(theory.optimal_critic() - r / (r + N)) == 0


def test_the_inequality_step_and_what_it_gives_away():
    given_away = sympy.log(r) - sympy.log(N) - sympy.log(theory.optimal_critic())
    assert sympy.simplify(sympy.exp(given_away) - sympy.exp(theory.slack())) == 0
    assert (sympy.exp(theory.slack()) - 1).is_positive
    assert sympy.limit(theory.slack(), N, sympy.oo) == 0


def test_gibbs():
    """The objective is concave in the critic, and its slope is nothing at the posterior alone."""
    slope = theory.objective().diff(h)
    assert sympy.solve(slope, h) == [theory.posterior()]
    assert sympy.simplify(theory.objective().diff(h, 2) + p / h**2 + N * q / (1 - h) ** 2) == 0


def test_the_gap_is_one_nat_or_more():
    gap = theory.whole_gap()
    assert sympy.simplify(gap - r * theory.slack() - theory.negative_sum()) == 0
    assert sympy.simplify(gap.diff(r, 2) - 1 / (N + r)) == 0, "convex: Jensen, and its chord"
    assert gap.subs(r, 0) == 0
    assert sympy.limit(gap, N, sympy.oo) == r, "whose mean over independent pairs is 1"
    for one in (theory.least_gap(), theory.greatest_gap()):
        assert sympy.limit(one, N, sympy.oo) == 1
    assert sympy.simplify(theory.greatest_gap() - gap.subs(r, C) / C) == 0
    assert sympy.simplify(theory.least_gap() - (N + 1) * sympy.log(1 + 1 / N)) == 0
    below = theory.least_gap().diff(N)  # log(1 + 1/N) - 1/N < 0: it falls towards 1
    assert sympy.simplify(below - sympy.log(1 + 1 / N) + 1 / N) == 0


def test_the_correction_is_the_information_of_the_classifier():
    """L_NCE(h*) + (N + 1) entropy(1 / (N + 1)) = (N + 1) I(D; s, t), and the entropy's part is log N + the least gap."""
    share = 1 / (N + 1)
    entropy = -share * sympy.log(share) - (1 - share) * sympy.log(1 - share)
    difference = sympy.expand_log(
        sympy.simplify((N + 1) * entropy - sympy.log(N) - theory.least_gap()), force=True
    )
    assert all(abs(number(difference, N=one)) < 1e-12 for one in (1, 7, 1000))


# The bound on tables, exactly


@given(sides(), many)
def test_gaps_of_tables(pair, count):
    pairs, classes = exact(*pair), pair[0].posterior.shape[1]
    independent, ratio = pairs.independent, pairs.ratio
    true = label_pairs.information(pairs)
    first, whole = label_pairs.bound(pairs, label_pairs.log_ratio(pairs), count)
    assert true - first == close(float((pairs.joint * (ratio / count).log1p()).sum()), abs=1e-10)
    assert true - whole == close(
        float((independent * (count + ratio) * (ratio / count).log1p()).sum()), abs=1e-10
    )
    assert -1e-10 <= true - first <= math.log1p(classes / count) + 1e-10
    least, greatest = (number(one(), N=count, C=classes) for one in (theory.least_gap, theory.greatest_gap))
    assert 1 < least == close(label_pairs.least_gap(count))
    assert least - 1e-10 <= true - whole <= greatest + 1e-10


@given(sides(), many, st.integers(0, 10**6))
def test_any_critic_is_a_bound_and_the_posterior_the_best(pair, count, seed):
    pairs = exact(*pair)
    u = label_pairs.log_ratio(pairs)
    other = u + torch.randn(u.shape, generator=stream(seed, "critic"), dtype=u.dtype)
    best, worse = (label_pairs.bound(pairs, one, count)[1] for one in (u, other))
    assert worse <= best + 1e-10
    assert worse + label_pairs.least_gap(count) <= label_pairs.information(pairs) + 1e-10


def test_the_positive_term_of_another_critic_is_no_bound():
    pairs = exact(*[quadrature(spaced(3, 1.0))] * 2)
    first, whole = label_pairs.bound(pairs, label_pairs.log_ratio(pairs) + 50, 64)
    assert first > label_pairs.information(pairs) + 1 > whole


def test_the_gap_at_its_two_ends():
    """Independent samples have the least gap, separated classes the greatest."""
    same = table(torch.tensor([[0.25, 0.75]] * 3, dtype=torch.float64))
    apart = table(torch.eye(5, dtype=torch.float64))
    for count in (1, 64, 65_536):
        found = exact(same, same)
        assert label_pairs.bound(found, label_pairs.log_ratio(found), count)[1] == close(
            -label_pairs.least_gap(count), rel=1e-9
        )
        found = exact(apart, apart)
        whole = label_pairs.bound(found, label_pairs.log_ratio(found), count)[1]
        assert whole == close(math.log(5) - number(theory.greatest_gap(), N=count, C=5), abs=1e-9)


def test_the_gap_tends_to_one_nat():
    pairs = exact(*[quadrature(spaced(10, 2.0))] * 2)
    true = label_pairs.information(pairs)
    first, whole = label_pairs.bound(pairs, label_pairs.log_ratio(pairs), 65_536)
    assert 0 < true - first < 2e-4
    assert true - whole == close(1, abs=1e-4)


# The ceiling


@given(sides())
def test_label_pairs_know_no_more_than_the_label(pair):
    """0 <= I(s; t) <= I(Y; s) <= log C; and I = log C + E log P(same class | s, t)."""
    pairs, (s, t) = exact(*pair), pair
    classes = s.posterior.shape[1]
    of_label = math.log(classes) + float((s.weight[:, None] * s.posterior * s.posterior.log()).sum())
    found = label_pairs.information(pairs)
    assert -1e-12 <= found <= of_label + 1e-12
    assert of_label <= math.log(classes) + 1e-12
    assert (pairs.ratio <= classes + 1e-12).all()
    assert found == close(
        math.log(classes) + float((pairs.joint * (s.posterior @ t.posterior.T).log()).sum())
    )


@given(sides(), st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_features_know_no_more_than_samples(pair, feature):
    """I(s; t) >= I(f(s); t) for every map f, invertible or not; equality for an invertible one."""
    s, t = pair
    before = label_pairs.information(exact(s, t))
    assert (
        label_pairs.information(exact(s.through(torch.tensor(feature[: len(s.weight)])), t)) <= before + 1e-12
    )
    assert label_pairs.information(exact(s.through(-torch.arange(len(s.weight))), t)) == close(before)


@pytest.mark.parametrize("counts", [(1, 1), (10, 50)], ids=str)
def test_sets_of_different_images_have_log_c_whatever_they_show(counts):
    """Drawn uniformly, an image of a finite set names its class."""
    s, t = (table(torch.eye(10, dtype=torch.float64).repeat_interleave(n, 1) / n) for n in counts)
    assert label_pairs.information(exact(s, t)) == close(math.log(10))


# Negatives of other classes


def test_the_ratio_to_other_classes_and_its_inverse():
    assert sympy.simplify(theory.other_ratio() - r * (C - 1) / (C - r)) == 0
    assert sympy.simplify(theory.repaired_ratio() - C * sympy.exp(u) / (C - 1 + sympy.exp(u))) == 0
    assert sympy.simplify(theory.repaired_ratio().subs(u, sympy.log(theory.other_ratio())) - r) == 0
    assert sympy.simplify(sympy.exp(theory.overshoot()) - theory.other_ratio() / r) == 0
    assert sympy.limit(theory.repaired_ratio(), u, sympy.oo) == C
    sigmoid = C / (1 + sympy.exp(sympy.log(C - 1) - u))
    assert sympy.simplify(theory.repaired_ratio() - sigmoid) == 0


@given(sides(), many)
def test_negatives_of_other_classes_on_tables(pair, count):
    pairs, classes = exact(*pair), pair[0].posterior.shape[1]
    joint, other = (joint_of(*pair, same) for same in (True, False))
    torch.testing.assert_close(pairs.joint, joint, rtol=0, atol=1e-14)
    torch.testing.assert_close(pairs.other, other, rtol=0, atol=1e-14)
    torch.testing.assert_close(
        pairs.independent, joint / classes + (1 - 1 / classes) * other, rtol=0, atol=1e-14
    )
    u, true = label_pairs.log_ratio(pairs, "other classes"), label_pairs.information(pairs)
    divergence = float((joint * (joint / other).log()).sum())
    chi = float((pairs.independent * pairs.ratio**2).sum()) - 1
    assert divergence - true == close(
        float((joint * ((classes - 1) / (classes - pairs.ratio)).log()).sum()), abs=1e-9
    )
    assert divergence - true >= math.log((classes - 1) / (classes - 1 - chi)) - 1e-9 >= -1e-9
    first, whole = label_pairs.bound(pairs, u, count, "other classes")
    weight = joint / other
    assert divergence - first == close(float((joint * (weight / count).log1p()).sum()), abs=1e-9)
    assert divergence - whole == close(
        float((other * (count + weight) * (weight / count).log1p()).sum()), abs=1e-9
    )
    logit = u - math.log(count)
    assert label_pairs.repaired(pairs, logit + math.log(count), classes) == close(true, abs=1e-10)


def test_the_inequality_is_violated_and_without_limit():
    for separation, least in ((2.0, 0.5), (3.0, 1.5), (4.0, 3.0)):
        pairs = exact(*[quadrature(spaced(10, separation))] * 2)
        u, true = label_pairs.log_ratio(pairs, "other classes"), label_pairs.information(pairs)
        assert label_pairs.bound(pairs, u, 65_536, "other classes")[0] > true + least
        assert label_pairs.repaired(pairs, u, 10) == close(true, abs=1e-10)
    assert label_pairs.bound(pairs, u, 65_536, "other classes")[1] > 2 * math.log(10), (
        "the whole 'bound' passes the ceiling as well"
    )
    apart = exact(*[table(torch.eye(3, dtype=torch.float64))] * 2)
    assert (
        label_pairs.bound(apart, label_pairs.log_ratio(apart, "other classes"), 1e9, "other classes")[1] > 20
    ), "log N, the end of any N"


# Mixtures


def test_quadrature_is_exact():
    for classes, separation in ((2, 0.5), (3, 2.0), (10, 4.0), (4, 8.0)):
        side = quadrature(spaced(classes, separation))
        assert float(side.weight.sum()) == close(1)
        np.testing.assert_allclose(side.weight @ side.posterior, 1 / classes, rtol=1e-12)
        pairs = exact(side, side)
        for kind in (pairs.joint, pairs.independent, pairs.other):
            assert float(kind.sum()) == close(1)


def test_quadrature_against_adaptive_integration():
    def density(x, of, means=(0.0, 1.5)):
        return math.exp(-((x - means[of]) ** 2) / 2) / math.sqrt(2 * math.pi)

    def integrand(x, y):
        joint = sum(density(x, of) * density(y, of) for of in (0, 1)) / 2
        apart = (density(x, 0) + density(x, 1)) * (density(y, 0) + density(y, 1)) / 4
        return joint * math.log(joint / apart)

    expected = integrate.dblquad(integrand, -8, 9.5, -8, 9.5, epsabs=1e-8)[0]
    side = quadrature(spaced(2, 1.5))
    assert label_pairs.information(exact(side, side)) == close(expected, abs=1e-7)


@pytest.mark.parametrize("classes", [2, 5])
def test_information_at_both_ends_of_the_separation(classes):
    """v^2 / 2 to leading order in the variance v of the means; log C for separated classes."""
    near, far = (quadrature(spaced(classes, separation)) for separation in (0.02, 12.0))
    v = float(spaced(classes, 0.02).var(correction=0))
    assert label_pairs.information(exact(near, near)) == close(v**2 / 2, rel=5 * v)
    assert label_pairs.information(exact(far, far)) == close(math.log(classes), abs=1e-7)


def test_samples_agree_with_quadrature_in_any_dimension(untouched):
    """Two classes differ along one line, whatever the dimension."""
    means, side = simplex(2, 2.0), quadrature(spaced(2, 2.0))
    assert float((means[0] - means[1]).norm()) == close(2)
    found = [
        sweeps.estimates(
            label_pairs.sampled(*(label_pairs.draw(means, 400, stream(seed, name)) for name in "st")), 64, 2
        )
        for seed in range(6)
    ]
    frame, expected = pd.DataFrame(found), sweeps.estimates(exact(side, side), 64, 2)
    for name, value in expected.items():
        assert abs(frame[name].mean() - value) < 4 * frame[name].std() / len(frame) ** 0.5
        assert frame[name].std() < 0.2


def test_samples_in_three_dimensions_keep_to_the_ceiling():
    pairs = label_pairs.sampled(*(label_pairs.draw(simplex(3, 30.0), 20, stream(0, name)) for name in "st"))
    assert label_pairs.information(pairs) == close(math.log(3))
    assert [float(kind.sum()) for kind in (pairs.joint, pairs.independent, pairs.other)] == close([1, 1, 1])


# The critic on features


def test_the_printed_critic_is_a_sigmoid_with_a_bias():
    cosine = theory.cosine
    sigmoid = 1 / (1 + sympy.exp(theory.printed_bias() - cosine / tau))
    assert sympy.simplify(sigmoid - theory.printed_critic()) == 0
    assert sympy.simplify(sympy.exp(theory.printed_bias()) - N / M) == 0
    at = torch.linspace(-1, 1, 101, dtype=torch.float64)
    e = (at / 0.1).exp()
    assert (
        float((e / (e + 4096 / 50_000) - (at / 0.1 - math.log(4096 / 50_000)).sigmoid()).abs().max()) < 5e-16
    )
    assert number(theory.printed_critic(), cosine=0, tau=0.1, N=4096, M=50_000) == close(0.924, abs=5e-4), (
        "of an orthogonal pair"
    )


@pytest.mark.parametrize(("dimensions", "temperature"), [(2, 0.5), (3, 0.07), (128, 0.1), (128, 1.0)])
def test_the_normaliser_is_its_closed_form(dimensions, temperature):
    cosine, weight = sweeps.cosines(dimensions)
    assert float((weight * cosine**2).sum()) == close(1 / dimensions, rel=1e-9)
    order = dimensions / 2 - 1
    with_scipy = (
        special.gammaln(dimensions / 2)
        + order * math.log(2 * temperature)
        + math.log(special.ive(order, 1 / temperature))
    )
    found = float((weight * (cosine / temperature).exp()).sum())
    assert math.log(found) == close(with_scipy + 1 / temperature, abs=1e-8)
    symbolic = theory.normaliser().subs({theory.D: dimensions, tau: sympy.Rational(str(temperature))})
    assert float(symbolic.evalf()) == close(found, rel=1e-8)


@given(st.integers(2, 300), st.floats(0.05, 2), st.sampled_from([1, 16, 4096, 65_536]))
def test_a_normalised_critic_sums_to_one_over_its_negatives(dimensions, temperature, count):
    """N log(1 + r/N) <= r pointwise, and by Jensen <= N log(1 + 1/N) in the mean; the bound is of nothing for independent features."""
    cosine, weight = sweeps.cosines(dimensions)
    Z = float((weight * (cosine / temperature).exp()).sum())
    found = sweeps.sizes(cosine, weight, count, temperature, math.log(count * Z))
    assert 0 < found["negatives"] <= count * math.log1p(1 / count) + 1e-9
    assert found["push"] <= found["negatives"]
    assert math.log(count) - found["positive"] - found["negatives"] <= 1e-9 - label_pairs.least_gap(count)
    assert sympy.limit(theory.negative_sum(), N, sympy.oo) == r


def test_the_derivatives_by_the_bias_are_pull_and_push():
    cosine, weight = sweeps.cosines(16)
    sizes = [sweeps.sizes(cosine, weight, 64, 0.1, 1.0 + step) for step in (-1e-5, 0, 1e-5)]
    for part, slope, sign in (("positive", "pull", 1), ("negatives", "push", -1)):
        assert (sizes[2][part] - sizes[0][part]) / 2e-5 == close(sign * sizes[1][slope], rel=1e-7)


def test_sizes_with_and_without_the_normaliser():
    settings = {
        "dimensions": 128,
        "temperature": 0.1,
        "population": 50_000,
        "negatives": (16, 4096),
        "draws": 300,
    }
    frame = (
        pd.DataFrame(sweeps.critic_sizes(CPU, seed=0, **settings))
        .set_index(["kind", "bias", "N", "part"])
        .value.sort_index()
    )
    at = frame["exact", "printed", 4096]
    assert (round(at["positive"], 2), round(at["negatives"], -2)) == (0.11, 10_700)
    assert frame["exact", "normalised", 4096, "positive"] == close(8.71, abs=0.005)
    for count in (16, 4096):
        assert frame["exact", "normalised", count, "negatives"] == close(1, abs=2 / count)
    np.testing.assert_allclose(frame["sampled"], frame["exact"], rtol=0.02)


# The measurements


@pytest.mark.parametrize("count", [4, 4096])
def test_estimates_at_both_ends(count):
    """Closed forms: of independent samples, and of separated classes, of whose pairs negatives of other classes give log N alone."""
    least, greatest = label_pairs.least_gap(count), number(theory.greatest_gap(), N=count, C=5)
    same, apart = (table(one.double()) for one in (torch.full((5, 2), 0.5), torch.eye(5)))
    nothing, slack, log_c = sweeps.estimates(exact(same, same), count, 5), math.log1p(1 / count), math.log(5)
    assert nothing == close(
        {
            "information": 0,
            "positives alone": -slack,
            "whole bound": -least,
            "corrected bound": 0,
            "other classes, positives alone": -slack,
            "other classes, whole": -least,
            "other classes, repaired": 0,
        }
    )
    assert sweeps.estimates(exact(apart, apart), count, 5) == close(
        {
            "information": log_c,
            "positives alone": log_c - math.log1p(5 / count),
            "whole bound": log_c - greatest,
            "corrected bound": log_c - greatest + least,
            "other classes, positives alone": math.log(count),
            "other classes, whole": math.log(count),
            "other classes, repaired": log_c,
        }
    )


def test_sampled_sides_are_independent():
    """Given their classes: the mean of log r over joint pairs is then I in expectation, even of one sample a class and side."""
    frame = pd.DataFrame(
        [
            row
            for seed in range(100)
            for row in sweeps.information_bounds(
                CPU, seed=seed, classes=2, separation=(1.0,), negatives=(4,), draws=1
            )
            if row["quantity"] == "information"
        ]
    )
    assert abs((frame.sampled - frame.exact).mean()) < 4 * frame.sampled.std() / 10


def test_measured_bounds_are_those_of_the_pairs(untouched):
    frame = pd.DataFrame(
        sweeps.information_bounds(CPU, seed=0, classes=3, separation=(1.0, 2.0), negatives=(4, 64), draws=20)
    )
    assert len(frame) == 2 * 2 * 7
    side = quadrature(spaced(3, 2.0))
    expected = sweeps.estimates(exact(side, side), 64, 3)
    found = frame[(frame.separation == 2) & (frame.N == 64)].set_index("quantity")
    np.testing.assert_allclose(found.exact, [expected[name] for name in found.index], atol=1e-6)
    other = pd.DataFrame(
        sweeps.information_bounds(CPU, seed=1, classes=3, separation=(1.0, 2.0), negatives=(4, 64), draws=20)
    )
    assert (frame.exact == other.exact).all()
    assert (frame.sampled != other.sampled).all()


@pytest.mark.parametrize(("name", "settings", "words"), [
    ("information_bounds", {"classes": 1}, ["classes=1"]), ("information_bounds", {"separation": [1.0, 0.0]}, ["separation=0.0"]),
    ("information_bounds", {"negatives": [0]}, ["negatives[0]=0"]), ("information_bounds", {"draws": 0}, ["draws=0"]),
    ("critic_sizes", {"temperature": 0.0}, ["temperature=0.0"]), ("critic_sizes", {"dimensions": 1}, ["dimensions=1", "2"]),
    ("critic_sizes", {"negatives": [1, -1]}, ["negatives[1]=-1"]), ("critic_sizes", {"population": 0}, ["population=0"]),
], ids=str)  # fmt: skip
def test_bad_settings_are_refused(refuses, name, settings, words):
    good = {
        "information_bounds": {"classes": 2, "separation": [1.0], "negatives": [4], "draws": 2},
        "critic_sizes": {"dimensions": 4, "temperature": 0.1, "population": 10, "negatives": [4], "draws": 2},
    }[name]
    Measurement(name, "", good).make(CPU, None)
    with refuses(*words):
        Measurement(name, "", good | settings).make(CPU, None)


def test_what_is_no_mixture_table_or_bound_is_refused(refuses):
    side = quadrature(spaced(2, 1.0))
    pairs = exact(side, side)
    with refuses("(3, 3)", "draw"):
        quadrature(simplex(3, 1.0))
    with refuses("quadrature", "nearer"):
        quadrature(spaced(2, 1e6))
    with refuses("2", "3 classes"):
        exact(side, quadrature(spaced(3, 1.0)))
    for bad in (
        torch.eye(1),
        torch.tensor([[0.5, 0.5], [0.5, 0.6]]),
        torch.tensor([[1.5, -0.5], [0.5, 0.5]]),
        torch.ones(2),
    ):
        with refuses("likelihood", "sum 1"):
            table(bad)
    with refuses("negatives", "'same'", "other classes"):
        label_pairs.log_ratio(pairs, "same")
    with refuses("N=0"):
        label_pairs.bound(pairs, pairs.ratio, 0)
    with refuses("classes=1"):
        label_pairs.repaired(pairs, pairs.ratio, 1)


# The committed figures say what notebook 20 says of them.


def recorded(key):
    path = figures.FOLDER / f"{key}.csv"
    if not path.is_file():
        pytest.skip(f"{key} is not recorded")
    return pd.read_csv(path)


def test_recorded_bounds():
    frame = recorded("mim-bounds")
    at = frame[(frame.by == "N") & (frame.N == 65_536)].groupby("quantity").exact.mean()
    assert at["information"] == close(1.785, abs=5e-4)
    assert at["whole bound"] == close(0.785, abs=5e-4)
    assert at["other classes, positives alone"] == close(3.43, abs=0.01)
    assert at["other classes, whole"] == close(2.44, abs=0.01)


def test_recorded_sizes():
    frame = recorded("mim-magnitude")
    exact_ones = frame[(frame.kind == "exact") & (frame.N == 4096)].groupby(["bias", "part"]).value.mean()
    assert exact_ones["printed", "negatives"] / exact_ones["normalised", "negatives"] > 1e4
    assert exact_ones["printed", "push"] / exact_ones["printed", "pull"] > 3e4

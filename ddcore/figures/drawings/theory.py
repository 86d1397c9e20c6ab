"""Drawings of the theories. Sweeps and DWA: every draw as a pale point, the mean as a line. Bounds: exact values as a line, every seed's
sample as a hollow point."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, LogLocator, MaxNLocator, NullFormatter

from ddcore.figures.drawings.kernels import _figure, _points
from ddcore.figures.drawings.marks import COLORS, MARKERS, NAMES, nth
from ddcore.figures.style import COLUMN, PAGE

ARMS = {"same": "distilled, teacher's initialisation", "fresh": "distilled, unseen initialisations", "undistilled": "points not distilled",
        "real": "real samples", "random features": "real samples, random features", "network": "the network itself",
        "factored": "the network, factored at rank r", "teacher": "all samples"}  # fmt: skip


def _line(axis, found: pd.DataFrame, x: str, y: str, index: int, label: str, *, middle: str = "mean", **style) -> None:
    """The mean, or another `middle`, over seeds of `y` by `x`, and every seed; logarithmic axes."""
    axis.plot(found[x], found[y], MARKERS[index], mfc=COLORS[index], mec="none", ms=2.2, alpha=0.35, zorder=1)
    middles = found.groupby(x)[y].agg(middle)
    axis.plot(middles.index, middles, color=COLORS[index], marker=MARKERS[index], mfc="white", label=label, **style)


def _log(axis, x: str, y: str, ticks=None) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    if ticks is not None:
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.xaxis.minorticks_off()
    low, high = axis.get_ylim()
    if high < 100 * low:
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter("{x:g}" if low > 1e-3 and high < 1e4 else LogFormatterMathtext())
    axis.set_xlabel(x)
    axis.set_ylabel(y)


def theory_memory(frame: pd.DataFrame) -> Figure:
    """Columns: arm, M1, M2, stored, error, seed. Of the distilled arms, the line joins the sets that no smaller one beats."""
    figure, axes = _figure(PAGE, 2.9)
    axis = axes[0]
    for index, (arm, label) in enumerate(ARMS.items()):
        found = frame[frame.arm == arm]
        if arm in ("same", "fresh", "undistilled"):
            means = found.groupby(["stored", "M1", "M2"], as_index=False).error.mean()
            best = means[means.error < means.error.cummin().shift(fill_value=np.inf)]
            axis.plot(means.stored, means.error, MARKERS[index], mfc=COLORS[index], mec="none", ms=2.2, alpha=0.35, zorder=1)
            spread = found.groupby("stored").error.std().reindex(best.stored).fillna(0)
            axis.errorbar(best.stored, best.error, spread, color=COLORS[index], marker=MARKERS[index], mfc="white", capsize=2, lw=1,
                          label=label)
        elif len(found):
            _line(axis, found, "stored", "error", index, label, lw=1)
    axis.axhline(frame[frame.arm == "teacher"].error.mean(), color=COLORS[7], ls=":", lw=0.8, zorder=0)
    _log(axis, "stored numbers (log scale)", "test error (log scale)")
    handles = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
    shown = [label for label in ARMS.values() if label in handles]
    figure.legend([handles[label] for label in shown], shown, loc="outside right center", handlelength=2)
    return figure


def theory_d(frame: pd.DataFrame) -> Figure:
    """Columns: d, L, N, arm, M1, stored, error, seed."""
    figure, axes = _figure(PAGE, 2.4, 2)
    points = sorted(frame[frame.arm == "same"].M1.unique())
    shown = [points[-3], points[-1]] if len(points) > 2 else points
    curves = [(f"distilled, {m:.0f} points", frame[(frame.arm == "same") & (frame["M1"] == m)]) for m in shown]
    curves += [(ARMS["undistilled"], frame[(frame.arm == "undistilled") & (frame["M1"] == shown[-1])]),
               ("real samples of equal memory", frame[frame.arm == "real"]), (ARMS["teacher"], frame[frame.arm == "teacher"]),
               (ARMS["network"], frame[frame.arm == "network"])]
    for index, (label, found) in enumerate(curves):
        if label != ARMS["network"]:  # of the same error as all samples
            _line(axes[0], found, "d", "error", index, None)
        if "distilled," in label or label in (ARMS["teacher"], ARMS["network"]):
            _line(axes[1], found, "d", "stored", index, None)
        axes[0].plot([], [], color=COLORS[index], marker=MARKERS[index], mfc="white", label=label)
    for axis, label in zip(axes, ("test error (log scale)", "stored numbers (log scale)"), strict=True):
        _log(axis, "input dimension d (log scale)", label, sorted(frame.d.unique()))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def theory_r_m1(frame: pd.DataFrame) -> Figure:
    """Columns: r, arm, M1, error, seed. The last column is the teacher's."""
    table = frame[frame.arm == "same"].pivot_table(index="r", columns="M1", values="error")
    whole = frame[frame.arm == "teacher"].groupby("r").error.mean()
    values = np.column_stack([table.to_numpy(), whole.reindex(table.index)])
    figure, axes = _figure(PAGE, 0.75 + 0.24 * len(table))
    axis, norm = axes[0], LogNorm(values.min(), 1)
    axis.imshow(values, norm=norm, cmap="viridis", aspect="auto")
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        axis.text(column, row, f"{value:#.2g}" if value < 0.1 else f"{value:.2f}", ha="center", va="center", fontsize=6,
                  color="white" if norm(value) < 0.6 else "black")
    grid = table.columns.to_numpy()
    for power, name, style in ((1, "$M_1 = r$", "-"), (2, "$M_1 = r^2$", "--")):
        places = np.searchsorted(grid, table.index.to_numpy() ** power) - 0.5
        axis.vlines(places, np.arange(len(table)) - 0.5, np.arange(len(table)) + 0.5, color=COLORS[3], ls=style, lw=1.4, label=name)
    axis.axvline(len(grid) - 0.5, color="white", lw=3)
    axis.set_xticks(range(len(grid) + 1), [*(f"{m:.0f}" for m in grid), "teacher"])
    axis.set_yticks(range(len(table)), [f"{r}" for r in table.index])
    axis.set_xlabel("distilled points $M_1$")
    axis.set_ylabel("directions r")
    axis.spines[:].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def theory_l(frame: pd.DataFrame) -> Figure:
    """Columns: L, arm, M2, error, seed."""
    figure, axes = _figure(PAGE, 2.4, 2)
    same = frame[frame.arm == "same"]
    _line(axes[0], same[same.M2 == same.L], "L", "error", 0, "distilled, L labels")
    _line(axes[0], frame[frame.arm == "teacher"], "L", "error", 7, ARMS["teacher"])
    widths = sorted(same.L.unique())
    for colour, L in zip(sns.color_palette("viridis", len(widths)), widths, strict=True):
        found = same[same.L == L]
        axes[1].plot(found.M2, found.error, ".", color=colour, ms=3, mew=0, alpha=0.35, zorder=1)
        axes[1].plot(found.groupby("M2").error.mean(), color=colour, marker=".", lw=1, label=f"L = {L}")
    _log(axes[0], "width L (log scale)", "test error (log scale)", widths)
    _log(axes[1], "labels $M_2$ (log scale)", "")
    axes[1].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].legend()
    axes[1].legend(loc="upper right", fontsize=6, handlelength=1.5, ncols=2)
    return figure


def theory_n(frame: pd.DataFrame) -> Figure:
    """Columns: d, N, arm, M1, error, seed."""
    figure, axes = _figure(COLUMN, 2.4)
    frame = frame.assign(ratio=frame.N / frame.d**2)
    for index, m in enumerate(sorted(frame[frame.arm == "same"].M1.unique())):
        _line(axes[0], frame[(frame.arm == "same") & (frame["M1"] == m)], "ratio", "error", index, f"distilled, {m:.0f} points")
    _line(axes[0], frame[frame.arm == "teacher"], "ratio", "error", 7, "teacher")
    _log(axes[0], "samples N / d² (log scale)", "test error (log scale)", sorted(frame.ratio.unique()))
    figure.legend(loc="outside upper center", ncols=2, columnspacing=1)
    return figure


ROWS = {"random points": nth(7), "distilled points": nth(0), "teacher's first layer": nth(2), "student's first layer": nth(3)}


def theory_subspace(frame: pd.DataFrame) -> Figure:
    """Columns: rows, quantity, index, value, seed."""
    figure, axes = _figure(PAGE, 2.5, 2)
    names = list(dict.fromkeys(frame["rows"]))
    share = frame[frame.quantity == "energy"].groupby("rows", sort=False).value.mean()
    for place, name in enumerate(names):
        mark = ROWS.get(name, nth(place))
        found = frame[(frame["rows"] == name) & (frame.quantity == "singular value")]
        curve = found.groupby("index").value.agg(["mean", "min", "max"])
        curve = curve[curve["min"] > 1e-5]  # below lies rounding
        label = f"{name} ({100 * share[name]:.0f} % in span B)"
        axes[0].plot(curve["mean"], **mark.line, ms=3, lw=0.8, label=label)
        axes[0].fill_between(curve.index, curve["min"], curve["max"], color=mark.color, alpha=0.2, lw=0)
        angles = frame[(frame["rows"] == name) & (frame.quantity == "angle")]
        for index, part in angles.groupby("index"):
            _points(axes[1], index + 0.2 * (place - 1.5), part.value.to_numpy(), 0.08, mark)
    axes[0].set_yscale("log")
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_xlabel("index")
    axes[0].set_ylabel("singular value (log scale)")
    indices = sorted(frame[frame.quantity == "angle"]["index"].unique())
    axes[1].set_xticks(indices, [f"{index}" for index in indices])
    axes[1].set_xlabel("principal angle")
    axes[1].set_ylabel("degrees to span B (log scale)")
    axes[1].set_yscale("log")
    axes[1].set_yticks([1, 2, 5, 10, 20, 50, 90], ["1", "2", "5", "10", "20", "50", "90"])
    axes[1].minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def theory_collapse(frame: pd.DataFrame) -> Figure:
    """Columns: decay, steps, condition, error, teacher, seed."""
    figure, axes = _figure(PAGE, 2.3, 2)
    for index, (decay, found) in enumerate(frame.groupby("decay", sort=False)):
        for axis, value in zip(axes, ("condition", "error"), strict=True):
            _line(axis, found, "steps", value, index, "equal eigenvalues" if decay == 1 else f"each {decay:g} of the one before",
                  middle="median")
        axes[1].axhline(found.teacher.mean(), color=COLORS[index], ls=":", lw=0.8)
    for axis, label in zip(axes, ("condition number (log scale)", "test error (log scale)"), strict=True):
        _log(axis, "matching steps (log scale)", label, sorted(frame.steps.unique()))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def theory_links(frame: pd.DataFrame) -> Figure:
    """Columns: link, activation, arm, error, seed."""
    links, activations = list(dict.fromkeys(frame.link)), list(dict.fromkeys(frame.activation))
    figure, axes = _figure(PAGE, 2.5, len(links), sharey=True)
    for axis, name in zip(axes, links, strict=True):
        for x, activation in enumerate(activations):
            for index, (arm, label) in enumerate((("teacher", "teacher, all samples"), ("same", "distilled"))):
                found = frame[(frame.link == name) & (frame.activation == activation) & (frame.arm == arm)]
                _points(axis, x + 0.36 * (index - 0.5), found.error.to_numpy(), 0.16, nth((7, 0)[index]),
                        label if x == 0 and axis is axes[0] else None)
        axis.set_yscale("log")
        shown = [NAMES.get(one, one) for one in activations]
        axis.set_xticks(range(len(activations)), shown, rotation=55, ha="right", rotation_mode="anchor")
        axis.set_title(name, fontsize=8)
        axis.axhline(1, color="0.6", lw=0.6, ls=":")
    axes[0].set_ylabel("test error (log scale)")
    figure.legend(loc="outside upper center", ncols=2, handletextpad=0.1)
    return figure


BOUNDS = {"positives alone": "positive term, all negatives", "whole bound": "log N + L, all negatives",
          "corrected bound": "corrected log N + L", "other classes, positives alone": "positive term, other classes",
          "other classes, whole": "log N + L, other classes", "other classes, repaired": "other classes, repaired"}  # fmt: skip


def mim_bounds(frame: pd.DataFrame) -> Figure:
    """Columns: by (the panel: separation or N), classes, separation, N, quantity, exact, sampled, seed."""
    figure, axes = _figure(PAGE, 2.9, 2, sharey=True)
    ceiling = np.log(frame.classes.iloc[0])
    for axis, x, label in zip(axes, ("separation", "N"), ("separation of the classes (sd)", "negatives N (log scale)"), strict=True):
        here = frame[frame.by == x]
        truth = here[here.quantity == "information"].groupby(x).exact.mean()
        axis.plot(truth.index, truth, color="0.8", lw=4, solid_capstyle="butt", label="mutual information", zorder=0)
        axis.axhline(ceiling, color="0.4", ls=":", lw=0.8, label="its ceiling log C")
        for index, (quantity, name) in enumerate(BOUNDS.items()):
            found, color = here[here.quantity == quantity], [*COLORS[:5], "black"][index]
            axis.plot(found[x], found.sampled, MARKERS[index], mfc="none", mec=color, mew=0.5, ms=2.6, alpha=0.6)
            exact = found.groupby(x).exact.mean()
            axis.plot(exact.index, exact, color=color, ls="--" if quantity.startswith("other") else "-", lw=1, label=name)
        axis.set_xlabel(label)
    axes[0].set_ylabel("nats")
    axes[0].set_ylim(top=2 * ceiling)
    _log_ticks(axes[1], frame[frame.by == "N"].N)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _log_ticks(axis, N: pd.Series) -> None:
    axis.set_xscale("log")
    axis.set_xticks(sorted(N.unique())[::2], [f"{one:,}" for one in sorted(N.unique())[::2]])
    axis.xaxis.minorticks_off()


def mim_magnitude(frame: pd.DataFrame) -> Figure:
    """Columns: kind (exact or sampled), bias, N, part, value, seed."""
    figure, axes = _figure(PAGE, 2.5, 2, sharey=True)
    for axis, parts in zip(axes, (("negatives", "positive"), ("push", "pull")), strict=True):
        for part, style in zip(parts, ("-", "--"), strict=True):
            for index, bias in enumerate(("printed", "normalised")):
                found = frame[(frame.part == part) & (frame.bias == bias)]
                exact, sampled = (found[found.kind == kind] for kind in ("exact", "sampled"))
                exact = exact.groupby("N").value.mean()
                axis.plot(exact.index, exact, color=COLORS[index], ls=style, lw=1, label=f"{part}, {bias} bias")
                axis.plot(sampled.N, sampled.value, MARKERS[index], mfc="none", mec=COLORS[index], mew=0.5, ms=2.6, alpha=0.6)
        axis.set_yscale("log")
        axis.minorticks_off()
        _log_ticks(axis, frame.N)
        axis.set_xlabel("negatives N (log scale)")
        axis.legend(fontsize=6)
    axes[0].set_ylabel("part of the loss in nats (log scale)")
    axes[1].set_ylabel("weight in the gradient (log scale)")
    return figure


DIRECTIONS = {"retrained": "to the minimum without the batch", "Newton": "Newton", "gradient": "gradient of the batch",
              "ascent": "DWA's steps", "other batch": "gradient of another batch", "Gaussian": "Gaussian"}  # fmt: skip


def dwa_theory(frame: pd.DataFrame) -> Figure:
    """Columns: quantity, value; of 'within', 'between', 'expected': layer, law, size; of the pushes 'mean', 'variance': x, y, dx, dy; of
    'cosine', 'condition', 'change', 'safe': decay, arm, length (`ddcore.theory.batch_variance`, `ddcore.theory.leave_out`)."""
    figure = Figure(figsize=(PAGE, 4.9), layout="constrained")
    (whole, push), (change, angle) = figure.subplots(2, 2)
    _of_batch(whole, frame[frame.layer == frame.layer.max()])
    _pushes(push, frame)
    decays = sorted(frame.decay.dropna().unique(), reverse=True)
    shown = frame[frame.decay == decays[len(decays) // 2]]
    condition = frame[frame.quantity == "condition"].groupby("decay").value.mean()
    left_out = frame[frame.quantity == "cosine"].assign(condition=frame.decay.map(condition))
    for index, (arm, label) in enumerate(DIRECTIONS.items()):
        means = shown[(shown.quantity == "change") & (shown.arm == arm)].groupby("length").value.mean()
        style = {"ls": "--", "zorder": 3} if arm in ("Newton", "ascent") else {}
        change.plot(means, color=COLORS[index], label=label, **style)
        if arm != "retrained":
            _line(angle, left_out[left_out.arm == arm], "condition", "value", index, None, **style)
    change.axvline(shown[shown.quantity == "safe"].value.mean(), color=COLORS[2], ls=":", lw=0.8)
    change.axhline(0, color="0.5", lw=0.6)
    change.set_ylim(-1.1, 2)
    change.set_xlabel("length (distance to the minimum without the batch)")
    change.set_ylabel("change of the rest's loss")
    kappa = np.geomspace(left_out.condition.min(), left_out.condition.max())
    angle.plot(kappa, 2 * kappa**0.5 / (1 + kappa), color="black", ls=":", lw=0.8, label="least cosine of gradient and Newton")
    angle.set_xscale("log")
    angle.set_ylim(-0.35, 1.05)
    angle.set_xlabel("condition number of the Hessian (log scale)")
    angle.set_ylabel("cosine with the true way")
    angle.legend(loc="lower left")
    figure.legend(*change.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _of_batch(axis, frame: pd.DataFrame) -> None:
    table = frame.groupby(["law", "size", "quantity"]).value.mean().unstack("quantity")
    inside, sizes = table.within.mean(), sorted(table.index.get_level_values("size").unique())
    axis.fill_between([sizes[0], sizes[-1]], 0, inside, color="0.92", lw=0)
    axis.text(sizes[0] * 1.1, inside - 0.04, "within images", fontsize=7, va="top")
    for index, (law, label) in enumerate((("any class", "within + between, any class"), ("one class", "within + between, one class"),
                                          ("one a class", "within + between, one image a class"))):
        found = table.loc[law]
        axis.plot(found.index, inside + found.between, MARKERS[index], color=COLORS[index], mfc="white", ms=7 if len(found) == 1 else 4,
                  label=label, zorder=3)
        axis.plot(found.index, inside + found.expected, color=COLORS[index], lw=0.8)
    axis.axhline(1, color="black", lw=0.8, ls=":")
    axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
    axis.minorticks_off()
    axis.set_ylim(0, 1.08)
    axis.set_xlabel("images in the batch (log scale)")
    axis.set_ylabel("variance (of all real images: 1)")
    axis.legend(loc="lower right")


def _pushes(axis, frame: pd.DataFrame) -> None:
    found = frame[frame.quantity.isin(["mean", "variance"]) & (frame.seed == frame.seed.min())]
    reach = 0.25 * np.ptp(found[["x", "y"]].to_numpy(), axis=0).max()
    for index, (name, part) in enumerate(found.groupby("quantity", sort=False)):
        scale = np.hypot(part.dx, part.dy).max() / reach
        axis.quiver(part.x, part.y, part.dx, part.dy, color=COLORS[index], angles="xy", scale_units="xy", scale=scale, width=0.004,
                     label=f"push of the {name} term")
        axis.update_datalim(part[["x", "y"]].to_numpy() + part[["dx", "dy"]].to_numpy() / scale)
    axis.plot(found.x, found.y, ".", color="0.4", ms=2)
    axis.margins(0.05)
    axis.set_xlabel("channel 1 (sd of real images)")
    axis.set_ylabel("channel 2 (sd of real images)")
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, handlelength=1)

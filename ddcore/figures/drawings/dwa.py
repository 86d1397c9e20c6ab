"""Drawings of DWA: SRe2L's recovery, the adjustment of its weights, how diverse the sets are, and why it should help."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ddcore.figures.drawings.marks import COLORS, FORMS, NAMES, Mark, arms, methods, nth
from ddcore.figures.drawings.panels import (
    cells,
    draws,
    labels_kept,
    legend,
    lines,
    log_x,
    panels,
    per_class,
    seeds,
)
from ddcore.figures.style import PAGE

MEASURES = {
    "similarity": "mean cosine",
    "vendi": "Vendi score",
    "of a class": "variance of means",
    "coverage": "coverage",
    "mmd2": "MMD²",
}
WAYS = {"ascent": "ascent (DWA)", "fisher": "Fisher", "gaussian": "Gaussian", "descent": "descent"}
DIRECTIONS = {
    "retrained": "to the minimum without the batch",
    "Newton": "Newton",
    "gradient": "gradient of the batch",
    "ascent": "DWA's steps",
    "other batch": "gradient of another batch",
    "Gaussian": "Gaussian",
}
R_VAR = r"$r_\mathrm{var}$"
DOTTED = {"color": "black", "lw": 0.9, "ls": (0, (1.5, 1))}


def _rows(frame: pd.DataFrame, by: list, names: int, columns: int) -> tuple[Figure, list]:
    """A row of axes for each value of the columns `by`, named by it, with its part of the frame."""
    parts = [part for _, part in frame.groupby(by, sort=False)]
    figure, axes = panels(PAGE, 0.4 + (0.45 + 0.2 * names) * len(parts), columns, len(parts), sharey=True)
    rows = axes.reshape(len(parts), columns)
    for row, here in zip(rows, parts, strict=True):
        dataset = here.dataset.iloc[0]
        row[0].set_ylabel(
            "\n".join([NAMES.get(dataset, dataset)] + [per_class(here.ipc.iloc[0])] * ("ipc" in by))
        )
    return figure, list(zip(rows, parts, strict=True))


def factors(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, init, r_var, adjusted, seed, accuracy."""
    weights = frame.adjusted.map({False: "the teacher's weights", True: "adjusted weights"})
    start = frame.init + frame.r_var.map("\n{:g}".format)
    figure, axes = cells(frame.assign(weights=weights, start=start), 2.3)
    marks = arms(["the teacher's weights", "adjusted weights"])
    for axis, here in axes:
        seeds(axis, here, "start", "accuracy", marks, "weights", width=0.7)
        axis.set_xlabel(f"start and {R_VAR}")
        axis.margins(y=0.1)
    legend(figure, marks)
    return figure


def directions(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, arm (the first is no adjustment), seed, accuracy, similarity, vendi (nothing at one image a class). Drawn are
    differences to the same seed of the first: accuracy at every number of images, the others at the largest."""
    labels = {
        "accuracy": "points over {:.1f} %",
        "similarity": "mean cosine over {:.3f}",
        "vendi": "Vendi score over {:.2f}",
    }
    none, *names = dict.fromkeys(frame.arm)
    ipcs = sorted(frame.ipc.unique())
    shown = [("accuracy", ipc) for ipc in ipcs] + [("similarity", ipcs[-1]), ("vendi", ipcs[-1])]
    figure, rows = _rows(frame, ["dataset"], len(names), len(shown))
    for axes, here in rows:
        for axis, (column, ipc) in zip(axes, shown, strict=True):
            some = here[here.ipc == ipc]
            bare = some[some.arm == none].set_index("seed")[column]
            apart = some.assign(apart=some[column] - some.seed.map(bare))
            seeds(axis, apart, "arm", "apart", arms(names), width=0.5, errorbar=None, orient="h")
            axis.axvline(0, color="0.45", lw=0.8, ls="--", zorder=0)
            axis.locator_params(axis="x", nbins=4)
            axis.set_xlabel(labels[column].format(bare.mean()))
    for axis, (_, ipc) in zip(rows[0][0], shown, strict=True):
        axis.set_title(per_class(ipc))
    return figure


def decoupling(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, init, r_var, seed, accuracy, within, between and 'of a class' (shares of the real images' variance)."""
    columns = {"within": "within images", "between": "between those of a batch", "of a class": "between those of a class",
               "accuracy": "test accuracy (%)"}  # fmt: skip
    weights = sorted(frame.r_var.unique())
    frame = frame.assign(place=frame.r_var.map(weights.index), start="from " + frame.init)
    figure, axes = panels(PAGE, 2.1, len(columns))
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        lines(axis, frame, "place", column, arms(frame.start), "start", dodge=0.12, ls="none")
        axis.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
        axis.set_xlim(-0.5, len(weights) - 0.5)
        axis.set_xlabel(R_VAR)
        axis.set_title(label)
    axes[0].set_ylabel("share of the variance")
    legend(figure, arms(frame.start))
    return figure


def k_rho(frame: pd.DataFrame) -> Figure:
    """Columns: steps, rho, seed, value, quantity ('set': accuracy of a set; of the adjusted teacher 'accuracy', 'batch_loss', 'cosine'),
    direction (of the latter)."""
    titles = {"set": "accuracy of the sets (%)", "accuracy": "teacher: accuracy (%)", "batch_loss": "teacher: loss of its batch",
              "cosine": "two batches: cosine"}  # fmt: skip
    steps = {
        K: nth(index + len(WAYS))
        for index, K in enumerate(sorted(frame[frame.quantity == "set"].steps.unique()))
    }
    figure, axes = panels(PAGE, 2.3, 4, width_ratios=(1.25, 1, 1, 1))
    for axis, (quantity, title) in zip(axes, titles.items(), strict=True):
        part = frame[frame.quantity == quantity]
        part = part.assign(place=part.rho.rank(method="dense") - 1)
        marks, hue = (steps, "steps") if quantity == "set" else (arms(WAYS), "direction")
        lines(axis, part, "place", "value", marks, hue, dodge=0.08)
        axis.set_xticks(range(part.rho.nunique()), [f"{rho:g}" for rho in sorted(part.rho.unique())])
        axis.margins(x=0.08)
        axis.set_title(title)
        axis.set_xlabel("rho")
    for axis in axes[1:]:
        axis.tick_params("x", labelrotation=45)
    axes[2].set_yscale("log")
    axes[0].set_xlim(-0.4, frame[frame.quantity == "set"].rho.nunique() - 0.6)
    legend(axes[0], {f"K = {K:g}": mark for K, mark in steps.items()}, line=True)
    legend(figure, {WAYS[way]: mark for way, mark in arms(WAYS).items()}, line=True)
    return figure


def diversity(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, set, seed, quantity, layer, value."""
    figure, rows = _rows(frame, ["dataset", "ipc"], frame.set.nunique(), len(MEASURES))
    for axes, here in rows:
        for axis, quantity in zip(axes, MEASURES, strict=True):
            seeds(
                axis,
                here[here.quantity == quantity],
                "set",
                "value",
                methods(frame.set),
                width=0.5,
                errorbar=None,
                orient="h",
            )
    for axis, label in zip(rows[-1][0], MEASURES.values(), strict=True):
        axis.set_xlabel(label)
    return figure


def protocols(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, protocol, set, seed, accuracy, best (that of the best epoch, where it was looked for)."""
    marks = methods(frame.set)
    figure, axes = cells(frame, 2.5)
    step = 0.85 / len(marks)
    for axis, here in axes:
        seeds(axis, here, "protocol", "accuracy", marks, "set", width=0.85)
        order = list(dict.fromkeys(here.protocol))
        for (protocol, name), best in here.groupby(["protocol", "set"]).best.mean().items():
            x = order.index(protocol) + step * (list(marks).index(name) + 0.5) - 0.425
            axis.hlines(best, x - 0.09, x + 0.09, zorder=4, **DOTTED)
        axis.margins(y=0.08)
    legend(figure, marks, Line2D([], [], label="best epoch", **DOTTED), handlelength=1.2, columnspacing=1)
    return figure


def lengths(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, length (its numbers, by commas), set, seed, accuracy, published (of DWA; empty where there is none)."""
    marks = methods(frame.set)
    figure, axes = cells(frame.assign(length=frame.length.str.replace(", ", "\n")), 2.6)
    for axis, here in axes:
        seeds(axis, here, "length", "accuracy", marks, "set", width=0.85)
        for value in here.published.dropna().unique():
            axis.axhline(value, zorder=0, **DOTTED)
        axis.margins(y=0.08)
    legend(figure, marks, Line2D([], [], label="DWA, published", **DOTTED), handlelength=1.2, columnspacing=1)
    return figure


def label_cost(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, label_bytes, image_bytes, teacher_bytes, set, protocol ('clean': soft labels, or 'hard'), seed, accuracy; a
    number of images without a recorded set has the first four alone."""
    sizes = {"label_bytes": "soft labels", "image_bytes": "images", "teacher_bytes": "teacher"}
    greys = {
        name: Mark(grey, form)
        for name, grey, form in zip(sizes.values(), ("0.2", "0.5", "0.7"), FORMS, strict=False)
    }
    figure, (size, accuracy) = panels(PAGE, 2.3, 2)
    for column, name in sizes.items():
        lines(
            size,
            frame.assign(**{column: frame[column] / 2**20}),
            "ipc",
            column,
            {name: greys[name]},
            errorbar=None,
        )
    size.set_yscale("log")
    log_x(size, "images a class (log scale)", sorted(frame.ipc.unique()))
    size.set_ylabel("MiB (log scale)")
    legend(size, greys, line=True)
    known = frame.dropna(subset="accuracy")
    stored = known.image_bytes + known.label_bytes.where(known.protocol == "clean", 0)
    marks = methods(known.set)
    aside = known.set.map({name: 1.07 ** (place - 2) for place, name in enumerate(marks)})
    known = known.assign(mebibytes=stored * aside / 2**20)
    for protocol, dashes in (("clean", "-"), ("hard", ":")):
        lines(accuracy, known[known.protocol == protocol], "mebibytes", "accuracy", marks, "set", ls=dashes)
    accuracy.set_xscale("log")
    low, high = accuracy.get_xlim()
    ticks = [
        tick
        for power in range(-4, 6)
        for tick in (float(f"1e{power}"), float(f"3e{power}"))
        if low < tick < high
    ]
    log_x(accuracy, "MiB of images and labels (log scale)", ticks)
    accuracy.set_ylabel("test accuracy (%)")
    legend(accuracy, marks, line=True)
    return figure


def theory(frame: pd.DataFrame) -> Figure:
    """Columns: quantity, value; of 'within', 'between', 'expected': layer, law, size; of the pushes 'mean', 'variance': x, y, dx, dy; of
    'cosine', 'condition', 'change', 'safe': decay, arm, length (`batch_variance`, `leave_out` of `ddcore.lab.measurements`)."""
    figure, (variance, push, change, angle) = panels(PAGE, 4.9, 2, 2)
    _variance_of_batch(variance, frame[frame.layer == frame.layer.max()])
    _pushes(push, frame)
    _left_out(change, angle, frame)
    handles = [
        nth(index).handle(label, **_dashes(arm)) for index, (arm, label) in enumerate(DIRECTIONS.items())
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _dashes(arm: str) -> dict:
    return {"ls": "--", "zorder": 3} if arm in ("Newton", "ascent") else {}


def _left_out(change: Axes, angle: Axes, frame: pd.DataFrame) -> None:
    decays = sorted(frame.decay.dropna().unique(), reverse=True)
    shown = frame[frame.decay == decays[len(decays) // 2]]
    condition = frame[frame.quantity == "condition"].groupby("decay").value.mean()
    cosines = frame[frame.quantity == "cosine"].assign(condition=frame.decay.map(condition))
    for index, arm in enumerate(DIRECTIONS):
        part = shown[(shown.quantity == "change") & (shown.arm == arm)]
        lines(
            change,
            part,
            "length",
            "value",
            {arm: nth(index)},
            errorbar=None,
            ms=3.5,
            markevery=(index, len(DIRECTIONS)),
            **_dashes(arm),
        )
        if arm != "retrained":
            draws(angle, cosines[cosines.arm == arm], "condition", "value", {arm: nth(index)}, **_dashes(arm))
    change.axvline(shown[shown.quantity == "safe"].value.mean(), color=COLORS[2], ls=":", lw=0.8)
    change.axhline(0, color="0.5", lw=0.6)
    change.set_ylim(-1.1, 2)
    change.set_xlabel("length (distance to the minimum without the batch)")
    change.set_ylabel("change of the rest's loss")
    kappa = np.geomspace(cosines.condition.min(), cosines.condition.max())
    angle.plot(
        kappa,
        2 * kappa**0.5 / (1 + kappa),
        color="black",
        ls=":",
        lw=0.8,
        label="least cosine of gradient and Newton",
    )
    angle.set(
        xscale="log",
        ylim=(-0.35, 1.05),
        xlabel="condition number of the Hessian (log scale)",
        ylabel="cosine with the true way",
    )
    angle.legend(loc="lower left")


def _variance_of_batch(axis: Axes, frame: pd.DataFrame) -> None:
    laws = {"any class": "within + between, any class", "one class": "within + between, one class",
            "one a class": "within + between, one image a class"}  # fmt: skip
    table = frame.groupby(["law", "size", "quantity"]).value.mean().unstack("quantity")
    inside, sizes = table.within.mean(), sorted(table.index.get_level_values("size").unique())
    axis.fill_between([sizes[0], sizes[-1]], 0, inside, color="0.92", lw=0)
    axis.text(sizes[0] * 1.1, inside - 0.04, "within images", fontsize=7, va="top")
    for index, (law, label) in enumerate(laws.items()):
        part = (inside + table.loc[law]).reset_index()
        size = 45 if len(part) == 1 else 15
        with labels_kept(axis):
            sns.lineplot(part, x="size", y="expected", errorbar=None, color=COLORS[index], lw=0.8, ax=axis)
            sns.scatterplot(part, x="size", y="between", s=size, linewidth=1, zorder=3, label=label, ax=axis,
                            **nth(index).seeds | {"facecolor": "white"})  # fmt: skip
    axis.axhline(1, color="black", lw=0.8, ls=":")
    log_x(axis, "images in the batch (log scale)", sizes, "{:.0f}")
    axis.set_ylim(0, 1.08)
    axis.set_ylabel("variance (of all real images: 1)")
    axis.legend(loc="lower right")


def _pushes(axis: Axes, frame: pd.DataFrame) -> None:
    pushes = frame[frame.quantity.isin(["mean", "variance"]) & (frame.seed == frame.seed.min())]
    reach = 0.25 * np.ptp(pushes[["x", "y"]].to_numpy(), axis=0).max()
    for index, (name, part) in enumerate(pushes.groupby("quantity", sort=False)):
        scale = np.hypot(part.dx, part.dy).max() / reach
        axis.quiver(part.x, part.y, part.dx, part.dy, color=COLORS[index], angles="xy", scale_units="xy", scale=scale, width=0.004,
                    label=f"push of the {name} term")  # fmt: skip
        axis.update_datalim(part[["x", "y"]].to_numpy() + part[["dx", "dy"]].to_numpy() / scale)
    axis.plot(pushes.x, pushes.y, ".", color="0.4", ms=2)
    axis.margins(0.05)
    axis.set_xlabel("channel 1 (sd of real images)")
    axis.set_ylabel("channel 2 (sd of real images)")
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, handlelength=1)

"""Drawings of the theory: every draw as a pale point, the mean as a line."""

import itertools

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterMathtext, LogLocator, MaxNLocator, NullFormatter

from ddcore.figures.drawings.marks import COLORS, Mark, arms, nth
from ddcore.figures.drawings.panels import (
    SMALL,
    draws,
    labels_kept,
    legend,
    lines,
    log_x,
    panels,
    per_class,
    seeds,
    slanted,
)
from ddcore.figures.style import COLUMN, PAGE

ARMS = {
    "same": "distilled, teacher's initialisation",
    "fresh": "distilled, unseen initialisations",
    "undistilled": "points not distilled",
    "real": "real samples",
    "random features": "real samples, random features",
    "network": "the network itself",
    "factored": "the network, factored at rank r",
    "teacher": "all samples",
}
ROWS = {
    "random points": nth(7),
    "distilled points": nth(0),
    "teacher's first layer": nth(2),
    "student's first layer": nth(3),
}


def _log(axis: Axes, x: str, y: str, ticks=None) -> None:
    """Logarithmic axes, numbers written out where they are of a few digits."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if high < 100 * low:
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter("{x:g}" if low > 1e-3 and high < 1e4 else LogFormatterMathtext())
    log_x(axis, x, ticks)
    if ticks is None:
        axis.xaxis.set_major_formatter(LogFormatterMathtext())
    axis.set_ylabel(y)


def memory(frame: pd.DataFrame) -> Figure:
    """Columns: arm, M1, M2, stored, error, seed. Of the distilled arms, the line joins the sets that no smaller one beats."""
    figure, (axis,) = panels(PAGE, 2.9)
    marks = {arm: nth(index) for index, arm in enumerate(ARMS) if arm in set(frame.arm)}
    for arm, mark in marks.items():
        part = frame[frame.arm == arm]
        if arm not in ("same", "fresh", "undistilled"):
            draws(axis, part, "stored", "error", {arm: mark}, lw=1)
            continue
        means = part.groupby(["stored", "M1", "M2"], as_index=False).error.mean()
        axis.plot(
            means.stored, means.error, mark.form, mfc=mark.color, mec="none", ms=2.2, alpha=0.35, zorder=1
        )
        best = means[means.error < means.error.cummin().shift(fill_value=np.inf)].drop_duplicates(
            "stored", keep="last"
        )
        lines(axis, part.merge(best.drop(columns="error")), "stored", "error", {arm: mark}, lw=1)
    axis.axhline(frame[frame.arm == "teacher"].error.mean(), color=COLORS[7], ls=":", lw=0.8, zorder=0)
    _log(axis, "stored numbers (log scale)", "test error (log scale)")
    legend(
        figure,
        {ARMS[arm]: mark for arm, mark in marks.items()},
        line=True,
        loc="outside right center",
        ncols=1,
    )
    return figure


def dimension(frame: pd.DataFrame) -> Figure:
    """Columns: d, L, N, arm, M1, stored, error, seed."""
    figure, axes = panels(PAGE, 2.4, 2)
    points = sorted(frame[frame.arm == "same"].M1.unique())
    shown = [points[-3], points[-1]] if len(points) > 2 else points
    curves = {
        f"distilled, {many:.0f} points": frame[(frame.arm == "same") & (frame["M1"] == many)]
        for many in shown
    }
    curves |= {
        ARMS["undistilled"]: frame[(frame.arm == "undistilled") & (frame["M1"] == shown[-1])],
        "real samples of equal memory": frame[frame.arm == "real"],
        ARMS["teacher"]: frame[frame.arm == "teacher"],
        ARMS["network"]: frame[frame.arm == "network"],
    }
    for label, mark in arms(curves).items():
        if label != ARMS["network"]:  # of the same error as all samples
            draws(axes[0], curves[label], "d", "error", {label: mark})
        if "distilled," in label or label in (ARMS["teacher"], ARMS["network"]):
            draws(axes[1], curves[label], "d", "stored", {label: mark})
    for axis, label in zip(axes, ("test error (log scale)", "stored numbers (log scale)"), strict=True):
        _log(axis, "input dimension d (log scale)", label, sorted(frame.d.unique()))
    legend(figure, arms(curves), line=True, ncols=3)
    return figure


def directions_and_points(frame: pd.DataFrame) -> Figure:
    """Columns: r, arm, M1, error, seed. The last column is the teacher's."""
    table = frame[frame.arm == "same"].pivot_table(index="r", columns="M1", values="error")
    points = table.columns.to_numpy()
    table.columns = [f"{many:.0f}" for many in points]
    table["teacher"] = frame[frame.arm == "teacher"].groupby("r").error.mean()
    figure, (axis,) = panels(PAGE, 0.75 + 0.24 * len(table))
    numbers = table.map(lambda error: f"{error:#.2g}" if error < 0.1 else f"{error:.2f}")
    sns.heatmap(table, norm=LogNorm(table.to_numpy().min(), 1), cmap="viridis", annot=numbers, fmt="", annot_kws={"fontsize": SMALL},
                cbar=False, ax=axis)  # fmt: skip
    for power, name, dashes in ((1, "$M_1 = r$", "-"), (2, "$M_1 = r^2$", "--")):
        places = np.searchsorted(points, table.index.to_numpy() ** power)
        axis.vlines(
            places,
            np.arange(len(table)),
            np.arange(1, len(table) + 1),
            color=COLORS[3],
            ls=dashes,
            lw=1.4,
            label=name,
        )
    axis.axvline(len(points), color="white", lw=3)
    axis.tick_params("y", labelrotation=0)
    axis.tick_params("x", labelrotation=0)
    axis.set_xlabel("distilled points $M_1$")
    axis.set_ylabel("directions r")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def width(frame: pd.DataFrame) -> Figure:
    """Columns: L, arm, M2, error, seed."""
    figure, axes = panels(PAGE, 2.4, 2)
    same, widths = frame[frame.arm == "same"], sorted(frame[frame.arm == "same"].L.unique())
    marks = {"distilled, L labels": nth(0), ARMS["teacher"]: nth(7)}
    draws(axes[0], same[same.M2 == same.L], "L", "error", {"same": nth(0)})
    draws(axes[0], frame[frame.arm == "teacher"], "L", "error", {"teacher": nth(7)})
    by_width = {
        L: Mark(color, ".", True)
        for L, color in zip(widths, sns.color_palette("viridis", len(widths)), strict=True)
    }
    draws(axes[1], same, "M2", "error", by_width, "L", lw=1)
    _log(axes[0], "width L (log scale)", "test error (log scale)", widths)
    _log(axes[1], "labels $M_2$ (log scale)", "")
    for axis in axes:
        axis.yaxis.set_major_formatter("{x:g}")
    legend(axes[0], marks, line=True)
    legend(
        axes[1],
        {f"L = {L}": mark for L, mark in by_width.items()},
        line=True,
        loc="upper right",
        fontsize=6,
        handlelength=1.5,
        ncols=2,
    )
    return figure


def samples(frame: pd.DataFrame) -> Figure:
    """Columns: d, N, arm, M1, error, seed."""
    figure, (axis,) = panels(COLUMN, 2.4)
    frame = frame.assign(ratio=frame.N / frame.d**2)
    points = arms(sorted(frame[frame.arm == "same"].M1.unique()))
    draws(axis, frame[frame.arm == "same"], "ratio", "error", points, "M1")
    draws(axis, frame[frame.arm == "teacher"], "ratio", "error", {"teacher": nth(7)})
    _log(axis, "samples N / d² (log scale)", "test error (log scale)", sorted(frame.ratio.unique()))
    legend(
        figure,
        {f"distilled, {many:.0f} points": mark for many, mark in points.items()} | {"teacher": nth(7)},
        line=True,
        ncols=2,
    )
    return figure


def subspace(frame: pd.DataFrame) -> Figure:
    """Columns: rows, quantity, index, value, seed."""
    figure, (values, degrees) = panels(PAGE, 2.5, 2)
    marks = {name: ROWS.get(name, nth(place)) for place, name in enumerate(dict.fromkeys(frame["rows"]))}
    singular, angles = frame[frame.quantity == "singular value"], frame[frame.quantity == "angle"]
    singular = singular[
        singular.groupby(["rows", "index"]).value.transform("min") > 1e-5
    ]  # below lies rounding
    for name, mark in marks.items():
        part = singular[singular["rows"] == name]
        lines(
            values,
            part,
            "index",
            "value",
            {name: mark},
            errorbar=("pi", 100),
            err_style="band",
            err_kws={"lw": 0},
            ms=3,
            lw=0.8,
        )
    seeds(degrees, angles, "index", "value", marks, "rows")
    values.set(yscale="log", xlabel="index", ylabel="singular value (log scale)")
    values.xaxis.set_major_locator(MaxNLocator(integer=True))
    degrees.set(yscale="log", xlabel="principal angle", ylabel="degrees to span B (log scale)")
    degrees.set_yticks([1, 2, 5, 10, 20, 50, 90], ["1", "2", "5", "10", "20", "50", "90"])
    degrees.minorticks_off()
    share = 100 * frame[frame.quantity == "energy"].groupby("rows").value.mean()
    legend(
        figure,
        {f"{name} ({share[name]:.0f} % in span B)": mark for name, mark in marks.items()},
        line=True,
        ncols=2,
    )
    return figure


def collapse(frame: pd.DataFrame) -> Figure:
    """Columns: decay, steps, condition, error, teacher, seed."""
    figure, axes = panels(PAGE, 2.3, 2)
    marks = arms(frame.decay)
    for axis, column in zip(axes, ("condition", "error"), strict=True):
        draws(axis, frame, "steps", column, marks, "decay", estimator="median")
    for decay, error in frame.groupby("decay").teacher.mean().items():
        axes[1].axhline(error, color=marks[decay].color, ls=":", lw=0.8)
    for axis, label in zip(axes, ("condition number (log scale)", "test error (log scale)"), strict=True):
        _log(axis, "matching steps (log scale)", label, sorted(frame.steps.unique()))
    names = {
        decay: "equal eigenvalues" if decay == 1 else f"each {decay:g} of the one before" for decay in marks
    }
    legend(figure, {names[decay]: mark for decay, mark in marks.items()}, line=True)
    return figure


def links(frame: pd.DataFrame) -> Figure:
    """Columns: link, activation, arm, error, seed."""
    shown = list(dict.fromkeys(frame.link))
    figure, axes = panels(PAGE, 2.5, len(shown), sharey=True)
    for axis, link in zip(axes, shown, strict=True):
        seeds(
            axis,
            frame[frame.link == link],
            "activation",
            "error",
            {"teacher": nth(7), "same": nth(0)},
            "arm",
            width=0.75,
        )
        axis.set_title(link)
        axis.axhline(1, color="0.6", lw=0.6, ls=":")
        slanted(axis)
    axes[0].set_yscale("log")
    axes[0].set_ylabel("test error (log scale)")
    legend(figure, {"teacher, all samples": nth(7), "distilled": nth(0)})
    return figure


def images(frame: pd.DataFrame) -> Figure:
    """Columns: set, state, ipc (0: a control), images_per_class, image_share, average_share, average_pca, rank, seed: at one k."""
    labels = {"image_share": "images in the\nsubspace (%)", "average_share": "class averages\nin it (%)",
              "change": "change of the\naverages in it (%)", "rank": "effective rank\n(log scale)"}  # fmt: skip
    frame = frame.assign(
        **{column: 100 * frame[column] for column in ("image_share", "average_share", "average_pca")}
    )
    control, frame = frame[frame.set == "random real"], frame[frame.ipc > 0]
    control = control.drop(columns=["set", "ipc"]).merge(
        frame[["set", "ipc", "images_per_class"]].drop_duplicates()
    )
    sets, budgets = list(dict.fromkeys(frame.set)), sorted(frame.ipc.unique())
    real, before, after = (
        {"marker": "|", "color": "black", "ms": 9, "mew": 1.4},
        Mark("0.5", "o").line,
        Mark(COLORS[0], "o", True).line,
    )
    own = {"marker": "s", "color": COLORS[1], "mfc": "none", "ms": 6, "mew": 1.2}
    figure, axes = panels(
        PAGE, 0.8 + 1.1 * len(budgets), len(labels), len(budgets), sharex="col", sharey=True
    )

    def means(part: pd.DataFrame, state: str, column: str, mark: dict, errorbar: str | None = "sd") -> None:
        part = part[(part.state == state) & (part.ipc == ipc)]
        if state == "before" and column != "rank":  # noise would stretch the axis
            part = part[part.groupby("set")[column].transform("mean") > 25]
        if len(part):
            with labels_kept(axis):
                sns.pointplot(part, x=column, y="set", order=sets, errorbar=errorbar, capsize=0.2, ls="none", legend=False, ax=axis,
                              err_kws={"lw": 0.8, "zorder": 1.9}, **{"ms": 4} | mark)  # fmt: skip

    for axis, (ipc, column) in zip(axes, itertools.product(budgets, labels), strict=True):
        if column == "change":
            means(control, "change", "average_share", real, None)
            means(control, "change", "average_pca", real | {"color": COLORS[1]}, None)
            means(frame, "change", "average_share", after)
            means(frame, "change", "average_pca", own)
        else:
            means(control, "control", column, real, None)
            means(frame, "before", column, before)
            means(frame, "after", column, after)
        if ipc == budgets[-1]:
            axis.set_xlabel(labels[column])
        if column == "image_share":
            axis.set(ylabel=per_class(ipc), ylim=(len(sets) - 0.5, -0.5))
    log_x(axis, labels["rank"])
    names = {"before": before, "distilled, or what changed": after, "random real images, as many": real,
             "change, in the images' own subspace": own}  # fmt: skip
    handles = [Line2D([], [], ls="none", label=name, **{"ms": 4} | mark) for name, mark in names.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, handletextpad=0.2, columnspacing=1.2)
    return figure

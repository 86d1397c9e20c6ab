"""Drawings of notebook 91: speed and memory of steps and kernels."""

import itertools

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, PercentFormatter

from ddcore.figures.drawings.marks import COLORS, Mark, arms, methods
from ddcore.figures.drawings.panels import SMALL, cells, labels_kept, legend, level, lines, log_x, panels
from ddcore.figures.style import PAGE

COMPILED = {
    "eager, float32": Mark(COLORS[0], "o", True),
    "compiled, float32": Mark(COLORS[1], "s", True),
    "compiled, bfloat16": Mark(COLORS[2], "D", True),
}


def _kind(provider: str) -> str:
    """Which of COMPILED a form of a step is."""
    return (
        "compiled, bfloat16"
        if provider.endswith("bfloat16")
        else f"{'compiled' if 'compiled' in provider else 'eager'}, float32"
    )


def speed(frame: pd.DataFrame) -> Figure:
    """Columns: name, provider, rank (0: the published structure, whose ratios are 1), ratio, ratio_p20, ratio_p80, memory_ratio; of the
    steps on the grid of sizes also step, ipc, batch_real, classes."""
    frame = frame[frame["rank"] > 0]
    sizes = [name if pd.isna(ipc) else f"{classes:.0f} classes, {real:.0f} real, IPC {ipc:.0f}"
             for name, ipc, classes, real in frame[["name", "ipc", "classes", "batch_real"]].itertuples(index=False)]  # fmt: skip
    frame = frame.assign(
        row=sizes, kind=frame.provider.map(_kind), step=frame.step.str.upper().fillna("others")
    )
    parts = sorted(frame.groupby("step", sort=False), key=lambda part: part[0] == "others")
    orders = {
        step: list(dict.fromkeys(frame[(frame.step == "others") == (step == "others")].row))
        for step, _ in parts
    }
    labels = {"ratio": "speed (×)", "memory_ratio": "less memory (×)"}
    figure, axes = panels(PAGE, 1.2 + 0.34 * max(map(len, orders.values())), len(parts), len(labels))
    for place, (axis, (value, (step, part))) in enumerate(
        zip(axes, itertools.product(labels, parts), strict=True)
    ):
        column, order, known = place % len(parts), orders[step], part.dropna(subset=value)
        first, last = column == 0, column == len(parts) - 1
        for kind, mark in COMPILED.items():
            own = known[known.kind == kind]
            rows = own.row.map(order.index)
            axis.plot(own[value], rows, mark.form, color=mark.color, ms=3.5)
            if value == "ratio":
                axis.hlines(rows, own.ratio_p20, own.ratio_p80, color=mark.color, lw=0.8)
        axis.axvline(1, color="black", lw=0.8)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(LogLocator(2, numticks=4))
        axis.xaxis.set_major_formatter(lambda x, place: f"{x:g}" if x >= 1 else f"1/{1 / x:g}")
        axis.minorticks_off()
        axis.set_yticks(range(len(order)), order if first or last else [""] * len(order))
        axis.tick_params(axis="y", labelsize=SMALL, labelright=last, labelleft=first)
        axis.grid(axis="y", lw=0.3)
        axis.set(
            title=step if value == "ratio" else "",
            xlabel=labels[value],
            ylim=(len(order) - 0.5, -0.5),
            axisbelow=True,
        )
    legend(figure, COMPILED)
    return figure


def profile(frame: pd.DataFrame) -> Figure:
    """Columns: name, provider, kind, seconds (of that kind in a step). Drawn are shares of the step."""
    kinds = list(dict.fromkeys(frame.kind))
    colors = dict(
        zip(kinds, sns.color_palette("cividis", len(kinds)), strict=True)
    )  # from dark to light, in grey too
    figure, axes = panels(PAGE, 0.9 + 0.22 * frame.provider.nunique(), frame["name"].nunique(), sharey=True)
    for axis, (name, part) in zip(axes, frame.groupby("name", sort=False), strict=True):
        with labels_kept(axis):
            sns.histplot(part, y="provider", weights="seconds", hue="kind", hue_order=kinds[::-1], multiple="fill", shrink=0.7, alpha=1,
                         linewidth=0, palette=colors, legend=False, ax=axis)  # fmt: skip
        axis.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        axis.set_xlabel("share of the step (%)")
        axis.set_xlim(0, 1)
        axis.set_title(name)
    bars = {kind: Mark(color, "s", True) for kind, color in colors.items()}
    legend(figure, bars, ncols=4, markerscale=1.6)
    return figure


def adjoint(frame: pd.DataFrame) -> Figure:
    """Columns: gradient, steps, saved_bytes, error (of the image gradient, relative, against the unrolled one)."""
    frame = frame.assign(mebibytes=frame.saved_bytes / 2**20)
    figure, axes = panels(PAGE, 2.2, 2)
    marks = arms(frame.gradient)
    others = {name: mark for name, mark in marks.items() if name != "unrolled"}
    panes = (
        ("mebibytes", "bytes kept (MiB, log scale)", marks),
        ("error", "gradient error (log scale)", others),
    )
    for axis, (column, label, shown) in zip(axes, panes, strict=True):
        for place, (name, mark) in enumerate(shown.items()):
            lines(axis, frame, "steps", column, {name: mark}, "gradient", errorbar=None, zorder=3 - place)
        axis.set_yscale("log")
        log_x(axis, "student steps T (log scale)", sorted(frame.steps.unique()))
        axis.set_ylabel(label)
        legend(axis, shown, line=True)
    return figure


def time_to_accuracy(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, seed, step, seconds, accuracy, published (of that method and cell, or not a number)."""
    frame = frame.assign(
        seconds=frame.groupby(["dataset", "ipc", "method", "step"]).seconds.transform("mean")
    )
    figure, axes = cells(frame, 1.9, columns=2)
    marks = methods(frame.method)
    for axis, here in axes:
        lines(axis, here, "seconds", "accuracy", marks, "method")
        for name, published in here.dropna(subset="published").groupby("method").published.first().items():
            level(axis, published, marks[name])
        log_x(axis, "seconds of distillation (log scale)")
    legend(figure, marks, line=True)
    return figure

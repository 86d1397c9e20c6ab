"""Drawings of notebook 91: speed and memory of steps and kernels."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, PercentFormatter

from ddcore.figures.drawings.marks import COLORS, Mark, arms, methods
from ddcore.figures.drawings.panels import SMALL, cells, labels_kept, legend, lines, log_x, panels
from ddcore.figures.style import PAGE

COMPILED = {
    "eager, float32": Mark(COLORS[0], "o", True),
    "compiled, float32": Mark(COLORS[1], "s", True),
    "compiled, bfloat16": Mark(COLORS[2], "D", True),
}


def _kind(provider: str) -> str:
    """Which of COMPILED a form of a step is."""
    return "compiled, bfloat16" if provider.endswith("bfloat16") else f"{'compiled' if 'compiled' in provider else 'eager'}, float32"


def _log2_ticks(low: float, high: float) -> list[float]:
    """At most four powers of two between these, evenly apart."""
    first, last = int(np.ceil(np.log2(low))), int(np.floor(np.log2(high)))
    apart = max(1, -(-(last - first) // 3))
    return [2.0**power for power in range(first, last + 1) if power % apart == 0]


def speed(frame: pd.DataFrame) -> Figure:
    """Columns: name, provider, rank (0: the published structure, whose ratios are 1), ratio, ratio_p20, ratio_p80, memory_ratio; of the
    steps on the grid of sizes also step, ipc, batch_real, classes."""
    frame = frame[frame["rank"] > 0]
    on_grid = frame[frame.step.notna()]
    sizes = [f"{row.classes:.0f} classes, {row.batch_real:.0f} real, IPC {row.ipc:.0f}" for row in on_grid.itertuples()]
    frame = frame.assign(kind=frame.provider.map(_kind), row=frame["name"])
    frame.loc[on_grid.index, "row"] = sizes
    steps = [(step.upper(), part) for step, part in frame.groupby("step", sort=False)] + [("others", frame[frame.step.isna()])]
    rows = [list(dict.fromkeys(sizes))] * (len(steps) - 1) + [list(dict.fromkeys(steps[-1][1].row))]
    forms = {kind: mark.form for kind, mark in COMPILED.items()}
    colors = {kind: mark.color for kind, mark in COMPILED.items()}
    figure, axes = panels(PAGE, 1.2 + 0.34 * max(map(len, rows)), len(steps), 2)
    for column, (title, part) in enumerate(steps):
        order, last = rows[column], column == len(steps) - 1
        labels = {"ratio": "speed (×)", "memory_ratio": "less memory (×)"}
        for axis, (value, label) in zip(axes[column :: len(steps)], labels.items(), strict=True):
            known = part.dropna(subset=value).assign(place=lambda known, order=order: known.row.map(order.index))
            axis.axvline(1, color="black", lw=0.8)
            if value == "ratio":
                axis.hlines(known.place, known.ratio_p20, known.ratio_p80, color=known.kind.map(colors), lw=0.8)
            with labels_kept(axis):
                sns.scatterplot(known, x=value, y="place", hue="kind", style="kind", markers=forms, palette=colors, s=14, linewidth=0,
                                legend=False, ax=axis)  # fmt: skip
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_locator(FixedLocator(_log2_ticks(*axis.get_xlim())))
            axis.xaxis.set_major_formatter(lambda x, place: f"{x:g}" if x >= 1 else f"1/{1 / x:g}")
            axis.minorticks_off()
            axis.set_yticks(range(len(order)), order if last or not column else [""] * len(order))
            axis.tick_params(axis="y", labelsize=SMALL, labelright=last, labelleft=not column)
            axis.set_ylim(len(order) - 0.5, -0.5)
            axis.grid(axis="y", lw=0.3)
            axis.set_axisbelow(True)
            axis.set_xlabel(label)
        axes[column].set_title(title)
    legend(figure, COMPILED)
    return figure


def profile(frame: pd.DataFrame) -> Figure:
    """Columns: name, provider, kind, seconds (of that kind in a step). Drawn are shares of the step."""
    kinds = list(dict.fromkeys(frame.kind))
    figure, axes = panels(PAGE, 0.9 + 0.22 * frame.provider.nunique(), frame["name"].nunique(), sharey=True)
    for axis, (name, part) in zip(axes, frame.groupby("name", sort=False), strict=True):
        with labels_kept(axis):
            sns.histplot(part, y="provider", weights="seconds", hue="kind", hue_order=kinds[::-1], multiple="fill", shrink=0.7, alpha=1,
                         linewidth=0, palette=dict(zip(kinds, COLORS, strict=False)), legend=False, ax=axis)  # fmt: skip
        axis.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        axis.set_xlabel("share of the step (%)")
        axis.set_xlim(0, 1)
        axis.set_title(name)
    bars = {kind: Mark(color, "s", True) for kind, color in zip(kinds, COLORS, strict=False)}
    legend(figure, bars, ncols=4, markerscale=1.6)
    return figure


def adjoint(frame: pd.DataFrame) -> Figure:
    """Columns: gradient, steps, saved_bytes, error (of the image gradient, relative, against the unrolled one)."""
    frame = frame.assign(mebibytes=frame.saved_bytes / 2**20)
    figure, axes = panels(PAGE, 2.2, 2)
    marks = arms(frame.gradient)
    others = {name: mark for name, mark in marks.items() if name != "unrolled"}
    panes = (("mebibytes", "bytes kept (MiB, log scale)", marks), ("error", "gradient error (log scale)", others))
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
    frame = frame.assign(seconds=frame.groupby(["dataset", "ipc", "method", "step"]).seconds.transform("mean"))
    figure, axes = cells(frame, 1.9, columns=2)
    marks = methods(frame.method)
    for axis, here in axes:
        lines(axis, here, "seconds", "accuracy", marks, "method")
        for name, published in here.dropna(subset="published").groupby("method").published.first().items():
            axis.axhline(published, color=marks[name].color, ls="--", lw=0.8)
        log_x(axis, "seconds of distillation (log scale)")
    legend(figure, marks, line=True)
    return figure

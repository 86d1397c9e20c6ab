"""Drawings of MIM4DD: the bound of the mutual information, and what the term brings."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ddcore.figures.drawings.marks import (
    ALONE,
    COLORS,
    FORMS,
    NAMES,
    Mark,
    arms,
    class_names,
    method,
    methods,
    nth,
)
from ddcore.figures.drawings.panels import (
    cells,
    differences,
    labels_kept,
    legend,
    level,
    lines,
    log_x,
    panels,
    seeds,
)
from ddcore.figures.style import COLUMN, PAGE

BOUNDS = {
    "positives alone": "positive term, all negatives",
    "whole bound": "log N + L, all negatives",
    "corrected bound": "corrected log N + L",
    "other classes, positives alone": "positive term, other classes",
    "other classes, whole": "log N + L, other classes",
    "other classes, repaired": "other classes, repaired",
}


def _exact_and_sampled(
    axis,
    exact: pd.DataFrame,
    sampled: pd.DataFrame,
    x: str,
    columns: tuple[str, str],
    mark: Mark,
    dashes: str,
) -> None:
    """Exact values as a line, samples as hollow points, one a seed."""
    with labels_kept(axis):
        sns.lineplot(exact, x=x, y=columns[0], errorbar=None, color=mark.color, ls=dashes, lw=1, ax=axis)
        sns.scatterplot(
            sampled, x=x, y=columns[1], s=7, alpha=0.6, linewidth=0.5, legend=False, ax=axis, **mark.seeds
        )


def _log_negatives(axis, counts: pd.Series) -> None:
    log_x(axis, "negatives N (log scale)", sorted(counts.unique())[::2], "{:,}")


def bounds(frame: pd.DataFrame) -> Figure:
    """Columns: by (the panel: separation or N), classes, separation, N, quantity, exact, sampled, seed."""
    figure, axes = panels(PAGE, 2.9, 2, sharey=True)
    ceiling = np.log(frame.classes.iloc[0])
    colors = dict(zip(BOUNDS, [*COLORS[:5], "black"], strict=True))
    handles = [Line2D([], [], color="0.8", lw=4, label="mutual information", solid_capstyle="butt"),
               Line2D([], [], color="0.4", ls=":", lw=0.8, label="its ceiling log C")]  # fmt: skip
    for axis, x in zip(axes, ("separation", "N"), strict=True):
        here = frame[frame.by == x]
        truth = here[here.quantity == "information"].groupby(x).exact.mean()
        axis.plot(truth, color="0.8", lw=4, solid_capstyle="butt", zorder=0)
        axis.axhline(ceiling, color="0.4", ls=":", lw=0.8)
        for index, (quantity, name) in enumerate(BOUNDS.items()):
            part = here[here.quantity == quantity]
            dashes = "--" if quantity.startswith("other") else "-"
            _exact_and_sampled(
                axis, part, part, x, ("exact", "sampled"), Mark(colors[quantity], FORMS[index]), dashes
            )
            if axis is axes[0]:
                handles.append(Line2D([], [], color=colors[quantity], ls=dashes, lw=1, label=name))
    axes[0].set_xlabel("separation of the classes (sd)")
    axes[0].set_ylabel("nats")
    axes[0].set_ylim(top=2 * ceiling)
    _log_negatives(axes[1], frame[frame.by == "N"].N)
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure


def magnitude(frame: pd.DataFrame) -> Figure:
    """Columns: kind (exact or sampled), bias, N, part, value, seed."""
    figure, axes = panels(PAGE, 2.5, 2, sharey=True)
    for axis, parts in zip(axes, (("negatives", "positive"), ("push", "pull")), strict=True):
        handles = []
        for part, dashes in zip(parts, ("-", "--"), strict=True):
            for index, bias in enumerate(("printed", "normalised")):
                here = frame[(frame.part == part) & (frame.bias == bias)]
                exact, sampled = (here[here.kind == kind] for kind in ("exact", "sampled"))
                _exact_and_sampled(axis, exact, sampled, "N", ("value", "value"), nth(index), dashes)
                handles.append(
                    Line2D([], [], color=COLORS[index], ls=dashes, lw=1, label=f"{part}, {bias} bias")
                )
        axis.set_yscale("log")
        axis.minorticks_off()
        _log_negatives(axis, frame.N)
        axis.legend(handles=handles, fontsize=6)
    axes[0].set_ylabel("part of the loss in nats (log scale)")
    axes[1].set_ylabel("weight in the gradient (log scale)")
    return figure


def gain(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, arm ('base' and others), seed, accuracy. Drawn are differences to the base of the same seed."""
    return differences(frame, "base", "points over the method alone")


def ratios(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, ratio (of the gradients' norms; 0: the method alone), weight, seed, accuracy (on a holdout)."""
    figure, axes = cells(frame, 2.2, label="holdout accuracy (%)")
    marks = methods(frame.method)
    for axis, here in axes:
        lines(axis, here[here.ratio > 0], "ratio", "accuracy", marks, "method", errorbar=None)
        for name, accuracy in here[here.ratio == 0].groupby("method").accuracy.mean().items():
            level(axis, accuracy, method(name))
        log_x(axis, "gradient of the term / of the method (log)")
    legend(figure, marks, line=True)
    return figure


def critics(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, arm, seed, accuracy; the first arm is the method alone."""
    alone, *others = dict.fromkeys(frame.arm)
    figure, (axis,) = panels(COLUMN, 0.7 + 0.27 * (1 + len(others)))
    seeds(axis, frame, "arm", "accuracy", arms(others, alone), width=0.6, orient="h")
    axis.axvline(frame[frame.arm == alone].accuracy.mean(), color="0.35", lw=0.8, ls="--", zorder=0)
    axis.set_xlabel("test accuracy (%)")
    return figure


def temperatures(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, arm, temperature, seed, accuracy; the method alone stands at every temperature."""
    alone, *others = dict.fromkeys(frame.arm)
    figure, (axis,) = panels(COLUMN, 2.1)
    lines(axis, frame, "temperature", "accuracy", arms(others), "arm")
    log_x(axis, "temperature (log scale)", sorted(frame.temperature.unique()))
    known = frame[(frame.arm == alone) & (frame.temperature == frame.temperature.min())].accuracy
    axis.axhspan(known.mean() - known.std(), known.mean() + known.std(), color=ALONE.color, alpha=0.15, lw=0)
    dashed = axis.axhline(known.mean(), color=ALONE.color, lw=0.8, ls="--", label=alone)
    axis.margins(x=0.1)
    axis.set_ylabel("test accuracy (%)")
    legend(axis, arms(others), dashed, line=True)
    return figure


def curves(frame: pd.DataFrame) -> Figure:
    """Columns: arm, step, block, information, ceiling, dataset, seed; the first arm is the method alone."""
    alone, *others = dict.fromkeys(frame.arm)
    blocks = sorted(frame.block.unique())
    figure, axes = panels(PAGE, 2.2, len(blocks), sharey=True)
    for axis, block in zip(axes, blocks, strict=True):
        lines(axis, frame[frame.block == block], "step", "information", arms(others, alone), "arm")
        axis.axhline(0, color="black", lw=0.5)
        axis.set_xlabel("step")
        axis.set_title(f"block {block + 1}")
    axes[0].set_ylabel(f"information (nats)\nat most {frame.ceiling.iloc[0]:.2f}")
    legend(figure, arms(others, alone), line=True)
    return figure


def kernel(frame: pd.DataFrame) -> Figure:
    """Columns: K, M, N, provider, round, seconds, peak_bytes. Ratios are of the seconds of one round, to 'eager' where it ran."""
    frame = frame.assign(pairs=frame.K * frame.M * frame.N, mebibytes=frame.peak_bytes / 2**20)
    eager = frame[frame.provider == "eager"].set_index(["pairs", "round"]).seconds
    frame["ratio"] = frame.set_index(["pairs", "round"]).index.map(eager).to_numpy() / frame.seconds
    frame.loc[frame.provider == "eager", "ratio"] = np.nan
    figure, axes = panels(PAGE, 2.3, 3, sharex=True)
    labels = {"seconds": "seconds", "mebibytes": "peak memory (MiB)", "ratio": "times as fast as eager"}
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        known = frame.dropna(subset=column)
        lines(
            axis,
            known,
            "pairs",
            column,
            arms(frame.provider),
            "provider",
            estimator="median",
            errorbar=("pi", 60),
        )
        axis.set(xscale="log", yscale="log", xlabel="pairs K M N (log scale)", title=label)
    axes[0].set_ylabel("log scale")
    axes[2].axhline(1, color=COLORS[0], lw=0.8)
    axes[2].set_yscale("log", base=2)
    axes[2].yaxis.set_major_formatter("{x:g}")
    legend(figure, arms(frame.provider), line=True)
    return figure


def class_correlation(frame: pd.DataFrame) -> Figure:
    """Columns: arm, row, column (classes), correlation, dataset, seed. Drawn are means over seeds."""
    means = frame.groupby(["arm", "row", "column"], sort=False).correlation.mean()
    names, lowest = class_names(frame), np.floor(10 * means.min()) / 10
    shown = list(dict.fromkeys(frame.arm))
    figure, axes = panels(PAGE, 2.6, len(shown), sharey=True)
    for axis, arm in zip(axes, shown, strict=True):
        table = means[arm].unstack()
        sns.heatmap(
            table,
            cmap="viridis",
            vmin=lowest,
            vmax=1,
            square=True,
            cbar=False,
            xticklabels=names,
            yticklabels=names,
            ax=axis,
        )
        off_diagonal = table.to_numpy()[~np.eye(len(table), dtype=bool)].mean()
        axis.set(title=f"{arm}: {off_diagonal:.2f} off the diagonal", xlabel="", ylabel="")
        axis.tick_params("x", labelrotation=90)
        axis.tick_params("y", labelrotation=0)
    figure.colorbar(axes[-1].collections[0], ax=list(axes), aspect=30, fraction=0.02, label="correlation")
    return figure


def spread(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, arm, seed, accuracy, vendi (score within a class, mean over classes); the first arm is random real images."""
    real, *others = dict.fromkeys(frame.arm)
    figure, axes = panels(PAGE, 2.3, 2)
    for axis, (column, label) in zip(
        axes, {"accuracy": "test accuracy (%)", "vendi": "Vendi score within a class"}.items(), strict=True
    ):
        seeds(axis, frame, "arm", column, {real: method("random")} | arms(others))
        axis.set_xticks(
            range(1 + len(others)), [NAMES.get(arm, arm).replace(" ", "\n") for arm in (real, *others)]
        )
        axis.set_ylabel(label)
    return figure

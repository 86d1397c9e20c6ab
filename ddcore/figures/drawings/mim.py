"""Drawings of what the plugins bring: every seed as a point, means over seeds."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ddcore.figures.drawings.kernels import CLASSES, _cells, _differences, _figure, _mean_line, _means, _points
from ddcore.figures.drawings.marks import COLORS, MARKERS, NAMES, Look, look, nth
from ddcore.figures.style import COLUMN, PAGE

ALONE = Look("0.35", "<")


def gain(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, arm ('base' and others), seed, accuracy. Drawn are differences to the base of the same seed."""
    return _differences(frame, "base", "points over the method alone")


def weights(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, ratio (of the gradients' norms; 0: the method alone), weight, seed, accuracy (on a holdout)."""
    figure, cells = _cells(frame, 2.2, label="holdout accuracy (%)")
    methods, named = list(dict.fromkeys(frame.method)), set()
    for axis, here in cells:
        for method, found in here.groupby("method", sort=False):
            means = found.groupby("ratio").accuracy.mean()
            axis.plot(means[means.index > 0], label=None if method in named else method, **look(method).line)
            named.add(method)
            axis.axhline(means[0.0], color=look(method).color, lw=0.8, ls="--")
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("gradient of the term / of the method (log)")
    figure.legend(loc="outside upper center", ncols=len(methods))
    return figure


def negatives(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, arm, seed, accuracy."""
    arms = list(dict.fromkeys(frame.arm))
    figure, axes = _figure(COLUMN, 0.7 + 0.27 * len(arms))
    for y, arm in enumerate(arms):
        values, mark = frame[frame.arm == arm].accuracy.to_numpy(), nth(y - 1) if y else ALONE
        axes[0].plot(values, y + np.linspace(-0.15, 0.15, len(values)), **mark.points, mew=0.8, ms=3.5)
        axes[0].errorbar(values.mean(), y, xerr=values.std(ddof=1), color=mark.color, marker="|", ms=10, mew=1.6, lw=0.8, capsize=2)
    axes[0].axvline(frame[frame.arm == arms[0]].accuracy.mean(), color="0.35", lw=0.8, ls="--", zorder=0)
    axes[0].set_yticks(range(len(arms)), [NAMES.get(arm, arm) for arm in arms])
    axes[0].invert_yaxis()
    axes[0].set_xlabel("test accuracy (%)")
    return figure


def temperatures(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, arm, temperature, seed, accuracy; the method alone stands at every temperature."""
    alone, *arms = dict.fromkeys(frame.arm)
    groups = {arm: (nth(index), frame[frame.arm == arm]) for index, arm in enumerate(arms)}
    figure, axis = _means(frame, "temperature", groups, "temperature (log scale)")
    known = frame[(frame.arm == alone) & (frame.temperature == frame.temperature.min())].accuracy
    axis.axhspan(known.mean() - known.std(), known.mean() + known.std(), color=ALONE.color, alpha=0.15, lw=0)
    axis.axhline(known.mean(), color=ALONE.color, lw=0.8, ls="--", label=alone)
    axis.legend(loc="best")
    return figure


def curves(frame: pd.DataFrame) -> Figure:
    """Columns: arm, step, block, information, ceiling, dataset, seed."""
    blocks = sorted(frame.block.unique())
    figure, axes = _figure(PAGE, 2.2, len(blocks), sharey=True)
    for axis, block in zip(axes, blocks, strict=True):
        for index, (arm, found) in enumerate(frame[frame.block == block].groupby("arm", sort=False)):
            mark, label = nth(index - 1) if index else ALONE, arm if axis is axes[0] else None
            _mean_line(axis, found, "step", mark, label, y="information", elinewidth=0.8)
        axis.set_xlabel("step")
        axis.axhline(0, color="black", lw=0.5)
        axis.set_title(f"block {block + 1}", fontsize=8)
    axes[0].set_ylabel(f"information (nats, at most {frame.ceiling.iloc[0]:.2f})")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def kernel(frame: pd.DataFrame) -> Figure:
    """Columns: K, M, N, provider, round, seconds, peak_bytes. Ratios are of the seconds of one round, to 'eager' where it ran."""
    frame = frame.assign(pairs=frame.K * frame.M * frame.N, mebibytes=frame.peak_bytes / 2**20)
    eager = frame[frame.provider == "eager"].set_index(["pairs", "round"]).seconds
    frame["ratio"] = frame.set_index(["pairs", "round"]).index.map(eager).to_numpy() / frame.seconds
    figure, axes = _figure(PAGE, 2.3, 3, sharex=True)
    labels = {"seconds": "seconds", "mebibytes": "peak memory (MiB)", "ratio": "times as fast as eager"}
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        for index, (provider, found) in enumerate(frame.groupby("provider", sort=False)):
            low, middle, high = (found.groupby("pairs")[column].quantile(part) for part in (0.2, 0.5, 0.8))
            if column != "ratio" or provider != "eager":
                axis.errorbar(middle.index, middle, (middle - low, high - middle), capsize=2, elinewidth=0.8,
                              label=provider if axis is axes[0] else None, **nth(index).line)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("pairs K M N (log scale)")
        axis.set_title(label, fontsize=8)
    axes[0].set_ylabel("log scale")
    axes[2].axhline(1, color=COLORS[0], lw=0.8)
    axes[2].set_yscale("log", base=2)
    axes[2].yaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def class_correlation(frame: pd.DataFrame) -> Figure:
    """Columns: arm, row, column (classes), correlation, dataset, seed. Drawn are means over seeds."""
    arms = list(dict.fromkeys(frame.arm))
    lowest = np.floor(10 * frame.groupby(["arm", "row", "column"]).correlation.mean().min()) / 10
    figure, axes = _figure(PAGE, 2.6, len(arms), sharey=True)
    for axis, arm in zip(axes, arms, strict=True):
        means = frame[frame.arm == arm].pivot_table(index="row", columns="column", values="correlation")
        drawn = axis.imshow(means, cmap="viridis", vmin=lowest, vmax=1)
        off = means.to_numpy()[~np.eye(len(means), dtype=bool)].mean()
        axis.set_title(f"{arm}: {off:.2f} off the diagonal", fontsize=8)
        axis.set_xticks(range(len(means)), _classes(frame), rotation=90)
        axis.set_yticks(range(len(means)), _classes(frame))
    figure.colorbar(drawn, ax=axes, aspect=30, fraction=0.02, label="correlation")
    return figure


def spread(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, arm, seed, accuracy, vendi (score within a class, mean over classes)."""
    arms = list(dict.fromkeys(frame.arm))
    figure, axes = _figure(PAGE, 2.3, 2)
    for axis, (column, label) in zip(axes, {"accuracy": "test accuracy (%)", "vendi": "Vendi score within a class"}.items(), strict=True):
        for x, arm in enumerate(arms):
            _points(axis, x, frame[frame.arm == arm][column].to_numpy(), 0.34, nth(x - 1) if x else look("random"))
        axis.set_xticks(range(len(arms)), [arm.replace(" ", "\n") for arm in arms])
        axis.set_ylabel(label)
    return figure


def _classes(frame: pd.DataFrame) -> tuple:
    return CLASSES.get(frame.dataset.iloc[0], tuple(sorted(frame["row" if "row" in frame else "label"].unique())))


def tsne(frame: pd.DataFrame) -> Figure:
    """Columns: set (the real images, then the others), label, x, y, dataset, seed. Of more classes than colours the first are drawn."""
    real, *others = dict.fromkeys(frame.set)
    figure, axes = _figure(PAGE, 3.2, len(others), sharex=True, sharey=True)
    for axis, name in zip(axes, others, strict=True):
        for label, (word, colour) in enumerate(zip(_classes(frame), COLORS, strict=False)):
            of = frame[frame.label == label]
            axis.plot(*of[of.set == real][["x", "y"]].T.to_numpy(), ".", color=colour, ms=2, alpha=0.6, rasterized=True)
            axis.plot(*of[of.set == name][["x", "y"]].T.to_numpy(), MARKERS[label % len(MARKERS)], mfc=colour, mec="black", mew=0.5, ms=4,
                      label=word if axis is axes[0] else None)
        axis.set_title(name, fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.legend(loc="outside lower center", ncols=5)
    return figure

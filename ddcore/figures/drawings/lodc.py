"""Drawings of notebooks 13 and 14: low-rank factors beside their hosts."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from ddcore.figures.drawings.kernels import _cells, _differences, _figure, _points
from ddcore.figures.drawings.marks import COLORS, NAMES, look, nth
from ddcore.figures.style import COLUMN, PAGE


def hosts(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, host (none for a control), kind ('pixels' or 'lowrank'), seed, accuracy."""
    figure, cells = _cells(frame.fillna({"host": ""}), 2.5, columns=2)
    for axis, here in cells:
        x, ticks = 0.0, []
        for host in sorted(here.host.unique(), key=lambda host: host != ""):
            pair = {name: found.set_index("seed").accuracy for name, found in here[here.host == host].groupby("method", sort=False)}
            for place, (name, accuracy) in enumerate(pair.items()):
                _points(axis, x + place, accuracy.to_numpy(), 0.3, look(name))
                ticks.append((x + place, name))
            if host and len(pair) == 2:
                pixels, factors = pair.values()
                gain = f"{(factors - pixels).mean():+.1f}".replace("-", "−")
                axis.annotate(gain, (x + 0.5, max(pixels.max(), factors.max())), (0, 6), fontsize=6.5, ha="center",
                              textcoords="offset points")
            x += len(pair) + 0.6
        axis.set_xticks(*zip(*ticks, strict=True), rotation=55, ha="right", rotation_mode="anchor")
        axis.margins(y=0.12)
    return figure


def over_control(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method (the host), arm ('SVD', 'pixels', 'factors'), seed, accuracy."""
    return _differences(frame, "SVD", "points over the SVD control")


def start(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method (the host), arm ('pixels', 'SVD, not learned', 'from noise', 'from SVD'), seed, accuracy."""
    return _differences(frame, "pixels", "points over pixels")


def cross_architecture(frame: pd.DataFrame) -> Figure:
    """Columns: method, network, seed, accuracy; the first network is the one that the sets were distilled with."""
    networks, methods = list(dict.fromkeys(frame.network)), list(dict.fromkeys(frame.method))
    figure, axes = _figure(PAGE, 2.3)
    step = 0.8 / len(methods)
    for column, method in enumerate(methods):
        for place, network in enumerate(networks):
            found = frame[(frame.method == method) & (frame.network == network)]
            _points(axes[0], place - 0.4 + step * (column + 0.5), found.accuracy.to_numpy(), 0.38 * step, look(method),
                    method if place == 0 else None)
    first, *others = (NAMES.get(network, network) for network in networks)
    axes[0].set_xticks(range(len(networks)), [f"{first}\n(distilled with)", *others])
    axes[0].set_ylabel("test accuracy (%)")
    for edge in np.arange(len(networks) - 1) + 0.5:
        axes[0].axvline(edge, color="0.9", lw=0.6)
    figure.legend(loc="outside upper center", ncols=len(methods), handletextpad=0.1)
    return figure


def cost(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, kind, images_per_class, round, seconds, peak_bytes."""
    cells = list(dict.fromkeys(zip(frame.dataset, frame.ipc, frame.method, strict=True)))
    figure, axes = _figure(PAGE, 0.9 + 0.24 * len(cells), 2, sharey=True)
    for row, (dataset, ipc, method) in enumerate(cells):
        here = frame[(frame.dataset == dataset) & (frame.ipc == ipc) & (frame.method == method)]
        for index, (kind, found) in enumerate(here.groupby("kind", sort=False)):
            style = nth(index).line | {"ls": "none"}
            low, middle, high = found.seconds.quantile([0.2, 0.5, 0.8])
            label = {"pixels": "pixels", "lowrank": "low-rank factors"}.get(kind, kind) if row == 0 else None
            axes[0].errorbar(middle, row, xerr=[[middle - low], [high - middle]], capsize=1.5, lw=0.8, label=label, **style)
            if found.peak_bytes.notna().all():
                axes[1].plot(found.peak_bytes.median() / 2**20, row, **style)
            axes[0].annotate(f"{found.images_per_class.iloc[0]}", (middle, row), (0, 4), fontsize=6, color=COLORS[index],
                             textcoords="offset points", ha="center")
    axes[0].set_yticks(range(len(cells)), [f"{method}, {NAMES.get(at, at)}" for at, ipc, method in cells])
    axes[0].set_ylim(len(cells) - 0.5, -0.5)
    for axis, label in zip(axes, ("seconds of an update (log scale)", "peak memory of an update, MiB (log scale)"), strict=True):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.set_xlabel(label)
    figure.legend(loc="outside upper center", ncols=2, handletextpad=0.2)
    return figure


def variants(frame: pd.DataFrame) -> Figure:
    """Columns: variant, seed, accuracy, images_per_class."""
    figure, axes = _figure(COLUMN, 2.5)
    names = list(dict.fromkeys(frame.variant))
    for x, name in enumerate(names):
        found = frame[frame.variant == name]
        _points(axes[0], x, found.accuracy.to_numpy(), 0.3, look("DM" if name == "DM" else "LoDM"))
        axes[0].annotate(f"{found.images_per_class.iloc[0]}", (x, found.accuracy.min()), (0, -5), textcoords="offset points", ha="center",
                         va="top", fontsize=6)
    axes[0].set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes[0].set_ylabel("test accuracy (%)")
    axes[0].margins(y=0.15)
    return figure


def bits(frame: pd.DataFrame) -> Figure:
    """Columns: variant, stored ('float32' or 'float16'), stored_bits, seed, accuracy."""
    halved = {"float16": {"ls": "--", "marker": "v"}}
    figure, axes = _figure(COLUMN, 2.4)
    for variant, of in frame.groupby("variant", sort=False):
        for stored, found in of.groupby("stored", sort=False):
            means = found.groupby("stored_bits").accuracy.agg(["mean", "std"])
            axes[0].errorbar(means.index / 1000, means["mean"], means["std"].fillna(0), capsize=2, elinewidth=0.8,
                             label=f"{variant}, {stored}", **look(variant).line | halved.get(stored, {}))
    ticks = sorted(frame.stored_bits.unique() / 1000)
    axes[0].set_xscale("log")
    axes[0].set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes[0].minorticks_off()
    axes[0].set_xlabel("thousand bits stored (log scale)")
    axes[0].set_ylabel("test accuracy (%)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure

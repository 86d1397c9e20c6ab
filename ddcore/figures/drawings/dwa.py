"""Drawings of notebook 41: SRe2L's recovery, the adjustment of its weights, and how diverse the sets are."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ddcore.figures.drawings.kernels import _cells, _figure, _log_ticks, _mean_line, _per_class, _points
from ddcore.figures.drawings.marks import MARKERS, NAMES, Look, look, nth
from ddcore.figures.style import PAGE

MEASURES = {"similarity": "mean cosine", "vendi": "Vendi score", "of a class": "variance of means", "coverage": "coverage", "mmd2": "MMD²"}
WAYS = {"ascent": "ascent (DWA)", "fisher": "Fisher", "gaussian": "Gaussian", "descent": "descent"}
R_VAR = r"$r_\mathrm{var}$"



def _strip(axis, frame: pd.DataFrame, by: str, marks: dict[str, Look]) -> None:
    """The seeds of each name in a line of its own, from the column `value`."""
    names = list(marks)
    for y, (name, mark) in enumerate(marks.items()):
        values = frame[frame[by] == name].value.to_numpy()
        axis.plot(values, y + np.linspace(-0.15, 0.15, len(values)), **mark.points, mew=0.8, ms=3.5)
        axis.plot(values.mean(), y, "|", color=mark.color, ms=11, mew=1.6)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)


def _lines(frame: pd.DataFrame, by: list, names: int, columns: int) -> tuple[Figure, list]:
    """A line of axes for each value of the columns `by`, named by it, with its part of the frame."""
    cells = [part for _, part in frame.groupby(by, sort=False)]
    figure = Figure(figsize=(PAGE, 0.4 + (0.45 + 0.2 * names) * len(cells)), layout="constrained")
    axes = figure.subplots(len(cells), columns, squeeze=False, sharey=True)
    for line, here in zip(axes, cells, strict=True):
        dataset = here.dataset.iloc[0]
        line[0].set_ylabel("\n".join([NAMES.get(dataset, dataset)] + [_per_class(here.ipc.iloc[0])] * ("ipc" in by)))
    return figure, list(zip(axes, cells, strict=True))


def factors(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, init, r_var, adjusted, seed, accuracy."""
    figure, cells = _cells(frame, 2.3)
    for axis, here in cells:
        pairs = list(dict.fromkeys(zip(here.init, here.r_var, strict=True)))
        for x, (init, r_var) in enumerate(pairs):
            for on in (False, True):
                found = here[(here.init == init) & (here.r_var == r_var) & (here.adjusted == on)]
                label = "adjusted weights" if on else "the teacher's weights"
                _points(axis, x + (0.18 if on else -0.18), found.accuracy.to_numpy(), 0.14, nth(int(on)),
                        label if x == 0 and axis is cells[0][0] else None)
        axis.set_xticks(range(len(pairs)), [f"{init}\n{r_var:g}" for init, r_var in pairs])
        axis.set_xlabel(f"start and {R_VAR}")
        axis.margins(y=0.1)
    figure.legend(loc="outside upper center", ncols=2, handletextpad=0.1)
    return figure


def arms(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, arm (the first is no adjustment), seed, accuracy, similarity, vendi (nothing at one image a class). Drawn are
    differences to the same seed of the first: accuracy at every number of images, the others at the largest."""
    labels = {"accuracy": "points over {:.1f} %", "similarity": "mean cosine over {:.3f}", "vendi": "Vendi score over {:.2f}"}
    none, *names = dict.fromkeys(frame.arm)
    marks, ipcs = {name: nth(index) for index, name in enumerate(names)}, sorted(frame.ipc.unique())
    panels = [("accuracy", ipc) for ipc in ipcs] + [("similarity", ipcs[-1]), ("vendi", ipcs[-1])]
    figure, lines = _lines(frame, ["dataset"], len(names), len(panels))
    for axes, here in lines:
        for axis, (column, ipc) in zip(axes, panels, strict=True):
            some = here[here.ipc == ipc]
            bare = some[some.arm == none].set_index("seed")[column]
            _strip(axis, some.assign(value=some[column] - some.seed.map(bare)), "arm", marks)
            axis.axvline(0, color="0.45", lw=0.8, ls="--", zorder=0)
            axis.locator_params(axis="x", nbins=4)
            axis.set_xlabel(labels[column].format(bare.mean()))
    for axis, (_, ipc) in zip(lines[0][0], panels, strict=True):
        axis.set_title(_per_class(ipc), fontsize=8)
    return figure


def decoupling(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, init, r_var, seed, accuracy, within, between and 'of a class' (shares of the real images' variance)."""
    columns = {"within": "within images", "between": "between those of a batch", "of a class": "between those of a class",
               "accuracy": "test accuracy (%)"}
    weights = sorted(frame.r_var.unique())
    figure, axes = _figure(PAGE, 2.1, len(columns))
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        for index, (init, found) in enumerate(frame.groupby("init", sort=False)):
            at = found.assign(place=found.r_var.map(weights.index))
            start, shift = f"from {init}" if axis is axes[0] else None, 0.1 * index - 0.05
            _mean_line(axis, at, "place", nth(index), start, shift, y=column, ls="none")
        axis.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
        axis.set_xlim(-0.5, len(weights) - 0.5)
        axis.set_xlabel(R_VAR)
        axis.set_title(label, fontsize=8)
    axes[0].set_ylabel("share of the variance")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def k_rho(frame: pd.DataFrame) -> Figure:
    """Columns: steps, rho, seed, value, quantity ('set': accuracy of a set; of the adjusted teacher 'accuracy', 'batch_loss', 'cosine'),
    direction (of the latter)."""
    figure, axes = _figure(PAGE, 2.3, 4, width_ratios=(1.25, 1, 1, 1))
    sets = frame[frame.quantity == "set"].assign(place=lambda sets: sets.rho.rank(method="dense") - 1)
    for index, (K, found) in enumerate(sets.groupby("steps")):
        _mean_line(axes[0], found, "place", nth(index + len(WAYS)), f"K = {K:g}", 0.08 * index, y="value", elinewidth=0.8)
    axes[0].set_xticks(range(sets.rho.nunique()), [f"{rho:g}" for rho in sorted(sets.rho.unique())])
    axes[0].set_xlim(-0.4, sets.rho.nunique() - 0.6)
    axes[0].legend(loc="best")
    axes[0].set_title("accuracy of the sets (%)", fontsize=8)
    titles = {"accuracy": "teacher: accuracy (%)", "batch_loss": "teacher: loss of its batch", "cosine": "two batches: cosine"}
    for axis, (quantity, title) in zip(axes[1:], titles.items(), strict=True):
        for index, direction in enumerate(WAYS):
            found = frame[(frame.quantity == quantity) & (frame.direction == direction)]
            found = found.assign(place=found.rho.rank(method="dense") - 1)
            shift, label = 0.08 * (index - 1.5), WAYS[direction] if axis is axes[1] else None
            _mean_line(axis, found, "place", nth(index), label, shift, y="value", elinewidth=0.6)
        axis.set_xticks(range(found.rho.nunique()), [f"{rho:g}" for rho in sorted(found.rho.unique())], rotation=45)
        axis.set_title(title, fontsize=8)
    axes[2].set_yscale("log")
    for axis in axes:
        axis.set_xlabel("rho")
    figure.legend(handles=axes[1].get_legend_handles_labels()[0], loc="outside upper center", ncols=len(WAYS))
    return figure


def diversity(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, set, seed, quantity, layer, value."""
    names = list(dict.fromkeys(frame.set))
    figure, lines = _lines(frame, ["dataset", "ipc"], len(names), len(MEASURES))
    for axes, here in lines:
        for axis, quantity in zip(axes, MEASURES, strict=True):
            _strip(axis, here[here.quantity == quantity], "set", {name: look(name) for name in names})
    for axis, label in zip(lines[-1][0], MEASURES.values(), strict=True):
        axis.set_xlabel(label)
    return figure


def comparison(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, protocol, set, seed, accuracy, best (that of the best epoch, where it was looked for)."""
    names = list(dict.fromkeys(frame.set))
    figure, cells = _cells(frame, 2.5)
    for axis, here in cells:
        protocols = list(dict.fromkeys(here.protocol))
        for group, protocol in enumerate(protocols):
            present = [name for name in names if ((here.protocol == protocol) & (here.set == name)).any()]
            for column, name in enumerate(present):
                found = here[(here.protocol == protocol) & (here.set == name)]
                x, label = group + 0.17 * (column - (len(present) - 1) / 2), name if group == 0 and axis is cells[0][0] else None
                _points(axis, x, found.accuracy.to_numpy(), 0.07, look(name), label)
                axis.hlines(found.best.mean(), x - 0.08, x + 0.08, color="black", lw=0.9, ls=(0, (1.5, 1)))
        axis.set_xticks(range(len(protocols)), protocols)
        axis.margins(y=0.08)
    cells[0][0].plot([], [], color="black", lw=0.9, ls=(0, (1.5, 1)), label="best epoch")
    figure.legend(loc="outside upper center", ncols=len(names) + 1, handletextpad=0.3, handlelength=1.2, columnspacing=1)
    return figure


def label_cost(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, label_bytes, image_bytes, teacher_bytes, set, protocol ('clean': soft labels, or 'hard'), seed, accuracy; a
    number of images without a recorded set has the first four alone."""
    sizes, known = frame.drop_duplicates("ipc").set_index("ipc"), frame.dropna(subset="accuracy")
    figure, axes = _figure(PAGE, 2.3, 2)
    for index, (column, label) in enumerate({"label_bytes": "soft labels", "image_bytes": "images", "teacher_bytes": "teacher"}.items()):
        axes[0].plot(sizes[column] / 2**20, color=("0.2", "0.5", "0.7")[index], marker=MARKERS[index], mfc="white", label=label)
    axes[0].set_yscale("log")
    _log_ticks(axes[0], list(sizes.index), "images a class (log scale)")
    axes[0].set_ylabel("MiB (log scale)")
    axes[0].legend()
    for column, (name, of) in enumerate(known.groupby("set", sort=False)):
        aside = 1.07 ** (column - 2)
        for protocol, found in of.groupby("protocol", sort=False):
            stored = found.image_bytes + (found.label_bytes if protocol == "clean" else 0)
            means = found.groupby(stored / 2**20).accuracy.agg(["mean", "std"])
            axes[1].errorbar(means.index * aside, means["mean"], means["std"].fillna(0), capsize=2, ls="-" if protocol == "clean" else ":",
                             elinewidth=0.8, label=name if protocol == "clean" else None, **look(name).line)
    axes[1].set_xscale("log")
    low, high = axes[1].get_xlim()
    _log_ticks(axes[1], [mark for power in range(-4, 6) for mark in (float(f"1e{power}"), float(f"3e{power}")) if low < mark < high],
               "MiB of images and labels (log scale)")
    axes[1].set_ylabel("test accuracy (%)")
    axes[1].legend()
    return figure

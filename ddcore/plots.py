"""Drawings: one function a figure id, from the columns of its CSV to a matplotlib figure. No title: the caption has it."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from ddcore.figures import COLUMN, PAGE
from ddcore.looks import COLORS, MARKERS, NAMES, Look, look, nth

PLOTS: dict = {}
CLASSES = {
    "fashion_mnist": ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    "cifar10": ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}


def plot(key: str):
    """Register the drawing of figure `key`."""

    def register(function):
        PLOTS[key] = function
        return function

    return register


def _figure(width: float, height: float, columns: int = 1, **keywords):
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False, **keywords)[0]


def _points(axis, x: float, values: np.ndarray, half: float, mark: Look, label: str | None = None) -> None:
    """Every seed as a point, the mean as a bar, one standard deviation as a whisker."""
    spread = np.linspace(-half / 2, half / 2, len(values)) if len(values) > 1 else [0.0]
    size, edge, alpha = (3.5, 0.8, 1.0) if len(values) <= 5 else (2.2, 0.5, 0.45)
    axis.plot(x + np.asarray(spread), values, **mark.points, mew=edge, ms=size, alpha=alpha)
    axis.plot([], [], **mark.points, mew=0.8, ms=3.5, label=label)
    axis.hlines(values.mean(), x - half, x + half, color=mark.color, lw=1.6)
    if len(values) > 1:
        axis.errorbar(x, values.mean(), values.std(ddof=1), color=mark.color, lw=0.8, capsize=2)


def _per_class(ipc: int) -> str:
    return f"{ipc} image{'s' * int(ipc > 1)} a class"


@plot("lodc-same-memory")
def same_memory(frame: pd.DataFrame) -> Figure:
    """Columns: ipc, method, seed, accuracy, images_per_class."""
    budgets, methods = sorted(frame.ipc.unique()), list(dict.fromkeys(frame.method))
    figure, axes = _figure(COLUMN, 2.3)
    axis, step = axes[0], 0.8 / len(methods)
    for column, method in enumerate(methods):
        for place, ipc in enumerate(budgets):
            found = frame[(frame.ipc == ipc) & (frame.method == method)]
            if len(found):
                x = place - 0.4 + step * (column + 0.5)
                _points(axis, x, found.accuracy.to_numpy(), 0.42 * step, look(method), method if place == 0 else None)
                axis.annotate(f"{found.images_per_class.iloc[0]}", (x, found.accuracy.min()), (0, -5), textcoords="offset points",
                              ha="center", va="top", fontsize=6, color=look(method).color)
    axis.set_xticks(range(len(budgets)), [_per_class(ipc) for ipc in budgets])
    axis.set_xlabel("memory (small numbers: images a class it holds)")
    axis.set_ylabel("test accuracy (%)")
    axis.margins(y=0.12)
    for edge in np.arange(len(budgets) - 1) + 0.5:
        axis.axvline(edge, color="0.85", lw=0.6)
    figure.legend(loc="outside upper center", ncols=min(len(methods), 3), handletextpad=0.1, columnspacing=1.2)
    return figure


def _mean_line(axis, found: pd.DataFrame, x: str, mark: Look, label: str | None, shift: float = 0.0, y: str = "accuracy", **style) -> None:
    """Mean and standard deviation of `y` over seeds by `x`."""
    means = found.groupby(x)[y].agg(["mean", "std"])
    axis.errorbar(means.index + shift, means["mean"], means["std"].fillna(0), capsize=2, label=label, **mark.line | style)


def _log_ticks(axis, ticks, label: str, **scale) -> None:
    """A logarithmic x axis with these ticks alone."""
    axis.set_xscale("log", **scale)
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel(label)


def _differences(frame: pd.DataFrame, base: str, label: str) -> Figure:
    """Columns: dataset, ipc, method, arm, seed, accuracy. The other arms less `base` at the same seed: each seed, mean, 95 % interval."""
    arms = [arm for arm in dict.fromkeys(frame.arm) if arm != base]
    figure, cells = _cells(frame, 2.3, label=label, sharey="row")
    for axis, here in cells:
        methods = list(dict.fromkeys(here.method))
        for x, method in enumerate(methods):
            wide = here[here.method == method].pivot_table(index="seed", columns="arm", values="accuracy")
            for index, arm in enumerate(arms):
                apart = (wide[arm] - wide[base]).to_numpy()
                at = x + 0.8 / len(arms) * (index - (len(arms) - 1) / 2)
                axis.plot(at + np.linspace(-0.05, 0.05, len(apart)), apart, **nth(index).points, mew=0.8, ms=3.5,
                          label=arm if x == 0 and axis is cells[0][0] else None)
                half = stats.t.ppf(0.975, max(1, len(apart) - 1)) * apart.std(ddof=1) / np.sqrt(len(apart))
                axis.hlines(apart.mean(), at - 0.1, at + 0.1, color=COLORS[index], lw=1.6)
                axis.errorbar(at, apart.mean(), half, color=COLORS[index], lw=0.9, capsize=2)
        axis.axhline(0, color="black", lw=0.8)
        axis.set_xticks(range(len(methods)), methods)
        axis.set_xlim(-0.6, len(methods) - 0.4)
    figure.legend(loc="outside upper center", ncols=len(arms), handletextpad=0.1)
    return figure


def _means(frame: pd.DataFrame, x: str, groups: dict[str, tuple[Look, pd.DataFrame]], label: str):
    """The accuracy by `x`, on a logarithmic axis: one line a group."""
    figure, axes = _figure(COLUMN, 2.1)
    for name, (mark, found) in groups.items():
        _mean_line(axes[0], found, x, mark, name)
    _log_ticks(axes[0], sorted(frame[x].unique()), label)
    axes[0].margins(x=0.1)
    axes[0].set_ylabel("test accuracy (%)")
    if len(groups) > 1:
        axes[0].legend(loc="best")
    return figure, axes[0]


@plot("lodc-same-count")
def same_count(frame: pd.DataFrame) -> Figure:
    """Columns: method, images_per_class, stored_numbers, seed, accuracy."""
    groups = {method: (look(method), frame[frame.method == method]) for method in dict.fromkeys(frame.method)}
    return _means(frame, "images_per_class", groups, "synthetic images a class (log scale)")[0]


@plot("lodc-rank")
def rank_sweep(frame: pd.DataFrame) -> Figure:
    """Columns: ipc, rank, seed, accuracy, images_per_class."""
    groups = {f"memory of {_per_class(ipc)}": (nth(index), found) for index, (ipc, found) in enumerate(frame.groupby("ipc"))}
    figure, axis = _means(frame, "rank", groups, "rank r (small numbers: images a class)")
    for index, (_, found) in enumerate(groups.values()):
        for rank, part in found.groupby("rank"):
            axis.annotate(f"{part.images_per_class.iloc[0]}", (rank, 0.02 + 0.06 * index), xycoords=("data", "axes fraction"), fontsize=6,
                          ha="center", color=COLORS[index])
    axis.margins(y=0.05 + 0.05 * len(groups))
    return figure


@plot("continual-5")
@plot("continual-10")
def continual(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, tasks, classes, seed, accuracy, stored_numbers."""
    figure, cells = _cells(frame, 2.3, columns=2, label="accuracy on classes seen (%)")
    methods = list(dict.fromkeys(frame.method))
    for axis, here in cells:
        for index, method in enumerate(methods):
            shift, label = 0.06 * (index - (len(methods) - 1) / 2), method if axis is cells[0][0] else None
            style = {"elinewidth": 0.8, "ls": "-" if method.startswith("Lo") else "--"}
            _mean_line(axis, here[here.method == method], "classes", look(method), label, shift, **style)
        axis.set_ylim(top=min(100, axis.get_ylim()[1]))
        axis.set_xticks(sorted(frame.classes.unique()))
        axis.set_xlabel("classes seen")
    figure.legend(loc="outside upper center", ncols=len(methods), columnspacing=1.2)
    return figure


@plot("lodc-images")
@plot("lodc-host-images")
def images(frame: pd.DataFrame) -> Figure:
    """Columns: set, label, index, height, width, channels, pixels (uint8, row by row, channel last, as hexadecimal)."""
    grids = {}
    for name, found in frame.groupby("set", sort=False):
        rows = []
        for _, part in found.groupby("label"):
            tiles = [np.frombuffer(bytes.fromhex(one.pixels), np.uint8).reshape(one.height, one.width, one.channels)
                     for one in part.itertuples()]
            rows.append(np.concatenate([np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=255) for tile in tiles], axis=1))
        grids[name] = np.concatenate(rows)
    tile = frame.width.iloc[0] + 2
    columns, gap = sum(grid.shape[1] for grid in grids.values()) / tile, 0.15
    side = min(0.34, (PAGE - gap * len(grids)) / columns)
    figure, axes = _figure(side * columns + gap * len(grids), side * max(len(grid) for grid in grids.values()) / tile + 0.25, len(grids),
                           width_ratios=[grid.shape[1] for grid in grids.values()])
    for axis, (name, grid) in zip(axes, grids.items(), strict=True):
        axis.imshow(grid[..., 0] if grid.shape[-1] == 1 else grid, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_axis_off()
        axis.text(0.5, -0.01, name, transform=axis.transAxes, ha="center", va="top", fontsize=8)
    return figure


@plot("lodc-spectra")
def spectra(frame: pd.DataFrame) -> Figure:
    """Columns: class, rank, energy (of normalised images), energy_pixels, psnr, dataset, seed. The class 'all' is the mean of all."""
    curves = 100 * frame.assign(**{"class": frame["class"].astype(str)}).groupby(["class", "rank"]).energy.mean().unstack("rank")
    whole, classes = curves.loc["all"], curves.drop(index="all")
    pixels = 100 * frame[frame["class"].astype(str) == "all"].groupby("rank").energy_pixels.mean()
    at = 2 if 2 in curves else curves.columns[0]
    names = {str(label): name for label, name in enumerate(CLASSES.get(frame.dataset.iloc[0], ()))}
    figure, axes = _figure(COLUMN, 2.2)
    axis = axes[0]
    axis.plot(classes.T, color="0.75", lw=0.7, zorder=1)
    axis.plot([], [], color="0.75", lw=0.7, label="each class")
    for index, (word, key) in enumerate((("highest", classes[at].idxmax()), ("lowest", classes[at].idxmin())), 1):
        axis.plot(classes.loc[key], color=COLORS[index], marker=MARKERS[index], mfc="white", ls="-.", lw=1,
                  label=f"{word} at r = {at}: {names.get(key, f'class {key}')}")
    axis.plot(whole, color="black", marker=MARKERS[0], label=f"all classes ({whole[at]:.0f} % at r = {at})")
    axis.plot(pixels, color=COLORS[0], marker=MARKERS[3], mfc="white", ls="--", lw=1, label="all classes, pixels in [0, 1]")
    ticks = [rank for rank in curves.columns if rank in (1, 2, 3, 4, 6, 8, 10, 14, 20, 28, 32, 64)]
    _log_ticks(axis, ticks, "rank r (log scale)", base=2)
    axis.set_ylabel("energy kept (%)")
    axis.legend(loc="lower right", handlelength=2.6)
    return figure


@plot("lodc-gradient-geometry")
def gradient_geometry(frame: pd.DataFrame) -> Figure:
    """Columns: rank, position (share of the directions of image space), gain, mean_gain, dataset, seed. A curve ends where gain is 0."""
    ranks = sorted(frame["rank"].unique())
    shown = [rank for rank in ranks if rank in (1, 2, 4, 8, 14)] or ranks[:5]
    figure, axes = _figure(COLUMN, 2.2)
    axis = axes[0]
    for index, rank in enumerate(shown):
        found = frame[frame["rank"] == rank].groupby("position")[["gain", "mean_gain"]].mean()
        gains = found.gain[found.gain > 0]
        style = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)))[index]
        axis.plot(gains, color=COLORS[index], ls=style, marker=MARKERS[index], mfc="white", markevery=[-1],
                  label=f"r = {rank} (mean {found.mean_gain.iloc[0]:.0f})")
        if len(gains) < len(found):
            axis.vlines(gains.index[-1], 0.5, gains.iloc[-1], color=COLORS[index], lw=0.5, ls=":", zorder=1)
    axis.axhline(1, color="0.5", lw=0.8, label="pixels (1)")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_ylim(0.5, 6 * frame[frame["rank"].isin(shown)].gain.max())
    axis.set_xlim(0, 1)
    axis.set_xlabel("directions of image space, by gain (share)")
    axis.set_ylabel("gain of one step")
    axis.legend(loc="upper right", ncols=2, handlelength=2.6, columnspacing=1)
    return figure


def _cells(frame: pd.DataFrame, height: float, columns: int = 3, label: str = "test accuracy (%)", **keywords):
    """A panel for each dataset and number of images, named by them: the figure, and (axis, its part of the frame) each; `label` is that
    of the y axes."""
    names, parts = zip(*frame.groupby(["dataset", "ipc"], sort=False), strict=True)
    lines = -(-len(names) // columns)
    columns = -(-len(names) // lines)
    figure = Figure(figsize=(PAGE, height * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, **keywords).flatten()
    for axis in axes[::columns]:
        axis.set_ylabel(label)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis, (dataset, ipc) in zip(axes, names, strict=False):
        axis.set_title(f"{NAMES.get(dataset, dataset)}, {_per_class(ipc)}", fontsize=8)
    return figure, list(zip(axes, parts, strict=False))


@plot("compare-methods")
def compare_methods(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, seed, accuracy, images_per_class, published (the paper's mean, or nothing)."""
    methods = list(dict.fromkeys(frame.method))
    figure, cells = _cells(frame, 2.5)
    for axis, here in cells:
        shown = [method for method in methods if method in set(here.method)]
        for x, method in enumerate(shown):
            found = here[here.method == method]
            _points(axis, x, found.accuracy.to_numpy(), 0.34, look(method))
            axis.hlines(found.published.iloc[0], x - 0.42, x + 0.42, color="0.1", lw=0.9, ls=(0, (2, 1.5)))
        axis.set_xticks(range(len(shown)), shown, rotation=55, ha="right", rotation_mode="anchor")
        axis.margins(y=0.08)
    figure.legend(handles=[Line2D([], [], color="0.1", lw=0.9, ls=(0, (2, 1.5)), label="published mean, larger setting")],
                  loc="outside lower center")
    return figure


@plot("compare-relabel")
def compare_relabel(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, images, labels, seed, accuracy."""
    arms = list(dict.fromkeys(zip(frame.labels, frame.images, strict=True)))
    figure, cells = _cells(frame, 2.3)
    sets = frame.images.nunique()
    for axis, here in cells:
        for x, (labels, images) in enumerate(arms):
            found = here[(here.labels == labels) & (here.images == images)]
            label = NAMES.get(images, images) if axis is cells[0][0] and labels == arms[0][0] else None
            _points(axis, x + 0.5 * (x // sets), found.accuracy.to_numpy(), 0.34, look(images), label)
        groups = list(dict.fromkeys(labels for labels, _ in arms))
        axis.set_xticks([(sets + 0.5) * index + (sets - 1) / 2 for index in range(len(groups))],
                        [f"{name}\nlabels" for name in groups])
        axis.margins(x=0.15, y=0.1)
    figure.legend(loc="outside upper center", ncols=sets, handletextpad=0.1)
    return figure


@plot("kernels-speed")
def kernels_speed(frame: pd.DataFrame) -> Figure:
    """Columns: name, provider, rank (0: the published structure, whose ratios are 1), ratio, ratio_p20, ratio_p80, memory_ratio; of the
    steps on the grid of sizes also step, ipc, batch_real, classes."""
    frame = frame[frame["rank"] > 0].copy()
    steps = list(dict.fromkeys(frame.step.dropna()))
    cells = [f"{int(classes)} classes, {int(real)} real, IPC {int(ipc)}" for classes, real, ipc in
             frame[["classes", "batch_real", "ipc"]].dropna().drop_duplicates().itertuples(index=False)]
    on_grid = frame.step.notna()
    frame.loc[on_grid, "row"] = [f"{int(one.classes)} classes, {int(one.batch_real)} real, IPC {int(one.ipc)}"
                                 for one in frame[on_grid].itertuples()]
    frame.loc[~on_grid, "row"] = frame.name
    panels = [(step.upper(), frame[frame.step == step], cells) for step in steps]
    others = frame[~on_grid]
    panels.append(("others", others, list(dict.fromkeys(others.row))))
    figure = Figure(figsize=(PAGE, 1.2 + 0.34 * max(len(rows) for _, _, rows in panels)), layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False)
    kinds = {"compiled, bfloat16": (2, "D"), "compiled": (1, "s"), "": (0, "o")}
    for column, (title, found, rows) in enumerate(panels):
        for axis, value, label in zip(axes[:, column], ("ratio", "memory_ratio"), ("speed (×)", "less memory (×)"), strict=True):
            for row in found[found[value].notna()].itertuples():
                colour, marker = next(look for kind, look in kinds.items() if row.provider.endswith(kind))
                place = rows.index(row.row)
                if value == "ratio":
                    axis.hlines(place, row.ratio_p20, row.ratio_p80, color=COLORS[colour], lw=0.8)
                axis.plot(getattr(row, value), place, marker, color=COLORS[colour], ms=3.5)
            axis.axvline(1, color="black", lw=0.8)
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter(lambda x, place: f"{x:g}" if x >= 1 else f"1/{1 / x:g}")
            axis.set_xlabel(label)
            axis.set_yticks(range(len(rows)), rows if column in (0, len(panels) - 1) else [""] * len(rows))
            axis.tick_params(axis="y", labelsize=6, labelright=column == len(panels) - 1, labelleft=column == 0)
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.grid(axis="y", lw=0.3)
        axes[0, column].set_title(title)
    handles = [axes[0, 0].plot([], [], marker, color=COLORS[colour], ms=3.5)[0] for colour, marker in reversed(kinds.values())]
    figure.legend(handles, ["eager, float32", "compiled, float32", "compiled, bfloat16"], loc="outside upper center", ncols=3)
    return figure


@plot("kernels-profile")
def kernels_profile(frame: pd.DataFrame) -> Figure:
    """Columns: name, provider, kind, seconds (of that kind in a step). Drawn are shares of the step."""
    names, providers, kinds = (list(dict.fromkeys(frame[column])) for column in ("name", "provider", "kind"))
    figure, axes = _figure(PAGE, 0.9 + 0.22 * len(providers), len(names), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        found = frame[frame["name"] == name].pivot_table(index="provider", columns="kind", values="seconds").loc[providers, kinds]
        found = 100 * found.div(found.sum(axis=1), axis=0)
        left = np.zeros(len(providers))
        for colour, one in zip(COLORS, kinds, strict=False):
            axis.barh(providers, found[one], left=left, height=0.7, color=colour, label=one if axis is axes[0] else None)
            left += found[one].to_numpy()
        axis.set_xlabel("share of the step (%)")
        axis.set_xlim(0, 100)
        axis.set_title(name, fontsize=8)
    axes[0].invert_yaxis()
    figure.legend(loc="outside upper center", ncols=4, handlelength=1)
    return figure


@plot("kernels-adjoint")
def kernels_adjoint(frame: pd.DataFrame) -> Figure:
    """Columns: gradient, steps, saved_bytes, error (of the image gradient, relative, against the unrolled one)."""
    figure, axes = _figure(PAGE, 2.2, 2)
    for index, (name, found) in enumerate(frame.groupby("gradient", sort=False)):
        style = nth(index).line | {"label": NAMES.get(name, name), "zorder": 3 - index}
        means = found.groupby("steps")[["saved_bytes", "error"]].mean()
        axes[0].plot(means.saved_bytes / 2**20, **style)
        if name != "unrolled":
            axes[1].plot(means.error, **style)
    for axis, label in zip(axes, ("bytes kept (MiB, log scale)", "gradient error (log scale)"), strict=True):
        axis.set_yscale("log")
        _log_ticks(axis, sorted(frame.steps.unique()), "student steps T (log scale)")
        axis.set_ylabel(label)
        axis.legend(loc="best")
    return figure


@plot("time-to-accuracy")
def time_to_accuracy(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, seed, step, seconds, accuracy, published (of that method and cell, or not a number)."""
    figure, cells = _cells(frame, 1.9, columns=2)
    for axis, here in cells:
        for method, found in here.groupby("method", sort=False):
            means = found.groupby("step")[["seconds", "accuracy"]].agg(["mean", "std"])
            axis.errorbar(means.seconds["mean"], means.accuracy["mean"], means.accuracy["std"].fillna(0), capsize=2,
                          label=method if axis is cells[0][0] else None, **look(method).line)
            if np.isfinite(found.published.iloc[0]):
                axis.axhline(found.published.iloc[0], color=look(method).color, ls="--", lw=0.8)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("seconds of distillation (log scale)")
    figure.legend(loc="outside upper center", ncols=4)
    return figure


@plot("theory-images")
def theory_images(frame: pd.DataFrame) -> Figure:
    """Columns: set, state, ipc (0: a control), images_per_class, image_share, average_share, average_pca, rank, seed: at one k."""
    sets, budgets = list(dict.fromkeys(frame[frame.ipc > 0].set)), sorted(frame[frame.ipc > 0].ipc.unique())
    columns = {"image_share": "images in the\nsubspace (%)", "average_share": "class averages\nin it (%)",
               "change": "change of the\naverages in it (%)", "rank": "effective rank\n(log scale)"}
    figure = Figure(figsize=(PAGE, 0.8 + 1.1 * len(budgets)), layout="constrained")
    axes = figure.subplots(len(budgets), len(columns), squeeze=False, sharex="col", sharey=True)
    random = frame[frame.set == "random real"]

    def draw(axis, y, found, column, **style):
        values = (1 if column == "rank" else 100) * found[column]
        axis.errorbar(values.mean(), y, xerr=values.std() if len(values) > 1 else 0, lw=0.8, capsize=1.5, ls="none", **style)

    def tick(axis, y, found, column, **style):
        axis.plot((1 if column == "rank" else 100) * found[column].mean(), y, "|", ms=9, mew=1.4, **style)

    for row, ipc in enumerate(budgets):
        for y, name in enumerate(sets):
            of = frame[(frame.set == name) & (frame.ipc == ipc)]
            alike = random[random.images_per_class == of.images_per_class.iloc[0]]
            for axis, column in zip(axes[row], columns, strict=True):
                if column == "change":
                    own, real = of[of.state == "change"], alike[alike.state == "change"]
                    draw(axis, y, own, "average_share", color=COLORS[0], marker="o")
                    draw(axis, y, own, "average_pca", color=COLORS[1], marker="s", mfc="none", ms=6)
                    tick(axis, y, real, "average_share", color="black")
                    tick(axis, y, real, "average_pca", color=COLORS[1])
                else:
                    before, after = (of[of.state == state] for state in ("before", "after"))
                    if column == "rank" or before[column].mean() > 0.25:  # noise would stretch the axis
                        draw(axis, y, before, column, color="0.5", marker="o", mfc="white", zorder=1)
                    draw(axis, y, after, column, color=COLORS[0], marker="o")
                    tick(axis, y, alike[alike.state == "control"], column, color="black")
        axes[row][0].set_ylabel(_per_class(ipc))
        axes[row][0].set_yticks(range(len(sets)), sets)
        axes[row][0].set_ylim(len(sets) - 0.5, -0.5)
    for axis, (column, label) in zip(axes[-1], columns.items(), strict=True):
        axis.set_xlabel(label)
        if column == "rank":
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter("{x:g}")
    empty = axes[0][0]
    handles = [empty.plot([], [], "o", color="0.5", mfc="white")[0], empty.plot([], [], "o", color=COLORS[0])[0],
               empty.plot([], [], "|", color="black", ms=9, mew=1.4)[0], empty.plot([], [], "s", color=COLORS[1], mfc="none", ms=6)[0]]
    figure.legend(handles, ["before", "distilled, or what changed", "random real images, as many", "change, in the images' own subspace"],
                  loc="outside upper center", ncols=4, handletextpad=0.2, columnspacing=1.2)
    return figure

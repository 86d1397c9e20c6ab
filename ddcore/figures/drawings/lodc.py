"""Drawings of LoDC: low-rank factors beside the pixels of the same base method."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from ddcore.figures.drawings.marks import CLASSES, COLORS, FORMS, NAMES, Mark, arms, method, methods, nth
from ddcore.figures.drawings.panels import (
    SMALL,
    between_groups,
    cells,
    differences,
    labels_kept,
    legend,
    lines,
    log_x,
    lowest,
    numbered,
    panels,
    per_class,
    seeds,
    slanted,
)
from ddcore.figures.style import COLUMN, PAGE


def same_memory(frame: pd.DataFrame) -> Figure:
    """Columns: ipc, method, seed, accuracy, images_per_class."""
    budgets, marks = sorted(frame.ipc.unique()), methods(frame.method)
    figure, (axis,) = panels(COLUMN, 2.3)
    seeds(axis, frame.sort_values("ipc", kind="stable"), "ipc", "accuracy", marks, "method")
    step = 0.8 / len(marks)
    for (ipc, name), part in frame.groupby(["ipc", "method"]):
        x = budgets.index(ipc) + step * (list(marks).index(name) + 0.5) - 0.4
        numbered(axis, x, lowest(part.accuracy), part.images_per_class.iloc[0], color=marks[name].color)
    axis.set_xticks(range(len(budgets)), [per_class(ipc) for ipc in budgets])
    axis.set_xlabel("memory (small numbers: images a class it holds)")
    axis.set_ylabel("test accuracy (%)")
    axis.margins(y=0.14)
    between_groups(axis, len(budgets))
    legend(figure, marks, ncols=min(len(marks), 3))
    return figure


def same_count(frame: pd.DataFrame) -> Figure:
    """Columns: method, images_per_class, stored_numbers, seed, accuracy."""
    figure, (axis,) = panels(COLUMN, 2.1)
    marks = methods(frame.method)
    lines(axis, frame, "images_per_class", "accuracy", marks, "method")
    log_x(axis, "synthetic images a class (log scale)", sorted(frame.images_per_class.unique()))
    axis.margins(x=0.1)
    axis.set_ylabel("test accuracy (%)")
    legend(axis, marks, line=True)
    return figure


def rank_sweep(frame: pd.DataFrame) -> Figure:
    """Columns: ipc, rank, seed, accuracy, images_per_class."""
    figure, (axis,) = panels(COLUMN, 2.1)
    marks = {ipc: nth(index) for index, ipc in enumerate(sorted(frame.ipc.unique()))}
    lines(axis, frame, "rank", "accuracy", marks, "ipc")
    log_x(axis, "rank r (small numbers: images a class)", sorted(frame["rank"].unique()))
    for (ipc, rank), part in frame.groupby(["ipc", "rank"]):
        height = 0.02 + 0.06 * list(marks).index(ipc)
        axis.annotate(f"{part.images_per_class.iloc[0]}", (rank, height), xycoords=("data", "axes fraction"), fontsize=SMALL, ha="center",
                      color=marks[ipc].color)  # fmt: skip
    axis.margins(x=0.1, y=0.05 + 0.05 * len(marks))
    axis.set_ylabel("test accuracy (%)")
    if len(marks) > 1:
        legend(axis, {f"memory of {per_class(ipc)}": mark for ipc, mark in marks.items()}, line=True)
    return figure


def continual(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, tasks, classes, seed, accuracy, stored_numbers."""
    figure, axes = cells(frame, 2.3, columns=2, label="accuracy on classes seen (%)")
    marks = methods(frame.method)
    for axis, here in axes:
        for place, (name, mark) in enumerate(marks.items()):
            beside = here.assign(classes=here.classes + 0.06 * (place - (len(marks) - 1) / 2))
            lines(
                axis,
                beside,
                "classes",
                "accuracy",
                {name: mark},
                "method",
                ls="-" if name.startswith("Lo") else "--",
            )
        axis.set_ylim(top=min(100, axis.get_ylim()[1]))
        axis.set_xticks(sorted(frame.classes.unique()))
        axis.set_xlabel("classes seen")
    legend(figure, marks, line=True)
    return figure


def spectra(frame: pd.DataFrame) -> Figure:
    """Columns: class, rank, energy (of normalised images), energy_pixels, psnr, dataset, seed. The class 'all' is the mean of all."""
    frame = frame.assign(
        label=frame["class"].astype(str), energy=100 * frame.energy, energy_pixels=100 * frame.energy_pixels
    )
    whole, classes = frame[frame.label == "all"], frame[frame.label != "all"]
    rank = 2 if 2 in set(frame["rank"]) else frame["rank"].min()
    kept = classes[classes["rank"] == rank].groupby("label").energy.mean()
    names = {str(number): name for number, name in enumerate(CLASSES.get(frame.dataset.iloc[0], ()))}
    figure, (axis,) = panels(COLUMN, 2.2)
    with labels_kept(axis):
        sns.lineplot(
            classes,
            x="rank",
            y="energy",
            units="label",
            estimator=None,
            color="0.75",
            lw=0.7,
            zorder=1,
            ax=axis,
        )
    marks = {"each class": Mark("0.75", "")}
    for index, (word, label) in enumerate((("highest", kept.idxmax()), ("lowest", kept.idxmin())), 1):
        name = f"{word} at r = {rank}: {names.get(label, f'class {label}')}"
        marks[name] = nth(index)
        lines(
            axis,
            classes[classes.label == label],
            "rank",
            "energy",
            {name: nth(index)},
            errorbar=None,
            ls="-.",
            lw=1,
        )
    mean = whole[whole["rank"] == rank].energy.mean()
    marks[f"all classes ({mean:.0f} % at r = {rank})"] = black = Mark("black", FORMS[0], True)
    marks["all classes, pixels in [0, 1]"] = pixels = Mark(COLORS[0], FORMS[3])
    lines(axis, whole, "rank", "energy", {"": black}, errorbar=None)
    lines(axis, whole, "rank", "energy_pixels", {"": pixels}, errorbar=None, ls="--", lw=1)
    log_x(
        axis,
        "rank r (log scale)",
        [tick for tick in (1, 2, 3, 4, 6, 8, 10, 14, 20, 28, 32, 64) if tick in set(frame["rank"])],
        base=2,
    )
    axis.set_ylabel("energy kept (%)")
    legend(axis, marks, line=True, loc="lower right", handlelength=2.6)
    return figure


def gradient_geometry(frame: pd.DataFrame) -> Figure:
    """Columns: rank, position (share of the directions of image space), gain, mean_gain, dataset, seed. A curve ends where gain is 0."""
    ranks = sorted(frame["rank"].unique())
    shown = [rank for rank in ranks if rank in (1, 2, 4, 8, 14)] or ranks[:5]
    figure, (axis,) = panels(COLUMN, 2.2)
    handles = []
    for index, (rank, dashes) in enumerate(
        zip(shown, ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1))), strict=False)
    ):
        curve = frame[frame["rank"] == rank].groupby("position", as_index=False)[["gain", "mean_gain"]].mean()
        moved = curve[curve.gain > 0]
        lines(axis, moved, "position", "gain", {rank: nth(index)}, errorbar=None, ls=dashes, markevery=[-1])
        if len(moved) < len(curve):
            axis.vlines(
                moved.position.iloc[-1],
                0.5,
                moved.gain.iloc[-1],
                color=COLORS[index],
                lw=0.5,
                ls=":",
                zorder=1,
            )
        handles.append(nth(index).handle(f"r = {rank} (mean {curve.mean_gain.iloc[0]:.0f})", ls=dashes))
    handles.append(axis.axhline(1, color="0.5", lw=0.8, label="pixels (1)"))
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_ylim(0.5, 6 * frame[frame["rank"].isin(shown)].gain.max())
    axis.set_xlim(0, 1)
    axis.set_xlabel("directions of image space, by gain (share)")
    axis.set_ylabel("gain of one step")
    axis.legend(handles=handles, loc="upper right", ncols=2, handlelength=2.6, columnspacing=1)
    return figure


def hosts(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, host (none for a control), kind ('pixels' or 'lowrank'), seed, accuracy."""
    figure, axes = cells(frame.fillna({"host": ""}), 2.5, columns=2)
    for axis, here in axes:
        here = here.sort_values("host", key=lambda host: host != "", kind="stable")
        marks = methods(here.method)
        seeds(axis, here, "method", "accuracy", marks)
        places = {name: place for place, name in enumerate(marks)}
        for _, pair in here[here.host != ""].groupby("host", sort=False):
            accuracy = {
                name: part.set_index("seed").accuracy for name, part in pair.groupby("method", sort=False)
            }
            axis.axvline(min(places[name] for name in accuracy) - 0.5, color="0.88", lw=0.6, zorder=0)
            if len(accuracy) == 2:
                pixels, factors = accuracy.values()
                gain = f"{(factors - pixels).mean():+.1f}".replace("-", "−")
                middle = sum(places[name] for name in accuracy) / 2
                axis.annotate(
                    gain,
                    (middle, pair.accuracy.max()),
                    (0, 6),
                    textcoords="offset points",
                    fontsize=6.5,
                    ha="center",
                )
        slanted(axis)
        axis.margins(y=0.12)
    return figure


def over_control(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method (the host), arm ('SVD', 'pixels', 'factors'), seed, accuracy."""
    return differences(frame, "SVD", "points over the SVD control")


def start(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method (the host), arm ('pixels', 'SVD, not learned', 'from noise', 'from SVD'), seed, accuracy."""
    return differences(frame, "pixels", "points over pixels")


def cross_architecture(frame: pd.DataFrame) -> Figure:
    """Columns: method, network, seed, accuracy; the first network is the one that the sets were distilled with."""
    figure, (axis,) = panels(PAGE, 2.3)
    marks = methods(frame.method)
    seeds(axis, frame, "network", "accuracy", marks, "method")
    first, *others = (NAMES.get(network, network) for network in dict.fromkeys(frame.network))
    axis.set_xticks(range(1 + len(others)), [f"{first}\n(distilled with)", *others])
    axis.set_ylabel("test accuracy (%)")
    between_groups(axis, 1 + len(others))
    legend(figure, marks)
    return figure


def cost(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, kind, images_per_class, round, seconds, peak_bytes."""
    row = frame.method + ", " + frame.dataset.replace(NAMES)
    frame = frame.assign(
        row=row, kind=frame.kind.replace({"lowrank": "low-rank factors"}), mebibytes=frame.peak_bytes / 2**20
    )
    marks, rows = arms(frame.kind), list(dict.fromkeys(frame.row))
    labels = {
        "seconds": "seconds of an update (log scale)",
        "mebibytes": "peak memory of an update, MiB (log scale)",
    }
    figure, axes = panels(PAGE, 0.9 + 0.24 * len(rows), 2, sharey=True)
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        for name, mark in marks.items():
            part = frame[frame.kind == name].dropna(subset=column)
            if len(part):
                with labels_kept(axis):
                    sns.pointplot(part, x=column, y="row", order=rows, estimator="median", errorbar=("pi", 60) if axis is axes[0] else None,
                                  capsize=0.25, ls="none", ms=4, err_kws={"lw": 0.8, "zorder": 1.9}, legend=False, ax=axis,
                                  **mark.line | {"markeredgewidth": 1.2})  # fmt: skip
        log_x(axis, label)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axis.xaxis.minorticks_off()
    for (name, kind), part in frame.groupby(["row", "kind"]):
        numbered(
            axes[0],
            part.seconds.median(),
            rows.index(name),
            part.images_per_class.iloc[0],
            above=True,
            color=marks[kind].color,
        )
    axes[0].set_ylim(len(rows) - 0.5, -0.7)
    legend(figure, marks)
    return figure


def variants(frame: pd.DataFrame) -> Figure:
    """Columns: variant, seed, accuracy, images_per_class."""
    figure, (axis,) = panels(COLUMN, 2.5)
    marks = {name: method("DM" if name == "DM" else "LoDM") for name in dict.fromkeys(frame.variant)}
    seeds(axis, frame, "variant", "accuracy", marks)
    for place, name in enumerate(marks):
        part = frame[frame.variant == name]
        numbered(axis, place, lowest(part.accuracy), part.images_per_class.iloc[0])
    slanted(axis, 40)
    axis.set_ylabel("test accuracy (%)")
    axis.margins(y=0.15)
    return figure


def bits(frame: pd.DataFrame) -> Figure:
    """Columns: variant, stored ('float32' or 'float16'), stored_bits, seed, accuracy."""
    figure, (axis,) = panels(COLUMN, 2.4)
    frame, handles = frame.assign(thousands=frame.stored_bits / 1000), []
    for (variant, stored), part in frame.groupby(["variant", "stored"], sort=False):
        halved = {"ls": "--", "marker": "v"} if stored == "float16" else {}
        lines(axis, part, "thousands", "accuracy", {variant: method(variant)}, **halved)
        handles.append(method(variant).handle(f"{variant}, {stored}", **halved))
    log_x(axis, "thousand bits stored (log scale)", sorted(frame.thousands.unique()), "{:.0f}")
    axis.set_ylabel("test accuracy (%)")
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure

"""What the drawings share: panels, seeds beside their mean, means as lines, legends, logarithmic axes."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from ddcore.figures.drawings.marks import NAMES, Mark, arms
from ddcore.figures.style import PAGE

SMALL = 6  # points: numbers beside marks


def panels(
    width: float, height: float, columns: int = 1, rows: int = 1, **keywords
) -> tuple[Figure, np.ndarray]:
    """A figure of this size in inches and its axes, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **keywords).flatten()


def cells(frame: pd.DataFrame, height: float, columns: int = 3, label: str = "test accuracy (%)", **keywords):
    """A panel for each dataset and number of images, named by them: the figure, and (axis, its part of the frame) each; `label` is that
    of the y axes."""
    names, parts = zip(*frame.groupby(["dataset", "ipc"], sort=False), strict=True)
    rows = -(-len(names) // columns)
    columns = -(-len(names) // rows)
    figure, axes = panels(PAGE, height * rows, columns, rows, **keywords)
    for axis in axes[::columns]:
        axis.set_ylabel(label)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis, (dataset, ipc) in zip(axes, names, strict=False):
        axis.set_title(f"{NAMES.get(dataset, dataset)}, {per_class(ipc)}")
    return figure, list(zip(axes, parts, strict=False))


def per_class(ipc: int) -> str:
    return f"{ipc} image{'s' * int(ipc > 1)} a class"


def legend(
    owner: Figure | Axes, marks: Mapping[str, Mark], *more, line: bool = False, ncols: int = 0, **style
) -> None:
    """A legend of marks, with lines or without, and of `more` handles: above the figure, or in its axes."""
    handles = [mark.handle(NAMES.get(name, name), **{} if line else {"ls": "none", "markerfacecolor": mark.seeds["facecolor"]})
               for name, mark in marks.items()]  # fmt: skip
    place = {"loc": "outside upper center"} if isinstance(owner, Figure) else {}
    gaps = {"columnspacing": 1.2} | ({} if line else {"handletextpad": 0.1})
    owner.legend(
        handles=[*handles, *more],
        ncols=ncols or (len(handles) + len(more) if place else 1),
        **place | gaps | style,
    )


def seeds(axis: Axes, frame: pd.DataFrame, x: str, y: str, marks: Mapping[str, Mark], hue: str = "", *, width: float = 0.8,
          errorbar: str | Callable | None = "sd", orient: str = "v") -> None:  # fmt: skip
    """Every seed as a point, their mean as a bar, `errorbar` as a whisker: a group for each name in the column `x`, in it one of seeds for
    each mark that the column `hue` names, or that `x` itself does. Horizontal with orient='h', `x` then being the vertical axis."""
    order, upright = list(dict.fromkeys(frame[x])) if hue else list(marks), orient == "v"
    step = width / len(marks) if hue else width
    group = (72 * axis.figure.get_figwidth() / axis.get_gridspec().ncols - 30) / len(order)  # points
    bar = max(4.5, min(20, 0.8 * step * group)) if upright else 10
    wide = bar / group if upright else step
    frame = frame[frame[hue or x].isin(list(marks))]
    names, values = frame[hue or x], frame[y]
    centre = frame[x].map(order.index) + (
        step * (names.map(list(marks).index) + 0.5) - width / 2 if hue else 0
    )
    groups = values.groupby(centre)
    beside = centre + 0.75 * wide * ((groups.cumcount() + 0.5) / groups.transform("size") - 0.5)
    size, edge, alpha = (3.5, 0.8, 1.0) if groups.size().max() <= 5 else (2.2, 0.5, 0.45)
    apart = np.diff(np.unique(centre.round(6))).min(initial=len(order))  # in which seaborn counts the caps
    shared = {"native_scale": True, "orient": orient, "ax": axis, "legend": False}
    across, along, side = ("x", "y", axis.xaxis) if upright else ("y", "x", axis.yaxis)
    with labels_kept(axis):
        for name, mark in marks.items():
            if (own := names == name).any():
                sns.stripplot(**{across: beside[own], along: values[own]}, jitter=False, size=size, linewidth=edge, alpha=alpha, zorder=3,
                              **mark.seeds, **shared)  # fmt: skip
        sns.pointplot(**{across: centre, along: values}, hue=names, palette={name: mark.color for name, mark in marks.items()}, ls="none",
                      errorbar=errorbar, capsize=0.4 * wide / apart, marker="_" if upright else "|", ms=bar, mew=1.6, err_kws={"lw": 0.8},
                      **shared)  # fmt: skip
    side.set_ticks(range(len(order)), [NAMES.get(name, name) for name in order])
    axis.set(**{f"{across}lim": (-0.5, len(order) - 0.5) if upright else (len(order) - 0.5, -0.5)})


def lines(axis: Axes, frame: pd.DataFrame, x: str, y: str, marks: Mapping[str, Mark], hue: str = "", *, dodge: float = 0.0,
          errorbar: str | tuple | None = "sd", **style) -> None:  # fmt: skip
    """The mean of `y` over seeds by `x`, `errorbar` as whiskers: a line for each mark that the column `hue` names, `dodge` apart."""
    whiskers = {"err_style": "bars", "err_kws": {"capsize": 2, "elinewidth": 0.8, "zorder": 1.9}}
    for place, (name, mark) in enumerate(marks.items()):
        part = frame[frame[hue] == name] if hue else frame
        if len(part):
            with labels_kept(axis):
                beside = part[x] + dodge * (place - (len(marks) - 1) / 2)
                sns.lineplot(x=beside, y=part[y], errorbar=errorbar, ax=axis, **whiskers | mark.line | style)


def draws(
    axis: Axes, frame: pd.DataFrame, x: str, y: str, marks: Mapping[str, Mark], hue: str = "", **style
) -> None:
    """Every draw as a pale point, the mean of each `x`, or another `estimator`, as a line."""
    for name, mark in marks.items():
        part = frame[frame[hue] == name] if hue else frame
        axis.plot(part[x], part[y], mark.form, mfc=mark.color, mec="none", ms=2.2, alpha=0.35, zorder=1)
    lines(axis, frame, x, y, marks, hue, errorbar=None, **style)


def level(axis: Axes, value: float, mark: Mark) -> None:
    """A dashed line across the axes, its mark at the right end: what it belongs to can be told without its hue."""
    axis.axhline(value, color=mark.color, ls="--", lw=0.8)
    axis.plot(
        [1], [value], transform=axis.get_yaxis_transform(), clip_on=False, ms=4, **mark.line | {"ls": "none"}
    )


@contextlib.contextmanager
def labels_kept(axis: Axes) -> Iterator[None]:
    """What seaborn writes at axes is taken back: the drawing names them."""
    labels = axis.get_xlabel(), axis.get_ylabel()
    yield
    axis.set_xlabel(labels[0], visible=True)
    axis.set_ylabel(labels[1], visible=True)


def slanted(axis: Axes, angle: float = 55) -> None:
    """The labels of the x axis, slanted and ending at their ticks."""
    axis.tick_params(axis="x", labelrotation=angle)
    for label in axis.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")


def between_groups(axis: Axes, count: int) -> None:
    """Thin lines between groups."""
    for edge in np.arange(count - 1) + 0.5:
        axis.axvline(edge, color="0.88", lw=0.6, zorder=0)


def log_x(axis: Axes, label: str, ticks=None, form: str = "{:g}", **scale) -> None:
    """A logarithmic x axis, with these ticks alone. Called after what is drawn: seaborn takes means on the scale that it finds."""
    axis.set_xscale("log", **scale)
    if ticks is None:
        axis.xaxis.set_major_formatter("{x:g}")
    else:
        axis.set_xticks(ticks, [form.format(tick) for tick in ticks])
        axis.xaxis.minorticks_off()
    axis.set_xlabel(label)


def numbered(axis: Axes, x: float, y: float, number: int, above: bool = False, **style) -> None:
    """A small number below a mark, or above it."""
    axis.annotate(f"{number}", (x, y), (0, 4 if above else -5), textcoords="offset points", fontsize=SMALL, ha="center",
                  va="bottom" if above else "top", **style)  # fmt: skip


def lowest(values: pd.Series) -> float:
    """Where the points and the whisker of `seeds` end."""
    return min(values.min(), values.mean() - values.std()) if len(values) > 1 else values.min()


def t_interval(values: pd.Series) -> tuple[float, float]:
    """The 95 % interval of the mean by Student's t."""
    half = stats.t.ppf(0.975, max(1, len(values) - 1)) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def differences(frame: pd.DataFrame, base: str, label: str) -> Figure:
    """Columns: dataset, ipc, method, arm, seed, accuracy. The other arms less `base` at the same seed: each seed, mean, 95 % interval."""
    marks = arms(name for name in frame.arm if name != base)
    figure, axes = cells(frame, 2.3, label=label, sharey="row")
    for axis, here in axes:
        paired = here.pivot_table(index=["method", "seed"], columns="arm", values="accuracy", sort=False)
        apart = (
            paired.drop(columns=base)
            .sub(paired[base], axis=0)
            .melt(ignore_index=False, value_name="apart")
            .dropna()
            .reset_index()
        )
        seeds(axis, apart, "method", "apart", marks, "arm", errorbar=t_interval)
        axis.axhline(0, color="black", lw=0.8)
    legend(figure, marks)
    return figure

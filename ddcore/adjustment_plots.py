"""Drawings of notebook 41: SRe2L's recovery, the adjustment of its weights, and how diverse the sets are."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ddcore.figures import COLUMN, PAGE
from ddcore.plots import COLORS, MARKERS, NAMES, _cells, _figure, _mean_line, _per_class, _points, cross_architecture, images, plot

MEASURES = {"similarity": "mean cosine\n(less: more diverse)", "vendi": "Vendi score\n(more: more diverse)",
            "of a class": "variance of means\nin a class (share)", "coverage": "coverage\n(more: more of the real)",
            "mmd2": "MMD²\n(less: nearer the real)"}
WAYS = ("ascent", "fisher", "gaussian", "descent")

plot("dwa-images")(images)


def _strip(axis, frame: pd.DataFrame, by: str, column: str, names: list) -> None:
    """The seeds of each name in a line of its own."""
    for y, name in enumerate(names):
        values = frame[frame[by] == name][column].to_numpy()
        colour = "0.45" if name in ("none", "random") else COLORS[y % len(COLORS)]
        axis.plot(values, y + np.linspace(-0.15, 0.15, len(values)), MARKERS[y], mfc="none", mec=colour, mew=0.8, ms=3.5)
        axis.plot(values.mean(), y, "|", color=colour, ms=11, mew=1.6)


@plot("dwa-factors")
def factors(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, init, r_var, adjusted, seed, accuracy."""
    figure, cells = _cells(frame, 2.3)
    for axis, here in cells:
        pairs = list(dict.fromkeys(zip(here.init, here.r_var, strict=True)))
        for x, (init, r_var) in enumerate(pairs):
            for on in (False, True):
                found = here[(here.init == init) & (here.r_var == r_var) & (here.adjusted == on)]
                label = "adjusted weights" if on else "the teacher's weights"
                _points(axis, x + (0.18 if on else -0.18), found.accuracy.to_numpy(), 0.14, COLORS[on], MARKERS[on],
                        label if x == 0 and axis is cells[0][0] else None)
        axis.set_xticks(range(len(pairs)), [f"{init}\n{r_var:g}" for init, r_var in pairs])
        axis.set_xlabel("start and r_var")
        axis.margins(y=0.1)
    figure.legend(loc="outside upper center", ncols=2, handletextpad=0.1)
    return figure


@plot("dwa-arms")
def arms(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, arm, seed, accuracy, similarity, vendi, and other measures of `ddcore.diversity`."""
    columns, names = {"accuracy": "test accuracy (%)", "similarity": "mean cosine in a class", "vendi": "Vendi score"}, list(dict.fromkeys(frame.arm))
    figure, axes = _figure(PAGE, 0.6 + 0.22 * len(names), 3, sharey=True)
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        _strip(axis, frame, "arm", column, names)
        axis.axvline(frame[frame.arm == names[0]][column].mean(), color="0.45", lw=0.8, ls="--", zorder=0)
        axis.set_xlabel(label)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


@plot("dwa-decoupling")
def decoupling(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, init, r_var, seed, accuracy, within, between, and 'of a class' (shares of the real images' variance)."""
    columns = {"within": "variance within images", "between": "between those of a batch", "of a class": "between those of a class",
               "accuracy": "test accuracy (%)"}
    weights = sorted(frame.r_var.unique())
    figure, axes = _figure(PAGE, 2.0, len(columns))
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        for index, (init, found) in enumerate(frame.groupby("init", sort=False)):
            at = found.assign(accuracy=found[column], place=found.r_var.map(weights.index))
            _mean_line(axis, at, "place", index, f"from {init} images" if axis is axes[0] else None)
        axis.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
        axis.set_xlabel("r_var")
        axis.set_ylabel(label)
        if column in ("within", "between"):
            axis.axhline(frame[["within", "between"]].sum(axis=1).mean() * 0 + 1, color="0.8", lw=0.6) if column == "total" else None
    figure.legend(loc="outside upper center", ncols=2)
    return figure

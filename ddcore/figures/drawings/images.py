"""Drawings of the sets themselves: their images, and where those lie among real ones."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ddcore.figures.drawings.marks import COLORS, FORMS, Mark, class_names
from ddcore.figures.drawings.panels import labels_kept, panels
from ddcore.figures.style import PAGE

GAP = 0.15  # inches between grids


def _grid(frame: pd.DataFrame) -> np.ndarray:
    """A row a class, its images side by side in a white frame."""
    rows = []
    for _, part in frame.groupby("label"):
        tiles = [np.frombuffer(bytes.fromhex(image.pixels), np.uint8).reshape(image.height, image.width, image.channels)
                 for image in part.itertuples()]  # fmt: skip
        rows.append(
            np.concatenate(
                [np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=255) for tile in tiles], axis=1
            )
        )
    return np.concatenate(rows)


def images(frame: pd.DataFrame) -> Figure:
    """Columns: set, label, index, height, width, channels, pixels (uint8, row by row, channel last, as hexadecimal)."""
    grids = {name: _grid(part) for name, part in frame.groupby("set", sort=False)}
    tile, widths = frame.width.iloc[0] + 2, [grid.shape[1] for grid in grids.values()]
    side, gaps = min(0.34, (PAGE - GAP * len(grids)) * tile / sum(widths)), GAP * len(grids)
    height = side * max(len(grid) for grid in grids.values()) / tile + 0.25
    figure, axes = panels(side * sum(widths) / tile + gaps, height, len(grids), width_ratios=widths)
    for axis, (name, grid) in zip(axes, grids.items(), strict=True):
        axis.imshow(
            grid[..., 0] if grid.shape[-1] == 1 else grid,
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="nearest",
        )
        axis.set_axis_off()
        axis.text(0.5, -0.01, name, transform=axis.transAxes, ha="center", va="top")
    return figure


def tsne(frame: pd.DataFrame) -> Figure:
    """Columns: set (the real images, then the others), label, x, y, dataset, seed. Of more classes than colours the first are drawn."""
    real, *others = dict.fromkeys(frame.set)
    names = dict(enumerate(class_names(frame)[: len(COLORS)]))
    forms = {label: FORMS[label % len(FORMS)] for label in names}
    frame = frame[frame.label.isin(list(names))]
    figure, axes = panels(PAGE, 3.2, len(others), sharex=True, sharey=True)
    for axis, name in zip(axes, others, strict=True):
        shared = {
            "x": "x",
            "y": "y",
            "hue": "label",
            "palette": dict(enumerate(COLORS)),
            "legend": False,
            "ax": axis,
        }
        with labels_kept(axis):
            sns.scatterplot(frame[frame.set == real], s=5, linewidth=0, alpha=0.6, rasterized=True, **shared)
            sns.scatterplot(
                frame[frame.set == name],
                style="label",
                markers=forms,
                edgecolor="black",
                linewidth=0.5,
                s=18,
                **shared,
            )
        axis.set_title(name)
        axis.set_xticks([])
        axis.set_yticks([])
    handles = [
        Mark(COLORS[label], forms[label], True).handle(name, ls="none", mec="black", mew=0.5)
        for label, name in names.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure

"""Drawings of notebook 90: the base methods side by side."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ddcore.figures.drawings.marks import methods
from ddcore.figures.drawings.panels import cells, legend, seeds, slanted

DASHED = {"color": "0.1", "lw": 0.9, "ls": (0, (2, 1.5))}


def compare_methods(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, method, seed, accuracy, images_per_class, published (the paper's mean, or nothing)."""
    figure, axes = cells(frame, 2.5)
    marks = methods(frame.method)
    for axis, here in axes:
        shown = {name: mark for name, mark in marks.items() if name in set(here.method)}
        seeds(axis, here, "method", "accuracy", shown)
        for place, name in enumerate(shown):
            axis.hlines(here[here.method == name].published.iloc[0], place - 0.42, place + 0.42, **DASHED)
        slanted(axis)
        axis.margins(y=0.08)
    figure.legend(
        handles=[Line2D([], [], label="published mean, larger setting", **DASHED)], loc="outside lower center"
    )
    return figure


def compare_relabel(frame: pd.DataFrame) -> Figure:
    """Columns: dataset, ipc, images, labels, seed, accuracy."""
    figure, axes = cells(frame.assign(labels=frame.labels + "\nlabels"), 2.3)
    marks = methods(frame.sort_values(["labels", "images"]).images)
    for axis, here in axes:
        seeds(axis, here, "labels", "accuracy", marks, "images", width=0.7)
        axis.margins(y=0.1)
    legend(figure, marks)
    return figure

"""Drawings: one mark a method, numbers as they are, no circle of imports, nobody's random state."""

import ast
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ddcore import figures
from ddcore.figures import drawings
from ddcore.figures.drawings import marks, panels

FOLDER = Path(drawings.__file__).parent


@pytest.fixture
def frame():
    """Two methods in two groups, three seeds of unequal distances."""
    return pd.DataFrame([{"ipc": ipc, "method": name, "seed": seed, "accuracy": 10.0 * ipc + ahead + seed**2}
                         for ipc in (1, 10) for name, ahead in (("DM", 0.0), ("LoDM", 5.0)) for seed in range(3)])  # fmt: skip


def drawn(frame, **keywords):
    _, (axis,) = panels.panels(3, 2)
    panels.seeds(axis, frame, "ipc", "accuracy", marks.methods(frame.method), "method", **keywords)
    return axis


def drawn_values(axis) -> np.ndarray:
    """The height of every point."""
    return np.concatenate([collection.get_offsets().data[:, 1] for collection in axis.collections])


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_drawings_import_nothing_of_the_package_but_one_another_and_the_style(path):
    imported = [
        node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]
    ours = {name for name in imported if name.startswith("ddcore")}
    assert all(name == "ddcore.figures.style" or name.startswith("ddcore.figures.drawings") for name in ours)


def test_every_seed_is_drawn_where_it_is_and_the_bar_at_the_mean(frame):
    axis = drawn(frame)
    assert sorted(drawn_values(axis)) == pytest.approx(sorted(frame.accuracy))
    bars = [
        line.get_ydata() for line in axis.lines if line.get_marker() == "_"
    ]  # not a number where a method has no group
    bars = np.concatenate(bars)
    assert sorted(bars[~np.isnan(bars)]) == pytest.approx(
        sorted(frame.groupby(["ipc", "method"]).accuracy.mean())
    )


def test_groups_keep_apart_and_seeds_of_one_lie_side_by_side(frame):
    places = np.concatenate([collection.get_offsets().data[:, 0] for collection in drawn(frame).collections])
    assert len(np.unique(places.round(6))) == len(frame)
    assert np.abs(places - places.round()).max() < 0.5


def test_whiskers_are_one_standard_deviation_or_what_is_asked_for(frame):
    def ends(axis) -> list[float]:
        whiskers = [
            line.get_ydata() for line in axis.lines if line.get_marker() != "_" and len(line.get_ydata()) > 1
        ]
        return sorted(
            {round(float(value), 6) for values in whiskers for value in values if not np.isnan(value)}
        )

    groups = frame.groupby(["ipc", "method"]).accuracy
    expected = [value for sign in (-1, 1) for value in groups.mean() + sign * groups.std()]
    assert ends(drawn(frame)) == pytest.approx(sorted(expected))
    wider = [4.302653 / 3**0.5 * sign * group.std() + group.mean() for _, group in groups for sign in (-1, 1)]
    assert ends(drawn(frame, errorbar=panels.t_interval)) == pytest.approx(sorted(wider), abs=1e-4)


def test_a_factored_method_is_its_host_filled():
    for name in ("DC", "DSA", "DM", "MTT"):
        pixels, factors = marks.method(name), marks.method(f"Lo{name}")
        assert (pixels.color, pixels.form) == (factors.color, factors.form)
        assert factors.filled
        assert not pixels.filled
    looks = [(mark.color, mark.form, mark.filled) for mark in marks.METHODS.values()]
    assert len(looks) == len(set(looks))


def test_differences_are_paired_by_seed():
    """The arm is two points ahead at every seed, though seeds are ten apart and in another order."""
    rows = [{"dataset": "digits", "ipc": 1, "method": "DM", "arm": arm, "seed": seed, "accuracy": 10.0 * seed + ahead}
            for arm, ahead, order in (("base", 0, (0, 1, 2)), ("more", 2, (2, 0, 1))) for seed in order]  # fmt: skip
    (axis,) = panels.differences(pd.DataFrame(rows), "base", "points").axes
    assert [*drawn_values(axis)] == [2, 2, 2]


@pytest.mark.parametrize("key", ["lodc-same-memory", "lodc-rank", "mim-class-correlation"])
def test_drawing_leaves_the_random_state_and_labels_nothing_by_a_column(key):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    figure = figures.draw(key, figures.data(key))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    labels = {text for axis in figure.axes for text in (axis.get_xlabel(), axis.get_ylabel())}
    assert not labels & {"accuracy", "ipc", "rank", "row", "column", "method"}


def test_a_level_bears_the_mark_of_what_it_belongs_to():
    _, (axis,) = panels.panels(3, 2)
    panels.level(axis, 28.3, marks.method("DC"))
    line, end = axis.lines
    assert list(line.get_ydata()) == [28.3, 28.3]
    assert (list(end.get_ydata()), end.get_marker()) == ([28.3], marks.method("DC").form)


@pytest.mark.parametrize("key", ["mim-lambda", "time-to-accuracy", "dwa-theory"])
def test_dashed_lines_and_directions_are_told_apart_by_marks_as_well(key):
    """In each panel, no two lines of one dash pattern differ by hue alone."""
    for axis in figures.draw(key, figures.data(key)).axes:
        ends = {
            float(line.get_ydata()[0])
            for line in axis.lines
            if len(line.get_ydata()) == 1 and line.get_marker() not in ("None", "")
        }
        levels = {float(line.get_ydata()[0]) for line in axis.lines if line.get_linestyle() == "--" and len(set(line.get_ydata())) == 1
                  and len(line.get_ydata()) == 2}  # fmt: skip
        assert levels <= ends
        if key == "dwa-theory" and "length" in axis.get_xlabel():
            assert len({line.get_marker() for line in axis.lines if len(line.get_xdata()) > 5}) == 6


def test_kinds_of_work_go_from_dark_to_light():
    figure = figures.draw("kernels-profile", figures.data("kernels-profile"))
    hues = [handle.get_color() for handle in figure.legends[0].legend_handles]
    grey = [0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in hues]
    assert len(grey) == 7
    assert all(later - before > 0.06 for before, later in itertools.pairwise(grey))

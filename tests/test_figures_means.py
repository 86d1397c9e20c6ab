"""Means over seeds and paired differences, by hand."""

import math

import pandas as pd
import pytest

from ddcore.figures.means import paired, summary


def test_summary_by_hand():
    frame = pd.DataFrame({"method": ["z", "z", "a", "z"], "accuracy": [1.0, 2.0, 10.0, 6.0]})
    z, a = summary(frame, ["method"]).to_dict("records")
    assert z == {"method": "z", "mean": 3.0, "sd": pytest.approx(math.sqrt(7)), "n": 3}, (
        "in the order of first appearance, sd with n - 1"
    )
    assert (a["method"], a["mean"], a["n"]) == ("a", 10.0, 1)
    assert math.isnan(a["sd"])


def test_paired_differences_by_hand():
    def row(seed, method, accuracy, ipc=1):
        return {"ipc": ipc, "seed": seed, "method": method, "accuracy": accuracy}

    noise = {0: 50.0, 1: -20.0, 2: 7.0}  # what a seed brings to both arms is not in the difference
    rows = [row(seed, "b", there) for seed, there in noise.items()] + [
        row(seed, "a", there + 1.0 + seed) for seed, there in noise.items()
    ]
    rows += [
        row(0, "b", 0.0, ipc=10),
        row(5, "a", 99.0),
        row(0, "c", 1.0, ipc=10),
    ]  # a seed and a cell of one arm alone do not count
    (found,) = paired(pd.DataFrame(rows), [("a", "b"), ("a", "absent")], ["ipc"]).to_dict("records")
    half = 4.302652729749464 / math.sqrt(
        3
    )  # Student's quantile, 0.975 and 2 degrees of freedom; the differences 1, 2, 3 have sd 1
    assert found == {
        "ipc": 1,
        "difference": "a - b",
        "mean": pytest.approx(2.0),
        "half": pytest.approx(half),
        "n": 3,
    }
    assert paired(pd.DataFrame(rows), [("a", "absent")], ["ipc"]).empty

"""Means over seeds, and differences at equal seeds."""

from collections.abc import Iterable

import pandas as pd
from scipy import stats


def summary(frame: pd.DataFrame, by: list[str], value: str = "accuracy") -> pd.DataFrame:
    """mean, sd (n - 1) and n of `value` for each group, in the order of first appearance."""
    return frame.groupby(by, sort=False)[value].agg(mean="mean", sd="std", n="count").reset_index()


def paired(
    frame: pd.DataFrame,
    pairs: Iterable[tuple[str, str]],
    by: list[str],
    *,
    arm: str = "method",
    value: str = "accuracy",
) -> pd.DataFrame:
    """Differences at equal seeds: a row for each (one, other) of `pairs`, arms named in column `arm`, and each group of `by` that has both:
    difference 'one - other', its mean, the half width `half` of Student's 95 % interval, n seeds."""
    wide, rows = frame.pivot_table(index=[*by, "seed"], columns=arm, values=value, sort=False), []
    for one, other in (pair for pair in pairs if {*pair} <= {*wide}):
        apart = (
            (wide[one] - wide[other])
            .dropna()
            .groupby(by, sort=False)
            .agg(["mean", "sem", "count"])
            .reset_index()
        )
        half = apart["sem"] * stats.t.ppf(0.975, apart["count"] - 1)
        rows.append(
            apart[by].assign(difference=f"{one} - {other}", mean=apart["mean"], half=half, n=apart["count"])
        )
    return (
        pd.concat(rows, ignore_index=True)
        if rows
        else pd.DataFrame(columns=[*by, "difference", "mean", "half", "n"])
    )

"""Tables of records: one row a record, means over seeds, differences at equal seeds."""

from collections.abc import Callable, Iterable

import pandas as pd
from scipy import stats

from ddcore.files.records import Record


def method_name(record: Record) -> str:
    """What a table calls the set of `record`: its method in capitals, after 'Lo' where low-rank factors are stored; without a method
    'SVD' (truncated real images), 'random' or another choice of real images, e.g. 'herding'."""
    kind, name = record.setting("synthetic.kind"), record.setting("method.name")
    if name:
        return "Lo" * (kind == "lowrank") + str(name).upper()
    return {"lowrank": "SVD", "pixels": "random"}.get(str(kind), str(kind))


def table(found: Iterable[Record], **columns: str | Callable[[Record], object]) -> pd.DataFrame:
    """One row a record: accuracy (mean over its networks), seed, record, stored numbers, and `columns`: each the dotted path of a setting
    (`Record.setting`), or a function of the record."""
    value_of = {name: (lambda record, path=value: record.setting(path)) if isinstance(value, str) else value
                for name, value in columns.items()}
    rows = [{name: value(record) for name, value in value_of.items()} | {
        "seed": record.experiment["seed"], "accuracy": record.result["accuracy"], "images_per_class": record.result["images_per_class"],
        "stored_numbers": record.result["stored_numbers"], "record": record.hash} for record in found]
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame, by: list[str], value: str = "accuracy") -> pd.DataFrame:
    """mean, sd (n - 1) and n of `value` for each group, in the order of first appearance."""
    return frame.groupby(by, sort=False)[value].agg(mean="mean", sd="std", n="count").reset_index()


def paired(frame: pd.DataFrame, pairs: Iterable[tuple[str, str]], by: list[str], *, arm: str = "method",
           value: str = "accuracy") -> pd.DataFrame:
    """Differences at equal seeds: a row for each (one, other) of `pairs`, arms named in column `arm`, and each group of `by` that has both:
    difference 'one - other', its mean, the half width `half` of Student's 95 % interval, n seeds."""
    wide, rows = frame.pivot_table(index=[*by, "seed"], columns=arm, values=value, sort=False), []
    for one, other in (pair for pair in pairs if {*pair} <= {*wide}):
        apart = (wide[one] - wide[other]).dropna().groupby(by, sort=False).agg(["mean", "sem", "count"]).reset_index()
        half = apart["sem"] * stats.t.ppf(0.975, apart["count"] - 1)
        rows.append(apart[by].assign(difference=f"{one} - {other}", mean=apart["mean"], half=half, n=apart["count"]))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=[*by, "difference", "mean", "half", "n"])


def rows(found: Iterable[Record]) -> pd.DataFrame:
    """The rows of all records of a measurement in one table, with the columns `dataset` (where there is one) and `seed`."""
    return pd.concat([pd.DataFrame(record.result["rows"]).assign(**{name: record.experiment[name] for name in ("dataset", "seed")
                                                                    if record.experiment[name] != ""}) for record in found],
                     ignore_index=True)

"""Tables of records: one row a record, or one row of a measurement."""

from collections.abc import Callable, Iterable

import pandas as pd

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
    value_of = {
        name: (lambda record, path=value: record.setting(path)) if isinstance(value, str) else value
        for name, value in columns.items()
    }
    rows = [
        {name: value(record) for name, value in value_of.items()}
        | {
            "seed": record.experiment["seed"],
            "accuracy": record.result["accuracy"],
            "images_per_class": record.result["images_per_class"],
            "stored_numbers": record.result["stored_numbers"],
            "record": record.hash,
        }
        for record in found
    ]
    return pd.DataFrame(rows)


def rows(found: Iterable[Record]) -> pd.DataFrame:
    """The rows of all records of a measurement in one table, with the columns `dataset` (where there is one) and `seed`."""
    return pd.concat(
        [
            pd.DataFrame(record.result["rows"]).assign(
                **{
                    name: record.experiment[name]
                    for name in ("dataset", "seed")
                    if record.experiment[name] != ""
                }
            )
            for record in found
        ],
        ignore_index=True,
    )

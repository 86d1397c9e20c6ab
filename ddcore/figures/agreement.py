"""Figures' CSVs beside the records that their rows name: where a record has changed, and the figure following it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from ddcore import figures
from ddcore.files import records


@dataclasses.dataclass(frozen=True)
class Departure:
    """A number of a figure's CSV that is not its record's: `row` counts from 0 below the heading."""

    figure: str
    row: int
    column: str
    shown: float
    record: str
    recorded: float

    def __str__(self) -> str:
        return (
            f"{self.figure}.csv: line {self.row + 2} has {self.column} {self.shown:.6g}, and its record {self.record} has "
            f"{self.recorded:.6g}; `ddcore figures numbers` draws the figure anew from its records"
        )


def departures(key: str, folder: Path = figures.FOLDER) -> Iterator[Departure]:
    """Where a figure's rows that name a record differ, in six digits, from the result of that record; a record that is not there is what
    `figures.check` says."""
    frame = figures.data(key, folder)
    if "record" not in frame:
        return
    read = {
        name: records.read(path).result
        for name in frame.record.unique()
        if (path := folder / "records" / f"{name}.json").is_file()
    }
    for row, name in enumerate(frame.record):
        for column, recorded in read.get(name, {}).items():
            if (
                column in frame
                and isinstance(recorded, int | float)
                and f"{recorded:.6g}" != f"{frame[column].iloc[row]:.6g}"
            ):
                yield Departure(key, row, column, float(frame[column].iloc[row]), name, recorded)


def departed(folder: Path = figures.FOLDER) -> list[Departure]:
    """Those of every recorded figure of `folder`."""
    return [
        one for key in figures.entries(folder) if figures.load(key, folder) for one in departures(key, folder)
    ]


def follow(folder: Path = figures.FOLDER) -> list[str]:
    """Draw the figures that differ from their records anew, with the recorded numbers; returns their ids."""
    found: dict[str, list[Departure]] = {}
    for one in departed(folder):
        found.setdefault(one.figure, []).append(one)
    for key, changed in found.items():
        frame = figures.data(key, folder)
        for one in changed:
            frame.loc[one.row, one.column] = one.recorded
        made_from = [
            records.read(folder / "records" / f"{name}.json")
            for name in figures.load(key, folder)["wasDerivedFrom"]
        ]
        figures.save(key, frame, made_from, folder=folder)
    return list(found)

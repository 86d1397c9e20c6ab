"""How far a preset is: by notebook what is recorded, what is known to be missing, and what that may cost.

Known is what its figures were drawn from and what its last run has asked for (`ddcore.lab.asked`). The cost of what is missing is that
of as many records of the same notebook, as recorded: seconds times threads.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from ddcore import figures
from ddcore.lab import asked, batch
from ddcore.settings import one_of


@dataclasses.dataclass(frozen=True)
class Line:
    """figures, drawn: of the registry, and those that there are at this preset; core_hours: spent on the recorded ones; hours_missing: in
    core hours, wall_missing: in hours of one worker, None where nothing recorded says what one costs."""

    notebook: str
    figures: int
    drawn: int
    recorded: int
    missing: int
    core_hours: float
    hours_missing: float | None
    wall_missing: float | None


def survey(preset: str, out: Path | None = None) -> list[Line]:
    """A line for each notebook, of what is in figures/ and runs/<preset>/, or in the folder `out` alone. Raises BadInput for an unknown
    preset."""
    one_of("status", batch.PRESETS, preset=preset)
    folders = [out] if out else [batch.runs() / preset]
    drawn, kept = ([folder / name for folder in folders] for name in ("figures", "records"))
    if not out:
        drawn.append(figures.FOLDER)
        kept.append(figures.FOLDER / "records")
    known: dict[str, dict[str, None]] = {path.stem: {} for path in batch.notebooks()}
    there: dict[str, set[str]] = {}
    of = {key: one.notebook for key, one in figures.entries().items()}
    for key, notebook in of.items():
        for sidecar in filter(None, (figures.load(key, folder) for folder in drawn)):
            if preset in sidecar["preset"]:
                there.setdefault(notebook, set()).add(key)
                known.setdefault(notebook, {}).update(dict.fromkeys(sidecar["wasDerivedFrom"]))
    for folder in folders:
        for notebook, hashes in asked.read(folder).items():
            known.setdefault(notebook, {}).update(dict.fromkeys(hashes))
    costs = {}
    for key in {key for hashes in known.values() for key in hashes}:
        costs[key] = next(
            (cost for folder in kept if (cost := _cost(folder / f"{key}.json")) is not None), None
        )
    return [
        _line(notebook, [key for key in of if of[key] == notebook], there.get(notebook, ()), hashes, costs)
        for notebook, hashes in known.items()
    ]


def _line(
    notebook: str,
    registered: Iterable[str],
    drawn: Iterable[str],
    known: Iterable[str],
    costs: Mapping[str, tuple[float, float] | None],
) -> Line:
    spent = [costs[key] for key in known if costs[key] is not None]
    missing = len([*known]) - len(spent)
    core, wall = (sum(cost[at] for cost in spent) / 3600 for at in range(2))
    ahead = (
        (0.0, 0.0)
        if not missing
        else tuple(missing * part / len(spent) if spent else None for part in (core, wall))
    )
    return Line(notebook, len([*registered]), len([*drawn]), len(spent), missing, core, *ahead)


def _cost(path: Path) -> tuple[float, float] | None:
    """Core seconds and seconds of a record; None where there is none, or none that is whole."""
    try:
        made = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        return made["seconds"] * made["hardware"].get("threads", 1), made["seconds"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def running(client) -> dict[str, int]:
    """Of the experiments of a scheduler that are wanted now: done, running, waiting, failed; and its workers."""
    return client.run_on_scheduler(_states)


def hours_left(lines: Iterable[Line], workers: int) -> float | None:
    """What all that is missing takes so many workers, if none waits; None where that is not known."""
    ahead = [line.wall_missing for line in lines]
    return None if None in ahead or not workers else sum(ahead) / workers


def _states(dask_scheduler) -> dict[str, int]:
    tasks = [task.state for task in dask_scheduler.tasks.values()]
    busy = sum(len(worker.executing) for worker in dask_scheduler.workers.values())
    waiting = sum(state in ("processing", "waiting", "queued", "no-worker") for state in tasks) - busy
    return {
        "done": tasks.count("memory"),
        "running": busy,
        "waiting": waiting,
        "failed": tasks.count("erred"),
        "workers": len(dask_scheduler.workers),
    }

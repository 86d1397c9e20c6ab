"""One experiment by itself: found by the hash of its record or in a file, run, compared with what was recorded."""

import json
import re
from pathlib import Path

from ddcore.errors import BadInput
from ddcore.files import records
from ddcore.files.records import Record
from ddcore.lab.experiment_json import Any, from_json, of_record
from ddcore.lab.runner import Runner

HASH = re.compile(r"[0-9a-f]{16}")


def find(what: str, folder: Path) -> tuple[Any, Record | None]:
    """The experiment of the record of that hash in `folder`, and the record; or that of a file of JSON (`experiment_json.to_json`).

    Raises BadInput for a hash that has no record there, and for a file that holds no experiment.
    """
    if HASH.fullmatch(what):
        if not (folder / f"{what}.json").is_file():
            raise BadInput(f"no record {what} is in {folder}; name its folder with --records")
        record = records.read(folder / f"{what}.json")
        return of_record(record, folder), record
    try:
        content = json.loads(Path(what).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{what}: is neither the hash of a record, 16 hexadecimal digits, nor a file of JSON ({error})"
        ) from error
    return from_json(content), None


def run(experiment: Any, preset: str, folder: Path, device: str) -> Record:
    """Its record, made or read in `folder`."""
    return Runner(preset, folder, device=device).run(experiment)


def compared(before: Record, now: Record) -> str:
    """Whether they say the same, but for the seconds they took; a clause for a reader."""
    if before.hash != now.hash:
        return f"another hash than {before.hash}: the data or the versions of its components are not those of then"
    one, other = (
        {name: value for name, value in record.result.items() if not name.endswith("_seconds")}
        for record in (before, now)
    )
    if one == other:
        return "the same result as recorded"
    return f"recorded was another result, in {', '.join(sorted(name for name in {*one, *other} if one.get(name) != other.get(name)))}"

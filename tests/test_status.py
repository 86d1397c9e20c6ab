"""What is recorded of a preset, and what is known to be missing."""

import dataclasses
import json
import time

import pytest

from ddcore import cli, figures
from ddcore.files import records
from ddcore.files.records import Record
from ddcore.lab import asked, batch, status
from ddcore.settings import digest

NOTEBOOK = "10_low_rank_images"


def record(folder, seed: int, seconds: float = 36.0, threads: int = 2) -> str:
    experiment = {"seed": seed}
    made = {"seconds": seconds, "hardware": {"threads": threads}}
    records.sealed(Record(digest(experiment), "laptop", experiment, {"losses": [0.123456] * 300}, made)).save(
        folder / "records"
    )
    return digest(experiment)


def note(folder, notebook: str, hashes) -> None:
    asked.Asked(folder, notebook).note(hashes)


def line(folder, notebook: str = NOTEBOOK) -> status.Line:
    return next(one for one in status.survey("laptop", folder) if one.notebook == notebook)


def test_what_was_asked_for_is_recorded_or_missing(tmp_path):
    hashes = [record(tmp_path, seed) for seed in range(3)]
    note(tmp_path, NOTEBOOK, [*hashes, "f" * 16])
    found = line(tmp_path)
    assert (found.recorded, found.missing) == (3, 1)
    assert found.core_hours == pytest.approx(3 * 36 * 2 / 3600)
    assert found.hours_missing == pytest.approx(36 * 2 / 3600)
    assert found.wall_missing == pytest.approx(36 / 3600)
    assert (found.figures, found.drawn) == (2, 0)
    assert status.hours_left([found, found], 4) == pytest.approx(2 * 36 / 3600 / 4)
    assert (
        status.hours_left([found], 0)
        is status.hours_left([dataclasses.replace(found, wall_missing=None)], 1)
        is None
    )


def test_a_notebook_that_has_asked_for_nothing_has_nothing_missing(tmp_path):
    assert {one.notebook for one in status.survey("laptop", tmp_path)} == {
        path.stem for path in batch.notebooks()
    }
    assert (line(tmp_path).recorded, line(tmp_path).missing, line(tmp_path).hours_missing) == (0, 0, 0.0)
    note(tmp_path, NOTEBOOK, ["f" * 16])
    assert line(tmp_path).hours_missing is None, "nothing says what one costs"


def test_a_broken_record_or_list_is_missing(tmp_path):
    key = record(tmp_path, 0)
    note(tmp_path, NOTEBOOK, [key])
    (tmp_path / "records" / f"{key}.json").write_text("{", encoding="utf-8")
    assert (line(tmp_path).recorded, line(tmp_path).missing) == (0, 1)
    (tmp_path / "asked" / f"{NOTEBOOK}.json").write_text("[", encoding="utf-8")
    assert (line(tmp_path).recorded, line(tmp_path).missing) == (0, 0)


def test_a_run_adds_to_its_list_and_the_next_begins_a_new_one(tmp_path):
    one = asked.Asked(tmp_path, NOTEBOOK)
    one.note(["a"])
    one.note(["b", "a"])
    assert asked.read(tmp_path) == {NOTEBOOK: ["a", "b"]}
    note(tmp_path, NOTEBOOK, ["c"])
    assert asked.read(tmp_path) == {NOTEBOOK: ["c"]}
    asked.Asked(None, NOTEBOOK).note(["a"])


def test_the_recorded_figures_of_this_clone_are_drawn_from_records_that_are_there():
    found = status.survey("laptop")
    drawn = {
        key
        for key, one in figures.entries().items()
        if "laptop" in (figures.load(key) or {"preset": []})["preset"]
    }
    assert sum(one.drawn for one in found) == len(drawn)
    assert sum(one.recorded for one in found) > 0


def test_five_thousand_records_take_less_than_three_seconds(tmp_path):
    hashes = [record(tmp_path, seed) for seed in range(5000)]
    for number, path in enumerate(batch.notebooks()):
        note(tmp_path, path.stem, hashes[number :: len(batch.notebooks())])
    began = time.process_time()
    found = status.survey("laptop", tmp_path)
    assert time.process_time() - began < 3
    assert sum(one.recorded for one in found) == 5000


def test_the_command_prints_a_table_or_json(tmp_path, monkeypatch, capsys):
    note(tmp_path, NOTEBOOK, [record(tmp_path, 0), "f" * 16])
    monkeypatch.delenv("DDCORE_SCHEDULER", raising=False)
    for more in ((), ("--json",)):
        monkeypatch.setattr(
            "sys.argv", ["ddcore", "status", "--preset", "laptop", "--out", str(tmp_path), *more]
        )
        with pytest.raises(SystemExit):
            cli.main()
        printed = capsys.readouterr().out
        if more:
            found = {one["notebook"]: one for one in json.loads(printed)["notebooks"]}
            assert (found[NOTEBOOK]["recorded"], found[NOTEBOOK]["missing"]) == (1, 1)
        else:
            assert NOTEBOOK in printed


def test_an_unknown_preset_is_refused(refuses):
    with refuses("'laptp'", "did you mean 'laptop'"):
        status.survey("laptp")

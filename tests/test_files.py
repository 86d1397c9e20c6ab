"""What killed processes leave behind."""

import os
import subprocess
import sys

import pytest

from ddcore.files import OLD, alone, records, sweep, whole

PROGRAM = """
import os, sys
from pathlib import Path
from ddcore.files import alone, whole
folder = Path(sys.argv[1])
with alone(folder / ".a.lock"), whole(folder / "a.json") as part:
    part.write_text("half")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills by a signal")
def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    assert subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)]).returncode == -9
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 2
    (tmp_path / "b.json").touch()
    (tmp_path / ".hidden").touch()
    with alone(tmp_path / ".c.lock"), whole(tmp_path / "c.json") as part:
        sweep(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"b.json", ".hidden", ".c.lock", part.name}


def test_a_part_of_another_machine_is_swept_when_it_is_old(tmp_path):
    part = tmp_path / ".a.json.elsewhere-1-1.part"
    part.touch()
    sweep(tmp_path)
    assert part.exists()
    os.utime(part, (0, part.stat().st_mtime - OLD - 1))
    sweep(tmp_path)
    assert not part.exists()
    sweep(tmp_path / "absent")


def test_checkpoints_of_recorded_experiments_are_swept(tmp_path):
    for name in ("0" * 16, "1" * 16):
        (tmp_path / f".{name}.checkpoint.safetensors").touch()
    (tmp_path / f"{'0' * 16}.json").touch()
    records.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{'0' * 16}.json",
        f".{'1' * 16}.checkpoint.safetensors",
    }

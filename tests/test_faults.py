"""A batch that is killed at random moments, as often as $DDCORE_FAULTS says (`make test-faults`: 20), ends as if nothing had happened."""

import contextlib
import hashlib
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from ddcore import cli
from ddcore.errors import Failed
from ddcore.files import records, sweep
from ddcore.lab import batch
from ddcore.lab.experiment import Experiment
from ddcore.lab.runner import Runner
from ddcore.lab.scheduled import Scheduled, connect
from ddcore.settings import canonical

KILLS = int(os.environ.get("DDCORE_FAULTS") or 2)
only_all = pytest.mark.skipif("DDCORE_FAULTS" not in os.environ, reason="takes minutes: make test-faults")
needs_posix = pytest.mark.skipif(os.name != "posix", reason="kills by a signal")

WANTED = """
from ddcore.lab.experiment import grid
from ddcore.settings import merge
BASE = {"dataset": "digits", "budget_ipc": 1, "method": {"name": "dm", "width": 8, "batch_real": 8, "strategy": "none"},
        "distill": {"steps": 60}, "evaluate": {"network": "mlp", "width": 8, "epochs": 5, "strategy": "none"}}
WANTED = grid(BASE, [{}, {"synthetic": {"kind": "lowrank", "rank": 1}}, {"budget_ipc": 2}], range(3))
"""
PROGRAM = (
    WANTED
    + """
import sys
from pathlib import Path
from ddcore.files import records
from ddcore.lab import cluster
from ddcore.lab.runner import Runner
from ddcore.lab.scheduled import Scheduled, connect
folder = Path(sys.argv[1])
records.sweep(folder)
with cluster.local(2) as address:
    Runner("smoke", folder, device="cpu", executor=Scheduled(connect(address))).run_all(WANTED)
records.sweep(folder)
"""
)


def content(folder: Path) -> dict[str, str]:
    """By path, what does not depend on when and where it was made."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".json" and path.parent.name in ("records", folder.name) and len(path.stem) == 16:
            record = records.read(path)
            result = {key: value for key, value in record.result.items() if not key.endswith("_seconds")}
            found[name] = canonical([record.experiment, result])
        elif path.suffix in (".csv", ".safetensors"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix != ".ipynb":
            found[name] = ""
    return found


def family(process: subprocess.Popen) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        own = psutil.Process(process.pid)
        return [own, *own.children(recursive=True)]
    return []


class Written:
    """Records are written once: what is seen of a file stays so."""

    def __init__(self, folder: Path):
        self.folder, self.seen = folder, {}

    def look(self) -> int:
        now = {path.name: path.stat().st_mtime_ns for path in self.folder.glob("[!.]*.json")}
        assert self.seen.items() <= now.items(), "a record was computed again"
        self.seen = now
        return len(now)


def survive(command: list[str], folder: Path, kills: int, generator: random.Random) -> list[str]:
    """Run `command` again and again, each time with a process of its family killed at a random moment, until it has worked and `kills` are
    done; the names of those that were killed. A killed process may take the batch with it, or the batch may go on without."""
    written, killed = Written(folder), []
    while True:
        with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
            process = subprocess.Popen(
                command, env=batch.environment(1), stdout=subprocess.DEVNULL, stderr=said
            )
            planned = None
            while process.poll() is None:
                written.look()
                alive = family(process) if len(killed) < kills else []
                if planned is None and len(alive) > 2:  # workers are there
                    planned = time.monotonic() + generator.uniform(0, 12)
                if planned and time.monotonic() > planned and len(alive) > 1:
                    victim = generator.choice(alive[: generator.choice((1, len(alive)))])
                    with contextlib.suppress(psutil.NoSuchProcess):
                        killed.append(
                            "driver" if victim.pid == process.pid else " ".join(victim.cmdline())[-60:]
                        )
                        victim.kill()
                    planned = None
                time.sleep(0.05)
            said.seek(0)
            complaints = said.read()
        written.look()
        if process.returncode == 0 and len(killed) >= kills:
            return killed
        assert killed or process.returncode == 0, complaints
        if process.returncode == 0:  # done before all kills were: a part of it is asked for again
            for path in list(folder.glob("[!.]*.json"))[:4]:
                path.unlink()
                written.seen.pop(path.name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What this process makes."""
    folder = tmp_path_factory.mktemp("undisturbed") / "records"
    Runner("smoke", folder, device="cpu").run_all(wanted())
    return folder.parent


@needs_posix
def test_kills_at_random_moments_change_no_record(tmp_path, undisturbed):
    (tmp_path / "records").mkdir()
    killed = survive(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "records")],
        tmp_path / "records",
        KILLS,
        random.Random(KILLS),
    )
    assert len(killed) >= KILLS
    print("killed:", *killed, sep="\n  ")
    assert content(tmp_path) == content(undisturbed), "the same records, and no stray file"


@only_all
@needs_posix
def test_kills_at_random_moments_change_no_figure(tmp_path):
    """Of whole notebooks: also papermill and kernels are killed, while they compute, write and draw."""
    command = [sys.executable, "-m", "ddcore", "reproduce", "--workers", "2", "--only", "10", "--out"]
    assert (
        subprocess.run(
            [*command, str(tmp_path / "calm")], env=batch.environment(1), capture_output=True
        ).returncode
        == 0
    )
    killed = survive(
        [*command, str(tmp_path / "killed")],
        tmp_path / "killed" / "records",
        KILLS // 2,
        random.Random(KILLS),
    )
    print("killed:", *killed, sep="\n  ")
    assert content(tmp_path / "killed") == content(tmp_path / "calm")


@only_all
@needs_posix
def test_a_batch_that_is_terminated_goes_on_as_if_it_had_not_been(tmp_path):
    """What its workers were at is handed back with a checkpoint, and no process is left."""
    command = [
        sys.executable,
        "-m",
        "ddcore",
        "reproduce",
        "--workers",
        "2",
        "--only",
        "11",
        "--set",
        "steps=500",
        "--out",
    ]
    assert (
        subprocess.run(
            [*command, str(tmp_path / "calm")], env=batch.environment(1), capture_output=True
        ).returncode
        == 0
    )
    folder = tmp_path / "terminated" / "records"
    running = subprocess.Popen([*command, str(tmp_path / "terminated")], env=batch.environment(1))
    wait_for(folder, 14)
    everyone = family(running)
    running.terminate()
    assert running.wait() == 143
    assert psutil.wait_procs(everyone, timeout=60)[1] == []
    assert [*folder.glob(".*.checkpoint")]
    assert (
        subprocess.run(
            [*command, str(tmp_path / "terminated")], env=batch.environment(1), capture_output=True
        ).returncode
        == 0
    )
    for name in ("records", "figures"):
        assert content(tmp_path / "terminated" / name) == content(tmp_path / "calm" / name)


@only_all
@needs_posix
def test_two_batches_at_once_on_one_folder(tmp_path, undisturbed):
    folder = tmp_path / "records"
    both = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], env=batch.environment(1))
        for _ in range(2)
    ]
    written = Written(folder)
    while any(process.poll() is None for process in both):
        written.look()
        time.sleep(0.02)
    assert [process.returncode for process in both] == [0, 0]
    assert content(tmp_path) == content(undisturbed)


@contextlib.contextmanager
def cluster_of_processes(folder: Path, *, blind: Path | None = None):
    """A scheduler and a worker as `dask scheduler` and `dask worker` start them; the worker has another disk in the place of `blind`.
    Yields the address and the scheduler's process."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    environment = batch.environment(1) | {"DDCORE_CACHE": str(folder / "cache")}
    common = {"env": environment, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "distributed.cli.dask_scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(file),
        ],
        **common,
    )
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        "--scheduler-file",
        str(file),
        "--nthreads",
        "1",
        "--no-dashboard",
        "--death-timeout",
        "60",
    ]
    if blind:
        worker = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f"mount -t tmpfs none {blind} && exec {shlex.join(worker)}",
        ]
    working = subprocess.Popen(worker, **common)
    try:
        while not (file.is_file() and file.stat().st_size):
            assert scheduler.poll() is None
            time.sleep(0.1)
        yield json.loads(file.read_text(encoding="utf-8"))["address"], scheduler
    finally:
        for process in (*family(working), *family(scheduler)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        working.wait()
        scheduler.wait()


def wanted() -> list[Experiment]:
    names = {}
    exec(WANTED, names)
    return names["WANTED"]


@only_all
@needs_posix
def test_a_worker_without_the_folder_sends_its_records(tmp_path, undisturbed):
    folder = tmp_path / "far" / "records"
    folder.mkdir(parents=True)
    if (
        not shutil.which("unshare")
        or subprocess.run(
            ["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("this process may not give another one its own disks")
    with (
        cluster_of_processes(tmp_path, blind=folder) as (address, _),
        contextlib.closing(connect.__wrapped__(address)) as client,
    ):
        Runner("smoke", folder, device="cpu", executor=Scheduled(client)).run_all(wanted())
    assert content(tmp_path / "far") == content(undisturbed)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@only_all
@needs_posix
def test_a_scheduler_that_is_killed_is_said_and_another_goes_on(tmp_path, undisturbed):
    folder = tmp_path / "shared" / "records"
    written = Written(folder)
    with (
        cluster_of_processes(tmp_path) as (address, scheduler),
        contextlib.closing(connect.__wrapped__(address)) as client,
    ):
        waiting = threading.Thread(target=lambda: (wait_for(folder, 2), scheduler.kill()))
        waiting.start()
        with pytest.raises(Failed, match=r"the scheduler at tcp://\S+ is gone"):
            Runner("smoke", folder, device="cpu", executor=Scheduled(client)).run_all(wanted())
        waiting.join()
    written.look()
    with (
        cluster_of_processes(tmp_path) as (address, _),
        contextlib.closing(connect.__wrapped__(address)) as client,
    ):
        Runner("smoke", folder, device="cpu", executor=Scheduled(client)).run_all(wanted())
    written.look()
    records.sweep(folder)
    assert content(tmp_path / "shared") == content(undisturbed)


def wait_for(folder: Path, many: int) -> None:
    while len([*folder.glob("[!.]*.json")]) < many:
        time.sleep(0.01)


# disks


@pytest.fixture
def disk(tmp_path):
    """A file system of its own of 96 KiB, if this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=96k", "none", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("this process may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def small(seed: int = 0) -> Experiment:
    return Experiment(
        "digits",
        1,
        {"kind": "pixels"},
        {"name": "dm", "width": 8, "batch_real": 8, "strategy": "none"},
        {"steps": 2},
        {"network": "mlp", "width": 8, "epochs": 1, "strategy": "none"},
        seed=seed,
    )


def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(disk):
    runner = Runner("smoke", disk, device="cpu")
    first, before = runner.run(small()), {}
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while file.write(b"0" * 512):
            file.flush()
    before = {path.name for path in disk.iterdir()}
    with pytest.raises(OSError, match="No space"):
        runner.run(small(1))
    assert {path.name for path in disk.iterdir()} <= before | {f".{runner.key(small(1))}.checkpoint"}
    filler.unlink()
    second = Runner("smoke", disk, device="cpu").run(small(1))
    assert records.read_all(disk) == sorted((first, second), key=lambda record: record.hash)
    sweep(disk)
    assert {path.suffix for path in disk.iterdir()} == {".json", ".safetensors"}
    assert len([*disk.iterdir()]) == 4


def test_a_folder_that_can_only_be_read_gives_its_records_and_refuses_new_ones(disk, monkeypatch, capsys):
    record = Runner("smoke", disk, device="cpu").run(small())
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert Runner("smoke", disk, device="cpu").run(small()) == record
    monkeypatch.setattr(
        "sys.argv", ["ddcore", "run", record.hash, "--records", str(disk), "--out", str(disk / "new")]
    )
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "Read-only file system; name another place" in capsys.readouterr().err

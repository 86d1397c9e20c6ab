"""Two real worker processes: the same records as this process makes, once each, whatever becomes of a worker."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import signal
import socket
import threading
import time

import pytest
import torch

from ddcore.errors import Diverged, Failed, Interrupted
from ddcore.files import records
from ddcore.lab import cluster, scheduled, worker
from ddcore.lab.experiment import grid
from ddcore.lab.measurement import Measurement
from ddcore.lab.measurements.transfer import Transfer
from ddcore.lab.runner import Runner
from ddcore.lab.scheduled import Scheduled, connect
from ddcore.settings import canonical, merge
from ddcore.synthetic import Pixels

QUICK = {"dataset": "digits", "budget_ipc": 1, "evaluate": {"epochs": 2, "width": 8}}
DM = {"name": "dm", "width": 8, "batch_real": 8, "strategy": "none"}
DISTILLED = merge(QUICK, {"method": DM, "distill": {"steps": 4}})
DIVERGES = merge(DISTILLED, {"distill": {"lr_img": 1e30}})
SPECTRA = Measurement("spectra", "digits", {"ranks": [1, 2], "images": 20})
WANTED = [*grid(DISTILLED, [{}, {"synthetic": {"kind": "lowrank", "rank": 1}}], [0, 1]), *grid(QUICK, [{}], [2]), SPECTRA,
          *grid(merge(DISTILLED, {"holdout": 0.1}), [{}], [0])]  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a scheduler with two workers, whose caches are their own and whose torch takes as many threads as that of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
        patch.setenv("DDCORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        with cluster.local(2) as found:
            yield found


@pytest.fixture
def workers(address):
    return Scheduled(connect(address))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    runner = Runner("smoke", tmp_path_factory.mktemp("here"), device="cpu")
    runner.run_all(WANTED)
    return runner


def content(runner: Runner) -> dict[str, str]:
    """By file name: sha256 of a set, and of the experiment and result of a record without the seconds that they took."""
    found = {}
    for path in sorted(runner.folder.iterdir()):
        if path.suffix == ".json":
            record = records.read(path)
            result = {name: value for name, value in record.result.items() if not name.endswith("_seconds")}
            found[path.name] = canonical([record.preset, record.experiment, result])
        else:
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


# the same records


def test_workers_make_the_records_of_this_process(workers, here, tmp_path):
    lines = []
    runner = Runner("smoke", tmp_path, device="cpu", executor=workers, report=lines.append)
    found = runner.run_all(WANTED)
    assert [record.hash for record in found] == [runner.key(one) for one in WANTED]
    assert len(lines) == len(WANTED)
    assert content(runner) == content(here)
    assert found == [records.read(tmp_path / f"{record.hash}.json") for record in found]


def test_a_folder_that_workers_do_not_see_is_written_by_the_driver(workers, here, tmp_path, monkeypatch):
    monkeypatch.setattr(scheduled, "_seen_by_workers", lambda folder: contextlib.nullcontext("no such file"))
    runner = Runner("smoke", tmp_path / "far", device="cpu", executor=workers)
    (tmp_path / "far").mkdir()
    runner.run_all(WANTED)
    assert content(runner) == content(here)
    cache = workers.client.run(lambda: os.environ["DDCORE_CACHE"])
    assert not [
        path for folder in cache.values() for path in worker.Path(folder).rglob("*") if path.is_file()
    ], "left at a worker"


def test_without_a_folder_records_and_sets_come_back_in_memory(workers, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = Runner("smoke", device="cpu", executor=workers)
    found = runner.run_all(WANTED[:2])
    assert [record.hash for record in found] == [here.key(one) for one in WANTED[:2]]
    assert torch.equal(runner.synthetic(found[1]).images(), here.synthetic(found[1]).images())
    assert list(tmp_path.iterdir()) == []


def test_a_set_travels_to_the_worker_that_is_asked_about_it(workers, here, tmp_path):
    record = here.run(WANTED[0])
    made = here.synthetic(record)
    asked = [Transfer(record, made, {"epochs": 1}), Transfer(record, made, stored="float16"),
             Transfer(record, Pixels(here.data("digits"), 1, seed=0), {"epochs": 1}, "bfloat16")]  # fmt: skip
    runners = [
        Runner("smoke", tmp_path / name, device="cpu", executor=executor)
        for name, executor in (("a", workers), ("b", None))
    ]
    for runner in runners:
        runner.run_all(asked)
    assert content(runners[0]) == content(runners[1])


def test_present_records_are_read_and_no_worker_is_asked(here, monkeypatch):
    monkeypatch.setattr(Scheduled, "_submitted", None)
    again = Runner("smoke", here.folder, device="cpu", executor=Scheduled(None))
    assert again.run_all(WANTED) == [here.run(one) for one in WANTED]


def test_the_same_experiment_twice_is_one_task(workers, tmp_path):
    runner = Runner("smoke", tmp_path, device="cpu", executor=workers)
    first, second = runner.run_all([SPECTRA, SPECTRA])
    assert first == second


def computed(client) -> int:
    """How many experiments the workers have begun so far."""
    return client.run_on_scheduler(
        lambda dask_scheduler: sum(
            entry[1] != "processing" and entry[2] == "processing" and str(entry[0]).startswith("experiment-")
            for entry in dask_scheduler.transition_log
        )
    )


def test_two_drivers_that_want_the_same_records_have_them_computed_once(address, workers):
    """Without a folder, where no lock and no present record could be the reason."""
    wanted, before = grid(DISTILLED, [{"distill": {"steps": 30}}], range(10, 18)), computed(workers.client)
    drivers, found = [Scheduled(connect.__wrapped__(address)) for _ in range(2)], [None, None]

    def drive(number):
        found[number] = Runner("smoke", device="cpu", executor=drivers[number]).run_all(wanted)

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for driver in drivers:
        driver.client.close()
    assert found[0] == found[1]
    assert computed(workers.client) - before == 8


# what goes wrong


def test_a_single_failure_is_what_it_is_in_this_process(workers, tmp_path):
    with pytest.raises(Diverged, match="smaller lr_img"):
        Runner("smoke", tmp_path, device="cpu", executor=workers).run_all(grid(DIVERGES, [{}], [0]))


def test_of_several_the_failed_are_named_and_the_others_recorded(workers, tmp_path):
    runner = Runner("smoke", tmp_path, device="cpu", executor=workers)
    bad, good = grid(DIVERGES, [{}], [0]), grid(QUICK, [{}], [0, 1])
    with pytest.raises(Failed, match="1 of 3 experiments failed") as caught:
        runner.run_all([*bad, *good])
    assert "experiment, dm, digits, ipc 1, seed 0: " in str(caught.value)
    assert "smaller lr_img" in str(caught.value)
    assert {path.stem for path in tmp_path.glob("*.json")} == {runner.key(one) for one in good}


def test_trials_may_diverge(workers, tmp_path):
    runner = Runner("smoke", tmp_path, device="cpu", executor=workers)
    wanted = grid(DISTILLED, [{}, {"distill": {"lr_img": 1e30}}], [0])
    for executor in (workers, None):
        one, other = Runner("smoke", runner.folder, device="cpu", executor=executor).attempt_all(wanted)
        assert one.hash == runner.key(wanted[0])
        assert isinstance(other, Diverged)


def test_other_data_at_a_worker_is_refused(workers, refuses, tmp_path, monkeypatch):
    runner = Runner("smoke", tmp_path, device="cpu", executor=workers)
    changed = dataclasses.replace(runner.data("digits"), sha256="0" * 64)
    runner.datasets["digits", 0.0] = changed
    with refuses("digits", "not the same", "DDCORE_DATA"):
        runner.run_all([SPECTRA])


def test_a_scheduler_that_does_not_answer_is_refused(refuses, monkeypatch):
    monkeypatch.setattr(scheduled, "ANSWER", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    for address in (nobody, "127.0.0.1", "no address"):
        with refuses(address, "no scheduler answers", "--scheduler"):
            connect(address)


@pytest.mark.parametrize(
    ("package", "who"), [("torch", "the worker tcp://"), ("distributed", "the scheduler at tcp://")]
)
def test_other_versions_at_a_worker_or_scheduler_are_refused(address, refuses, monkeypatch, package, who):
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.1" if name == package else version(name)
    )
    worker.made_with.cache_clear()
    try:
        with refuses(who, f"{package}='0.1' here", "start the workers anew"):
            connect.__wrapped__(address)
    finally:
        worker.made_with.cache_clear()


def test_a_worker_that_came_later_with_other_code_refuses_its_job(workers, refuses, tmp_path, monkeypatch):
    ours = worker.made_with()
    monkeypatch.setattr(worker, "made_with", lambda: ours | {"ddcore": "other"})
    with refuses("ddcore='other' here", "start the workers anew"):
        Runner("smoke", tmp_path, device="cpu", executor=workers).run_all([SPECTRA])


# what is stopped


LONG = grid(merge(DISTILLED, {"distill": {"steps": 60}}), [{}], [5])


@pytest.fixture(scope="module")
def long_here(tmp_path_factory):
    runner = Runner("smoke", tmp_path_factory.mktemp("long"), device="cpu")
    runner.run_all(LONG)
    return runner


def busy(client, folder) -> str:
    """The address of the worker that makes a record, once one does."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = [where for where, keys in client.processing().items() if keys]
        if found and list(folder.glob(".*.lock")):
            return found[0]
        time.sleep(0.01)
    raise AssertionError("no worker has begun")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_experiment_of_a_worker_that_ends_goes_on_elsewhere(workers, long_here, tmp_path, number):
    """SIGTERM leaves a checkpoint, which is written once a minute else; after SIGKILL it begins anew. The record is the same."""
    runner, found, seen = Runner("smoke", tmp_path, device="cpu", executor=workers), [], set()
    thread = threading.Thread(target=lambda: found.extend(runner.run_all(LONG)))
    thread.start()
    where = busy(workers.client, tmp_path)
    os.kill(workers.client.run(os.getpid, workers=[where])[where], number)
    while thread.is_alive():
        seen |= {path.name for path in tmp_path.iterdir()}
        time.sleep(0.01)
    thread.join()
    assert (f".{found[0].hash}.checkpoint" in seen) == (number == signal.SIGTERM)
    assert content(runner) == content(long_here)


def test_a_signal_at_the_driver_asks_for_nothing_more(workers, tmp_path):
    """The experiment would take minutes; the closing of its worker ends it."""
    runner = Runner("smoke", tmp_path, device="cpu", executor=workers)
    sender = threading.Thread(
        target=lambda: (busy(workers.client, tmp_path), os.kill(os.getpid(), signal.SIGINT))
    )
    sender.start()
    with pytest.raises(Interrupted, match="stopped with 0 of 1 missing records"):
        runner.run_all(grid(merge(DISTILLED, {"distill": {"steps": 100_000}}), [{}], [6]))
    sender.join()

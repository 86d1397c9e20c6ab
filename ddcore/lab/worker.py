"""What a worker of a scheduler does: one experiment after another, in a process that stays.

A job is JSON, a set that it is about the bytes of a safetensors file, and so is what comes back. The record is written here where the
driver's folder can be seen from here, else it goes back and is written there. A worker that is told to end has its experiment keep what it
has, and hands it back to the scheduler; with a shared folder whoever is given it next goes on from there.
"""

import asyncio
import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from distributed import Reschedule, Worker
from distributed.diagnostics.plugin import WorkerPlugin

from ddcore.data import cache_folder
from ddcore.errors import BadInput, Diverged, Interrupted
from ddcore.files import records
from ddcore.files.stopping import tell, told
from ddcore.lab.experiment_json import from_json
from ddcore.lab.runner import Runner
from ddcore.settings import canonical, digest, listed
from ddcore.synthetic import Synthetic, load_synthetic

PATIENCE = 60.0  # seconds that an experiment is given to keep what it has, once its worker is told to end
_one_at_a_time = threading.Lock()


@functools.cache
def made_with() -> dict[str, str]:
    """What driver and worker must have alike: Python, the libraries that compute or carry, and the source of this package."""
    found = {
        name: importlib.metadata.version(name)
        for name in ("torch", "torchvision", "numpy", "dask", "distributed")
    }
    return {
        "python": "{}.{}".format(*sys.version_info),
        **found,
        "ddcore": records.code()["code_sha256"][:16],
    }


def alike(drivers: dict[str, str], ours: dict[str, str], where: str) -> None:
    """Raise BadInput where a worker has other versions than the driver."""
    if differ := [name for name in {**drivers, **ours} if drivers.get(name) != ours.get(name)]:
        theirs = listed({name: ours.get(name) for name in differ})
        raise BadInput(
            f"{where} has {theirs}, but {listed({name: drivers.get(name) for name in differ})} here; numbers would not be the "
            "same: start the workers anew with what is installed here"
        )


def perform(job: str, synthetic: bytes | None) -> dict:
    """Run the experiment of `job` (`ddcore.lab.scheduled.Scheduled` says what it holds): {"record": its JSON, "set": the file of the
    distilled set, None where the folder is shared or there is none}, or {"error": 'BadInput' or 'Diverged', "says": why}.

    Other failures are raised: the scheduler tries again.
    """
    asked = json.loads(job)
    with _one_at_a_time:
        if told():
            raise Reschedule
        try:
            alike(asked["made_with"], made_with(), "a worker")
            folder = Path(asked["folder"]) if asked["folder"] else None
            shared = folder is not None and (folder / asked["probe"]).is_file()
            own = (
                cache_folder() / "elsewhere" / digest({name: asked[name] for name in ("preset", "overrides")})
            )
            return _perform(asked, synthetic, folder if shared else own, shared)
        except (BadInput, Diverged) as error:
            return {"error": type(error).__name__, "says": str(error)}
        except Interrupted:
            raise Reschedule from None


def _perform(asked: dict, synthetic: bytes | None, folder: Path, shared: bool) -> dict:
    with received(synthetic, asked["device"]) as given:
        experiment = from_json(asked["experiment"], given)
    runner = _runner(asked["preset"], folder, asked["device"], canonical(asked["overrides"]))
    if (key := runner.key(experiment)) != asked["hash"]:
        raise BadInput(
            f"dataset '{experiment.dataset}' is not the same here and at a worker: the experiment has hash {asked['hash']} here "
            f"and {key} there; give both the same files ($DDCORE_DATA)"
        )
    record, file = runner.run(experiment), folder / f"{key}.safetensors"
    runner.sets.clear()
    found = {"record": canonical(dataclasses.asdict(record)), "set": None}
    if not shared:
        found["set"] = file.read_bytes() if file.is_file() else None
        file.unlink(missing_ok=True)
        (folder / f"{key}.json").unlink()
    return found


@functools.lru_cache(maxsize=8)
def _runner(preset: str, folder: Path, device: str, overrides: str) -> Runner:
    runner = Runner(preset, folder, device=device, overrides=json.loads(overrides))
    runner.datasets = _datasets(device)
    return runner


@functools.cache
def _datasets(device: str) -> dict:
    """One copy of each dataset, whichever notebook asks."""
    return {}


@contextlib.contextmanager
def received(content: bytes | None, device: str = "cpu") -> Iterator[Synthetic | None]:
    """The set whose file came as bytes. Raises BadInput as `ddcore.synthetic.load_synthetic` does."""
    if content is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.safetensors"
        path.write_bytes(content)
        yield load_synthetic(path, device)


async def hand_back() -> None:
    """Have the experiment that runs here stop with what it has, and wait for that, `PATIENCE` at most."""
    tell(signal.SIGTERM)
    for _ in range(int(PATIENCE / 0.05)):
        if not _one_at_a_time.locked():
            return
        await asyncio.sleep(0.05)


class HandBack(WorkerPlugin):
    """SIGTERM, the end of a job's time and the closing of a worker let its experiment keep what it has. Ctrl-C is the driver's."""

    name, idempotent = "ddcore", True

    def setup(self, worker: Worker) -> None:
        """In the worker's main thread, which alone may handle signals."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, functools.partial(self._end, worker))

    def _end(self, worker: Worker, *_) -> None:
        tell(signal.SIGTERM)
        worker.loop.add_callback(worker.close_gracefully, restart=True, reason="SIGTERM")

    async def teardown(self, worker: Worker) -> None:
        """Before the worker's threads are ended."""
        await hand_back()

"""Experiments computed by the workers of a Dask scheduler: the record's hash is the task's key, so that two notebooks that want one record
have it computed once."""

import contextlib
import functools
import itertools
import json
import queue
import socket
import tempfile
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

from distributed import Client, Future
from distributed.comm import get_address_host_port

from ddcore.errors import BadInput, Diverged, Failed
from ddcore.files import alone, made, whole
from ddcore.files.records import Record
from ddcore.files.stopping import heed
from ddcore.lab import worker
from ddcore.lab.experiment_json import Any, to_json
from ddcore.lab.runner import Runner
from ddcore.settings import digest
from ddcore.synthetic import Synthetic

ANSWER = 15  # seconds within which a scheduler has to answer
RETRIES = 2  # of an experiment that fails for another reason than what was asked; workers that die are counted by the scheduler


@functools.cache
def connect(address: str) -> Client:
    """A client of the scheduler at `address`. Raises BadInput where none answers, or where it or a worker has other versions than this
    process."""
    try:
        # Before there is a client: one that finds nobody is closed whenever Python collects it, which may wait for itself.
        with socket.create_connection(get_address_host_port(address), timeout=ANSWER):
            client = Client(address, timeout=ANSWER, set_as_default=False, name="ddcore")
    except (OSError, ValueError) as error:
        raise BadInput(
            f"no scheduler answers at {address} within {ANSWER} s ({' '.join(str(error).split())[:200]}); start one, or compute "
            "here: leave --scheduler and $DDCORE_SCHEDULER out"
        ) from error
    try:
        theirs = client.get_versions()["scheduler"]["packages"]
        ours = worker.made_with()
        worker.alike(
            {name: ours[name] for name in ("dask", "distributed")},
            {name: theirs.get(name) for name in ("dask", "distributed")},
            f"the scheduler at {address}",
        )
        try:
            found = client.run(worker.made_with)
        except Exception as error:  # whatever a worker without this package answers with
            raise BadInput(
                f"a worker of {address} can't run ddcore ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
                "install there what is installed here, and start the workers anew"
            ) from error
        for place, one in found.items():
            worker.alike(ours, one, f"the worker {place}")
        client.register_plugin(worker.HandBack())
    except BaseException:
        client.close()
        raise
    return client


class Scheduled:
    """The workers of the scheduler that `client` is connected to. Those that fail are named at the end, when all others are there."""

    def __init__(self, client: Client):
        self.client = client

    def records(self, runner: Runner, experiments: Sequence[Any]) -> Iterator[tuple[int, Record]]:
        """As `ddcore.lab.executor.Executor` says. Raises the BadInput or Diverged of a single experiment, Failed where several were
        asked for and some have failed; Interrupted after a signal, when nothing more is begun."""
        failed = yield from self._found(runner, experiments, ())
        if failed and len(experiments) == 1:
            raise next(iter(failed.values()))
        self._raise(failed, experiments)

    def attempts(self, runner: Runner, experiments: Sequence[Any]) -> Iterator[tuple[int, Record | Diverged]]:
        """As `ddcore.lab.executor.Executor` says. Raises as `records` does, but not for those that diverge."""
        self._raise((yield from self._found(runner, experiments, (Diverged,))), experiments)

    def _found(
        self, runner: Runner, experiments: Sequence[Any], also: tuple[type, ...]
    ) -> Generator[tuple[int, Record | Exception], None, dict[int, Exception]]:
        """Yields records and exceptions of the types `also` by place; returns the other exceptions by the place of their experiment."""
        places: dict[str, list[int]] = {}
        for place, experiment in enumerate(experiments):
            places.setdefault(runner.key(experiment), []).append(place)
        there = {key: record for key in places if (record := runner.kept(key))}
        missing = {key: experiments[at[0]] for key, at in places.items() if key not in there}
        failed: dict[int, Exception] = {}
        for key, found in itertools.chain(there.items(), self._computed(runner, missing)):
            if isinstance(found, (Record, *also)):
                yield from ((place, found) for place in places[key])
            else:
                failed[places[key][0]] = found
        return failed

    def _raise(self, failed: Mapping[int, Exception], experiments: Sequence[Any]) -> None:
        if failed:
            said = "; ".join(
                f"{_called(experiments[place])}: {_line(error)}" for place, error in failed.items()
            )
            raise Failed(
                f"{len(failed)} of {len(experiments)} experiments failed, the records of the others are there: {said}"
            )

    def _computed(
        self, runner: Runner, missing: Mapping[str, Any]
    ) -> Iterator[tuple[str, Record | Exception]]:
        """By hash the record of each, or why there is none, as they come."""
        if not missing:
            return
        done: queue.SimpleQueue[str] = queue.SimpleQueue()
        address = self.client.scheduler.address  # which a client forgets with its scheduler
        with _seen_by_workers(runner.folder) as probe, heed() as stop:
            futures = {
                key: self._submitted(runner, key, experiment, probe) for key, experiment in missing.items()
            }
            try:
                for key, future in futures.items():
                    future.add_done_callback(lambda _, key=key: done.put(key))
                came = 0
                while came < len(futures):
                    if stop:
                        raise stop.interrupted(
                            f"stopped with {came} of {len(futures)} missing records made; the same call goes on"
                        )
                    with contextlib.suppress(queue.Empty):
                        key = done.get(timeout=0.2)
                        came += 1
                        yield key, self._received(runner, key, futures[key], address)
            finally:
                for future in futures.values():
                    future.release()

    def _submitted(self, runner: Runner, key: str, experiment: Any, probe: str | None) -> Future:
        how = {
            "preset": runner.preset,
            "folder": str(runner.folder.resolve()) if runner.folder else None,
            "device": runner.device,
            "overrides": runner.overrides,
        }
        said = to_json(experiment)
        job = json.dumps(
            {"experiment": said, "hash": key, "probe": probe, "made_with": worker.made_with(), **how}
        )
        beside = next((value for value in vars(experiment).values() if isinstance(value, Synthetic)), None)
        return self.client.submit(
            worker.perform,
            job,
            _bytes(beside) if beside else None,
            retries=RETRIES,
            key=f"{said['kind']}-{key}-{digest(how)[:8]}",
        )

    def _received(self, runner: Runner, key: str, future: Future, address: str) -> Record | Exception:
        if future.cancelled():
            return Failed(f"the scheduler at {address} is gone, or has dropped it; run the same again")
        if error := future.exception():
            return error
        answer = future.result()
        if "error" in answer:
            return {"BadInput": BadInput, "Diverged": Diverged}[answer["error"]](answer["says"])
        record = Record(**json.loads(answer["record"]))
        if record.hash != key or digest(record.experiment) != key:
            return BadInput(
                f"a worker answered with the record of another experiment than {key}; start the workers anew"
            )
        _keep(runner, record, answer["set"])
        return record


def _keep(runner: Runner, record: Record, content: bytes | None) -> None:
    """Write what a worker could not, because it does not see the runner's folder."""
    if runner.folder is None:
        with worker.received(content, runner.device) as runner.sets[record.hash]:
            return
    if (runner.folder / f"{record.hash}.json").is_file():
        return
    if content is not None:
        with whole(runner.folder / f"{record.hash}.safetensors") as part:
            part.write_bytes(content)
    record.save(runner.folder)


@contextlib.contextmanager
def _seen_by_workers(folder: Path | None) -> Iterator[str | None]:
    """The name of a file that is in `folder` for as long: a worker that finds it there shares the folder."""
    if folder is None:
        yield None
        return
    probe = made(folder, "name another folder in out") / f".{uuid.uuid4().hex}.here"
    with alone(probe):
        yield probe.name


def _bytes(synthetic: Synthetic) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return synthetic.save(Path(folder) / "set.safetensors").read_bytes()


def _called(experiment: Any) -> str:
    """As a reader would know it."""
    said = to_json(experiment)
    inner = said.get("experiment") or said.get("of", {}).get("experiment") or said
    name = inner.get("name") or inner.get("method", {}).get("name") or inner.get("synthetic", {}).get("kind")
    names = [said["kind"], name, experiment.dataset]
    names += [f"ipc {inner['budget_ipc']}"] if "budget_ipc" in inner else []
    return ", ".join(str(name) for name in (*names, f"seed {inner.get('seed')}") if name)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, BadInput | Diverged | Failed) else f"{type(error).__name__}: {text}"

"""Presets, and the batch: the notebooks through papermill, each in a process of its own, ending with a table.

Every parameter is checked before the first notebook starts. A notebook that fails keeps its partial output and does not stop
the others.
"""

import ast
import concurrent.futures
import contextlib
import copy
import dataclasses
import functools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from ddcore import figures
from ddcore.errors import BadInput
from ddcore.files import alone, made, records, sweep
from ddcore.files.stopping import called, heed
from ddcore.lab import asked, parameters, values
from ddcore.lab.executor import SCHEDULER
from ddcore.lab.parameters import named
from ddcore.settings import listed, merge, unknown

NOTEBOOKS = records.SHIPPED / "notebooks"
PROCESS = Path(__file__).with_name("notebook_process.py")
PATIENCE = 60.0  # seconds that notebooks are given to keep what they have, once they are told to stop
# What `ddcore.compute.keep_memory` does, said to glibc before a kernel starts.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_MMAP_MAX_": "0"}
PRESETS = ("smoke", "laptop", "desk", "paper")


def preset(name: str, notebook: str, given: Mapping | None = None) -> dict:
    """The numbers of `notebook` at preset `name` (notebooks/presets.yaml), overridden by those of `given` that are not None; of a mapping
    those that it names. 'desk' has the numbers of 'laptop' where it names no others.

    Raises BadInput for an unknown preset or name, or a value that is not as those of the presets (`ddcore.lab.parameters`).
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    every = {
        key: one.get(notebook, {})
        for key, one in _presets((NOTEBOOKS / "presets.yaml").read_text(encoding="utf-8")).items()
    }
    every["desk"] = every["laptop"] | every["desk"]
    found = copy.deepcopy(every[name])
    for key, value in (given or {}).items():
        if value is None:
            continue
        if key not in found:
            raise unknown(f"parameter of {notebook}", key, found)
        parameters.check(notebook, key, value, [one[key] for one in every.values()])
        found[key] = merge(found[key], value) if isinstance(value, Mapping) else value
    return found


_presets = functools.lru_cache(maxsize=4)(values.read)  # half a second of parsing


def notebooks(only: str = "") -> list[Path]:
    """The numbered notebooks, or those whose name begins with one of the comma-separated parts of `only`."""
    found = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    if not found:
        raise BadInput(
            f"{NOTEBOOKS}: no notebooks are there; install ddcore from a clone, or run this in one"
        )
    parts = [part for part in only.split(",") if part]
    for part in parts:
        if not any(path.name.startswith(part) for path in found):
            raise unknown("notebook", part, [path.stem for path in found])
    return [path for path in found if not parts or any(path.name.startswith(part) for part in parts)]


def defaults(notebook: Path) -> dict:
    """The defaults of the cell tagged 'parameters', by name."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            found = {}
            for node in ast.parse("".join(cell["source"])).body:
                if isinstance(node, ast.AnnAssign | ast.Assign):
                    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                    found[target.id] = ast.literal_eval(node.value)
            return found
    raise BadInput(f"{notebook}: no cell is tagged 'parameters'")


def check(notebook: Path, given: Mapping) -> None:
    """Raise BadInput for a parameter that neither the notebook nor its preset has, or a value that is not as theirs."""
    have = defaults(notebook)
    name = given.get("preset", have.get("preset", "smoke"))
    allowed = {*have, *preset(name, notebook.stem)}
    for key, value in given.items():
        if key not in allowed:
            raise unknown(f"parameter of {notebook.stem}", key, allowed)
        if have.get(key) is not None:
            parameters.check(notebook.stem, key, value, [have[key]])
    preset(name, notebook.stem, {key: value for key, value in given.items() if have.get(key) is None})


def changed(name: str, notebook: str, given: Mapping) -> dict:
    """The numbers of `notebook` that are not preset `name`'s; the seeds are no such number: a record names its own."""
    numbers = preset(name, notebook)
    found = preset(name, notebook, {key: value for key, value in given.items() if key in numbers})
    return {key: value for key, value in found.items() if key != "seeds" and value != numbers[key]}


def lands(name: str, notebook: str, given: Mapping) -> str:
    """'', or what keeps figures and records of `notebook` with these parameters out of figures/, which takes a larger preset as it is,
    with as many seeds as the captions promise."""
    if name == "smoke":
        return "made from smoke runs"
    if not records.CHECKOUT:
        return "made outside of a checkout"
    if other := changed(name, notebook, given):
        return f"made with {listed(other)} in place of the {name} preset's"
    promised = {key: one.seeds for key, one in figures.entries().items() if one.notebook == notebook}
    most, seeds = (
        max(promised, key=promised.get, default=""),
        given.get("seeds") or preset(name, notebook).get("seeds"),
    )
    if most and seeds and len(seeds) < promised[most]:
        return f"made from {len(seeds)} seed{'s' * (len(seeds) != 1)}, where the caption of figure {most} promises {promised[most]}"
    return ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """status: 'done', 'failed' or 'stopped'; figures: the ids it saved; error: the last line of its failure."""

    notebook: str
    status: str
    seconds: float
    figures: tuple[str, ...]
    output: Path
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Pool:
    """Who computes for all notebooks of a batch: the workers of the scheduler at `address`, each with `threads` of torch, where that is
    known; a notebook takes as many, since bits depend on them."""

    address: str
    threads: int | None = None


class Orders:
    """What the notebooks that run have been told: `signals` 1 is to stop with what they have, 2 to end."""

    signals = 0


def execute(
    notebook: Path,
    out: Path,
    given: Mapping,
    threads: int | None,
    orders: Orders,
    *,
    always: bool = False,
    scheduler: str = "",
) -> Outcome:
    """Run one notebook through papermill into `out`; what it had computed before a failure stays in its output. Figures and records go to
    `out` too, `always` or where they can't land in figures/.
    `threads`: how many torch takes, where OMP_NUM_THREADS does not say; None: its own choice. `scheduler`: the address of the one whose
    workers compute; '': the notebook's own process."""
    apart = always or lands(given.get("preset", "smoke"), notebook.stem, given)
    folder = out / "figures" if apart else figures.FOLDER
    ours = [folder / f"{key}.json" for key, one in figures.entries().items() if one.notebook == notebook.stem]
    before = {path: path.stat().st_mtime_ns for path in ours if path.is_file()}
    outcome = _papermill(
        notebook,
        out / notebook.name,
        dict(given) | {"out": str(out) if apart else ""},
        threads,
        orders,
        scheduler,
    )
    made = [path.stem for path in ours if path.is_file() and before.get(path) != path.stat().st_mtime_ns]
    return dataclasses.replace(outcome, figures=tuple(made))


def environment(threads: int | None = None, scheduler: str = "") -> dict[str, str]:
    """The environment of a kernel: no warning about its sockets, pictures without a screen, this package in reach, the `scheduler` whose
    workers compute, `threads` of torch, and such as sleep while they wait: spinning ones make notebooks side by side several times
    slower."""
    path = os.pathsep.join(filter(None, (str(records.TOP), os.environ.get("PYTHONPATH"))))
    share = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return (
        {"OMP_WAIT_POLICY": "PASSIVE", **KEEP_MEMORY}
        | share
        | dict(os.environ)
        | {
            "PYTHONPATH": path,
            "IPYTHONDIR": str(NOTEBOOKS / "ipython"),
            "MPLBACKEND": "agg",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        | ({SCHEDULER: scheduler} if scheduler else {})
    )


def reproduce(
    name: str = "smoke",
    *,
    only: str = "",
    jobs: int | None = None,
    given: Mapping | None = None,
    out: str | Path = "",
    pool: contextlib.AbstractContextManager[Pool] | None = None,
) -> Iterable[Outcome]:
    """Run the notebooks at preset `name` into `out`, by default `runs/<preset>/`; outcomes as they come. All parameters are checked first;
    paths in them are those of the caller's folder.

    `jobs` notebooks at once share the cores. None: one a core, four at most, at smoke, whose matrices are too small to share; else one.
    With a `pool`, entered once all is checked, notebooks only ask and draw: None is all at once.
    Raises Interrupted after a signal, when those that ran have written what they had.
    """
    for fixed, option in (("preset", "--preset"), ("out", "--out")):
        if fixed in (given or {}):
            raise BadInput(f"{fixed}={given[fixed]!r} can't be set here; it is chosen by {option}")
    given = {key: from_here(key, value) for key, value in (given or {}).items()} | {"preset": name}
    found = notebooks(only)
    for notebook in found:
        check(notebook, given)
    folder = made(Path(out).absolute() if out else runs() / name, "name another folder with --out")
    run = functools.partial(execute, out=folder, given=given, always=bool(out))
    for written in (folder, folder / "figures", folder / asked.FOLDER, figures.FOLDER):
        sweep(written)
    for written in (folder / "records", figures.FOLDER / "records"):
        records.sweep(written)
    if pool:
        return _pooled(pool, run, found, jobs or len(found), folder)
    cores = records.hardware()["cores"]
    jobs = jobs or (min(cores, 4) if name == "smoke" else 1)
    return _side_by_side(
        functools.partial(run, threads=max(1, cores // jobs) if jobs > 1 else None), found, jobs, folder
    )


def _pooled(
    pool: contextlib.AbstractContextManager[Pool],
    run: Callable[..., Outcome],
    found: Sequence[Path],
    jobs: int,
    out: Path,
) -> Iterator[Outcome]:
    with pool as who:
        yield from _side_by_side(
            functools.partial(run, scheduler=who.address, threads=who.threads), found, jobs, out
        )


def from_here(name: str, value):
    """A parameter with the files and folders that it names made absolute: notebooks run in a folder of their own. A word may be something
    else than a folder, unless it is the dataset."""
    if isinstance(value, Mapping):
        return {key: from_here(key, one) for key, one in value.items()}
    if isinstance(value, list):
        return [from_here("", one) for one in value]
    if not isinstance(value, str):
        return value
    bare = value.removesuffix("-zca")
    meant = (
        bare.endswith(".npz")
        or bare.startswith(".")
        or len(Path(bare).parts) > 1
        or (name == "dataset" and not named(bare))
    )
    return (
        str(Path(bare).absolute()) + value[len(bare) :] if bare and meant and Path(bare).exists() else value
    )


def runs() -> Path:
    """Where outputs go: in the checkout, or in the current folder where ddcore is installed without one."""
    return (records.TOP if records.CHECKOUT else Path.cwd()) / "runs"


def refresh(only: str = "") -> Iterable[Outcome]:
    """Execute the committed notebooks at their defaults, and strip what differs between two runs (times, machine). One that
    fails stays as it was; what it had computed is in runs/refresh/."""
    if not records.CHECKOUT:
        raise BadInput(
            "refresh executes the notebooks of a checkout in place, and this ddcore is installed without one; run it in a clone"
        )
    out = made(runs() / "refresh", "it needs a checkout that can be written to")
    return _side_by_side(functools.partial(_refresh, out=out), notebooks(only), 1, out)


def _refresh(notebook: Path, out: Path, orders: Orders) -> Outcome:
    outcome = _papermill(notebook, out / notebook.name, {}, None, orders)
    if outcome.status == "done":
        strip(outcome.output)
        os.replace(outcome.output, notebook)
    return outcome


def _side_by_side(
    run: Callable[..., Outcome], found: Sequence[Path], jobs: int, out: Path
) -> Iterable[Outcome]:
    """`run(notebook, orders=)` of each, `jobs` at once. After a signal no other begins, and those that run have `PATIENCE`."""
    orders, done, asked = Orders(), 0, math.inf
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    waiting = {pool.submit(run, notebook, orders=orders) for notebook in found}
    with heed() as stop:
        try:
            while waiting:
                ended, waiting = concurrent.futures.wait(
                    waiting, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for outcome in (future.result() for future in ended if not future.cancelled()):
                    done += outcome.status == "done"
                    yield outcome
                if stop and not orders.signals:
                    orders.signals, asked = 1, time.monotonic()
                    for future in waiting:
                        future.cancel()
                elif time.monotonic() - asked > PATIENCE:
                    orders.signals = 2
        finally:
            orders.signals = 2
            pool.shutdown(cancel_futures=True)
        if stop:
            raise stop.interrupted(
                f"stopped by {called(stop.number)}; {done} of {len(found)} notebooks are done, what the others had "
                f"computed is in {out}, and the same command goes on from there"
            )


def _papermill(
    notebook: Path, output: Path, given: dict, threads: int | None, orders: Orders, scheduler: str = ""
) -> Outcome:
    """Run it in a process and a session of its own: Ctrl-C in a terminal reaches it by `orders` alone."""
    began = time.perf_counter()

    def ended(status: str, error: str) -> Outcome:
        return Outcome(notebook.stem, status, time.perf_counter() - began, (), output, error)

    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = output.with_name(f".{output.name}.lock")
        with alone(lock, busy=f"another run is writing {output}; wait for its end"), _lifeline() as line:
            process = subprocess.Popen(
                [sys.executable, "-P", str(PROCESS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env=environment(threads, scheduler),
                cwd=NOTEBOOKS,
                start_new_session=True,
                pass_fds=[line] if line else [],
            )
            job, sent = (
                yaml.safe_dump(
                    {"notebook": str(notebook), "output": str(output), "parameters": given, "lifeline": line}
                ),
                0,
            )
            while True:
                try:
                    said, complaints = process.communicate(job, timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    job = None
                for number in (signal.SIGTERM, signal.SIGINT)[
                    sent : orders.signals
                ]:  # two of one kind would count as one
                    process.send_signal(number)
                    sent += 1
    except BadInput as error:
        return ended("failed", str(error))
    if process.returncode == 0:
        return ended("done", "")
    lines = [line for line in complaints.splitlines() if line.strip()] or [f"exit code {process.returncode}"]
    return ended("stopped" if sent else "failed", json.loads(said) if said else lines[-1])


@contextlib.contextmanager
def _lifeline() -> Iterator[int | None]:
    """The end of a pipe that a child reads until this process is gone, killed or not; None where children can't be given one."""
    if os.name != "posix":
        yield None
        return
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


def strip(notebook: Path) -> None:
    """Remove papermill's metadata and the interpreter's version: a notebook run twice is the same file."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in content["cells"]:
        cell["metadata"] = {
            name: value for name, value in cell["metadata"].items() if name == "tags" and value
        }
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

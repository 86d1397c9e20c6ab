"""Presets, and the batch: the notebooks through papermill, each in a process of its own, ending with a table.

Every parameter is checked before the first notebook starts. A notebook that fails keeps its partial output and does not stop
the others.
"""

import ast
import concurrent.futures
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from ddcore import figures, records
from ddcore.errors import BadInput
from ddcore.settings import unknown

NOTEBOOKS = records.TOP / "notebooks"
PRESETS = ("smoke", "laptop", "paper")


def preset(name: str, notebook: str, given: Mapping | None = None) -> dict:
    """The numbers of `notebook` at preset `name` (notebooks/presets.yaml), overridden by those of `given` that are not None.

    Raises BadInput for an unknown preset or name, or a value of another type than the preset's.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    found = dict(yaml.safe_load((NOTEBOOKS / "presets.yaml").read_text())[name].get(notebook, {}))
    for key, value in (given or {}).items():
        if value is None:
            continue
        if key not in found:
            raise unknown(f"parameter of {notebook}", key, found)
        _same_type(notebook, key, value, found[key])
        found[key] = value
    return found


def _same_type(notebook: str, name: str, value, like) -> None:
    """Raise BadInput unless `value` is of the type of `like`: an int stands for a float; a list holds what `like` holds."""
    fits = type(value) is type(like) or (isinstance(like, float) and type(value) is int)
    if not fits:
        raise BadInput(f"{notebook}: {name}={value!r} is of type {type(value).__name__}, but needs {type(like).__name__}")
    if isinstance(like, list) and like:
        if not value:
            raise BadInput(f"{notebook}: {name}=[] is empty; at least one {type(like[0]).__name__} is needed")
        for place, one in enumerate(value):
            _same_type(notebook, f"{name}[{place}]", one, like[0])


def notebooks(only: str = "") -> list[Path]:
    """The numbered notebooks, or those whose name begins with one of the comma-separated parts of `only`."""
    found = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    parts = [part for part in only.split(",") if part]
    for part in parts:
        if not any(path.name.startswith(part) for path in found):
            raise unknown("notebook", part, [path.stem for path in found])
    return [path for path in found if not parts or any(path.name.startswith(part) for part in parts)]


def parameters(notebook: Path) -> dict:
    """The defaults of the cell tagged 'parameters', by name."""
    for cell in json.loads(notebook.read_text())["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            found = {}
            for node in ast.parse("".join(cell["source"])).body:
                if isinstance(node, ast.AnnAssign | ast.Assign):
                    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                    found[target.id] = ast.literal_eval(node.value)
            return found
    raise BadInput(f"{notebook}: no cell is tagged 'parameters'")


def check(notebook: Path, given: Mapping) -> None:
    """Raise BadInput for a parameter that the notebook has not, or of another type than its default or its preset's value."""
    have = parameters(notebook)
    for name, value in given.items():
        if name not in have:
            raise unknown(f"parameter of {notebook.stem}", name, have)
        if have[name] is not None:
            _same_type(notebook.stem, name, value, have[name])
    overrides = {name: value for name, value in given.items() if have[name] is None}
    preset(given.get("preset", have.get("preset", "smoke")), notebook.stem, overrides)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """status: 'done' or 'failed'; figures: the ids it saved; error: the last line of its failure."""

    notebook: str
    status: str
    seconds: float
    figures: tuple[str, ...]
    output: Path
    error: str = ""


def execute(notebook: Path, out: Path, given: Mapping, threads: int | None = None) -> Outcome:
    """Run one notebook through papermill into `out`; what it had computed before a failure stays in its output.
    `threads`: how many torch takes, where OMP_NUM_THREADS does not say; None: its own choice."""
    folder = out / "figures" if given.get("preset", "smoke") == "smoke" else figures.FOLDER
    ours = [folder / f"{key}.json" for key, one in figures.registry().items() if one.notebook == notebook.stem]
    before = {path: path.stat().st_mtime_ns for path in ours if path.is_file()}
    outcome = _papermill(notebook, out / notebook.name, ("--parameters_yaml", yaml.safe_dump(dict(given) | {"out": str(out)})), threads)
    made = [path.stem for path in ours if path.is_file() and before.get(path) != path.stat().st_mtime_ns]
    return dataclasses.replace(outcome, figures=tuple(made))


def environment(threads: int | None = None) -> dict[str, str]:
    """The environment of a kernel: no warning about its sockets, pictures without a screen, this package in reach, `threads` of
    torch, and such as sleep while they wait: spinning ones make notebooks side by side several times slower."""
    path = os.pathsep.join(filter(None, (str(records.TOP), os.environ.get("PYTHONPATH"))))
    share = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return {"OMP_WAIT_POLICY": "PASSIVE"} | share | dict(os.environ) | {
        "PYTHONPATH": path, "IPYTHONDIR": str(NOTEBOOKS / "ipython"), "MPLBACKEND": "agg", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def reproduce(name: str = "smoke", *, only: str = "", jobs: int | None = None, given: Mapping | None = None) -> Iterable[Outcome]:
    """Run the notebooks at preset `name` into `runs/<preset>/`; outcomes as they come. All parameters are checked first.

    `jobs` notebooks at once share the cores. None: one a core, four at most, at smoke, whose matrices are too small to share; else one.
    """
    for fixed in ("preset", "out"):
        if fixed in (given or {}):
            raise BadInput(f"{fixed}={given[fixed]!r} can't be set here; the preset is chosen by --preset, and files go to runs/<preset>")
    given = dict(given or {}) | {"preset": name}
    found = notebooks(only)
    for notebook in found:
        check(notebook, given)
    out = records.TOP / "runs" / name
    cores = records.hardware()["cores"]
    jobs = jobs or (min(cores, 4) if name == "smoke" else 1)
    threads = max(1, cores // jobs) if jobs > 1 else None
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        for future in concurrent.futures.as_completed([pool.submit(execute, notebook, out, given, threads) for notebook in found]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C those not yet begun don't begin


def refresh(only: str = "") -> Iterable[Outcome]:
    """Execute the committed notebooks at their defaults, and strip what differs between two runs (times, machine). One that
    fails stays as it was; what it had computed is in runs/refresh/."""
    out = records.TOP / "runs" / "refresh"
    for notebook in notebooks(only):
        outcome = _papermill(notebook, out / notebook.name, ())
        if outcome.status == "done":
            strip(outcome.output)
            os.replace(outcome.output, notebook)
        yield outcome


def _papermill(notebook: Path, output: Path, options: Iterable[str], threads: int | None = None) -> Outcome:
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "papermill", str(notebook), str(output), "--no-progress-bar", "--cwd", str(NOTEBOOKS), "-k", "python3",
               *options]
    began = time.perf_counter()
    run = subprocess.run(command, capture_output=True, text=True, env=environment(threads))
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    error = "" if run.returncode == 0 else (lines[-1] if lines else f"exit code {run.returncode}")
    return Outcome(notebook.stem, "failed" if run.returncode else "done", time.perf_counter() - began, (), output, error)


def strip(notebook: Path) -> None:
    """Remove papermill's metadata and the interpreter's version: a notebook run twice is the same file."""
    content = json.loads(notebook.read_text())
    content["metadata"] = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                           "language_info": {"name": "python"}}
    for cell in content["cells"]:
        cell["metadata"] = {name: value for name, value in cell["metadata"].items() if name == "tags" and value}
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")

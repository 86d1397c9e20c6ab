"""Records: what was run, what came out, on what. One JSON file a record, written whole or not at all, named by its hash."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from ddcore import compute, files
from ddcore.errors import Broken
from ddcore.files import checksums, whole
from ddcore.settings import digest

try:
    import resource
except ImportError:  # Windows counts no such thing
    resource = None

PACKAGE = Path(__file__).resolve().parents[1]
TOP = PACKAGE.parent
CHECKOUT = (TOP / "notebooks" / "presets.yaml").is_file()
SHIPPED = (
    TOP if CHECKOUT else PACKAGE / "shipped"
)  # what holds figures/ and notebooks/: an installed wheel brings its own


@dataclasses.dataclass(frozen=True)
class Record:
    """`experiment`: resolved settings, data sha256, component versions (these make the hash); `result`; `provenance`."""

    hash: str
    preset: str
    experiment: dict
    result: dict
    provenance: dict

    def setting(self, path: str) -> object:
        """The setting at a dotted path of the experiment, e.g. 'distill.steps'; None where there is none."""
        found: object = self.experiment
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    def save(self, folder: Path) -> Path:
        """`<folder>/<hash>.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.hash}.json"
        with whole(path) as part:
            part.write_text(
                json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n", encoding="utf-8"
            )
        return path


class OfRecord:
    """What is computed of the set of a record `of`, on its dataset."""

    of: Record

    @property
    def dataset(self) -> str:
        return self.of.experiment["dataset"]

    @property
    def holdout(self) -> float:
        return self.of.experiment["holdout"]


def sealed(record: Record) -> Record:
    """The same record, whose provenance holds a checksum of all the rest; those of before there were any have none."""
    return dataclasses.replace(record, provenance=record.provenance | {"record_sha256": _checksum(record)})


def _checksum(record: Record) -> str:
    return checksums.of_json(
        dataclasses.asdict(record)
        | {
            "provenance": {
                name: value for name, value in record.provenance.items() if name != "record_sha256"
            }
        }
    )


def read(path: Path) -> Record:
    """A record from its file. Raises Broken for one that is cut short, or whose content has not its hash or its checksum."""
    try:
        record = Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise Broken(
            f"{path}: not a whole record ({error}); remove it and run its experiment again"
        ) from error
    if digest(record.experiment) != record.hash or path.stem != record.hash:
        raise Broken(
            f"{path}: its experiment has hash {digest(record.experiment)}; the record was changed by hand, remove it"
        )
    if not isinstance(record.provenance, dict) or record.provenance.get(
        "record_sha256", _checksum(record)
    ) != _checksum(record):
        raise Broken(
            f"{path}: does not have the sha256 that it was written with; remove it and run its experiment again"
        )
    return record


def read_all(folder: Path) -> list[Record]:
    """Every record of a folder, by name; a hidden file is a step of a run not yet ended."""
    return [read(path) for path in sorted(folder.glob("[!.]*.json"))]


def matching(settings: Mapping[str, object], found: Iterable[Record] | None = None) -> list[Record]:
    """Of the records `found` (None: the committed ones) those whose experiment has all `settings`: by dotted path the value, None for a
    setting that must be absent, or a list of the values allowed."""
    found = read_all(SHIPPED / "figures" / "records") if found is None else found
    allowed = {path: value if isinstance(value, list) else [value] for path, value in settings.items()}
    return [
        record for record in found if all(record.setting(path) in values for path, values in allowed.items())
    ]


def sweep(folder: Path) -> None:
    """Remove what processes that were killed have left: as `ddcore.files.sweep` does, and checkpoints of what is recorded by now."""
    files.sweep(folder)
    for path in folder.glob(".*.checkpoint*"):
        if (folder / f"{path.name.split('.')[1]}.json").is_file() and os.access(folder, os.W_OK):
            path.unlink(missing_ok=True)


def _git(*arguments: str) -> str | None:
    if not (TOP / ".git").exists():  # what git found further up would be another project's
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(TOP), *arguments], capture_output=True, encoding="utf-8", timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def code_sha256() -> str:
    """sha256 over the package's source: says which code made a record, with or without git."""
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        found.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


@functools.cache
def code() -> dict:
    """Commit, whether the package differs from it, and sha256 of the package: read once and together, since a clone may move on while a
    process computes with what it had read before."""
    changes = _git("status", "--porcelain", "--", "ddcore")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
        "code_sha256": code_sha256(),
    }


@functools.cache
def hardware() -> dict:
    """What this machine computes with."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": gpu,
    }


def provenance(seconds: float, at: torch.device) -> dict:
    """Hardware, versions, wall seconds, peak memory (of a GPU as torch counts it, else of the whole process so far; None where the system
    does not tell), commit, whether the tree had changes, sha256 of the package; what the bits depend on as well: the vector instructions
    of the CPU, and the bytes of activations that a chunk of images may take (`ddcore.compute`). `at`: the device that computed."""
    if at.type == "cuda":
        peak = torch.cuda.max_memory_allocated(at)
    else:
        peak = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            if resource
            else None
        )
    versions = {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "numpy")}
    versions["python"] = platform.python_version()
    made_on = hardware() | {"threads": torch.get_num_threads()} | ({} if at.type == "cuda" else {"gpu": None})
    return {
        "hardware": made_on,
        "versions": versions,
        "seconds": round(seconds, 3),
        "peak_bytes": peak,
        **code(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "chunk_bytes": {kind: budget for kind, budget in compute.BUDGET.items() if kind.startswith(at.type)},
    }

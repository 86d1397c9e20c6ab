"""Workers for a batch: processes of this machine, a scheduler that stands, or a cluster that a file describes."""

import contextlib
import dataclasses
import importlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import dask
import yaml
from distributed import Client, Nanny, Scheduler, SpecCluster

from ddcore.errors import BadInput
from ddcore.files import records
from ddcore.lab import batch, values, worker
from ddcore.lab.scheduled import connect
from ddcore.settings import build, positive, unknown

LOOPBACK = "127.0.0.1"
MODULES = {
    "dask_jobqueue": (
        "SLURMCluster",
        "PBSCluster",
        "SGECluster",
        "LSFCluster",
        "OARCluster",
        "MoabCluster",
        "HTCondorCluster",
    ),
    "distributed": ("LocalCluster", "SSHCluster"),
    "dask_kubernetes.operator": ("KubeCluster",),
}
CLASSES = {name: module for module, names in MODULES.items() for name in names}
# Experiments are long and few: their workers are not sampled, and may die more often before the experiment is held to be the cause.
CONFIG = {
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.allowed-failures": 10,
    "distributed.admin.large-graph-warning-threshold": "1 GiB",
}


@dataclasses.dataclass(frozen=True)
class Workers:
    """As many as wait for work, between these."""

    most: int
    least: int = 0

    def __post_init__(self):
        if not 0 <= self.least <= self.most or self.most < 1:
            raise BadInput(
                f"workers: least={self.least} and most={self.most} must have 0 <= least <= most, and most at least 1"
            )


@dataclasses.dataclass(frozen=True)
class Description:
    """What a file says of a cluster: a name of `CLASSES`, the arguments of that class, and how many workers, or between which numbers."""

    cluster: str
    settings: Mapping = dataclasses.field(default_factory=dict)
    workers: int | Workers = 1

    def __post_init__(self):
        if self.cluster not in CLASSES:
            raise unknown("class of cluster", self.cluster, CLASSES)


@contextlib.contextmanager
def pool(
    *,
    workers: int | None = None,
    scheduler: str = "",
    file: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[batch.Pool]:
    """`workers` processes of this machine, those of a `scheduler`, or the cluster that `file` describes; what is begun here ends with the
    block. `say` is told where the scheduler and a dashboard are. Raises BadInput as `connect`, `described` and `local` do."""
    with contextlib.ExitStack() as stack:
        address = scheduler or stack.enter_context(local(workers) if workers else described(file))
        client = stack.enter_context(contextlib.closing(connect(address)))
        stack.callback(connect.cache_clear)
        if not scheduler:
            say(f"scheduler: {address}")
        if importlib.util.find_spec("bokeh"):
            say(f"dashboard: {client.dashboard_link}")
        yield batch.Pool(address, threads(workers) if workers else None)


@contextlib.contextmanager
def local(workers: int) -> Iterator[str]:
    """The address of a scheduler on loopback with so many worker processes, each with its share of the cores, and of the GPUs where there
    are some. They end with the block; what runs then keeps what it has."""
    positive("reproduce", workers=workers)
    environment = batch.environment(threads(workers))
    before_python = {
        name: environment[name]
        for name in environment
        if name.startswith(("MALLOC_", "OMP_", "MKL_", "OPENBLAS_"))
    }
    with dask.config.set(
        CONFIG | {"distributed.nanny.pre-spawn-environ": before_python | {"MALLOC_ARENA_MAX": 1}}
    ):
        options = {
            "nthreads": 1,
            "memory_limit": 0,
            "host": LOOPBACK,
            "dashboard": False,
            "silence_logs": logging.CRITICAL,
        }
        spec = {
            place: {"cls": Nanny, "options": options | {"env": environment | _gpu(place)}}
            for place in range(workers)
        }
        scheduler = {
            "cls": Scheduler,
            "options": {"host": LOOPBACK, "port": 0, "dashboard_address": f"{LOOPBACK}:0"},
        }
        with (
            SpecCluster(
                workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL, name="ddcore"
            ) as cluster,
            _handing_back(cluster.scheduler_address),
        ):
            yield cluster.scheduler_address


def threads(workers: int) -> int:
    """Cores of this machine for each of so many workers."""
    return max(1, records.hardware()["cores"] // workers)


def _gpu(place: int) -> dict[str, str]:
    """Which GPU a worker sees, the workers taking turns; {} where there is none."""
    import torch

    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    seen = seen or [str(number) for number in range(torch.cuda.device_count())]
    return {"CUDA_VISIBLE_DEVICES": seen[place % len(seen)]} if seen else {}


@contextlib.contextmanager
def described(path: Path) -> Iterator[str]:
    """The address of the scheduler of the cluster that a YAML file describes (`Description`). Raises BadInput, before anything is started,
    for a file that says something else."""
    cls, settings, least, most = read(path)
    with dask.config.set(CONFIG):
        try:
            cluster = cls(**_one_experiment_a_worker(cls, settings))
        except Exception as error:  # each class has its own
            raise BadInput(
                f"{path}: {cls.__name__} can't be started with these settings ({' '.join(str(error).split())[:300]})"
            ) from error
        with cluster:
            if least == most:
                cluster.scale(most)
            else:
                cluster.adapt(minimum=least, maximum=most)
            with _handing_back(cluster.scheduler_address):
                yield cluster.scheduler_address


def _one_experiment_a_worker(cls: type, settings: dict) -> dict:
    """The settings, with as many threads for torch as a worker has cores, and for Dask a single one."""
    if cls.__module__.startswith("dask_jobqueue"):
        settings = {
            "processes": 1
        } | settings  # the default of dask_jobqueue is several a job, and it counts in them
        share = max(1, settings.get("cores", 1) // settings["processes"])
        exports = [
            f"export {name}={value}"
            for name, value in {"OMP_NUM_THREADS": share, **batch.KEEP_MEMORY}.items()
        ]
        return settings | {
            "worker_extra_args": ["--nthreads", "1", *settings.get("worker_extra_args", [])],
            "job_script_prologue": [*exports, *settings.get("job_script_prologue", [])],
        }
    if cls.__name__ == "SSHCluster":
        return settings | {"worker_options": {"nthreads": 1} | settings.get("worker_options", {})}
    return (
        {"threads_per_worker": 1, "host": LOOPBACK, "memory_limit": 0}
        if cls.__name__ == "LocalCluster"
        else {}
    ) | settings


@contextlib.contextmanager
def _handing_back(address: str) -> Iterator[None]:
    """Before a cluster ends, have what its workers run keep what it has."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError), Client(address, timeout=5, set_as_default=False) as client:
            client.run(worker.hand_back, on_error="ignore")


def read(path: Path) -> tuple[type, dict, int, int]:
    """The class, its settings, the least and the most workers that the file asks for."""
    try:
        content = values.read(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(
            f"{path}: is no file of YAML that can be read ({' '.join(str(error).split())})"
        ) from error
    if not isinstance(content, Mapping):
        raise BadInput(f"{path}: describes no cluster; give a mapping with cluster, settings and workers")
    found = build(Description, content, str(path))
    module = CLASSES[found.cluster]
    try:
        cls = getattr(importlib.import_module(module), found.cluster)
    except ImportError as error:
        raise BadInput(
            f"{path}: {found.cluster} needs the package {module.split('.')[0].replace('_', '-')}, which is not installed "
            f"({error}); install it here"
        ) from error
    workers = found.workers if isinstance(found.workers, Workers) else Workers(found.workers, found.workers)
    return cls, dict(found.settings), workers.least, workers.most

"""A notebook run by papermill in a process of its own: a job in YAML comes on standard input, what went wrong goes out as JSON.

It imports nothing of ddcore, so that no torch lies in memory beside the kernel's. The kernel is started by this process's own Python,
whatever kernels are installed. A first signal interrupts the kernel, which keeps what it can; a second one kills it, and so does the end of
the process that gave the job. What had been computed is in the output either way.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from types import FrameType

import papermill
import yaml
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError


class Stopped(Exception):
    """A signal came between two cells."""


class Kernel(AsyncKernelManager):
    """The kernel of this process, and what has been asked of it."""

    signals = 0
    ours: "Kernel | None" = None
    cell: NotebookNode | None = None  # the one that runs

    def __init__(self, **keywords):
        super().__init__(**keywords)
        Kernel.ours = self

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict(["--IPKernelApp.log_level=40", "--HistoryManager.enabled=False"]))


def begin(cell: NotebookNode, **_) -> None:
    """What happens before each code cell."""
    if Kernel.signals:
        raise Stopped(f"before code cell `{_first_line(cell)}`")
    Kernel.cell = cell


def stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal: interrupt the kernel, or kill it and what it has started."""
    Kernel.signals += 1
    process = getattr(getattr(Kernel.ours, "provisioner", None), "process", None)
    if process is None:
        sys.exit(128 + number)
    if Kernel.signals == 1:
        process.send_signal(signal.SIGINT)
    else:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    """End the kernel and what it has started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def outlive_nobody(lifeline: int) -> None:
    """Wait until the other end of that pipe is closed, and end at once: nobody would hear of what is computed, another batch may begin."""
    os.read(lifeline, 1)
    process = getattr(getattr(Kernel.ours, "provisioner", None), "process", None)
    if process is not None:
        kill(process)
    shutil.rmtree(os.environ["IPYTHONDIR"], ignore_errors=True)
    os._exit(1)


def run(notebook: str, output: str, parameters: dict) -> str:
    """What went wrong, in a line, or ''. papermill takes braces in a path for the names of parameters, unless they are doubled."""
    paths = [path.replace("{", "{{").replace("}", "}}") for path in (notebook, output)]
    try:
        found = papermill.execute_notebook(
            *paths,
            parameters,
            kernel_name="python3",
            start_timeout=300,
            progress_bar=False,
            kernel_manager_class=Kernel,
            on_cell_execute=begin,
        )
    except PapermillExecutionError as error:
        return _last_line(f"{error.ename}: {error.evalue}")
    except DeadKernelError:
        return (
            f"the kernel died in code cell `{_first_line(Kernel.cell)}`"
            if Kernel.cell
            else "the kernel died before the first cell"
        )
    except Exception as error:  # of papermill's file handlers, the kernel's start, the hook above
        return _last_line(f"{type(error).__name__}: {error}")
    missing = [
        cell
        for cell in found.cells
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None
    ]
    return (
        f"ended early: {len(missing)} code cells were not run, the first of them `{_first_line(missing[0])}`"
        if missing
        else ""
    )


def _first_line(cell: NotebookNode) -> str:
    return cell.source.strip().splitlines()[0]


def _last_line(text: str) -> str:
    return [line for line in text.splitlines() if line.strip()][-1]


if __name__ == "__main__":
    for number in {getattr(signal, name, signal.SIGTERM) for name in ("SIGINT", "SIGTERM", "SIGHUP")}:
        signal.signal(number, stop)
    with tempfile.TemporaryDirectory() as os.environ["IPYTHONDIR"]:
        job = yaml.safe_load(sys.stdin)
        if (lifeline := job.pop("lifeline")) is not None:
            threading.Thread(target=outlive_nobody, args=(lifeline,), daemon=True).start()
        error = run(**job)
    print(json.dumps(error))
    sys.exit(bool(error))

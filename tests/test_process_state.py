"""Importing every module and calling the main functions leave a process as it was."""

import os
import subprocess
import sys

import pytest

from ddcore.files import records

PROGRAM = """
import ctypes, importlib, locale, os, pkgutil, signal, sys, warnings
import matplotlib, torch, torch._dynamo

COMPILED = sys.argv[1] == "compiled"

def double(x):
    return 2 * x

counted = []
def backend(graph, inputs):
    counted.append(graph)
    return graph.forward

users = torch.compile(double, backend=backend)

def malloc_keeps():
    try:
        ctypes.CDLL(None).malloc_trim(0)
        before = int(open("/proc/self/statm").read().split()[1])
        big = torch.ones(1 << 24)
        del big
        return int(open("/proc/self/statm").read().split()[1]) - before > 1 << 13  # pages
    except (OSError, AttributeError):
        return None

def plain(settings):
    return {name: str(settings[name]) for name in settings if name != "backend"}  # reading it chooses one

def state():
    users(torch.ones(3))
    flags = {name: getattr(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")}
    return {
        "matplotlib": {"backend": matplotlib.get_backend(auto_select=False), **plain(matplotlib.rcParams)},
        "warnings": list(warnings.filters),
        "dtype": torch.get_default_dtype(), "threads": torch.get_num_threads(), "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(), "matmul": torch.get_float32_matmul_precision(), "cudnn": flags,
        "onednn": torch.backends.mkldnn.enabled,
        "rng": torch.get_rng_state().tolist(), "dynamo": torch._dynamo.config.shallow_copy_dict(), "malloc keeps": malloc_keeps(),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()}, "locale": locale.setlocale(locale.LC_ALL),
        "environment": dict(os.environ), "graphs of the user's function": len(counted), "path": list(sys.path), "folder": os.getcwd(),
    }

import pandas, seaborn, scipy.stats, sklearn.datasets, IPython  # what other libraries do is theirs
if COMPILED:  # what torch.compile itself sets at its first call
    torch.compile(lambda x: x.sin() + 1)(torch.ones(2))
before = state()
import ddcore
for module in pkgutil.walk_packages(ddcore.__path__, "ddcore."):
    if module.name not in ("ddcore.__main__", "ddcore.lab.notebook_process"):
        importlib.import_module(module.name)
from ddcore.bench import profiles
data = ddcore.load("digits", device="cpu")
for turn in range(17 if COMPILED else 1):  # more than share what is compiled
    made = ddcore.Pixels(data, budget_ipc=1, seed=0)
    ddcore.distill(data, made, ddcore.DM(network="convnet1", width=2, batch_real=4, strategy="none", compiled=COMPILED), steps=1)
    if turn == 0:
        ddcore.distill(data, made, ddcore.DC(network="convnet1", width=2, batch_real=4, outer=1, inner=1, compiled=COMPILED), steps=1)
        ddcore.evaluate(made, data, seeds=[0], network="convnet1", width=2, epochs=1, strategy="none", compiled=COMPILED)
        profiles.shares(lambda: torch.ones(2) + 1, torch.device("cpu"), 1)
after = state()
for name, value in before.items():
    if value != after[name]:
        if isinstance(value, dict):
            differ = [key for key in {*value, *after[name]} if value.get(key) != after[name].get(key)]
            value, after[name] = ({key: one.get(key) for key in differ} for one in (value, after[name]))
        print(name, value, "became", after[name])
"""


@pytest.mark.parametrize("how", ["eager", "compiled"])
def test_a_process_is_left_as_it_was(how, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=environment | {"PYTHONPATH": str(records.TOP), "DDCORE_CACHE": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""

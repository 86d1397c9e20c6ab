"""Where the time of a step goes: the time of each operation itself, by kind, of the published structure and of ours."""

import contextlib
import os
from collections.abc import Iterator

import torch

from ddcore.bench.steps import STEPS, Case, providers
from ddcore.bench.timing import seconds
from ddcore.data import Dataset
from ddcore.settings import versioned

# kind: parts of the names of its operations; the first kind that fits counts. What the compiler has fused can't be told apart.
KINDS = {"convolution": ("conv",), "fused": ("CompiledFxGraph", "triton_"), "norm": ("group_norm", "batch_norm", "var_mean"),
         "ReLU and pooling": ("pool", "relu", "clamp_min", "threshold"), "augmentation": ("grid", "index", "flip", "sort"),
         "copies and casts": ("copy", "contiguous", "clone")}  # fmt: skip
OTHER = "other"


def kind(operation: str) -> str:
    """'aten::mkldnn_convolution' -> 'convolution'; OTHER where no kind fits."""
    return next((name for name, parts in KINDS.items() if any(part in operation for part in parts)), OTHER)


def shares(function, at: torch.device, repeats: int) -> dict[str, float]:
    """The share of each kind in the time of `repeats` calls, after one that is not counted."""
    function()
    cuda = at.type == "cuda"
    with (
        _quiet(),
        torch.autograd.profiler.profile(use_device="cuda" if cuda else None, use_kineto=cuda) as profiler,
    ):
        for _ in range(repeats):
            function()
    spent = dict.fromkeys((*KINDS, OTHER), 0.0)
    for one in profiler.key_averages():
        spent[kind(one.key)] += one.self_device_time_total if cuda else one.self_cpu_time_total
    return {name: value / sum(spent.values()) for name, value in spent.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The profiler reports no error on a machine without a GPU."""
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ.setdefault(name, "99")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


@versioned(version=2)
def profile(
    data: Dataset, *, seed: int, width: int, batch_real: int, ipc: int, repeats: int, compiled: bool = True
) -> list[dict]:
    """The steps of DM, DC and DSA, loss and image gradient, by kind of operation.

    Columns: name, provider, kind, share (of the step's time), seconds (that share of the median of the step, not profiled).
    """
    data.need(max(batch_real, ipc), "profile")
    return [
        {
            "name": f"{name} step, ipc {ipc}",
            "provider": provider,
            "kind": found,
            "share": round(share, 4),
            "seconds": float(f"{share * took:.4g}"),
        }
        for name, (_, _, strategy) in STEPS.items()
        for provider, one in providers(name, Case(data, ipc, batch_real, width, strategy), compiled).items()
        for took in (seconds(one.run, data.device, repeats),)
        for found, share in shares(one.run, data.device, repeats).items()
    ]

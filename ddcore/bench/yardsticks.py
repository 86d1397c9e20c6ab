"""What a benchmark measures with: providers of one step side by side, operations, bytes, and the machine's ceiling.

The providers take turns, round after round: `ratio` is the median over rounds of baseline seconds over this provider's in the
same round, `ratio_p20` and `ratio_p80` its percentiles, so that what slows the machine for a while slows both sides. `seconds` are
medians over the `n` rounds. `memory_ratio` is the baseline's most bytes held beyond the inputs over this provider's; `operations`
counts the operations dispatched that are no views, where nothing is compiled (a count does not depend on the machine);
`fraction_of_ceiling` is the useful floating-point operations a second over those of the faster of a large matrix product and a wide
convolution of the same precision, for kernels the bytes that must be moved over the bandwidth of a copy, all measured in the same
run; `max_rel_error` the largest error against the float64 baseline over its largest entry.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ddcore import compute
from ddcore.bench.timing import in_turns, seconds
from ddcore.random import stream


@dataclasses.dataclass(frozen=True)
class Provider:
    """One way to compute: `run` returns the tensor that is compared; `eager`: its operations can be counted."""

    run: Callable[[], Tensor]
    precision: str = "float32"
    eager: bool = True


@functools.cache
def ceiling(at: torch.device, dtype: torch.dtype, side: int = 3072) -> float:
    """Operations per second, of random numbers: the faster of a square matrix product and a 3x3 convolution, channels innermost, of as
    much work. On a CPU these are two libraries, and the convolution can be three times as fast."""

    def draw(name: str, *shape: int) -> Tensor:
        return torch.randn(shape, generator=stream(0, "ceiling", name, device=at), device=at).to(dtype)

    a, b = (draw(name, side, side) for name in ("a", "b"))
    width, image = 128, 16
    images = max(1, side**3 // (9 * (width * image) ** 2))
    x, weight = (
        draw(*shape).to(memory_format=torch.channels_last)
        for shape in (("x", images, width, image, image), ("weight", width, width, 3, 3))
    )
    convolved = 2 * 9 * (width * image) ** 2 * images / seconds(lambda: F.conv2d(x, weight, padding=1), at, 5)
    return max(2 * side**3 / seconds(lambda: a @ b, at, 5), convolved)


@functools.cache
def bandwidth(at: torch.device, numbers: int = 1 << 26) -> float:
    """Bytes per second, read and written, of a copy of random float32 numbers."""
    source = torch.randn(numbers, generator=stream(0, "bandwidth", device=at), device=at)
    target = torch.empty_like(source)
    return 2 * 4 * numbers / seconds(lambda: target.copy_(source), at, 5)


class _Operations(TorchDispatchMode):
    """Counts what is dispatched and is no view."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, kinds, arguments=(), keywords=None):
        self.count += not function.is_view
        return function(*arguments, **(keywords or {}))


def operations(function: Callable[[], object]) -> int:
    with _Operations() as counter:
        function()
    return counter.count


def peak_bytes(function: Callable[[], object], at: torch.device) -> int | None:
    """The most bytes that a call holds at once, beyond what was there before it; None where the system does not tell."""
    if at.type == "cuda":
        before = torch.cuda.memory_allocated(at)
        torch.cuda.reset_peak_memory_stats(at)
        function()
        return torch.cuda.max_memory_allocated(at) - before
    status, references = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not references.exists() or not compute.give_memory_back():
        return None
    references.write_text("5", encoding="utf-8")  # the peak begins anew (man 5 proc)
    before = _kilobytes(status, "VmRSS")
    function()
    return 1024 * max(1, _kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, name: str) -> int:
    return int(
        next(
            line.split()[1]
            for line in status.read_text(encoding="utf-8").splitlines()
            if line.startswith(name)
        )
    )


def compare(
    name: str,
    providers: dict[str, Provider],
    truth: Tensor | None,
    at: torch.device,
    rounds: int,
    *,
    flops: int | None = None,
    moved: int | None = None,
) -> list[dict]:
    """One row a provider, the first being the baseline; `flops` or `moved` (bytes) is the work that has to be done.

    Without a `truth` errors are distances from the baseline, and one call of each provider tells time and memory: for calls of many
    seconds, of what is compiled already.
    """
    runs, counted = [one.run for one in providers.values()], truth is not None
    if truth is None:
        found, spent, peaks = _at_once(runs, at)
    else:
        found = [run() for run in runs]  # this warms up as well
        spent = in_turns(runs, at, rounds)
        peaks = [peak_bytes(run, at) for run in runs]
    truth = found[0].double() if truth is None else truth
    errors = [float((one.double() - truth).abs().max() / truth.abs().max()) for one in found]
    medians = spent.quantile(0.5, dim=0).tolist()
    ratios = (
        (spent[:, :1] / spent).quantile(torch.tensor([0.2, 0.5, 0.8], dtype=spent.dtype), dim=0).T.tolist()
    )
    rows, work = [], flops or moved
    for (provider, one), error, took, (low, ratio, high), peak in zip(
        providers.items(), errors, medians, ratios, peaks, strict=True
    ):
        limit = work and (ceiling(at, getattr(torch, one.precision)) if flops else bandwidth(at))
        rows.append(
            {
                "name": name,
                "provider": provider,
                "ratio": round(ratio, 3),
                "ratio_p20": round(low, 3),
                "ratio_p80": round(high, 3),
                "memory_ratio": round(peaks[0] / peak, 3) if peak else None,
                "peak_bytes": peak,
                "operations": operations(one.run) if one.eager and counted else None,
                "fraction_of_ceiling": float(f"{work / took / limit:.3g}") if work else None,
                "max_rel_error": float(f"{error:.2e}"),
                "seconds": float(f"{took:.4g}"),
                "n": len(spent),
            }
        )
    return rows


def _at_once(
    runs: list[Callable[[], Tensor]], at: torch.device
) -> tuple[list[Tensor], Tensor, list[int | None]]:
    """What each returns, its seconds (1, runs) and its peak, of one call."""
    found, spent, peaks = [], [], []
    for run in runs:
        peaks.append(
            peak_bytes(lambda run=run: spent.append(in_turns([lambda: found.append(run())], at, 1)), at)
        )
    return found, torch.cat(spent, 1), peaks

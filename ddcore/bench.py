"""Benchmarks: each step against the published structure, in one run, with its distance from the machine's ceiling.

The baseline of a row is the published code's structure written plainly; `ratio` is baseline seconds over this provider's,
`fraction_of_ceiling` the network's floating-point operations per second over those of a large matrix product of the same
precision measured in the same run, `max_rel_error` the largest error of the image gradient against the float64 baseline over
the largest gradient. Times are medians.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from ddcore import augment, compute, networks
from ddcore.data import Dataset
from ddcore.evaluate import Protocol, accuracy, train
from ddcore.kernels.class_means import class_mean_distance
from ddcore.published import dm_per_class
from ddcore.random import stream

ROW = ("name", "provider", "ratio", "fraction_of_ceiling", "max_rel_error", "seconds", "n")


def seconds(function: Callable[[], object], at: torch.device, repeats: int) -> float:
    """Median wall seconds of `repeats` calls, after one that is not timed."""
    found = []
    for index in range(repeats + 1):
        began = time.perf_counter()
        function()
        if at.type == "cuda":
            torch.cuda.synchronize()
        found += [time.perf_counter() - began] if index else []
    return statistics.median(found)


def ceiling(at: torch.device, dtype: torch.dtype, side: int = 3072) -> float:
    """Operations per second of a square matrix product of random numbers."""
    a, b = (torch.randn(side, side, generator=stream(0, "ceiling", name, device=at), device=at).to(dtype) for name in ("a", "b"))
    return 2 * side**3 / seconds(lambda: a @ b, at, 5)


def dm_together(features: Callable, drawn: augment.Draw, real: torch.Tensor, real_labels: torch.Tensor, fake: torch.Tensor,
                labels: torch.Tensor, classes: int) -> torch.Tensor:
    """DM's loss as `ddcore.methods.DM` computes it: all classes in one pass, no tape on the real side."""
    with torch.no_grad():
        of_real = features(augment.apply(drawn, real, real_labels))[-1].flatten(1)
    return class_mean_distance(features(augment.apply(drawn, fake, labels))[-1].flatten(1), labels, of_real, real_labels, classes)


def dm_rows(data: Dataset, *, ipc: int, batch_real: int, width: int, repeats: int) -> list[dict]:
    """One row a provider for DM's step (loss and image gradient) on real images of `data`."""
    compute.keep_memory()
    at = data.device
    net = networks.build("convnet", data.shape, data.classes, width=width, device=at, generator=stream(0, "bench", device=at))
    net = net.requires_grad_(False)
    real_labels, labels = (torch.arange(data.classes, device=at).repeat_interleave(count) for count in (batch_real, ipc))
    real = data.x_train[data.sample(batch_real, stream(0, "bench", "real", device=at))]
    fake = data.x_train[data.sample(ipc, stream(0, "bench", "fake", device=at))].requires_grad_()
    drawn = augment.draw(augment.DSA, data.classes, stream(0, "bench", "draw", device=at))
    arguments = (drawn, real, real_labels, fake, labels, data.classes)

    def step(loss: Callable, first) -> Callable[[], torch.Tensor]:
        return lambda: torch.autograd.grad(loss(first, *arguments), fake)[0]

    def together(precision: str, compiled: bool) -> Callable:
        return step(dm_together, compute.accelerate(net.features, at, precision=precision, compiled=compiled))

    exact = networks.build("convnet", data.shape, data.classes, width=width, device=at, dtype=torch.float64,
                           generator=stream(0, "bench", device=at)).requires_grad_(False)
    exact.load_state_dict(net.state_dict())
    double = fake.detach().double().requires_grad_()
    truth = torch.autograd.grad(dm_per_class(exact, drawn, real.double(), real_labels, double, labels, data.classes), double)[0]
    with FlopCounterMode(display=False) as counter:
        together("float32", False)()
    limits = {"float32": ceiling(at, torch.float32), "bfloat16": ceiling(at, torch.bfloat16)}
    providers = {"per class (published)": ("float32", step(dm_per_class, net)), "together": ("float32", together("float32", False)),
                 "together, compiled": ("float32", together("float32", True)),
                 "together, compiled, bfloat16": ("bfloat16", together("bfloat16", True))}
    rows, baseline = [], None
    for provider, (precision, run) in providers.items():
        took = seconds(run, at, repeats)
        baseline = baseline or took
        error = float((run().double() - truth).abs().max() / truth.abs().max())
        fraction = counter.get_total_flops() / took / limits[precision]
        rows.append({"name": f"dm step, ipc {ipc}", "provider": provider, "ratio": round(baseline / took, 3),
                     "fraction_of_ceiling": round(fraction, 3), "max_rel_error": float(f"{error:.2e}"), "seconds": round(took, 4),
                     "n": repeats})
    return rows


def evaluate_rows(data: Dataset, *, ipc: int, width: int, networks_: int, repeats: int) -> list[dict]:
    """Networks trained one after another against all at once (ten epochs); the error is that of the accuracies."""
    index = data.sample(ipc, stream(0, "bench", "fake", device=data.device))
    images, labels = data.x_train[index], data.y_train[index]
    how = Protocol(width=width, epochs=10)
    seeds = tuple(range(networks_))
    runs = {"one after another (published)": lambda: [net for seed in seeds for net in train(images, labels, data, (seed,), how)],
            "all at once": lambda: train(images, labels, data, seeds, how)}
    rows, baseline, truth = [], None, None
    for provider, run in runs.items():
        took, scores = seconds(run, data.device, repeats), torch.tensor([accuracy(net, data) for net in run()])
        baseline, truth = baseline or took, scores if truth is None else truth
        rows.append({"name": f"evaluate {networks_} networks, ipc {ipc}", "provider": provider, "ratio": round(baseline / took, 3),
                     "fraction_of_ceiling": None, "max_rel_error": float(f"{float((scores - truth).abs().max()) / 100:.2e}"),
                     "seconds": round(took, 4), "n": repeats})
    return rows

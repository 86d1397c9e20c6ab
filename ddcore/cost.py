"""What a parametrisation costs a method: seconds and memory of an update, on equal stored numbers."""

import time
from collections.abc import Callable, Mapping

import torch

from ddcore import compute
from ddcore.bench import peak_bytes
from ddcore.data import Dataset
from ddcore.measurements import measurement
from ddcore.methods import METHODS
from ddcore.settings import build, positive
from ddcore.synthetic import create


@measurement(version=1)
def cost(data: Dataset, *, seed: int, methods: Mapping, kinds: Mapping, budget_ipc: int, rounds: int) -> list[dict]:
    """Updates of every method for every kind of set, the kinds taking turns, so that a machine's moods meet all of them alike.

    An update is what the loop does: the match with all that the method does for it (DC's network trained between two matches, MTT's
    student), and the gradient in what the set stores; the first is a warm-up. Columns: method, kind, images_per_class, round,
    seconds, peak_bytes (held at once beyond what was there before; None where the system does not tell).
    """
    positive("cost", budget_ipc=budget_ipc, rounds=rounds)
    compute.keep_memory()
    rows = []
    for name, chosen in methods.items():
        settings = {key: value for key, value in chosen.items() if key not in ("name", "synthetic")}
        method = build(METHODS[chosen["name"]], settings, f"method {chosen['name']}")
        sets = {kind: create(data, **{"budget_ipc": budget_ipc, "seed": seed} | one | chosen.get("synthetic", {}))
                for kind, one in kinds.items()}
        updates = {kind: _update(data, method, one, seed) for kind, one in sets.items()}
        for update in updates.values():
            update()
        for turn in range(rounds):
            rows += [{"method": name, "kind": kind, "images_per_class": sets[kind].per_class, "round": turn,
                      "seconds": float(f"{_seconds(update, data.device):.4g}")} for kind, update in updates.items()]
        peaks = {kind: peak_bytes(update, data.device) for kind, update in updates.items()}
        for row in rows[-rounds * len(kinds) :]:
            row["peak_bytes"] = peaks[row["kind"]]
    return rows


def _seconds(update: Callable, at: torch.device) -> float:
    began = time.perf_counter()
    update()
    if at.type == "cuda":
        torch.cuda.synchronize(at)
    return time.perf_counter() - began


def _update(data: Dataset, method, synthetic, seed: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    matches = method.matches(data, synthetic, seed=seed)
    return lambda: torch.autograd.grad(next(matches).loss, synthetic.parameters())

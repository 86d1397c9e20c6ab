"""What a parametrisation costs a method: seconds and memory of an update, on equal stored numbers."""

from collections.abc import Callable, Mapping

import torch

from ddcore.bench.timing import in_turns
from ddcore.bench.yardsticks import peak_bytes
from ddcore.data import Dataset
from ddcore.methods import method_of
from ddcore.settings import positive, versioned
from ddcore.synthetic import create


@versioned(version=1)
def cost(
    data: Dataset, *, seed: int, methods: Mapping, kinds: Mapping, budget_ipc: int, rounds: int
) -> list[dict]:
    """Updates of every method for every kind of set, the kinds taking turns, so that a machine's moods meet all of them alike.

    An update is what the loop does: the match with all that the method does for it (DC's network trained between two matches, MTT's
    student), and the gradient in what the set stores; the first is a warm-up. Columns: method, kind, images_per_class, round,
    seconds, peak_bytes (held at once beyond what was there before; None where the system does not tell).
    """
    positive("cost", budget_ipc=budget_ipc, rounds=rounds)
    rows = []
    for name, chosen in methods.items():
        method = method_of({key: value for key, value in chosen.items() if key != "synthetic"})
        sets = {
            kind: create(data, **{"budget_ipc": budget_ipc, "seed": seed} | one | chosen.get("synthetic", {}))
            for kind, one in kinds.items()
        }
        updates = {kind: _update(data, method, one, seed) for kind, one in sets.items()}
        for update in updates.values():
            update()
        spent = in_turns(list(updates.values()), data.device, rounds).tolist()
        peaks = [peak_bytes(update, data.device) for update in updates.values()]
        rows += [
            {
                "method": name,
                "kind": kind,
                "images_per_class": sets[kind].per_class,
                "round": turn,
                "seconds": float(f"{took:.4g}"),
                "peak_bytes": peak,
            }
            for turn, turns in enumerate(spent)
            for kind, took, peak in zip(kinds, turns, peaks, strict=True)
        ]
    return rows


def _update(data: Dataset, method, synthetic, seed: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    matches = method.matches(data, synthetic, seed=seed)
    return lambda: torch.autograd.grad(next(matches).loss, synthetic.parameters())

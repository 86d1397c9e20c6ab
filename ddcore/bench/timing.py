"""Wall seconds of calls, the device waited for."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def in_turns(functions: Sequence[Callable[[], object]], at: torch.device, rounds: int) -> Tensor:
    """(rounds, functions) wall seconds: each function once a round, there and back by turns, so that none always follows another."""
    spent = torch.zeros(rounds, len(functions), dtype=torch.float64)
    for index in range(rounds):
        for place in range(len(functions))[:: -1 if index % 2 else 1]:
            _wait(at)
            began = time.perf_counter()
            functions[place]()
            _wait(at)
            spent[index, place] = time.perf_counter() - began
    return spent


def _wait(at: torch.device) -> None:
    if at.type == "cuda":
        torch.cuda.synchronize(at)


def seconds(function: Callable[[], object], at: torch.device, repeats: int) -> float:
    """Median wall seconds of `repeats` calls, after one that is not timed."""
    function()
    return float(in_turns([function], at, repeats).quantile(0.5))

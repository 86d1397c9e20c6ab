"""How far a batch scales: experiments of known lengths handed to workers one after another, without a clock."""

import heapq
from collections.abc import Iterable, Sequence

from ddcore.settings import positive


def span(lengths: Iterable[float], workers: int) -> float:
    """When the last ends, each in its turn being given to the worker that is free first; in the unit of `lengths`."""
    positive("scaling", workers=workers)
    free = [0.0] * workers
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def used(lengths: Sequence[float], workers: int) -> float:
    """The share of the workers' time until then in which they compute."""
    return sum(lengths) / (workers * span(lengths, workers))

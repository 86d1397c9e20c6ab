"""Exponents of power laws fitted to sweeps, with intervals from a bootstrap over seeds."""

import pandas as pd
import torch
from torch import Tensor


def cube(frame: pd.DataFrame, *columns: str) -> Tensor:
    """(seeds, ...) the error by seed and `columns`, each in ascending order, float64; one row of the frame a cell, or not a number."""
    levels = [sorted(frame[name].unique()) for name in ("seed", *columns)]
    every = pd.MultiIndex.from_product(levels) if columns else pd.Index(levels[0])
    found = frame.set_index(["seed", *columns] if columns else "seed").error.reindex(every)
    return torch.tensor(found.to_numpy(), dtype=torch.float64).view([len(level) for level in levels])


def resampled(values: Tensor, generator: torch.Generator, draws: int = 2000) -> Tensor:
    """(seeds, ...) -> (1 + draws, ...): geometric means over the seeds, first of all of them, then of seeds drawn with replacement."""
    drawn = torch.randint(len(values), (draws, len(values)), generator=generator)
    logs, order = values.log(), torch.arange(len(values))
    return torch.stack([logs[chosen].mean(0).exp() for chosen in (order, *drawn)])


def needed(errors: Tensor, grid: Tensor, level: Tensor | float) -> Tensor:
    """(..., n) errors at an ascending `grid` (n,) or (..., n) -> (...): where they first fall to `level`, between two points of the
    grid on logarithmic axes.

    Not a number where they never do, and where they begin below it, unless the grid begins at 1: nothing needs less.
    """
    level, grid = (
        torch.as_tensor(level, dtype=errors.dtype)[..., None],
        grid.to(errors.dtype).expand_as(errors),
    )
    below = errors <= level
    at = below.int().argmax(-1, keepdim=True).clamp(min=1)
    (y0, y1), (x0, x1) = (
        (part.log().gather(-1, at - 1), part.log().gather(-1, at)) for part in (errors, grid)
    )
    found = (x0 + (y0 - level.log()) / (y0 - y1) * (x1 - x0)).exp()[..., 0]
    found = torch.where(below[..., 0], torch.where(grid[..., 0] == 1, 1.0, torch.nan), found)
    return torch.where(below.any(-1), found, torch.nan)


def slope(x: Tensor, y: Tensor) -> Tensor:
    """(n,), (..., n) -> (...): the least-squares slope of log y in log x over the places where y is a number."""
    known = ~y.isnan()
    count = known.sum(-1, keepdim=True)
    log_x, log_y = x.to(y.dtype).log().expand_as(y).where(known, 0), y.log().where(known, 0)
    log_x = (log_x - log_x.sum(-1, keepdim=True) / count).where(known, 0)
    return (log_x * log_y).sum(-1) / log_x.square().sum(-1)


def interval(slopes: Tensor) -> tuple[float, float, float]:
    """(1 + draws,) -> the first, and the 2.5 % and 97.5 % quantiles of the others."""
    low, high = slopes[1:].nanquantile(torch.tensor([0.025, 0.975], dtype=slopes.dtype)).tolist()
    return float(slopes[0]), low, high

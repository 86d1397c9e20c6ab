"""Images as a dataset holds them: stored in 8 bits, in the order of their source, and made into numbers when they are drawn."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from ddcore.data.zca import Whitening


class Stored(Protocol):
    """(N, H, W, C) pixels from 0 to 255: a uint8 tensor is one, memory-mapped or not, and so is a list of files."""

    shape: tuple[int, ...]
    device: torch.device

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(n,) int64 on `device` -> (n, H, W, C) uint8."""


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """`x[index]`, with whatever indexes the first axis of a tensor, draws (n, C, H, W) on `device`: pixels / 255, less `mean`, over `std`
    a channel, in float32, then in `dtype`; or whitened, where there is a `whitening`.

    `rows`: (n,) int64, which of the stored images these are, in their order. Nothing but what is drawn is ever formed: passes over all
    go through `split`.
    """

    stored: Stored
    rows: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    dtype: torch.dtype = torch.float32
    whitening: Whitening | None = None

    @property
    def shape(self) -> torch.Size:
        """(n, C, H, W)"""
        height, width, channels = self.stored.shape[1:]
        return torch.Size((len(self.rows), channels, height, width))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice | int | list[int]) -> Tensor:
        rows = self._rows(index)
        return self._draw(rows.flatten()).reshape(*rows.shape, *self.shape[1:])

    def split(self, size: int) -> Iterator[Tensor]:
        """All images, `size` drawn at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def part(self, index: Tensor | slice | list[int]) -> "Images":
        """The images of `index`, not drawn yet."""
        return dataclasses.replace(self, rows=self._rows(index))

    def pixels(self, size: int) -> Iterator[Tensor]:
        """All images as pixels in [0, 1], `size` of them at a time, (n, C, H, W) in `dtype`."""
        for rows in self.rows.split(size):
            yield self._pixels(rows).to(self.dtype)

    def to(self, dtype: torch.dtype) -> "Images":
        """The same images, drawn in another type."""
        return dataclasses.replace(self, dtype=dtype)

    def double(self) -> "Images":
        return self.to(torch.float64)

    def _rows(self, index) -> Tensor:
        if isinstance(index, tuple):
            raise IndexError(
                f"stored images are indexed along their first axis only; draw them first, as in x[rows][{index}]"
            )
        return self.rows[index.to(self.rows.device) if isinstance(index, Tensor) else index]

    def _pixels(self, rows: Tensor) -> Tensor:
        """(n, C, H, W) float32, contiguous, in [0, 1]."""
        drawn = self.stored[rows].to(self.device).permute(0, 3, 1, 2)
        return drawn.to(torch.float32, memory_format=torch.contiguous_format).div_(255)

    def _draw(self, rows: Tensor) -> Tensor:
        x = self._pixels(rows)
        if self.whitening:
            return self.whitening.apply(x.to(self.whitening.mean.dtype)).to(self.dtype)
        mean, std = self._statistics
        return x.sub_(mean).div_(std).to(self.dtype)

    @functools.cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=self.device).view(-1, 1, 1)
            for values in (self.mean, self.std)
        )
        return mean, std


def part(x: Images | Tensor, index: Tensor | slice | list[int]) -> Images | Tensor:
    """The images of `index`: not drawn if they are stored."""
    return x.part(index) if isinstance(x, Images) else x[index]

"""Images that stay in their files until they are drawn: decoded by several threads, the last ones kept."""

import collections
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddcore.data import decoding
from ddcore.errors import BadInput

KEPT_BYTES = 512 << 20
THREADS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class Kept:
    """The decoded images that were drawn last, as many as `limit` bytes hold."""

    def __init__(self, limit: int = KEPT_BYTES):
        self.limit, self.bytes, self._lock = limit, 0, threading.Lock()
        self._images: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()

    def get(self, name: str) -> np.ndarray | None:
        with self._lock:
            if name in self._images:
                self._images.move_to_end(name)
            return self._images.get(name)

    def put(self, name: str, image: np.ndarray) -> None:
        with self._lock:
            if name in self._images:
                return
            self._images[name], self.bytes = image, self.bytes + image.nbytes
            while self.bytes > self.limit:
                self.bytes -= self._images.popitem(last=False)[1].nbytes


class Files:
    """`files[rows]`: (n,) int64 -> (n, H, W, C) uint8, the images of `names` in the folder `root`, each of `sides` (after scaling and
    cutting to `size`, where that is given); a grey one among coloured ones takes three equal channels.

    `stamps`: (N, 3), the `stamp` of each file as it was when the dataset was loaded. Raises BadInput naming a file that is gone, not whole,
    or changed since.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        stamps: np.ndarray,
        sides: tuple[int, int],
        channels: int,
        size: int | None,
        kept: Kept,
    ):
        self.root, self.names, self.stamps, self.size, self.kept = root, names, stamps, size, kept
        self.shape = (len(names), *sides, channels)

    def __getitem__(self, rows: Tensor) -> Tensor:
        drawn = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def fill(places: Sequence[tuple[int, int]]) -> None:
            for place, row in places:
                drawn[place] = self._image(row)

        places = list(enumerate(rows.tolist()))
        if len(places) < 2 * THREADS:
            fill(places)
        else:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(fill, (places[first::THREADS] for first in range(THREADS))))
        return torch.from_numpy(drawn)

    def _image(self, row: int) -> np.ndarray:
        name = self.names[row]
        image = self.kept.get(name)
        if image is None:
            content, found = opened(self.root / name)
            if found != tuple(self.stamps[row, :2].tolist()):
                raise BadInput(
                    f"{self.root / name}: was written to after the dataset was loaded; load it again"
                )
            image = decoding.pixels(content, str(self.root / name), self.size)
            self.kept.put(name, image)
        return image


def opened(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Content, size in bytes and time of change of a file. Raises BadInput for one that can't be read."""
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            return file.read(), (stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise BadInput(f"{path}: can't be read ({error.strerror}); remove or replace it") from error


def stamp(path: Path) -> tuple[int, int, int]:
    """Of a file: size in bytes, time of change in nanoseconds, and that of a change of its name. Raises BadInput if it is not there."""
    try:
        stat = path.stat()
    except OSError as error:
        raise BadInput(f"{path}: can't be read ({error.strerror}); remove or replace it") from error
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

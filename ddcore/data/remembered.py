"""What was found out about a folder of files, kept for the next time: a small JSON in the cache folder."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ddcore.data.folders import cache_folder
from ddcore.files import whole

SETTLED_NS = (
    2_000_000_000  # a file that changed so lately may change again within one tick of its file system's clock
)


class Remembered:
    """Facts in plain JSON, by name; they hold for `root`, `version` and the names and `stamps` (`ddcore.data.files.stamp`) of
    its files."""

    def __init__(self, root: Path, version: int, names: Sequence[str], stamps: np.ndarray):
        key = hashlib.sha256(f"{version} {root.resolve()} ".encode() + stamps.tobytes())
        for name in names:
            key.update(name.encode() + b"\0")
        self.path = cache_folder() / "folders" / f"{key.hexdigest()[:16]}.json"
        self.settled = time.time_ns() - int(stamps[:, 1:].max()) > SETTLED_NS
        self.known: dict = {}
        with contextlib.suppress(OSError, ValueError, TypeError):
            self.known.update(json.loads(self.path.read_text(encoding="utf-8")))

    def recall(self, fact: str, find: Callable[[], object]):
        """What is known, else what `find()` finds, which is kept where the cache folder can be written to."""
        if fact not in self.known:
            self.known[fact] = find()
            if self.settled:
                with contextlib.suppress(OSError):
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    with whole(self.path) as part:
                        part.write_text(json.dumps(self.known), encoding="utf-8")
        return self.known[fact]

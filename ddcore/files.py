"""Files written whole or not at all, and by one process at a time where several need the same."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """`with whole(path) as part:` write to `part`, this thread's own; it takes the place of `path` at the end, or is removed if that
    fails."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: str | Path) -> Iterator[None]:
    """`with alone(path):` wait until no other process or thread is under the same `path`, a lock file of that name while it lasts."""
    while True:
        file = Path(path).open("a")  # noqa: SIM115 (closed with the lock)
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)
        if Path(path).exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            break
        file.close()  # the one before removed it
    try:
        yield
    finally:
        Path(path).unlink(missing_ok=True)
        file.close()

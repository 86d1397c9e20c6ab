"""Files written whole or not at all, and by one process at a time where several need the same."""

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

from ddcore.errors import BadInput
from ddcore.files.stopping import heed

CACHE = "set DDCORE_CACHE to a folder that can be written to"  # what to do where teachers and experts can't be kept


def made(folder: Path, remedy: str) -> Path:
    """`folder`, made if it is not there. Raises BadInput, which ends with `remedy`, where it can't be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise BadInput(f"{folder}: can't be made or written to ({error.strerror}); {remedy}") from error
    return folder


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """`with whole(path) as part:` write to `part`, this thread's own; it takes the place of `path` at the end, or is removed if that
    fails. Who may read it is what the umask says, whoever wrote it: safetensors makes files for their owner alone."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.touch()
        mode = part.stat().st_mode
        yield part
        if part.stat().st_mode != mode:
            part.chmod(stat.S_IMODE(mode))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: str | Path, *, busy: str = "") -> Iterator[None]:
    """`with alone(path):` wait until no other process or thread is under the same `path`, a lock file of that name while it lasts.

    With `busy`, what to say then, it does not wait: it raises BadInput.
    """
    with heed() as stop:
        while (file := _locked(Path(path))) is None:
            if busy:
                raise BadInput(busy)
            if stop:
                raise stop.interrupted(f"stopped while another process held {path}; nothing was begun")
            time.sleep(0.05)
    try:
        yield
    finally:
        Path(path).unlink(missing_ok=True)
        file.close()


def _locked(path: Path) -> IO | None:
    """The lock file, open and locked, or None while another has it."""
    file = path.open("a", encoding="utf-8")
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            return file
    except (BlockingIOError, FileNotFoundError):  # another has it, or the one before removed it
        pass
    file.close()
    return None

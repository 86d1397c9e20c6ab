"""Files written whole or not at all, and by one process at a time where several need the same."""

import contextlib
import errno
import os
import platform
import re
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
HOST = re.sub(r"\W", "_", platform.node()) or "here"
PART = re.compile(r"\..+\.(?P<host>\w+)-(?P<process>\d+)-\d+\.part")
OLD = 24 * 3600.0  # seconds after which a part is nobody's, whoever wrote it


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
    part = path.with_name(f".{path.name}.{HOST}-{os.getpid()}-{threading.get_ident()}.part")
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


def sweep(folder: Path) -> None:
    """Remove what processes that were killed have left in `folder`: parts of files, and locks that nobody holds. Where it can't be written
    to, nothing."""
    for path in folder.glob(".*") if os.access(folder, os.W_OK) else ():
        if found := PART.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                if (
                    found["host"] == HOST and not _runs(int(found["process"]))
                ) or time.time() - path.stat().st_mtime > OLD:
                    path.unlink()
        elif path.suffix in (".lock", ".here"):
            with contextlib.suppress(BadInput), alone(path, busy="held"):
                pass


def _runs(process: int) -> bool:
    if os.name != "posix":  # where signal 0 is one that is sent
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


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

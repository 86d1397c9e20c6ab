"""Ctrl-C, SIGTERM and the end of a terminal: asked of between two steps, so that what was computed is kept, or an exception at once.

Signals reach the main thread alone, and `tell` hands one on to the others; one that was ignored before, as nohup and a shell's background
jobs ask for, stays so.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from ddcore.errors import Interrupted

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
ECHO = 1.0  # seconds within which a second signal is the first one again: `timeout` and some schedulers send each twice


class Stop:
    """True once a signal has asked to stop; `number` says which."""

    number: int | None = None

    def __bool__(self) -> bool:
        return self.number is not None

    def interrupted(self, what: str) -> Interrupted:
        """The exception that answers it; `what`: where the work stopped, and what is kept of it."""
        return Interrupted(what, self.number)


_heeding: Stop | None = None
_told = Stop()  # that of all threads but the main one


def tell(number: int) -> None:
    """Ask every thread but the main one to stop, from now on: those of a process that is about to end."""
    _told.number = number


def told() -> bool:
    """Whether threads have been asked to stop."""
    return bool(_told)


@contextlib.contextmanager
def heed() -> Iterator[Stop]:
    """`with heed() as stop:` a signal sets `stop`, which the block asks between its steps and answers with `stop.interrupted`; another
    one, later, does what it did before the block. In another thread than the main one it is `tell` that sets it.

    Within such a block it is the same `stop`. A block that ends without an answer has the signal sent again.
    """
    global _heeding
    if threading.current_thread() is not threading.main_thread():
        yield _told
        return
    if _heeding is not None:
        yield _heeding
        return
    stop, asked = Stop(), 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not stop:
            stop.number, asked = number, time.monotonic()
        elif time.monotonic() - asked > ECHO:
            restore()
            signal.raise_signal(number)

    restore = _handle(ask)
    _heeding = stop
    try:
        yield stop
    finally:
        _heeding = None
        restore()
    if stop:
        signal.raise_signal(stop.number)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Outside of blocks that heed them, signals raise `Interrupted` wherever this block is: what has to be undone is undone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raised = -ECHO

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        if time.monotonic() - raised > ECHO:
            raised = time.monotonic()
            raise Interrupted(f"stopped by {called(number)}; nothing half-written is left", number)

    restore = _handle(leave)
    try:
        yield
    finally:
        restore()


def called(number: int) -> str:
    """As a reader calls it."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _handle(handler: Callable[[int, FrameType | None], None]) -> Callable[[], None]:
    """Hand the signals to `handler`; returns what undoes that."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = {number: one for number, one in before.items() if one not in (signal.SIG_IGN, None)}
    for number in taken:
        signal.signal(number, handler)

    def restore() -> None:
        for number, one in taken.items():
            signal.signal(number, one)

    return restore

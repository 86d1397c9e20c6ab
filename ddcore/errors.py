"""What can go wrong because of what was given: one sentence each, exit code 2 on the command line."""

import signal


class BadInput(ValueError):
    """Names what was given, what is allowed and what to do, in one sentence."""


class Broken(BadInput):
    """A file that ddcore wrote is cut short or holds other bytes than were written; it can be made anew."""


class Diverged(RuntimeError):
    """A loss or gradient stopped being finite; the last finite state was kept."""


class Failed(RuntimeError):
    """Some of several experiments could not be computed elsewhere: says which and why."""


class Interrupted(BaseException):
    """A signal asked to stop (`number`); says where that was and what is kept. Like KeyboardInterrupt it is no Exception: nothing that
    handles failures may swallow it."""

    def __init__(self, what: str, number: int = signal.SIGINT):
        super().__init__(what)
        self.number = number

"""What can go wrong because of what was given: one sentence each, exit code 2 on the command line."""


class BadInput(ValueError):
    """Names what was given, what is allowed and what to do, in one sentence."""


class Diverged(RuntimeError):
    """A loss or gradient stopped being finite; the last finite state was kept."""


class Interrupted(RuntimeError):
    """Ctrl-C between two steps; the state was saved."""

"""Printing never fails: what a terminal of another encoding can't write is spelt in ASCII."""

import codecs
import sys

SPELT = {"±": "+/-", "−": "-", "–": "-", "×": "x", "·": "*", "…": "...", "≥": ">=", "≤": "<=", "²": "^2"}


def spell(error: UnicodeError) -> tuple[str, int]:
    """A handler of errors for `codecs.register_error`: '?' for what has no spelling."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(SPELT.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error("spell", spell)


def forgiving() -> None:
    """Have standard output and error of this process spell what they can't encode."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="spell")

"""The figures: a registry of them (`registry`), how they look (`style`), how they are cited (`citation`), which commits their records name
(`commits`), and a drawing for each id (`drawings`)."""

from ddcore.figures.registry import (
    FILES,
    FOLDER,
    FORMATS,
    LINKED,
    Entry,
    bibliography,
    check,
    cite,
    data,
    draw,
    entries,
    entry,
    index,
    load,
    mark,
    provenance_line,
    published,
    redraw,
    remarks,
    save,
    to_png,
    unchecked,
)
from ddcore.figures.style import COLUMN, PAGE, STYLE

__all__ = ["COLUMN", "FILES", "FOLDER", "FORMATS", "LINKED", "PAGE", "STYLE", "Entry", "bibliography", "check", "cite", "data", "draw",
           "entries", "entry", "index", "load", "mark", "provenance_line", "published", "redraw", "remarks", "save", "to_png",
           "unchecked"]  # fmt: skip

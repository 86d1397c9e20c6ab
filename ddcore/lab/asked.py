"""Which records a run of a notebook has asked for so far, in `asked/<notebook>.json` of its folder: what a batch still misses is known from
it alone, since a notebook chooses its experiments by results."""

import json
from collections.abc import Iterable
from pathlib import Path

from ddcore.files import made, whole

FOLDER = "asked"


class Asked:
    """The hashes that one run of `notebook` asks for; `folder` None keeps none."""

    def __init__(self, folder: Path | None, notebook: str):
        self.path = folder / FOLDER / f"{notebook}.json" if folder else None
        self.hashes: dict[str, None] = {}

    def note(self, hashes: Iterable[str]) -> None:
        """Add `hashes` to what this run has asked for; the file of an earlier run is replaced."""
        self.hashes |= dict.fromkeys(hashes)
        if self.path:
            made(self.path.parent, "name another folder in out")
            with whole(self.path) as part:
                part.write_text(json.dumps([*self.hashes]), encoding="utf-8")


def read(folder: Path) -> dict[str, list[str]]:
    """By notebook the hashes that its last run asked for; a file that is not whole counts as absent."""
    found = {}
    for path in sorted((folder / FOLDER).glob("[!.]*.json")):
        try:
            found[path.stem] = [str(one) for one in json.loads(path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            continue
    return found

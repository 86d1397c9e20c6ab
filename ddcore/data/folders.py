"""Where datasets lie, and where what was found out about them is kept."""

import os
from pathlib import Path


def data_folder() -> Path:
    """Where datasets lie: $DDCORE_DATA, else ~/.cache/ddcore."""
    return Path(os.environ.get("DDCORE_DATA") or Path.home() / ".cache" / "ddcore").expanduser()


def cache_folder() -> Path:
    """Where ddcore keeps what it can make again: $DDCORE_CACHE, else the data folder."""
    return Path(os.environ.get("DDCORE_CACHE") or data_folder()).expanduser()

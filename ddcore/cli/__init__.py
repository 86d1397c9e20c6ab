"""The command line: `ddcore --help`."""

from ddcore.cli.commands import app, main

__all__ = ["app", "main"]

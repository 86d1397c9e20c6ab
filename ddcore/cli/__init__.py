"""The command line: `ddcore --help`."""

from ddcore.cli.app import app, main

__all__ = ["app", "main"]

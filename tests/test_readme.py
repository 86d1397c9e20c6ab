"""The README says what is so: its generated table, its numbers, its commands."""

import re
import shlex

from typer.main import get_command

from ddcore import figures, records
from ddcore.cli import app

README = (records.TOP / "README.md").read_text()


def test_the_table_of_figures_is_the_generated_one():
    assert README.split("`ddcore figures index` -->\n")[1].split("\n<!-- end -->")[0] == figures.index()


def test_every_command_it_shows_parses():
    blocks = re.findall(r"^```\w*\n(.*?)^```", README, re.S | re.M)
    shown = [line.split("#")[0] for block in blocks for line in block.splitlines() if line.startswith("ddcore")]
    assert len(shown) >= 5
    for line in shown:
        command, words = get_command(app), shlex.split(line)[1:]
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        command.make_context(command.name, words)


def test_every_file_it_names_is_there():
    for name in re.findall(r"`((?:figures|notebooks|tests)/[\w./-]+|[\w-]+\.(?:lock|yml|cff|toml))`", README):
        assert (records.TOP / name).exists(), name


def test_no_placeholder_is_left():
    assert not re.search(r"[A-Z]+_TIME|^RESULTS$|TODO", README, re.M)

"""Printing and reading where neither terminal nor locale know UTF-8, and the system lacks what is of Unix."""

import io
import os
import subprocess
import sys

import pytest

import ddcore
from ddcore.cli import terminal  # noqa: F401 (it registers the handler)


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "71.1 ± 0.8 … 3 × 2 · α", "71.1 +/- 0.8 ... 3 x 2 * ?"),
        ("cp1252", "71.1 ± 0.8, −1 ≤ x²", "71.1 ± 0.8, -1 <= x²"),
        ("utf-8", "71.1 ± 0.8 ≥ α", "71.1 ± 0.8 ≥ α"),
        ("latin-1", "a–b", "a-b"),
    ],
)
def test_what_can_not_be_encoded_is_spelt(encoding, text, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="spell")
    stream.write(text)
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == shown


def test_what_can_not_be_decoded_stays_an_error():
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("utf-8", errors="spell")


COMMANDS = """
import contextlib, sys
sys.modules |= {"resource": None, "fcntl": None}
from ddcore import cli
for command in ("figures list", "figures cite lodc-rank", "data check digits", "doctor",
                "evaluate syn.safetensors --width 8 --epochs 1 --seeds 2",
                "distill --width 8 --steps 1 --batch-real 8 --out made.safetensors"):
    sys.argv = ["ddcore", *command.split()]
    with contextlib.suppress(SystemExit):
        cli.main()
    print("END", flush=True)
"""


LOCALES = {"ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
           "cp1252": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "cp1252"}}  # fmt: skip


@pytest.mark.parametrize("encoding", LOCALES)
def test_commands_work_without_utf_8_and_without_what_is_of_unix(tmp_path, encoding):
    ddcore.LowRank(ddcore.load("digits", "cpu"), 1, rank=1, seed=0).save(tmp_path / "syn.safetensors")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment |= LOCALES[encoding] | {"COLUMNS": "300"}
    run = subprocess.run([sys.executable, "-c", COMMANDS], env=environment, cwd=tmp_path, capture_output=True)
    out, err = run.stdout.decode(encoding), run.stderr.decode(errors="replace")
    assert run.returncode == 0, err
    assert "Traceback" not in err
    listed, cited, checked, examined, evaluated, distilled = out.split("END\n")[:6]
    assert "lodc-rank" in listed
    assert "\\begin{figure}" in cited
    assert "1,437 + 360 images" in checked
    assert "torch" in examined
    assert ("+/-" if encoding == "ascii" else "±") in evaluated
    assert (tmp_path / "made.safetensors").is_file(), distilled

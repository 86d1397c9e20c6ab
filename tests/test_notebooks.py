"""The committed notebooks: nbval computes them anew and compares what they print; papermill runs them with other parameters."""

import json
import shutil
import subprocess
import sys

import pytest

from ddcore import figures
from ddcore.lab import batch

NOTEBOOKS = batch.notebooks()
NBVAL = [
    sys.executable,
    "-m",
    "pytest",
    "--nbval-lax",
    "--nbval-current-env",
    "--nbval-cell-timeout=240",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-o",
    "addopts=",
    "-o",
    "filterwarnings=",
    "-q",
    "--nbval-sanitize-with",
    str(batch.NOTEBOOKS.parent / "tests" / "nbval.cfg"),
]


@pytest.fixture(scope="session")
def nbval(tmp_path_factory):
    """The exit code and the report of nbval on a notebook, with a cache of its own: of what an older one holds and is passed over, a line
    is printed (`ddcore.files.passed_over`), and no committed notebook has that line."""
    cache = {"DDCORE_CACHE": str(tmp_path_factory.mktemp("cache"))}

    def run(path):
        done = subprocess.run(
            [*NBVAL, str(path)],
            capture_output=True,
            encoding="utf-8",
            env=batch.environment() | cache,
            cwd=path.parent,
        )
        return done.returncode, done.stdout

    return run


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_nbval_finds_the_printed_outputs_again(notebook, nbval):
    code, text = nbval(notebook)
    assert code == 0, text


@pytest.mark.parametrize("notebook", NOTEBOOKS[:1], ids=lambda path: path.stem)
def test_nbval_compares_something(notebook, nbval, tmp_path):
    """One digit of one checked output changed: nbval must fail, or it compared nothing."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    checked = [
        cell
        for cell in content["cells"]
        if "nbval-check-output" in cell["metadata"].get("tags", []) and cell["outputs"]
    ]
    checked[-1]["outputs"][0]["text"] = ["something else\n"]
    changed = tmp_path / notebook.name
    changed.write_text(json.dumps(content), encoding="utf-8")
    code, text = nbval(changed)
    assert code == 1
    assert "1 failed" in text


def test_other_parameters_reach_the_notebook_and_only_out_is_written(tmp_path):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in figures.FOLDER.rglob("*"))
    given = {
        "preset": "smoke",
        "seeds": [7, 8],
        "steps": 12,
        "epochs": 20,
        "batch_real": 9,
    }  # the last one is the preset's alone
    notebook = batch.notebooks("11")[0]
    batch.check(notebook, given)
    outcome = batch.execute(notebook, tmp_path / "run", given, None, batch.Orders())
    assert outcome.status == "done", outcome.error
    found = [
        json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "run" / "records").glob("*.json")
    ]
    assert {record["experiment"]["seed"] for record in found} == {7, 8}
    assert {
        record["experiment"]["evaluate"]["epochs"] for record in found if not record["experiment"]["holdout"]
    } == {20}
    assert {
        record["experiment"]["method"]["batch_real"] for record in found if record["experiment"]["method"]
    } == {9}
    marks = {"steps": 12, "epochs": 20, "batch_real": 9}
    assert all(record["provenance"]["overrides"] == marks for record in found)
    assert figures.load("lodc-rank", tmp_path / "run" / "figures")["overrides"] == marks
    assert set(outcome.figures) == {"lodc-same-memory", "lodc-same-count", "lodc-rank", "lodc-images"}
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in figures.FOLDER.rglob("*"))


def test_a_present_record_is_not_made_again(tmp_path):
    notebook, given = batch.notebooks("10")[0], {"preset": "smoke", "seeds": [0]}
    assert batch.execute(notebook, tmp_path, given, None, batch.Orders()).status == "done"
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()}
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    shutil.rmtree(tmp_path / "figures")
    assert batch.execute(notebook, tmp_path, given, None, batch.Orders()).status == "done"
    assert records == {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}


def test_a_parameter_that_papermill_injects_misspelt_is_refused_before_anything_is_computed(tmp_path):
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(batch.notebooks("11")[0]),
        str(tmp_path / "out.ipynb"),
        "-p",
        "step",
        "5",
    ]
    run = subprocess.run(
        command, capture_output=True, encoding="utf-8", env=batch.environment(), cwd=batch.NOTEBOOKS
    )
    assert run.returncode == 1
    assert "BadInput: unknown parameter of 11_low_rank_condensation 'step'" in run.stderr
    ran = [
        cell
        for cell in json.loads((tmp_path / "out.ipynb").read_text(encoding="utf-8"))["cells"]
        if cell.get("execution_count")
    ]
    assert len(ran) == 4, "imports, parameters, what was injected, the study"

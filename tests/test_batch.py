"""The batch, and what holds for every committed notebook and preset."""

import ast
import builtins
import json
import os
import re
import shutil
import signal
import sys
import threading
import time

import pytest
import yaml
from papermill import inspect_notebook

from ddcore import cli
from ddcore.files import alone, records
from ddcore.lab import batch

NOTEBOOKS = batch.notebooks()
PRESETS = yaml.safe_load((batch.NOTEBOOKS / "presets.yaml").read_text(encoding="utf-8"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code(path) -> list[dict]:
    return [cell for cell in cells(path) if cell["cell_type"] == "code"]


def source(cell) -> str:
    return "".join(cell["source"])


def output_text(cell) -> str:
    found = []
    for output in cell.get("outputs", []):
        found.append("".join(output.get("text", [])))
        found += [
            "".join(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/")
        ]
    return "\n".join(found)


# presets


@every_notebook
def test_presets_change_numbers_only(path):
    """Every preset names the same parameters of a notebook, of the same types."""
    found = [batch.preset(name, path.stem) for name in batch.PRESETS]
    assert list(PRESETS) == list(batch.PRESETS)
    for one in found:
        assert {key: type(value) for key, value in one.items()} == {
            key: type(value) for key, value in found[0].items()
        }
    assert found[0].get("dataset", "digits") == "digits", "smoke takes embedded data, or none"


def test_desk_has_the_numbers_of_laptop_where_it_names_no_others():
    for path in NOTEBOOKS:
        longer, laptop = PRESETS["desk"].get(path.stem, {}), PRESETS["laptop"][path.stem]
        assert batch.preset("desk", path.stem) == laptop | longer
        assert set(longer) < set(laptop) or not longer
    assert any(PRESETS["desk"].values())


def test_every_preset_belongs_to_a_notebook():
    for name in batch.PRESETS:
        assert set(PRESETS[name]) <= {path.stem for path in NOTEBOOKS}


def test_a_preset_gives_its_numbers_and_takes_others():
    name = "11_low_rank_condensation"
    found = batch.preset("smoke", name)
    assert found == PRESETS["smoke"][name]
    found["lrs"].append(3.0)
    found = batch.preset("smoke", name)
    assert found == PRESETS["smoke"][name], "a copy"
    assert batch.preset("smoke", name, {"steps": 3, "epochs": None}) == found | {"steps": 3}
    assert batch.preset("smoke", name, {"lrs": [1, 0.5], "compiled": True}) == found | {
        "lrs": [1, 0.5],
        "compiled": True,
    }
    assert batch.preset("smoke", name) == found
    assert batch.preset("laptop", name) != found
    teacher = batch.preset("smoke", "40_variance_and_weights")["teacher"]
    assert batch.preset("smoke", "40_variance_and_weights", {"teacher": {"epochs": 2}})[
        "teacher"
    ] == teacher | {"epochs": 2}


@pytest.mark.parametrize(("preset", "given", "words"), [
    ("smok", {}, ("preset", "'smok'", "did you mean 'smoke'")),
    ("smoke", {"step": 1}, ("11_low_rank_condensation", "'step'", "did you mean 'steps'")),
    ("smoke", {"steps": 1.0}, ("steps=1.0", "float", "int")),
    ("smoke", {"steps": "1"}, ("steps='1'", "str", "int")),
    ("smoke", {"steps": True}, ("steps=True", "bool", "int")),
    ("smoke", {"compiled": 1}, ("compiled=1", "bool")),
    ("smoke", {"network": 3}, ("network=3", "str")),
    ("smoke", {"lrs": 1.0}, ("lrs=1.0", "list")),
    ("smoke", {"lrs": ["a"]}, ("lrs[0]='a'", "float")),
    ("smoke", {"ipcs": [1, 2.5]}, ("ipcs[1]=2.5", "int")),
    ("smoke", {"ipcs": []}, ("ipcs=[]", "empty")),
], ids=str)  # fmt: skip
def test_a_bad_preset_or_number_is_refused(refuses, preset, given, words):
    with refuses(*words):
        batch.preset(preset, "11_low_rank_condensation", given)


# the committed notebooks


@every_notebook
def test_parameters_are_read_and_checked(path):
    found = batch.defaults(path)
    assert {"preset", "seeds", "device", "out"} <= set(found)
    assert (found["preset"], found["device"], found["out"]) == ("smoke", "auto", "")
    assert {name for name, value in found.items() if value is None} <= set(PRESETS["smoke"][path.stem])
    batch.check(path, found)


@every_notebook
def test_papermill_sees_every_parameter(path):
    """A comment with '=' hides one from its inspection, which formats the path: braces in that of a clone are doubled."""
    assert set(inspect_notebook(str(path).replace("{", "{{").replace("}", "}}"))) == set(batch.defaults(path))


@every_notebook
def test_a_study_is_given_every_parameter(path):
    """So that what it finds beside them was injected, or is a misspelling."""
    calls = [
        node
        for cell in code(path)
        for node in ast.walk(ast.parse(source(cell)))
        if isinstance(node, ast.Call)
    ]
    study = next(call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Study")
    assert study.args[0].value == path.stem
    assert {keyword.arg for keyword in study.keywords} == set(batch.defaults(path))


@every_notebook
@pytest.mark.parametrize("preset", ["laptop", "desk", "paper"])
def test_a_larger_preset_as_it_is_lands_in_figures(path, preset):
    assert batch.lands(preset, path.stem, {"seeds": batch.defaults(path)["seeds"]}) == ""


@every_notebook
@pytest.mark.parametrize("preset", batch.PRESETS)
def test_every_number_of_a_preset_can_be_given(path, preset):
    numbers = batch.preset(preset, path.stem)
    assert batch.preset(preset, path.stem, numbers) == numbers
    given = {name: value for name, value in numbers.items() if value is not None}
    batch.check(path, {"preset": preset} | given)


@every_notebook
def test_no_number_of_a_preset_hides_a_name_that_the_notebook_reads(path):
    """papermill assigns what it is given in the notebook's own namespace: `map` or an import would be another."""
    trees = [ast.parse(source(cell)) for cell in code(path)]
    imported = {
        name.asname or name.name.split(".")[0]
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    read = {
        node.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    hidden = (imported | set(dir(builtins))) & read
    assert not hidden & set(PRESETS["smoke"][path.stem])


@every_notebook
def test_every_parameter_is_used_after_its_cell(path):
    at = next(
        index for index, cell in enumerate(code(path)) if "parameters" in cell["metadata"].get("tags", [])
    )
    later = ast.walk(ast.parse("\n".join(source(cell) for cell in code(path)[at + 1 :])))
    read = {node.id for node in later if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert set(batch.defaults(path)) <= read
    assert at == 1, "the second code cell"


@every_notebook
def test_every_number_of_the_preset_is_used(path):
    """As numbers["key"] or settings["key"], or by a loop over names that hold it; `seeds` by the study itself."""
    used = {
        node.value
        for cell in code(path)
        for node in ast.walk(ast.parse(source(cell)))
        if isinstance(node, ast.Constant)
    }
    assert set(PRESETS["smoke"][path.stem]) - {"seeds"} <= used


@every_notebook
def test_no_notebook_asks_which_preset_it_is(path):
    assert not [
        cell for cell in code(path) if re.search(r"\b(if|while)\b[^\n]*\b(preset|smoke)\b", source(cell))
    ]


@every_notebook
def test_a_notebook_was_run_from_top_to_bottom_without_error(path):
    assert [cell["execution_count"] for cell in code(path)] == list(range(1, len(code(path)) + 1))
    outputs = [output for cell in code(path) for output in cell["outputs"]]
    assert not [
        output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"
    ]
    assert not [
        cell
        for cell in cells(path)
        if set(cell["metadata"].get("tags", [])) - {"parameters", "nbval-check-output"}
    ]


@every_notebook
def test_a_notebook_is_of_a_size_to_be_read(path):
    assert 15 <= len(cells(path)) <= 40
    assert max(len(source(cell).splitlines()) for cell in code(path)) <= 12
    assert path.stat().st_size < 1e6
    assert cells(path)[0]["cell_type"] == "markdown"
    assert source(cells(path)[0]).startswith("# ")


@every_notebook
def test_a_notebook_is_of_no_machine(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["metadata"] == {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                                   "language_info": {"name": "python"}}  # fmt: skip
    shown = "\n".join(source(cell) + output_text(cell) for cell in content["cells"])
    assert not re.search(r"(?<![\w.)}~-])/(work|root|tmp|home|Users|opt|usr)/|[A-Z]:\\", shown)


@every_notebook
def test_outputs_are_compared(path):
    checked = [cell for cell in code(path) if "nbval-check-output" in cell["metadata"].get("tags", [])]
    assert len(checked) >= 4
    assert all(output_text(cell).strip() for cell in checked), "a cell that prints nothing compares nothing"


@every_notebook
def test_strip_changes_nothing_in_a_committed_notebook_and_is_idempotent(path, tmp_path):
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    batch.strip(copy)
    assert copy.read_text(encoding="utf-8") == path.read_text(encoding="utf-8"), (
        "commit what `ddcore refresh` writes"
    )
    content = json.loads(path.read_text(encoding="utf-8"))
    content["metadata"]["papermill"] = {"duration": 3.4}
    content["metadata"]["language_info"]["version"] = "3.11.7"
    for cell in content["cells"]:
        cell["metadata"] |= {"papermill": {"duration": 1.0}, "execution": {"iopub.status.busy": "2026"}}
    copy.write_text(json.dumps(content), encoding="utf-8")
    batch.strip(copy)
    assert copy.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


# choosing notebooks


def test_notebooks_by_the_beginning_of_their_names(refuses):
    stems = [path.stem for path in NOTEBOOKS]
    assert stems == sorted(stems)
    assert all(re.match(r"\d\d_[a-z_]+$", stem) for stem in stems)
    assert [path.stem[:2] for path in batch.notebooks("11")] == ["11"]
    assert [path.stem[:2] for path in batch.notebooks("11,10")] == ["10", "11"]
    assert {path.stem[:2] for path in batch.notebooks("1")} >= {"10", "11"}
    with refuses("unknown notebook '77'", "11_low_rank_condensation"):
        batch.notebooks("11,77")


# running them


def notebook(folder, name, *cells_):
    parameters = ["preset: str = 'smoke'\nseeds: list = [0]\nout: str = ''\nsteps: int = None"]
    made = [{"cell_type": "code", "execution_count": None, "id": f"c{index}", "metadata": {"tags": ["parameters"] if not index else []},
             "outputs": [], "source": text} for index, text in enumerate([*parameters, *cells_])]  # fmt: skip
    content = {"cells": made, "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
               "nbformat": 4, "nbformat_minor": 5}  # fmt: skip
    (folder / f"{name}.ipynb").write_text(json.dumps(content), encoding="utf-8")


def presets(folder):
    """The same numbers for every notebook of a folder at every preset."""
    numbers = {path.stem: {"steps": 1} for path in folder.glob("*.ipynb")}
    (folder / "presets.yaml").write_text(
        yaml.safe_dump(dict.fromkeys(batch.PRESETS, numbers)), encoding="utf-8"
    )


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A folder for notebooks; braces and spaces are in its name, and a foreign 'python3' is the first kernel that Jupyter finds."""
    folder = tmp_path / "a {b} {}" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.setattr(batch, "NOTEBOOKS", folder)
    monkeypatch.setattr(records, "TOP", folder.parent)
    foreign = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    foreign.parent.mkdir(parents=True)
    spec = {"argv": ["false", "{connection_file}"], "display_name": "foreign", "language": "python"}
    foreign.write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    return folder


@pytest.fixture
def tiny(empty):
    """Notebooks 50 (fails half-way) and 51 (works)."""
    notebook(
        empty,
        "50_fails",
        "print('before', seeds)",
        "raise ValueError('boom [red] of a kind')",
        "print('after')",
    )
    notebook(empty, "51_works", "import sys\nprint('worked', preset, seeds, steps, sys.executable)", "")
    presets(empty)
    return empty


@pytest.mark.parametrize("given", [{"stepps": 1}, {"steps": "1"}, {"steps": -3}, {"seeds": 3}, {"seeds": ["a"]}, {"seeds": []},
                                   {"seeds": [True]}, {"seeds": [1, 1]}, {"device": "cdua"}, {"preset": "laptop"}, {"out": "elsewhere"}],
                         ids=str)  # fmt: skip
def test_bad_parameters_are_refused_before_any_notebook_starts(tiny, monkeypatch, refuses, given):
    monkeypatch.setattr(batch, "execute", None)
    with refuses(*given):
        list(batch.reproduce("smoke", given=given))
    assert not (tiny.parent / "runs").exists()


@pytest.mark.parametrize(("preset", "only"), [("big", ""), ("smoke", "77")])
def test_an_unknown_preset_or_notebook_is_refused_before_any_notebook_starts(
    tiny, monkeypatch, refuses, preset, only
):
    monkeypatch.setattr(batch, "execute", None)
    with refuses(preset if preset == "big" else only):
        list(batch.reproduce(preset, only=only))
    assert not (tiny.parent / "runs").exists()


def test_a_notebook_without_a_cell_of_parameters_is_refused(tmp_path, refuses):
    notebook(tmp_path, "52_bare")
    path = tmp_path / "52_bare.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace('"parameters"', '"other"'), encoding="utf-8")
    with refuses(path, "parameters"):
        batch.check(path, {})


def run_main(monkeypatch, *arguments) -> int:
    monkeypatch.setattr("sys.argv", ["ddcore", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0


def test_every_end_of_a_notebook_is_told_and_keeps_what_was_computed(tiny, monkeypatch, capsys):
    notebook(tiny, "52_dies", "print('before')", "import os\nos.kill(os.getpid(), 9)", "print('after')")
    notebook(
        tiny, "53_leaves", "print('before')", "import sys\nsys.exit(0)", "print('after')", "print('at last')"
    )
    presets(tiny)
    assert run_main(monkeypatch, "reproduce", "--jobs", "2", "--set", "seeds=[4, 5]", "--set", "steps=9") == 1
    out = tiny.parent / "runs" / "smoke"
    shown = capsys.readouterr()
    names = [path.name for path in sorted(out.iterdir())]
    assert names == ["50_fails.ipynb", "51_works.ipynb", "52_dies.ipynb", "53_leaves.ipynb", "report.html"]
    printed = {path.stem: [output_text(cell) for cell in cells(path)] for path in out.glob("*.ipynb")}
    assert f"worked smoke [4, 5] 9 {sys.executable}\n" in printed["51_works"]
    assert "before [4, 5]\n" in printed["50_fails"]
    for stem in ("52_dies", "53_leaves"):
        assert "before\n" in printed[stem]
    assert not any("after" in text for texts in printed.values() for text in texts)
    told = dict(re.findall(r"^(\w+) failed: (.*); what it had computed is in ", shown.err, re.M))
    assert told == {
        "50_fails": "ValueError: boom [red] of a kind", "52_dies": "the kernel died in code cell `import os`",
        "53_leaves": "ended early: 2 code cells were not run, the first of them `print('after')`",
    }  # fmt: skip
    assert str(out / "50_fails.ipynb") in shown.err
    ends = dict(re.findall(r"(\w+) .* (done|failed)", shown.out))
    assert ends == dict.fromkeys(told, "failed") | {"51_works": "done"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_stops_the_notebooks_and_leaves_nothing_running(empty, monkeypatch, capsys, number):
    """One keeps what it has when it is interrupted; one is deaf, and is ended when its time is over; one has not begun."""
    waits = "import os, pathlib, signal, time\n{}\npathlib.Path('{}').write_text(str(os.getpid()))\ntime.sleep(300)"
    notebook(empty, "50_keeps", f"try:\n  {waits.format('', 'keeps').replace(chr(10), chr(10) + '  ')}\nexcept KeyboardInterrupt:\n"
                                "  pathlib.Path('kept').touch()\n  raise", "pathlib.Path('went on').touch()")  # fmt: skip
    notebook(empty, "51_deaf", waits.format("signal.signal(signal.SIGINT, signal.SIG_IGN)", "deaf"))
    notebook(empty, "52_later", "import pathlib\npathlib.Path('begun').touch()")
    presets(empty)
    monkeypatch.setattr(batch, "PATIENCE", 600.0)
    kernels = {name: empty / name for name in ("keeps", "deaf")}
    deadline = time.monotonic() + 300

    def until(there):
        while not there() and time.monotonic() < deadline:
            time.sleep(0.05)

    def send():
        until(lambda: all(path.exists() and path.read_text(encoding="utf-8") for path in kernels.values()))
        os.kill(os.getpid(), number)
        until(lambda: not (empty.parent / "runs" / "smoke" / ".50_keeps.ipynb.lock").exists())
        batch.PATIENCE = 0.0

    sender = threading.Thread(target=send)
    sender.start()
    code = run_main(monkeypatch, "reproduce", "--jobs", "2")
    sender.join()
    shown = capsys.readouterr()
    assert code == 128 + number
    name = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[number]
    kept = empty.parent / "runs" / "smoke"
    assert shown.err.splitlines()[-1] == (f"ddcore: stopped by {name}; 0 of 3 notebooks are done, what the others had computed is in "
                                          f"{kept}, and the same command goes on from there")  # fmt: skip
    assert re.search(r"^50_keeps: stopped after \d+ s: KeyboardInterrupt", shown.err, re.M)
    assert re.search(r"^51_deaf: stopped after \d+ s: the kernel died", shown.err, re.M)
    assert (empty / "kept").exists()
    assert not (empty / "went on").exists()
    assert not (empty / "begun").exists()
    assert {path.name for path in kept.iterdir()} == {"50_keeps.ipynb", "51_deaf.ipynb"}
    for path in kernels.values():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text(encoding="utf-8")), 0)


@pytest.mark.parametrize(("preset", "given", "where"), [
    ("smoke", {}, "runs/smoke"), ("laptop", {}, ""), ("laptop", {"seeds": [0, 1, 2]}, ""), ("laptop", {"seeds": [5, 6, 7, 8]}, ""),
    ("laptop", {"seeds": [0]}, "runs/laptop"), ("laptop", {"steps": 9}, "runs/laptop"), ("paper", {"batch_real": 8}, "runs/paper"),
    ("laptop", {"steps": 300}, ""), ("laptop", {"device": "cpu"}, ""),
], ids=str)  # fmt: skip
def test_what_is_not_the_preset_as_it_is_goes_apart(tmp_path, monkeypatch, preset, given, where):
    asked = []

    def papermill(path, output, given, threads, orders, scheduler=""):
        asked.append(given["out"])
        return outcome(path)

    monkeypatch.setattr(batch, "_papermill", papermill)
    monkeypatch.setattr(records, "TOP", tmp_path)
    list(batch.reproduce(preset, only="11", given=given))
    assert asked == [str(tmp_path / where) if where else ""]
    list(batch.reproduce(preset, only="11", given=given, out=tmp_path / "mine"))
    assert asked[1:] == [str(tmp_path / "mine")]


def test_paths_are_those_of_the_callers_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDCORE_DATA", str(tmp_path / "data"))
    for name in ("photos", "digits", "real", "a/b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "set.npz").touch()
    here = str(tmp_path)
    expected = {"set.npz": f"{here}/set.npz", "photos": f"{here}/photos", "./photos": f"{here}/photos", "a/b": f"{here}/a/b",
                            "a/b-zca": f"{here}/a/b-zca", "digits": "digits", "no.npz": "no.npz", f"{here}/a": f"{here}/a"}  # fmt: skip
    for value, found in expected.items():
        assert batch.from_here("dataset", value) == found
    assert batch.from_here("places", [["set.npz", 1], ["photos", 2]]) == [
        [f"{here}/set.npz", 1],
        ["photos", 2],
    ]
    assert batch.from_here("arms", ["real"]) == ["real"]
    assert batch.from_here("hosts", [{"dataset": "photos", "real": "real"}]) == [
        {"dataset": f"{here}/photos", "real": "real"}
    ]
    given = []
    monkeypatch.setattr(
        batch, "execute", lambda path, **keywords: given.append(keywords["given"]) or outcome(path)
    )
    list(batch.reproduce("smoke", only="11", given={"dataset": "photos"}))
    assert given[0]["dataset"] == f"{here}/photos"


def test_a_notebook_that_another_run_is_writing_is_not_begun(tiny, monkeypatch, capsys):
    out = tiny.parent / "runs" / "smoke"
    out.mkdir(parents=True)
    with alone(out / ".51_works.ipynb.lock"):
        assert run_main(monkeypatch, "reproduce", "--only", "51") == 1
    assert "51_works failed: another run is writing" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["report.html"]


def test_a_batch_that_works_ends_with_zero(tiny, monkeypatch, capsys):
    monkeypatch.setattr(batch, "execute", lambda path, **_: outcome(path))
    assert run_main(monkeypatch, "reproduce", "--preset", "laptop") == 0
    assert re.search(r"51_works .* done", capsys.readouterr().out)


def outcome(path, status="done"):
    return batch.Outcome(path.stem, status, 1.0, (), path)


@pytest.mark.parametrize(
    ("preset", "cores", "jobs", "at_once", "threads"),
    [
        ("smoke", 8, 1, 1, None),
        ("smoke", 8, 2, 2, 4),
        ("smoke", 5, 3, 2, 1),
        ("smoke", 1, 2, 2, 1),
        ("smoke", 1, None, 1, None),
        ("smoke", 2, None, 2, 1),
        ("smoke", 16, None, 2, 4),
        ("laptop", 16, None, 1, None),
    ],
)
def test_jobs_run_side_by_side_and_share_the_cores(tiny, monkeypatch, preset, cores, jobs, at_once, threads):
    running, most, shares = [], [], set()

    def execute(path, threads, **_):
        shares.add(threads)
        running.append(path)
        most.append(len(running))
        time.sleep(0.2)
        running.remove(path)
        return outcome(path)

    monkeypatch.setattr(batch, "execute", execute)
    monkeypatch.setattr(batch.records, "hardware", lambda: {"cores": cores})
    found = list(batch.reproduce(preset, jobs=jobs))
    assert {one.notebook for one in found} == {"50_fails", "51_works"}
    assert max(most) == at_once
    assert shares == {threads}


def test_a_kernel_takes_its_share_of_threads_unless_the_reader_chose(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "OMP_NUM_THREADS" not in batch.environment()
    assert batch.environment(3)["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert batch.environment(3)["OMP_NUM_THREADS"] == "2"


def test_after_an_interruption_no_other_notebook_begins(tiny, monkeypatch):
    begun = []
    monkeypatch.setattr(
        batch, "execute", lambda path, **_: begun.append(path) or time.sleep(0.3) or outcome(path)
    )
    for number in range(52, 56):
        shutil.copy(tiny / "51_works.ipynb", tiny / f"{number}_more.ipynb")
    presets(tiny)
    outcomes = batch.reproduce("smoke", jobs=1)
    next(iter(outcomes))
    outcomes.close()
    assert len(begun) <= 2


@pytest.fixture
def papermill(monkeypatch):
    """Papermill's effects without its seconds: 50 fails after its first cell, 51 prints."""

    def run(path, output, given, threads, orders, scheduler=""):
        content = json.loads(path.read_text(encoding="utf-8"))
        content["metadata"]["papermill"] = {"duration": time.perf_counter()}
        content["cells"][1] |= {
            "execution_count": 1,
            "outputs": [{"name": "stdout", "output_type": "stream", "text": ["computed"]}],
        }
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(content), encoding="utf-8")
        return batch.Outcome(path.stem, "failed" if path.stem.startswith("50") else "done", 1.0, (), output)

    monkeypatch.setattr(batch, "_papermill", run)


def test_refresh_keeps_a_notebook_that_fails_as_it_was(tiny, papermill):
    before = (tiny / "50_fails.ipynb").read_bytes()
    (failed,) = batch.refresh("50")
    assert failed.status == "failed"
    assert (tiny / "50_fails.ipynb").read_bytes() == before
    assert output_text(cells(failed.output)[1]) == "computed"


def test_refresh_executes_in_place_and_twice_is_the_same_file(tiny, papermill):
    files = []
    for _ in range(2):
        (done,) = batch.refresh("51")
        assert done.status == "done"
        files.append((tiny / "51_works.ipynb").read_text(encoding="utf-8"))
    assert "computed" in files[0]
    assert files[0] == files[1]

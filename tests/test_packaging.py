"""The files a stranger meets before any code: package, lock, environment, Makefile, citation, CI; and a clone of them."""

import ast
import datetime
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ddcore import figures
from ddcore.figures import commits, registry
from ddcore.files import records

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
TARGETS = (
    "help",
    "reproduce",
    "test",
    "test-kernels",
    "test-faults",
    "test-ddranking",
    "test-metadata",
    "lint",
    "refresh",
    "setup",
    "lock",
    "clean",
)

CFFCONVERT = os.environ.get("CFFCONVERT") or shutil.which("cffconvert")

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def dependencies() -> list[Requirement]:
    return [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]


def pins() -> dict[str, list[Requirement]]:
    """Every pin of the lock by name; a name has several where the version depends on Python or the platform."""
    found: dict[str, list[Requirement]] = {}
    for line in LOCK.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            pin = Requirement(line)
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def version_of(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    return specifier.version


def locked_python() -> str:
    return re.search(r"--python-version (\d+\.\d+)", LOCK)[1]


def clean_environment() -> dict[str, str]:
    """Without what an outer make hands down: `make VENV=x test` must not reach the make that a test starts."""
    ours = {
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "MAKEOVERRIDES",
        "VENV",
        "PYTHON",
        "PRESET",
        "ONLY",
        "JOBS",
        "WORKERS",
        "UPGRADE",
        "PYTEST_FLAGS",
    }
    return {key: value for key, value in os.environ.items() if key not in ours}


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    surroundings = clean_environment() | variables
    return subprocess.run(
        command,
        cwd=folder,
        env=surroundings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return run(folder, "make", "--no-print-directory", *arguments)


def git(*arguments: str) -> str:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = run(ROOT, "git", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tracked_files() -> list[Path]:
    return [path for name in git("ls-files", "-z").split("\0") if name and (path := ROOT / name).is_file()]


# --- pyproject.toml, requirements.lock, environment.yml ------------------------------------------------------------


def test_every_dependency_is_locked_at_a_version_its_bound_admits():
    locked = pins()
    for wanted in dependencies():
        name = canonicalize_name(wanted.name)
        assert name in locked, f"{name} is in pyproject.toml and not in requirements.lock: run `make lock`"
        for pin in locked[name]:
            assert wanted.specifier.contains(version_of(pin)), (
                f"{pin} does not satisfy {wanted}: run `make lock`"
            )


def test_lock_is_made_from_the_pyproject_that_stands_here():
    """uv writes `ddcore (pyproject.toml)` under each direct dependency."""
    blocks = re.findall(r"^([A-Za-z0-9_.\-]+)==.*\n((?:    #.*\n?)*)", LOCK, flags=re.MULTILINE)
    direct = {canonicalize_name(name) for name, why in blocks if "(pyproject.toml)" in why}
    assert direct == {canonicalize_name(wanted.name) for wanted in dependencies()}


def test_lock_holds_exact_versions_and_nothing_else():
    for line in LOCK.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # neither an option such as --index-url, nor a local build such as 2.11.0+cpu
        assert re.fullmatch(r"[A-Za-z0-9_.\-]+==[A-Za-z0-9_.\-]+( ; .+)?", line), f"not a plain pin: {line!r}"
    assert "://" not in LOCK
    assert "index" not in re.search(r"^#\s+uv .+$", LOCK, flags=re.MULTILINE)[0]


def test_torch_is_pypis_on_every_platform():
    """A CPU-only torch breaks torchvision; on Linux PyPI's own build brings triton."""
    locked = pins()
    for name in ("torch", "torchvision"):
        (pin,) = locked[name]
        assert pin.marker is None
    assert "triton" in locked


@pytest.mark.parametrize("held", ["torch==2.11.0", "torchvision==0.26.0", "numpy==2.3.0", "scipy==1.17.0", "scikit-learn==1.8.0",
                                  "sympy==1.14.0", "seaborn==0.13.2", "typer==0.20.0", "rich==14.0.0", "safetensors==0.7.0"])  # fmt: skip
def test_lower_bounds_admit_the_machines_in_use(held):
    name, version = held.split("==")
    (wanted,) = [wanted for wanted in dependencies() if wanted.name == name]
    assert wanted.specifier.contains(version)
    assert {specifier.operator for specifier in wanted.specifier} == {">="}


def test_environment_is_conda_forge_with_python_pip_and_the_lock():
    assert ENVIRONMENT["name"] == PROJECT["name"]
    assert ENVIRONMENT["channels"] == ["conda-forge"]
    *conda, last = ENVIRONMENT["dependencies"]
    assert conda == [f"python={locked_python()}", "pip"]
    assert all(package.count("=") <= 1 for package in conda), "build string"
    assert last == {"pip": ["-r requirements.lock", "-e ."]}


@pytest.mark.parametrize(
    "name", ["torch", "torchvision", "jupyter", "papermill", "nbval", "seaborn", "sympy", "triton", "pytest"]
)
def test_environment_gets_what_a_reader_expects(name):
    (section,) = [entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict)]
    files = [ROOT / line.split(maxsplit=1)[1] for line in section if line.startswith("-r ")]
    reached = {
        re.split(r"[=<>~! ;]", line)[0]
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
    }
    assert name in reached


def test_python_versions_agree():
    python = Requirement("python" + PROJECT["requires-python"]).specifier
    assert python.contains(locked_python() + ".0")
    assert not python.contains("3.10.99")
    assert all(python.contains(version) for version in ("3.12.0", "3.13.0", "3.14.0"))
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"][
        "target-version"
    ]
    assert ruff == "py" + locked_python().replace(".", "")
    assert f"--python-version {locked_python()} " in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_makefile_compiles_the_lock_with_the_command_in_its_header():
    header = re.search(r"^#\s+uv (pip compile .+)$", LOCK, flags=re.MULTILINE)[1]
    assert f"COMPILE := {header}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


# --- the package and its command -------------------------------------------------------------------------------------


def test_every_folder_of_code_is_a_package():
    folders = {path.parent for path in (ROOT / "ddcore").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()], (
        "setuptools would leave it out"
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """What a wheel puts into a Python: this package, built from a copy of the tracked files."""
    pytest.importorskip("setuptools")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site-packages")
    for path in (path for name in ("ddcore", "figures", "notebooks") for path in (ROOT / name).rglob("*")):
        if path.is_file() and path.suffix not in (".safetensors", ".pyc"):
            copy = source / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    done = run(
        source, sys.executable, "-c", "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(source / done.stdout.splitlines()[-1]) as archive:
        archive.extractall(target)
    return target


INSTALLED = """
import contextlib, json, sys
from ddcore import cli, figures
from ddcore.files import records
from ddcore.lab import batch
assert not records.CHECKOUT
for command in sys.argv[1:]:
    sys.argv = ["ddcore", *command.split()]
    try:
        cli.main()
    except SystemExit as left:
        print("EXIT", left.code or 0)
print(json.dumps([sorted(figures.entries()), [path.stem for path in batch.notebooks()], len([*figures.FOLDER.glob("records/*.json")]),
                  str(batch.runs()), batch.lands("laptop", "11_low_rank_condensation", {})]))
"""


def test_an_installed_wheel_has_all_that_its_commands_read(wheel, tmp_path):
    """Run from another folder, where the outputs go; nothing is written to its own."""
    before = sorted(path for path in wheel.rglob("*") if "__pycache__" not in path.parts)
    commands = (
        "figures show lodc-rank",
        "figures cite lodc-rank",
        "refresh",
        "reproduce --preset laptop --set stepps=1",
        "reproduce --only 77",
        "reproduce --only 30 --set samples=1000",
    )
    done = run(
        tmp_path, sys.executable, "-c", INSTALLED, *commands, PYTHONPATH=str(wheel), OMP_NUM_THREADS="1"
    )
    assert done.returncode == 0, done.stderr
    assert re.findall("^EXIT (\\d)", done.stdout, re.M) == ["0", "0", "2", "2", "2", "0"], (
        done.stdout + done.stderr
    )
    assert "Traceback" not in done.stderr
    assert re.search("refresh .* installed without one; run it in a clone", done.stderr)
    assert re.search("30_multi_index_theory .* done", done.stdout)
    keys, notebooks, kept, runs, apart = json.loads(done.stdout.splitlines()[-1])
    assert keys == sorted(yaml.safe_load((ROOT / "figures" / "registry.yaml").read_text(encoding="utf-8")))
    assert notebooks == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert kept == len(list((ROOT / "figures" / "records").glob("*.json")))
    assert (runs, apart) == (str(tmp_path / "runs"), "made outside of a checkout")
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
    assert (
        json.loads((tmp_path / "runs" / "smoke" / "30_multi_index_theory.ipynb").read_text(encoding="utf-8"))[
            "nbformat"
        ]
        == 4
    )
    assert sorted(path for path in wheel.rglob("*") if "__pycache__" not in path.parts) == before


def test_console_script_names_a_callable():
    module, function = PROJECT["scripts"]["ddcore"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_module_runs_as_the_command_does():
    done = run(ROOT, sys.executable, "-m", "ddcore", "--help")
    assert done.returncode == 0, done.stderr
    assert "reproduce" in done.stdout


def test_licence_is_the_one_named():
    assert PROJECT["license"] == CITATION["license"] == "MIT"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License\n\nCopyright (c) 2026 The ddcore authors\n")
    assert "WITHOUT WARRANTY OF ANY KIND" in text


# --- CITATION.cff ----------------------------------------------------------------------------------------------------


def test_citation_has_what_cff_1_2_0_requires():
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"
    assert isinstance(CITATION["message"], str)
    assert CITATION["authors"] == [{"name": "The ddcore authors"}]
    assert CITATION["version"] == PROJECT["version"]


def cited() -> dict[str, str]:
    return {key: text.replace("{", "").replace("}", "") for key, text in figures.bibliography().items()}


def test_citation_is_what_figures_cite():
    """Title, year and version as BibTeX has them; of the papers every author in full."""
    ours = cited()["ddcore"]
    assert f"= {CITATION['title']},\n" in ours
    assert datetime.date.fromisoformat(CITATION["date-released"]).year == int(
        re.search(r"year *= (\d+)", ours)[1]
    )
    assert f"Version {CITATION['version']}\n" in ours
    for key, reference in zip(("lodc", "mim4dd", "theory", "dwa"), CITATION["references"], strict=True):
        authors = " and ".join(
            f"{author['family-names']}, {author['given-names']}" for author in reference["authors"]
        )
        assert f"= {reference['title']},\n" in cited()[key]
        assert f"= {authors},\n" in cited()[key]
        assert re.search(rf"year *= {reference['year']}\b", cited()[key])


def test_citation_names_no_address_that_is_not_known():
    assert not {"url", "repository", "repository-code", "doi"} & set(CITATION)
    assert "urls" not in PROJECT


@pytest.mark.skipif(CFFCONVERT is None, reason="cffconvert is not installed: make test-metadata does that")
def test_citation_is_read_by_cffconvert():
    def made(*options: str) -> str:
        done = run(ROOT, CFFCONVERT, "--infile", "CITATION.cff", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "valid according to schema version 1.2.0" in made("--validate")
    bibtex = made("--format", "bibtex")
    assert bibtex.startswith("@misc{")
    for line in (
        f"title = {{{CITATION['title']}}}",
        "author = {The ddcore authors}",
        "year = {2026}",
        "month = {11}",
    ):
        assert line in bibtex
    assert (
        made("--format", "apalike")
        == f"The ddcore authors (2026). {CITATION['title']} (version {CITATION['version']}).\n"
    )


def test_citation_names_the_four_papers():
    references = CITATION["references"]
    first = [reference["authors"][0]["family-names"] for reference in references]
    assert first == ["Yang", "Shang", "Kinoshita", "Du"]
    keys = {"type", "title", "authors", "conference", "year", "volume", "start", "end", "identifiers"}
    for reference in references:
        assert {"type", "title", "authors", "conference", "year", "identifiers"} <= set(reference) <= keys
        assert reference["type"] == "conference-paper"
        assert str(reference["year"]) in reference["conference"]["name"]
        assert all(
            author["family-names"] and set(author) <= {"family-names", "given-names"}
            for author in reference["authors"]
        )
        for identifier in reference["identifiers"]:
            assert identifier["type"] == "other"
            assert re.fullmatch(r"arXiv:\d{4}\.\d{5}|OpenReview:\w{10}", identifier["value"])


# --- Makefile and CI -------------------------------------------------------------------------------------------------


@needs_make
@pytest.mark.parametrize("target", TARGETS)
def test_makefile_has_the_target(target):
    done = make(ROOT, "--dry-run", target)
    assert done.returncode == 0, done.stderr


@needs_make
def test_makefile_shows_its_targets_when_called_bare():
    done = make(ROOT)
    assert done.returncode == 0
    assert re.findall(r"^  make ([\w-]+)", done.stdout, flags=re.MULTILINE) == list(TARGETS)


@needs_make
def test_makefile_passes_its_variables_on():
    assert re.search(r'bin/ddcore" reproduce *\n', make(ROOT, "--dry-run", "reproduce").stdout)
    chosen = make(
        ROOT, "--dry-run", "reproduce", "PRESET=laptop", "ONLY=11", "JOBS=2", "VENV=elsewhere"
    ).stdout
    assert '"elsewhere/bin/ddcore" reproduce --preset "laptop" --only "11" --jobs "2"' in chosen
    assert "-m pytest -k one\n" in make(ROOT, "--dry-run", "test", "PYTEST_FLAGS=-k one").stdout


def stub(path: Path, log: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'#!/bin/sh\necho "$(basename "$0") $* OMP=$OMP_NUM_THREADS" >> "{log}"\n', encoding="utf-8"
    )
    path.chmod(0o755)


@pytest.fixture
def clone(tmp_path) -> Path:
    """A folder, its name with a space, that has the Makefile and an environment whose programs only log their calls."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, folder / name)
        os.utime(folder / name, (1, 1))
    for program in ("python", "uv", "ruff", "lint-imports", "ddcore"):
        stub(folder / ".venv" / "bin" / program, folder / "log")
    return folder


def calls(folder: Path, *arguments: str) -> list[str]:
    (folder / "log").write_text("", encoding="utf-8")
    done = make(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return (folder / "log").read_text(encoding="utf-8").splitlines()


@needs_make
def test_a_target_sets_up_once_and_again_when_the_lock_changes(clone):
    first = calls(clone, "lint")
    assert "pip install" in first[0]
    assert "-r requirements.lock" in first[0]
    assert "--no-deps -e ." in first[1]
    assert first[2].startswith("ruff check .")
    assert first[3].startswith("ruff format --check")
    assert first[4].startswith("lint-imports")
    assert len(first) == 5
    assert [call.split()[0] for call in calls(clone, "lint")] == ["ruff", "ruff", "lint-imports"]
    for name in ("requirements.lock", "pyproject.toml"):
        stamp = clone / ".venv" / ".ddcore-installed"
        later = stamp.stat().st_mtime + 1
        os.utime(clone / name, (later, later))
        assert [call.split()[0] for call in calls(clone, "reproduce")] == ["uv", "uv", "ddcore"]
        os.utime(stamp, (later + 1, later + 1))


@needs_make
def test_a_moved_clone_is_set_up_anew(clone):
    calls(clone, "setup")
    assert calls(clone, "setup") == []
    moved = clone.rename(clone.with_name("moved"))
    for program in ("python", "uv"):
        stub(moved / ".venv" / "bin" / program, moved / "log")
    assert [call.split()[0] for call in calls(moved, "setup")] == ["uv", "uv"]


@needs_make
def test_tests_run_on_one_thread_each(clone):
    last = calls(clone, "test")[-1]
    assert last.startswith("python -m pytest")
    assert last.endswith("OMP=" + os.environ.get("OMP_NUM_THREADS", "1"))


@needs_make
def test_a_failed_install_is_tried_again(clone):
    uv = clone / ".venv" / "bin" / "uv"
    uv.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    done = make(clone, "lint")
    assert done.returncode != 0
    assert not (clone / ".venv" / ".ddcore-installed").exists()
    stub(uv, clone / "log")
    assert len(calls(clone, "lint")) == 5


@needs_make
@pytest.mark.parametrize("python", ["false", "no-such-python"])
def test_an_old_or_missing_python_is_one_sentence(clone, python):
    done = make(clone, "test", "VENV=other", f"PYTHON={python}")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert said == [
        f"ddcore needs Python 3.11 or newer, and {python} is not: name one, as in 'make PYTHON=python3.12 test'."
    ]
    assert not (clone / "other").exists()


def test_ci_runs_the_tests_last():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert text.rstrip().splitlines()[-1] == "make --no-print-directory test"
    subprocess.run(["bash", "-n", str(script)], check=True)


APT = {
    "apt-get": "#!/bin/sh\nexit 100\n",
    "id": "#!/bin/sh\necho 0\n",
    "timeout": '#!/bin/sh\nshift\nexec "$@"\n',
}


def test_ci_goes_on_without_the_real_data_browser_and_latex(tmp_path):
    """With a make that only logs, and a fetch and an installation that fail, lint and test still run."""
    clone = tmp_path / "clone"
    (clone / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", clone / ".ci" / "run")
    stub(clone / ".venv" / "bin" / "python", tmp_path / "log")
    stub(tmp_path / "bin" / "make", tmp_path / "log")
    for name in ("apt-get", "id", "timeout"):
        (tmp_path / "bin" / name).write_text(APT[name], encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    fetch = tmp_path / "shared" / "data" / "fetch.sh"
    fetch.parent.mkdir(parents=True)
    fetch.write_text(f'echo "fetch $1 $PYTHON" >> "{tmp_path}/log"; exit 1\n', encoding="utf-8")
    done = run(
        clone, "bash", ".ci/run", PATH=f"{tmp_path}/bin:{os.environ['PATH']}", DDCORE_DATA=f"{tmp_path}/data"
    )
    assert done.returncode == 0, done.stderr
    assert "warning: the real data could not be fetched" in done.stderr
    have = all(map(shutil.which, ("chromium", "pdflatex")))
    assert ("warning: chromium and texlive-latex-base could not be installed" in done.stderr) != have
    logged = [
        re.sub(" OMP=.*", "", line) for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    ]
    assert [line.split()[-1] for line in logged if line.startswith("make")] == ["setup", "lint", "test"]
    assert f"fetch {tmp_path}/data {clone}/.venv/bin/python" in logged


def test_text_is_utf_8_whatever_the_locale():
    """ruff's PLW1514 sees where the type of a path is plain; here every call that can name an encoding does."""
    found = []
    for path in [*(ROOT / "ddcore").rglob("*.py"), *(ROOT / "tests").glob("*.py"), ROOT / "setup.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                given = {keyword.arg for keyword in node.keywords}
                if (name in ("read_text", "write_text") and "encoding" not in given) or (
                    name in ("run", "Popen") and "text" in given
                ):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


# --- the tree --------------------------------------------------------------------------------------------------------


def test_no_tracked_file_names_a_path_of_one_machine():
    machine = re.compile(r"(?<![\w.)}~-])/(?:work|root|tmp|home/\w+)/")
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" in content or path.suffix == ".pdf":
            continue
        for number, line in enumerate(content.decode(errors="ignore").splitlines(), 1):
            if machine.search(line) and "mktemp" not in line:
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


@pytest.fixture(scope="module")
def windows_clone(tmp_path_factory):
    """A clone as Windows makes it, of all but the tensors, which are most of its bytes and none of its text."""
    git("rev-parse", "HEAD")
    clone = tmp_path_factory.mktemp("windows") / "clone"
    clone.mkdir()
    for command in (("clone", "-q", "--no-checkout", "-c", "core.autocrlf=true", str(ROOT), "."),
                    ("sparse-checkout", "set", "--no-cone", "/*", "!*.safetensors"), ("checkout", "-q")):  # fmt: skip
        done = run(clone, "git", *command)
        assert done.returncode == 0, done.stderr
    yield clone
    shutil.rmtree(clone)


def test_a_clone_with_autocrlf_has_every_byte(windows_clone):
    listed = [
        line.split(maxsplit=3) for line in run(windows_clone, "git", "ls-files", "-s").stdout.splitlines()
    ]
    listed = [(name, blob) for _, blob, _, name in listed if (windows_clone / name).is_file()]
    assert len(listed) > 1000
    done = subprocess.run(
        ["git", "hash-object", "--no-filters", "--stdin-paths"],
        input="".join(f"{name}\n" for name, _ in listed),
        cwd=windows_clone,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    changed = [name for (name, blob), found in zip(listed, done.stdout.split(), strict=True) if blob != found]
    assert not changed, changed[:5]
    assert run(windows_clone, "git", "status", "--porcelain").stdout == ""


def test_a_clone_with_autocrlf_is_the_same_package_with_the_same_figures(windows_clone, monkeypatch):
    monkeypatch.setattr(
        registry, "_drawn_with", lambda: "another matplotlib: the same bytes drawn alike are another test's"
    )
    assert figures.check(windows_clone / "figures") == []
    monkeypatch.setattr(records, "PACKAGE", windows_clone / "ddcore")
    assert records.code_sha256() == commits.package_sha256(windows_clone, "HEAD")


def test_nothing_that_git_ignores_is_tracked():
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == ""


@pytest.mark.parametrize("command", ["make reproduce", "make test"])
def test_readme_names_the_two_commands(command):
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")

"""Who computes for a batch: what a file may say, what is refused, and a batch on two real workers."""

import contextlib
import gc
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

from ddcore import cli
from ddcore.lab import batch, cluster


def described(tmp_path, content) -> cluster.Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(("content", "words"), [
    ({"cluster": "SLURMClustr"}, ("'SLURMClustr'", "did you mean 'SLURMCluster'")),
    ({"cluster": "os.system"}, ("'os.system'", "allowed: ")),
    ({}, ("'cluster' is missing",)), ([], ("mapping",)), ("a: [", ("YAML",)),
    ({"cluster": "SLURMCluster", "setings": {}}, ("setings", "settings")),
    ({"cluster": "SLURMCluster", "settings": 3}, ("settings=3",)),
    ({"cluster": "SLURMCluster", "workers": "4"}, ("workers='4'",)),
    ({"cluster": "SLURMCluster", "workers": 0}, ("most at least 1",)),
    ({"cluster": "SLURMCluster", "workers": {"least": 4, "most": 2}}, ("least=4", "most=2")),
    ({"cluster": "SLURMCluster", "workers": {"least": 4}}, ("'most' is missing",)),
    ({"cluster": "KubeCluster"}, ("dask-kubernetes", "not installed")),
], ids=str)  # fmt: skip
def test_a_file_that_describes_no_cluster_is_refused(tmp_path, refuses, content, words):
    with refuses(*words):
        cluster.read(described(tmp_path, content))


def test_a_missing_file_is_refused(tmp_path, refuses):
    with refuses(tmp_path / "none.yaml"):
        cluster.read(tmp_path / "none.yaml")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_what_a_cluster_can_not_be_started_with_is_refused(tmp_path, refuses):
    path = described(tmp_path, {"cluster": "SLURMCluster", "settings": {"cores": 2}})
    with refuses(path, "SLURMCluster can't be started"), cluster.described(path):
        pass
    gc.collect()  # of what dask_jobqueue leaves half-made


def test_a_file_names_class_settings_and_numbers(tmp_path):
    path = described(
        tmp_path,
        {"cluster": "SLURMCluster", "settings": {"cores": 8, "memory": "16 GB"}, "workers": {"most": 9}},
    )
    cls, settings, least, most = cluster.read(path)
    assert (cls.__name__, settings, least, most) == ("SLURMCluster", {"cores": 8, "memory": "16 GB"}, 0, 9)
    assert cluster.read(described(tmp_path, {"cluster": "LocalCluster", "workers": 3}))[2:] == (3, 3)


def test_a_worker_of_a_queue_runs_one_experiment_with_all_its_cores(tmp_path):
    from dask_jobqueue import SLURMCluster

    settings = {
        "cores": 8,
        "processes": 2,
        "memory": "16 GB",
        "job_script_prologue": ["module load x"],
        "worker_extra_args": ["--lifetime", "50m"],
    }
    with SLURMCluster(**cluster._one_experiment_a_worker(SLURMCluster, settings)) as made:
        script = made.job_script()
    assert re.search(r"--nthreads 4 .*--nthreads 1 ", script), "the last one counts"
    assert "--lifetime 50m" in script
    assert (
        script.index("export OMP_NUM_THREADS=4") < script.index("module load x") < script.index("--nthreads")
    )


def test_the_file_shown_on_the_page_describes_a_cluster(tmp_path):
    page = (batch.NOTEBOOKS / "CLUSTER.md").read_text(encoding="utf-8")
    cls, settings, least, most = cluster.read(
        described(tmp_path, re.search(r"```yaml\n(.*?)```", page, re.S)[1])
    )
    assert (least, most) == (0, 100)
    with cls(**cluster._one_experiment_a_worker(cls, settings)) as made:
        assert "--gres=gpu:1" in made.job_script()


def run_main(monkeypatch, *arguments) -> int:
    monkeypatch.setattr("sys.argv", ["ddcore", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--workers", "2", "--scheduler", "tcp://127.0.0.1:9"), "--workers and --scheduler are given"),
        (("--scheduler", "tcp://127.0.0.1:9"), "no scheduler answers at tcp://127.0.0.1:9"),
        (("--cluster", "none.yaml"), "none.yaml"),
        (("--workers", "2", "--set", "stepps=1"), "stepps"),
    ],
)
def test_bad_input_is_a_sentence_before_any_notebook_begins(monkeypatch, tmp_path, capsys, given, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(batch, "execute", lambda *_, **__: pytest.fail("a notebook has begun"))
    monkeypatch.setattr("ddcore.lab.scheduled.ANSWER", 1)
    assert run_main(monkeypatch, "reproduce", "--only", "10", "--out", str(tmp_path / "out"), *given) == 2
    assert words in capsys.readouterr().err


def test_all_notebooks_of_a_pool_run_at_once_with_its_address_and_threads(monkeypatch, tmp_path):
    told = []

    def execute(path, scheduler, threads, **_):
        told.append((scheduler, threads))
        while len(told) < len(batch.notebooks()):
            time.sleep(0.01)
        return batch.Outcome(path.stem, "done", 1.0, (), path)

    monkeypatch.setattr(batch, "execute", execute)
    pool = contextlib.nullcontext(batch.Pool("tcp://a:1", 3))
    assert len(list(batch.reproduce("smoke", out=tmp_path, pool=pool))) == len(batch.notebooks())
    assert set(told) == {("tcp://a:1", 3)}
    assert batch.environment(3, "tcp://a:1")["DDCORE_SCHEDULER"] == "tcp://a:1"


@pytest.mark.skipif(os.name != "posix", reason="a lifeline is a pipe that a child inherits")
def test_a_notebook_ends_with_the_batch_that_is_killed(tmp_path):
    """Its kernel too, so that the same command can be given again at once."""
    notebook = tmp_path / "50_waits.ipynb"
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": "a",
        "metadata": {},
        "outputs": [],
        "source": f"import os, pathlib, time\npathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\ntime.sleep(600)",
    }
    notebook.write_text(
        json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8"
    )
    program = (
        "import sys; from pathlib import Path; from ddcore.lab import batch; "
        "batch._papermill(Path(sys.argv[1]), Path(sys.argv[2]), {}, None, batch.Orders())"
    )
    driver = subprocess.Popen([sys.executable, "-c", program, str(notebook), str(tmp_path / "out.ipynb")])
    deadline = time.monotonic() + 300
    while (
        not ((pid := tmp_path / "pid").exists() and pid.read_text(encoding="utf-8"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    kernel = int(pid.read_text(encoding="utf-8"))
    while time.monotonic() < deadline:
        try:
            os.kill(kernel, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)
    assert (tmp_path / "out.ipynb").exists()

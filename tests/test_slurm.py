"""A batch on a real Slurm: the same records as this process makes. It needs a Slurm of at least one node that this user may submit to."""

import shutil
import subprocess
import sys

import pytest
import torch
import yaml

from ddcore.lab import batch, cluster
from ddcore.lab.experiment import grid
from ddcore.lab.runner import Runner
from ddcore.lab.scheduled import Scheduled, connect
from ddcore.settings import canonical

BASE = {"dataset": "digits", "budget_ipc": 1, "method": {"name": "dm", "width": 8, "batch_real": 8, "strategy": "none"},
        "distill": {"steps": 4}, "evaluate": {"network": "mlp", "width": 8, "epochs": 2, "strategy": "none"}}  # fmt: skip
WANTED = grid(BASE, [{}, {"synthetic": {"kind": "lowrank", "rank": 1}}], [0, 1])


@pytest.fixture(scope="module", autouse=True)
def slurm():
    if not shutil.which("sinfo") or not shutil.which("sbatch"):
        pytest.skip("no Slurm is installed here")
    asked = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, encoding="utf-8", timeout=60)
    if not {"idle", "mixed"} & set(asked.stdout.split()):
        pytest.skip(f"no node of this Slurm is idle: {(asked.stdout or asked.stderr).strip()[:80]}")


def test_workers_in_jobs_make_the_records_of_this_process(tmp_path):
    exports = [
        f"export {name}='{value}'"
        for name, value in batch.environment().items()
        if name in ("PYTHONPATH", "DDCORE_DATA")
    ]
    settings = {"cores": torch.get_num_threads(), "memory": "2 GB", "walltime": "00:10:00", "python": sys.executable,
                "scheduler_options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}, "log_directory": str(tmp_path / "log"),
                "local_directory": str(tmp_path / "scratch"), "job_script_prologue": exports}  # fmt: skip
    file = tmp_path / "slurm.yaml"
    file.write_text(
        yaml.safe_dump({"cluster": "SLURMCluster", "settings": settings, "workers": {"least": 0, "most": 1}}),
        encoding="utf-8",
    )
    with cluster.described(file) as address:
        there = Runner("smoke", tmp_path / "there", device="cpu", executor=Scheduled(connect(address)))
        found = there.run_all(WANTED)
    here = Runner("smoke", tmp_path / "here", device="cpu")
    for record, same in zip(found, here.run_all(WANTED), strict=True):
        plain = [
            {name: value for name, value in one.result.items() if not name.endswith("_seconds")}
            for one in (record, same)
        ]
        assert canonical(plain[0]) == canonical(plain[1])
        assert record.provenance["set_sha256"] == same.provenance["set_sha256"]
    assert not subprocess.run(["squeue", "-h"], capture_output=True, encoding="utf-8").stdout.strip(), (
        "a job is left"
    )

"""What this machine can do: torch, device, compiler, triton, data sets present, disk and memory."""

import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

import torch

from ddcore.data import TORCHVISION, cache_folder, data_folder
from ddcore.files import records

# What torchvision leaves in its folder.
DOWNLOADED = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "svhn": "train_32x32.mat",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
}


def present(name: str) -> str:
    """Where a dataset was found: 'embedded', an .npz, what torchvision downloaded, or 'absent'."""
    if name == "digits":
        return "embedded"
    if (data_folder() / f"{name}.npz").is_file():
        return str(data_folder() / f"{name}.npz")
    downloaded = data_folder() / "torchvision" / DOWNLOADED[name]
    return str(downloaded) if downloaded.exists() else "absent"


def examine() -> dict[str, object]:
    """Facts by name, each a string or number that a reader can act on."""
    gpu = None
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        gpu = f"{found.name}, {found.total_memory / 2**30:.0f} GiB"
    triton = importlib.util.find_spec("triton")
    compiler = os.environ.get("CXX") or next(
        (name for name in ("g++", "clang++", "c++") if shutil.which(name)), None
    )
    disk = shutil.disk_usage(Path.cwd())
    memory = (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    )
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "torch": torch.__version__,
        "device 'auto'": "cuda" if gpu else "cpu",
        "gpu": gpu or "none: everything runs on the CPU, the paper preset is out of reach",
        "cpu": f"{records.hardware()['cpu']}, {records.hardware()['cores']} cores, torch uses {torch.get_num_threads()} threads",
        "cpu instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": "in hardware"
        if gpu or torch.cpu._is_avx512_bf16_supported()
        else "emulated: keep precision float32",
        "memory": f"{memory:.0f} GiB" if memory else "unknown",
        "disk free": f"{disk.free / 2**30:.0f} GiB",
        "triton": "absent"
        if not triton
        else "compiles for the GPU"
        if gpu
        else "interpreter only (TRITON_INTERPRET=1)",
        "torch.compile": f"with {compiler}" if compiler else "no C++ compiler found: keep compiled false",
        "data folder": str(data_folder()),
        **{f"data {name}": present(name) for name in ("digits", *TORCHVISION)},
        "cache folder": str(cache_folder()),
        "records": f"{len(list((records.SHIPPED / 'figures' / 'records').glob('*.json')))} in {records.SHIPPED / 'figures' / 'records'}",
    }

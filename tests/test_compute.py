import platform
import subprocess
import sys

import pytest
import torch

from ddcore import compute, networks
from ddcore.lab import batch
from ddcore.random import stream


def test_a_device_that_is_there_is_given():
    assert compute.device("cpu") == torch.device("cpu")
    assert compute.device(torch.device("cpu")) == torch.device("cpu")
    assert compute.device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    "name", ["cuda:99", "hpu", "meta", "privateuseone", "gpu", "", "cpu0", "CPU", "vulkan"]
)
def test_an_absent_device_is_refused(name, refuses):
    with refuses(f"device '{name}'", "use 'auto' or 'cpu'"):
        compute.device(name)


def test_float32_is_the_function_itself():
    def double(x):
        return 2 * x

    assert compute.accelerate(double, torch.device("cpu")) is double


def test_an_unknown_precision_is_refused(refuses):
    with refuses("precision of compute", "'float16'", "bfloat16, float32"):
        compute.accelerate(torch.sin, torch.device("cpu"), precision="float16")


def test_bfloat16_rounds_inside_and_gives_float32():
    net = networks.build("convnet", (1, 8, 8), 10, width=8, generator=stream(0, "net"))
    x = torch.randn(4, 1, 8, 8, generator=stream(0, "x"))
    exact, rounded = net(x), compute.accelerate(net, torch.device("cpu"), precision="bfloat16")(x)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).norm() < 0.05 * exact.norm()
    features = compute.accelerate(net.features, torch.device("cpu"), precision="bfloat16")(x)
    assert isinstance(features, tuple)
    assert {part.dtype for part in features} == {torch.float32}


def test_gradients_pass_through_bfloat16():
    net = networks.build("mlp", (1, 8, 8), 10, width=8, generator=stream(0, "net"))
    x = torch.randn(4, 1, 8, 8, generator=stream(0, "x"), requires_grad=True)
    (rounded,) = torch.autograd.grad(
        compute.accelerate(net, torch.device("cpu"), precision="bfloat16")(x).square().sum(), x
    )
    (exact,) = torch.autograd.grad(net(x).square().sum(), x)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("kernel", [False, True])
def test_kept_memory_is_not_given_back(kernel):
    """In a process of its own, by the call or by what a notebook's kernel is started with:
    large tensors one after another take, after a while, pages that are there already."""
    program = (
        "import resource, sys, torch; from ddcore import compute; kept = len(sys.argv) > 1 or compute.keep_memory(); "
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt; "
        "several = lambda: [torch.ones(1 << 24).numel() for _ in range(20)]; several(); "
        "before = faults(); several(); print(int(kept), faults() - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *(["kernel"] if kernel else [])],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env=batch.environment() if kernel else None,
    )
    kept, faults = map(int, run.stdout.split())
    if platform.libc_ver()[0] == "glibc":
        assert kept
        assert faults < 20 * ((1 << 24) * 4 / 4096) / 4


def test_what_is_compiled_is_shared_and_dropped_from_time_to_time(monkeypatch):
    """Networks of one kind share it; none of the copies of before holds any."""
    held = torch._dynamo.eval_frame._debug_get_cache_entry_list
    monkeypatch.setattr(compute, "_codes", {})
    copies = {}
    for number in range(2 * compute.SHARED + 1):
        net = networks.build("mlp", (1, 2, 2), 2, width=2, generator=stream(number, "net"))
        compute.accelerate(net, torch.device("cpu"), compiled=True)(torch.ones(1, 1, 2, 2)).sum().backward()
        code = compute._codes[type(net)][0]
        copies[id(code)] = code
    assert [len(held(code)) for code in copies.values()] == [0, 0, 1]

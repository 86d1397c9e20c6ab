#!/usr/bin/env bash
# An integer argument of a @triton.jit function has `.to` inside it: so one would guess, and so it is for every number but 1. By default
# a launch takes a 1 for a constant, the body sees an `int` of Python's, and `n.to(tl.float32)` fails to compile for the one size that a
# test is least likely to try. Triton's interpreter accepts it. `tl.cast(n, tl.float32)` serves both. Nothing here needs a GPU: the
# launch's own rule chooses the constants, and a target is named to the compiler. Exits with 1 when Triton behaves otherwise.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
cd "$here"
"${PYTHON:-python3}" -m venv environment
environment/bin/python -m pip install --quiet --disable-pip-version-check triton==3.9.0 numpy==2.4.6

cat > kernels.py <<'PYTHON'
import triton
import triton.language as tl


@triton.jit
def method(n):
    tl.device_print("the kernel's number", n.to(tl.float32))


@triton.jit
def function(n):
    tl.device_print("the kernel's number", tl.cast(n, tl.float32))
PYTHON

cat > interpreted.py <<'PYTHON'
import kernels

for kernel in (kernels.method, kernels.function):
    for n in (2, 1):
        kernel[(1,)](n)
        print(f"interpreted, {kernel.__name__}, n = {n}: runs")
PYTHON

cat > compiled.py <<'PYTHON'
import sys

import kernels
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver


class NoDevice:
    """What a launch asks of its device; `warmup` compiles and starts nothing."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


driver.set_active(NoDevice())
print("triton", triton.__version__)
seen = {}
for kernel in (kernels.method, kernels.function):
    for n in (2, 1):
        try:
            kernel.warmup(n, grid=(1,), enable_fp_fusion=True)
            seen[kernel.__name__, n] = "compiles"
        except triton.CompilationError as error:
            seen[kernel.__name__, n] = str(error).strip().splitlines()[-1]
        print(f"compiled for sm_90, {kernel.__name__}, n = {n}: {seen[kernel.__name__, n]}")
refused = seen.pop(("method", 1))
sys.exit("'int' object has no attribute 'to'" not in refused or set(seen.values()) != {"compiles"})
PYTHON

TRITON_INTERPRET=1 environment/bin/python interpreted.py
TRITON_CACHE_DIR=cache environment/bin/python compiled.py

#!/usr/bin/env bash
# float32 to bfloat16 rounds to nearest in a compiled Triton kernel, and TRITON_INTERPRET=1 should give the same numbers: so one would
# guess. The interpreter drops the low bits instead, so that 1 + 2^-8 + 2^-9 becomes 1 where compiled code has 1 + 2^-7, and a test of a
# kernel in the interpreter sees twice the error that any GPU makes. Nothing here needs a GPU: the compiled side is shown by its PTX, whose
# `cvt.rn` is rounding to nearest. Exits with 1 when Triton behaves otherwise.
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
def rounded(x):
    tl.device_print("as bfloat16", tl.cast(x, tl.float32).to(tl.bfloat16).to(tl.float32))
PYTHON

cat > interpreted.py <<'PYTHON'
from kernels import rounded

rounded[(1,)](1 + 2**-8 + 2**-9)
PYTHON

cat > compiled.py <<'PYTHON'
import re

import kernels
import triton
from triton.backends.compiler import GPUTarget

print("triton", triton.__version__)
for target in (80, 90, 120):
    source = triton.compiler.ASTSource(kernels.rounded, signature={"x": "fp32"})
    ptx = triton.compile(source, target=GPUTarget("cuda", target, 32), options={"enable_fp_fusion": True}).asm["ptx"]
    found = sorted(set(re.findall(r"cvt\.\w+\.bf16\w*\.f32", ptx)))
    print(f"compiled for sm_{target}:", *found)
    assert found and all(".rn." in one for one in found)
PYTHON

TRITON_CACHE_DIR=cache environment/bin/python compiled.py
TRITON_INTERPRET=1 environment/bin/python interpreted.py | tee interpreted.txt
grep -qE 'as bfloat16.*[^0-9.]1\.0*\]?$' interpreted.txt

"""Every Triton kernel as machine code for five generations of GPUs, none of which has to be here.

The ops run on CPU tensors under a launcher that compiles and starts nothing, so that types, constants and alignments are those of their
launches. `make test` takes one size and two targets, `make test-kernels` (DDCORE_KERNELS=all) all of them and prints what they take.
"""

import collections
import contextlib
import functools
import io
import itertools
import math
import os
import re
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from ddcore.kernels import class_means, contrast, row_cosine, statistics

pytest.importorskip("triton")
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"
)

EVERYTHING = os.environ.get("DDCORE_KERNELS") == "all"
SHARED = {
    80: 163,
    89: 99,
    90: 227,
    100: 227,
    120: 99,
}  # KiB a program may have (CUDA C++ Programming Guide, compute capabilities)
TARGETS = (
    sorted(SHARED) if EVERYTHING else [80, 120]
)  # the oldest compiles on a path of its own, the newest has the least memory
DTYPES = [torch.float32, torch.bfloat16, torch.float64]
SPILLED = {
    torch.float32: 0,
    torch.bfloat16: 0,
    torch.float64: 64,
}  # bytes a thread may write and read for want of registers


class Compiled(NamedTuple):
    name: str
    ptx: str
    threads: int
    registers: int
    shared: int
    spilled: int

    @property
    def widest(self) -> int:
        """Bytes of the widest read of global memory by a thread."""
        loads = re.findall(r"\bld\.global[\w.:]*?(?:\.v(\d))?\.[bfsu](\d+)\b", self.ptx)
        return max(
            [int(many or 1) * int(bits) // 8 for many, bits in loads] + [16] * ("cp.async.cg" in self.ptx)
        )

    def in_sixteens(self, way: str) -> int:
        """Bytes that a program reads ('ld') or writes ('st') sixteen at a time in one pass over its code, copies ahead of a loop too."""
        found = re.findall(rf"\b{way}\.global\S*\.(?:v4\.b32|v2\.b64)\b", self.ptx)
        found += re.findall(r"\bcp\.async\.cg\.shared\.global .*, 0x10\b", self.ptx) if way == "ld" else []
        return 16 * self.threads * len(found)


def table(seen: dict[tuple[str, str], dict[int, list[Compiled]]]) -> list[str]:
    """Of every kernel and target the most that any launch takes: registers and bytes spilled of a thread, KiB of shared memory of a
    program, bytes of the widest load."""
    targets = sorted({target for by_target in seen.values() for target in by_target})
    lines = [" ".join([" " * 46, *(f"{f'sm_{target}':>17}" for target in targets)])]
    for (kernel, kind), by_target in sorted(seen.items()):
        cells = [
            f"{max(one.registers for one in found):5}{max(one.spilled for one in found):4}"
            f"{max(one.shared for one in found) / 1024:4.0f}{max(one.widest for one in found):4}"
            if found
            else " " * 17
            for found in (by_target[target] for target in targets)
        ]
        lines.append(" ".join([f"{kernel:<29}{kind:<17}", *cells]))
    return lines


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, pytestconfig):
    """compiled(target, op, dtype): what op(dtype=dtype) launches, forward and backward, as compiled for that compute capability."""
    logs, seen = {}, collections.defaultdict(lambda: collections.defaultdict(list))

    class Device:
        def __init__(self, target: int) -> None:
            self.target = target

        def get_current_target(self):
            return GPUTarget("cuda", self.target, 32)

        def get_current_device(self):
            return self.target

        def get_current_stream(self, device):
            return 0

    def compiled(target: int, op: Callable[..., object], dtype: torch.dtype) -> list[Compiled]:
        found = []

        def launcher(kernel, grid):
            def start(*arguments, **constants):
                assert "enable_fp_fusion" in constants, (
                    "a default that changes from one Triton to the next would choose the bits"
                )
                with contextlib.redirect_stdout(io.StringIO()) as log:
                    binary = kernel.run(*arguments, grid=grid, warmup=True, **constants)
                log = logs.setdefault(binary.hash, log.getvalue())  # an equal launch is compiled once
                found.append(
                    Compiled(
                        kernel.__name__,
                        binary.asm["ptx"],
                        32 * binary.metadata.num_warps,
                        int(re.search(r"Used (\d+) registers", log)[1]),
                        binary.metadata.shared,
                        sum(map(int, re.findall(r"(\d+) bytes spill", log))),
                    )
                )
                seen[kernel.__name__, "float64" if dtype == torch.float64 else "float32, bfloat16"][
                    target
                ].append(found[-1])

            return start

        patch.setattr(JITFunction, "__getitem__", launcher)
        driver.set_active(Device(target))
        op(dtype=dtype)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        patch.setattr(triton.knobs.nvidia, "dump_ptxas_log", True)
        yield compiled
    driver.set_active(None)  # whoever asks next finds the device of this machine
    if EVERYTHING:
        with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(
                "\n\nMost of any launch: registers, bytes spilled, KiB shared, bytes of the widest load",
                *table(seen),
                sep="\n",
            )


def zeros(*shape: int, dtype: torch.dtype, shift: int = 0) -> torch.Tensor:
    """Beginning `shift` numbers behind a multiple of 64 bytes."""
    return torch.zeros(math.prod(shape) + shift, dtype=dtype)[shift:].view(shape)


def cosine(*layers: tuple[int, int, int], dtype: torch.dtype, shift: int = 0) -> None:
    real, fake = ([zeros(*layer, dtype=dtype, shift=shift) for layer in layers] for _ in range(2))
    row_cosine.row_cosine_distance_triton(real, [layer.requires_grad_() for layer in fake]).backward()


def means(fakes: int, reals: int, width: int, classes: int, dtype: torch.dtype, shift: int = 0) -> None:
    fake, real = (zeros(rows, width, dtype=dtype, shift=shift) for rows in (fakes, reals))
    labels = (torch.zeros(rows, dtype=torch.int64) for rows in (fakes, reals))
    class_means.class_mean_distance_triton(
        fake.requires_grad_(), next(labels), real, next(labels), classes
    ).backward()


def moments(images: int, channels: int, *space: int, groups: int, dtype: torch.dtype, shift: int = 0) -> None:
    x = zeros(images, channels, *space, dtype=dtype, shift=shift).requires_grad_()
    sum(moment.sum() for moment in statistics.channel_moments_triton(x, groups)).backward()


def contrasted(
    layers: int, fakes: int, reals: int, width: int, how: str, dtype: torch.dtype, shift: int = 0
) -> None:
    critic, own = how.removesuffix(", own"), how.endswith("own")
    fake, real = (zeros(layers, rows, width, dtype=dtype, shift=shift) for rows in (fakes, reals))
    labels = (torch.arange(rows) % 2 for rows in (fakes, reals))
    contrast.contrast_triton(
        fake.requires_grad_(), next(labels), real, next(labels), 2, temperature=0.1, critic=critic, own=own
    ).loss.sum().backward()


HOW = ["nce", "infonce", "nce, own", "infonce, own"]

# As a ConvNet of width 128 or a ResNet launches them: rows are multiples of 16 bytes.
USUAL = {
    "row_cosine_distance": functools.partial(cosine, (10, 128, 27), (10, 128, 1152), (10, 10, 2048)),
    "class_mean_distance": functools.partial(means, 10, 640, 2048, 10),
    "channel_moments": functools.partial(moments, 10, 64, 32, 32, groups=1),
    "contrast": functools.partial(contrasted, 3, 100, 640, 128, "nce"),
    "contrast, infonce": functools.partial(contrasted, 3, 100, 640, 128, "infonce"),
}
OTHER = (
    {
        "row_cosine_distance, narrow rows": functools.partial(cosine, (2, 3, 64)),
        "row_cosine_distance, 16 layers": functools.partial(cosine, *[(1, 2, 75)] * 16),
        "row_cosine_distance, shifted": functools.partial(cosine, (2, 3, 2048), shift=1),
        "class_mean_distance, rows of 500": functools.partial(means, 10, 640, 500, 10),
        "class_mean_distance, rows of 131": functools.partial(means, 7, 90, 131, 3),
        "class_mean_distance, shifted": functools.partial(means, 7, 90, 2048, 3, shift=1),
        "channel_moments, 112 x 112": functools.partial(moments, 50, 64, 112, 112, groups=1),
        "channel_moments, 14 x 14": functools.partial(moments, 50, 256, 14, 14, groups=10),
        "channel_moments, 7 x 7": functools.partial(moments, 50, 512, 7, 7, groups=1),
        "channel_moments, 4 x 4": functools.partial(moments, 640, 128, 4, 4, groups=10),
        "channel_moments, 2 x 2": functools.partial(moments, 100, 512, 2, 2, groups=1),
        "channel_moments, features": functools.partial(moments, 640, 512, groups=1),
        "channel_moments, features of 33": functools.partial(moments, 76, 33, groups=2),
        "channel_moments, shifted": functools.partial(moments, 10, 64, 32, 32, groups=1, shift=1),
    }
    | {
        f"contrast, rows of {width}, {how}": functools.partial(contrasted, 3, 100, 640, width, how)
        for width, how in itertools.product((5, 20, 31, 64, 128, 200, 256), HOW)
    }
    | {"contrast, shifted": functools.partial(contrasted, 3, 100, 640, 128, "nce", shift=1)}
)
CASES = USUAL | OTHER if EVERYTHING else USUAL
TOUCHED = {
    "row_cosine_distance": {"row_cosine_forward", "row_cosine_backward"},
    "class_mean_distance": {"class_mean_distance_forward", "class_mean_distance_backward"},
    "channel_moments": {f"channel_moments_{part}" for part in ("parts", "whole", "backward")},
    "contrast": {"contrast_forward"},
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_a_launch_compiles_fits_and_spills_nothing(compiled, name, dtype, target):
    found = compiled(target, CASES[name], dtype)
    assert {kernel.name for kernel in found} == TOUCHED[name.split(",")[0]]
    for kernel in found:
        assert kernel.shared <= 1024 * SHARED[target], kernel.name
        assert kernel.spilled <= SPILLED[dtype], kernel.name


ONES = {
    f"row_cosine_distance {sizes}": functools.partial(cosine, sizes[:3], *[(1, 2, 3)] * (sizes[3] - 1))
    for sizes in itertools.product((1, 2), (1, 2), (1, 3), (1, 2))
}
ONES |= {
    f"class_mean_distance {sizes}": functools.partial(means, *sizes)
    for sizes in itertools.product((1, 2), (1, 2), (1, 3), (1, 2))
}
ONES |= {
    f"channel_moments {images, channels, space, groups}": functools.partial(
        moments, images * groups, channels, space, groups=groups
    )
    for images, channels, space, groups in itertools.product((1, 2), (1, 3), (1, 5), (1, 3))
}
ONES |= {
    f"contrast {sizes, how}": functools.partial(contrasted, 1, *sizes, how)
    for sizes in itertools.product((1, 2), (1, 2), (1, 3))
    for how in HOW[:2]
    if EVERYTHING or sizes == (1, 1, 1)
}


@pytest.mark.parametrize("target", [80, 120] if EVERYTHING else [120])
@pytest.mark.parametrize("dtype", DTYPES if EVERYTHING else DTYPES[:1])
@pytest.mark.parametrize("name", ONES)
def test_an_argument_of_one_which_reaches_a_kernel_as_a_number_of_python_compiles_too(
    compiled, name, dtype, target
):
    assert all(kernel.spilled <= SPILLED[dtype] for kernel in compiled(target, ONES[name], dtype))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", USUAL)
def test_aligned_rows_are_read_and_written_sixteen_bytes_at_a_time(compiled, name, dtype, target):
    """What a program holds at once of large tensors, in bytes: read, written."""
    size, wide = dtype.itemsize, max(4, dtype.itemsize)
    tile = contrast.TILE * 128
    block = {
        "row_cosine_forward": (2 * 1024 * size, 0),
        "row_cosine_backward": (2 * 1024 * size, 1024 * size),
        "class_mean_distance_forward": (2 * 32 * 128 * size, 0),
        "class_mean_distance_backward": (16 * 128 * wide, 16 * 128 * size),
        "channel_moments_parts": (8192 // wide * size, 0),
        "channel_moments_whole": (0, 0),
        "channel_moments_backward": (2048 * size, 2048 * size),
        "contrast_forward": (2 * tile * size, tile * wide),
    }
    for kernel in compiled(target, USUAL[name], dtype):
        read, written = block[kernel.name]
        assert kernel.in_sixteens("ld") >= read, kernel.name
        assert kernel.in_sixteens("st") >= written, kernel.name


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("class_mean_distance", functools.partial(means, 10, 640, 500, 10)),
        ("channel_moments", functools.partial(moments, 50, 256, 14, 14, groups=10)),
        ("contrast", functools.partial(contrasted, 3, 100, 640, 100, "nce")),
    ],
)
def test_rows_of_a_multiple_of_four_numbers_are_aligned(compiled, name, op):
    """Triton itself knows multiples of 16 alone."""
    found = [kernel for kernel in compiled(TARGETS[0], op, torch.float32) if "whole" not in kernel.name]
    assert found
    for kernel in found:
        assert kernel.in_sixteens("ld") > 0, kernel.name


@pytest.mark.parametrize(
    "op",
    [
        functools.partial(means, 7, 90, 131, 3),
        functools.partial(means, 7, 90, 128, 3, shift=1),
        functools.partial(moments, 50, 512, 7, 7, groups=1),
        functools.partial(contrasted, 3, 100, 640, 101, "nce"),
        functools.partial(contrasted, 3, 100, 640, 128, "nce", shift=1),
    ],
)
def test_rows_that_are_not_aligned_are_read_number_by_number(compiled, op):
    """A GPU stops at an address that is not a multiple of what is read at once."""
    first = compiled(TARGETS[0], op, torch.float32)[0]
    assert not re.search(r"ld\.global\S*\.v[24]|cp\.async\.cg", first.ptx)


@pytest.mark.parametrize(
    "name", ["row_cosine_distance", "class_mean_distance", "channel_moments", "contrast"]
)
def test_bfloat16_is_rounded_to_nearest(compiled, name):
    """As test_kernels_triton.py lets the interpreter do, which truncates."""
    text = "".join(kernel.ptx for kernel in compiled(TARGETS[0], USUAL[name], torch.bfloat16))
    assert "cvt.rn.bf16" in text
    assert "cvt.rz" not in text

"""How arithmetic is carried out (device, precision, compilation), never what is computed."""

import ctypes
import functools
import itertools
from collections.abc import Callable

import torch

from ddcore.errors import BadInput
from ddcore.settings import one_of

PRECISIONS = ("float32", "bfloat16")
_compilations = itertools.count(1)


def device(name: str | torch.device = "auto") -> torch.device:
    """'auto' is the GPU where there is one, else the CPU; a named device that is absent raises BadInput."""
    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.zeros((), device=found).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise BadInput(f"device '{name}' is not on this machine; use 'auto' or 'cpu'") from error
    return found


def accelerate(function: Callable, at: torch.device, *, precision: str = "float32", compiled: bool = False) -> Callable:
    """`function` under autocast to `precision`, compiled for each shape it meets if asked; outputs in float32.

    'float32' is the exact mode. 'bfloat16' rounds inside the network only: inputs, parameters, losses stay float32.
    """
    one_of("compute", PRECISIONS, precision=precision)
    if compiled:
        # Each network made anew is compiled anew: more of them than usual may be held, and all are dropped from time to time.
        torch._dynamo.config.recompile_limit = 64
        if next(_compilations) % 16 == 0:
            torch.compiler.reset()
        function = torch.compile(function, dynamic=False)
    if precision == "float32":
        return function

    def rounded(*inputs):
        with torch.autocast(at.type, torch.bfloat16):
            outputs = function(*inputs)
        if isinstance(outputs, torch.Tensor):
            return outputs.float()
        return type(outputs)(output.float() for output in outputs)

    return rounded


@functools.cache
def keep_memory() -> bool:
    """Let glibc keep freed memory instead of giving it back after each operation; False where there is no glibc.

    The feature maps of one step are hundreds of megabytes. Mapped and zeroed anew for every operation, they cost a CPU more
    time than the convolutions (ConvNet-3 of width 128, 640 images: 0.86 s against 0.36 s on two cores).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    return bool(mallopt(trim_threshold, 2**31 - 1) and mallopt(mmap_max, 0))


def give_memory_back() -> bool:
    """Return what glibc keeps free to the system, so that a peak can be measured; False where there is no glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, TypeError, AttributeError):
        return False
    return True

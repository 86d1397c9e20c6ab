"""How arithmetic is carried out (device, precision, compilation, how many images at once), never what is computed."""

import ctypes
import functools
import inspect
import math
import os
import shutil
import types
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddcore.errors import BadInput
from ddcore.settings import one_of, positive

PRECISIONS = ("float32", "bfloat16")
# Bytes of activations that a network may hold for the images of one chunk. The same on every machine of a kind, so that results do
# not depend on the memory that is free. On a CPU less than its last cache where the network is compiled; elsewhere twice that, since
# each of its many operations costs a call. On a GPU a quarter of a card of 8 GiB.
BUDGET = {"cpu": 48 * 2**20, "cpu, compiled": 24 * 2**20, "cuda": 2 * 2**30}
WORTH_COMPILING = (
    128 * 2**30
)  # bytes of activations: some 40 s of a ConvNet on two cores, of which compiling saves a third and takes it
SHAPES = 64  # that a function is compiled for; torch's own limit is 8
SHARED = 16  # compilations of one function that share what is compiled
HELD = 16  # chunks whose tape may wait for one backward pass
_codes: dict[object, tuple[types.CodeType, int]] = {}


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


def accelerate(
    function: Callable, at: torch.device, *, precision: str = "float32", compiled: bool = False
) -> Callable:
    """`function` under autocast to `precision`, compiled for each shape it meets if asked; outputs in float32.

    'float32' is the exact mode. 'bfloat16' rounds inside the network only: inputs, parameters, losses stay float32.
    """
    one_of("compute", PRECISIONS, precision=precision)
    if compiled:
        function = compiled_alone(function)
    if precision == "float32":
        return function

    def rounded(*inputs):
        with torch.autocast(at.type, torch.bfloat16):
            outputs = function(*inputs)
        if isinstance(outputs, torch.Tensor):
            return outputs.float()
        return type(outputs)(output.float() for output in outputs)

    return rounded


def compiled_alone(function: Callable, *, fullgraph: bool = False) -> Callable:
    """`function`, compiled for each shape it meets, `SHAPES` at most, and for nobody else: the process's compiler keeps its settings and
    what it holds of other functions. What it holds of this one lies with a copy of code that is ours."""

    def call(*inputs, **settings):
        return function(*inputs, **settings)

    own = types.FunctionType(
        _code(function, call.__code__), call.__globals__, call.__name__, call.__defaults__, call.__closure__
    )
    compiled = torch.compile(own, dynamic=False, fullgraph=fullgraph)

    def run(*inputs, **settings):
        with torch._dynamo.config.patch(recompile_limit=SHAPES):
            return compiled(*inputs, **settings)

    return run


def _code(function: Callable, code: types.CodeType) -> types.CodeType:
    """A copy of `code` for all functions of the same code as `function`, which then share what is compiled where it serves them all; a new
    copy from time to time, so that what was compiled for networks of before is dropped."""
    kind = getattr(inspect.unwrap(function), "__code__", type(function))
    copy, uses = _codes.get(kind, (code.replace(), 0))
    if uses == SHARED:
        torch._dynamo.reset_code(copy)
        copy, uses = code.replace(), 0
    _codes[kind] = copy, uses + 1
    return _codes[kind][0]


def bits(at: torch.device) -> dict:
    """What the bits of a computation at `at` depend on besides its settings: the version of torch, the threads and vector instructions
    of a CPU or the name of a GPU, and the bytes of activations of a chunk."""
    on = (
        {"gpu": torch.cuda.get_device_name(at)}
        if at.type == "cuda"
        else {"threads": torch.get_num_threads(), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    )
    return {
        "torch": str(torch.__version__),
        **on,
        "chunk_bytes": {kind: size for kind, size in BUDGET.items() if kind.startswith(at.type)},
    }


@functools.cache
def keep_memory() -> bool:
    """Let glibc keep freed memory instead of giving it back after each operation; False where there is no glibc.

    The feature maps of one step are hundreds of megabytes. Mapped and zeroed anew for every operation, they cost a CPU more
    time than the convolutions (ConvNet-3 of width 128, 640 images: 0.86 s against 0.36 s on two cores). It holds for the whole process
    until its end, so no function of this package calls it: the command line does, and `ddcore.lab.batch.environment` says it to kernels.
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


def pays(images: int, network: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Whether `torch.compile` saves more time than it takes, where so many `images` of `shape` pass `network` in all, forward and back:
    by a rule on sizes, since a measurement would let the clock choose the bits. False without a compiler."""
    there = next(network.parameters()).is_cuda or any(
        shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++", "c++")
    )
    return there and images * activation_bytes(network, shape) > WORTH_COMPILING


def divisible(network: nn.Module) -> bool:
    """Whether the images of a batch may pass `network` in parts: not through a batch norm that takes its statistics from the batch."""
    return not any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
        for module in network.modules()
    )


def activation_bytes(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """What a forward pass of `network` keeps of one image of `shape` (C, H, W) for its backward pass, parameters not counted."""
    like = next(network.parameters())
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            kept[place] = tensor.untyped_storage().nbytes()
        return tensor

    modes = [(module, module.training) for module in network.modules()]
    network.eval()  # one image has no statistics of its own, and none are to be kept
    try:
        image = torch.zeros(1, *shape, device=like.device, dtype=like.dtype, requires_grad=True)
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            held = network(image)  # noqa: F841 (what it keeps must live until it is counted)
    finally:
        for module, training in modes:
            module.training = training
    return max(1, sum(kept.values()))


def chunk(
    network: nn.Module,
    shape: tuple[int, int, int],
    given: int | None = None,
    *,
    whole: int = 1,
    compiled: bool = False,
) -> int:
    """The most images that pass `network` at once: `given`, or the power of two whose activations come nearest to the `BUDGET`; at least
    `whole`, the images that can't be parted.

    Raises BadInput, before anything runs, where so many take more memory than there is.
    """
    positive("compute", chunk=given)
    one, at = activation_bytes(network, shape), next(network.parameters()).device
    budget = BUDGET["cpu, compiled" if compiled and at.type == "cpu" else at.type]
    fits = 1 << max(0, round(math.log2(budget / one)))
    size = max(whole, fits if given is None else given)
    need_memory(size * one, f"{size} images of {'x'.join(map(str, shape))} in one pass of the network", at)
    return size


def evenly(count: int, most: int) -> int:
    """The size of the parts of `count` things, `most` at once: equal parts where a divisor of `count` is not far below `most`, since a
    compiled function is compiled anew for each size."""
    return next(
        (size for size in range(min(count, most), most // 2, -1) if count % size == 0), min(count, most)
    )


def slices(count: int, size: int) -> Iterator[slice]:
    """0 to `count` cut into slices of `size`, the last one with what is left."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def in_chunks(
    function: Callable[[Tensor], Sequence[Tensor]], images: Tensor, size: int
) -> tuple[Tensor, ...]:
    """`function(images)`, tensors that have the images in their first dimension, `size` images at a time.

    Where gradients are recorded and there are more than `HELD` chunks, a chunk is computed again in the backward pass, so that only one
    of them holds activations at a time.
    """
    again = torch.is_grad_enabled() and images.requires_grad and len(images) > HELD * size
    parts = [
        checkpoint(function, part, use_reentrant=False, preserve_rng_state=False) if again else function(part)
        for part in images.split(evenly(len(images), size) if len(images) else 1)
    ]
    return tuple(torch.cat(part) if len(parts) > 1 else part[0] for part in zip(*parts, strict=True))


def through(network: nn.Module, images: Tensor, function: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """`function(images)`, a tensor with the images in its first dimension, or `network(images)`: a chunk of them at a time."""
    function = function or network
    return in_chunks(lambda part: (function(part),), images, chunk(network, images.shape[1:]))[0]


def need_memory(bytes_: int, what: str, at: torch.device) -> None:
    """Raise BadInput, before anything runs, where `what` takes more memory than `at` has free."""
    free = free_bytes(at)
    if free is not None and bytes_ > free:
        raise BadInput(
            f"{what} takes {bytes_ / 2**30:.1f} GiB, but {at} has {free / 2**30:.1f} GiB free; use a narrower network, smaller "
            "images, fewer classes, or a machine with more memory"
        )


def free_bytes(at: torch.device) -> int | None:
    """Memory that can still be had; None where the system does not tell."""
    if at.type == "cuda":
        return torch.cuda.mem_get_info(at)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            available = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    return min(available, _left_in_group())


def _left_in_group() -> float:
    """What a control group leaves to this process, infinite where there is none."""
    try:
        with (
            open("/sys/fs/cgroup/memory.max", encoding="ascii") as most,
            open("/sys/fs/cgroup/memory.current", encoding="ascii") as now,
        ):
            return int(most.read()) - int(now.read())
    except (OSError, ValueError):
        return math.inf

"""Distance of two gradients, row by row: the metric 'ours' of DC (Zhao et al., *Dataset Condensation with Gradient Matching*, ICLR 2021).

D(a, b) = sum over layers, classes and rows of 1 - <a, b> / (|a| |b| + 1e-6): a row holds what enters one output of a layer, and the
1e-6 stands outside the product of norms, as in VICO-UoE/DatasetCondensation, utils.py. With s = |a| |b| + 1e-6,

    dD/db = -a / s + <a, b> |a| / (|b| s^2) b,

whose second term is zero at b = 0: D has the derivative -a / 1e-6 there, and no second one; the reference takes the terms in d|b| as zero.
"""

import functools
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ddcore.errors import BadInput
from ddcore.kernels import refuse
from ddcore.kernels.launch import launch
from ddcore.kernels.root import root

EPSILON = 1e-6


def row_cosine_distance(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Two lists with one (classes, rows, K) tensor a layer, K by layer -> a scalar, at least float32.

    On a GPU the gradient goes to `fake` alone and has no derivative (`row_cosine_distance_reference` has both).
    """
    shapes = [[tuple(layer.shape) for layer in side] for side in (real, fake)]
    if shapes[0] != shapes[1] or not shapes[0]:
        raise BadInput(
            f"row_cosine_distance: layers of shapes {shapes[0]} and {shapes[1]}; give two lists, not empty, of equal shapes"
        )
    return (row_cosine_distance_triton if fake[0].is_cuda else row_cosine_distance_reference)(real, fake)


def row_cosine_distance_reference(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    wide = torch.promote_types(fake[0].dtype, torch.float32)
    total = torch.zeros((), dtype=wide, device=fake[0].device)
    for a, b in zip(real, fake, strict=True):
        a, b = a.to(wide), b.to(wide)
        norms = root((a * a).sum(-1)) * root((b * b).sum(-1))
        total = total + (1 - (a * b).sum(-1) / (norms + EPSILON)).sum()
    return total


def row_cosine_distance_triton(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """One launch and one sum forward, one launch backward, over the rows of all layers; all of one dtype."""
    refuse.gradient_of_real("row_cosine_distance", *real)
    layers = [layer.contiguous() for layer in (*real, *fake)]
    kinds = {(layer.dtype, layer.device) for layer in layers}
    if len(kinds) > 1:
        raise BadInput(
            f"row_cosine_distance: layers of {sorted(map(str, kinds))}; give one dtype on one device"
        )
    with torch.cuda.device_of(fake[0]):
        return _RowCosine.apply(*layers)


class _RowCosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *layers):
        fake = layers[len(layers) // 2 :]
        rows = [layer.shape[:-1].numel() for layer in fake]
        saved = torch.empty(
            4, sum(rows), dtype=torch.promote_types(fake[0].dtype, torch.float32), device=fake[0].device
        )
        _launch(_kernels()[0], layers, rows, saved)
        ctx.save_for_backward(saved, *layers)
        ctx.rows = rows
        return saved[3].sum()

    @staticmethod
    def backward(ctx, gradient):
        refuse.second_derivative("row_cosine_distance")
        saved, *layers = ctx.saved_tensors
        out = [torch.empty_like(layer) for layer in layers[len(layers) // 2 :]]
        _launch(_kernels()[1], [*layers, *out], ctx.rows, saved, gradient)
        return *[None] * len(out), *out


def _launch(kernel, tensors, rows, saved, *gradient):
    """A program a row. The table, one column a layer: first row, K, then where its tensors begin (a fixed number of lists)."""
    import triton
    import triton.language as tl

    layers, kind = len(rows), tensors[0]
    starts = list(itertools.accumulate(rows, initial=0))[:-1]
    widths = [tensor.shape[-1] for tensor in tensors[:layers]]
    table = torch.tensor(
        [*starts, *widths, *(tensor.data_ptr() for tensor in tensors)],
        dtype=torch.int64,
        pin_memory=kind.is_cuda,
    )
    dtype = getattr(tl, str(kind.dtype).removeprefix("torch."))
    launch(
        kernel,
        (sum(rows),),
        table.to(kind.device, non_blocking=True),
        saved,
        *gradient,
        layers,
        EPSILON=EPSILON,
        DTYPE=dtype,
        LAYERS=triton.next_power_of_2(layers),
        BLOCK=min(1024, triton.next_power_of_2(max(widths))),
    )


@functools.cache
def _kernels():
    """Built at the first launch: importing ddcore does not import Triton, whose kernels want what they name among the globals of
    their file."""
    global tl, place_of, begin, products, combine
    import triton
    import triton.language as tl

    @triton.jit
    def place_of(program, table, layers, LAYERS: tl.constexpr):
        """The layer of a program, its row in that layer, and K."""
        each = tl.arange(0, LAYERS)
        layer = tl.sum((tl.load(table + each, each < layers, other=1 << 62) <= program).to(tl.int32), 0) - 1
        return layer, program - tl.load(table + layer), tl.load(table + layers + layer)

    @triton.jit
    def begin(address, DTYPE: tl.constexpr, VECTOR: tl.constexpr):
        """Where a row begins: at a multiple of VECTOR numbers. The hint stays on the pointer made here, so each branch has its own."""
        return tl.multiple_of(address.to(tl.pointer_type(DTYPE)), VECTOR * DTYPE.primitive_bitwidth // 8)

    @triton.jit
    def products(
        a_row,
        b_row,
        width,
        WIDE: tl.constexpr,
        DTYPE: tl.constexpr,
        VECTOR: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """<a, b>, |a|^2, |b|^2 of the rows at two addresses, which are read VECTOR numbers at a time."""
        a_row, b_row, width = (
            begin(a_row, DTYPE, VECTOR),
            begin(b_row, DTYPE, VECTOR),
            width // VECTOR * VECTOR,
        )
        dots, reals, fakes = tl.zeros([BLOCK], WIDE), tl.zeros([BLOCK], WIDE), tl.zeros([BLOCK], WIDE)
        for start in range(0, width, BLOCK):
            column = start + tl.arange(0, BLOCK)
            a = tl.load(a_row + column, column < width, other=0).to(WIDE)
            b = tl.load(b_row + column, column < width, other=0).to(WIDE)
            dots += a * b
            reals += a * a
            fakes += b * b
        return tl.sum(dots, 0), tl.sum(reals, 0), tl.sum(fakes, 0)

    @triton.jit
    def combine(
        a_row,
        b_row,
        out_row,
        along_a,
        along_b,
        width,
        DTYPE: tl.constexpr,
        VECTOR: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """out = along_a a + along_b b, for the rows at three addresses, VECTOR numbers at a time."""
        a_row, b_row, out_row = (
            begin(a_row, DTYPE, VECTOR),
            begin(b_row, DTYPE, VECTOR),
            begin(out_row, DTYPE, VECTOR),
        )
        width = width // VECTOR * VECTOR
        for start in range(0, width, BLOCK):
            column = start + tl.arange(0, BLOCK)
            a = tl.load(a_row + column, column < width, other=0).to(along_a.dtype)
            b = tl.load(b_row + column, column < width, other=0).to(along_a.dtype)
            tl.store(out_row + column, along_a * a + along_b * b, column < width)

    @triton.jit
    def row_cosine_forward(
        table,
        saved,
        layers,
        EPSILON: tl.constexpr,
        DTYPE: tl.constexpr,
        LAYERS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Writes <a, b>, |a|^2, |b|^2 and 1 - cosine of its row into the columns of `saved`."""
        wide: tl.constexpr = saved.dtype.element_ty
        program = tl.program_id(0)
        layer, row, width = place_of(program, table, layers, LAYERS)
        size = width * (DTYPE.primitive_bitwidth // 8)
        a_row = tl.load(table + 2 * layers + layer) + row * size
        b_row = tl.load(table + 3 * layers + layer) + row * size
        if (a_row | b_row | size) % 16 == 0:
            dot, real, fake = products(
                a_row, b_row, width, wide, DTYPE, 128 // DTYPE.primitive_bitwidth, BLOCK
            )
        else:
            dot, real, fake = products(a_row, b_row, width, wide, DTYPE, 1, 128 if BLOCK > 128 else BLOCK)
        total = tl.num_programs(0)
        tl.store(saved + program, dot)
        tl.store(saved + total + program, real)
        tl.store(saved + 2 * total + program, fake)
        tl.store(saved + 3 * total + program, 1 - dot / (tl.sqrt(real) * tl.sqrt(fake) + EPSILON))

    @triton.jit
    def row_cosine_backward(
        table,
        saved,
        gradient,
        layers,
        EPSILON: tl.constexpr,
        DTYPE: tl.constexpr,
        LAYERS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        program = tl.program_id(0)
        layer, row, width = place_of(program, table, layers, LAYERS)
        size = width * (DTYPE.primitive_bitwidth // 8)
        a_row = tl.load(table + 2 * layers + layer) + row * size
        b_row = tl.load(table + 3 * layers + layer) + row * size
        out_row = tl.load(table + 4 * layers + layer) + row * size
        total = tl.num_programs(0)
        dot = tl.load(saved + program)
        real = tl.sqrt(tl.load(saved + total + program))
        fake = tl.sqrt(tl.load(saved + 2 * total + program))
        scale = real * fake + EPSILON
        along_a = -tl.load(gradient) / scale
        along_b = -along_a * (dot / scale) * real / tl.where(fake == 0, 1, fake)
        if (a_row | b_row | out_row | size) % 16 == 0:
            combine(
                a_row, b_row, out_row, along_a, along_b, width, DTYPE, 128 // DTYPE.primitive_bitwidth, BLOCK
            )
        else:
            combine(a_row, b_row, out_row, along_a, along_b, width, DTYPE, 1, 128 if BLOCK > 128 else BLOCK)

    return row_cosine_forward, row_cosine_backward

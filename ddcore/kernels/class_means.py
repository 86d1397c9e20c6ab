"""Squared distance of class means, the loss of DM (Zhao & Bilen, WACV 2023, eq. 5), for all classes at once.

L = sum_c | m_c |^2 with m_c = mean of fake features of class c - mean of real features of class c; dL/df_i = 2 m_c / n_c for a
fake row i of class c of n_c rows. A class without a row has mean zero.
"""

import functools

import torch
from torch import Tensor

from ddcore.errors import BadInput
from ddcore.kernels import refuse
from ddcore.kernels.launch import launch, multiple


def class_mean_distance(
    fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor, classes: int
) -> Tensor:
    """(n, F), (n,), (m, F), (m,) -> a scalar, at least float32.

    On a GPU the gradient goes to `fake` alone and has no derivative (`class_mean_distance_reference` has both).
    """
    chosen = class_mean_distance_triton if fake.is_cuda else class_mean_distance_reference
    return chosen(fake, fake_labels, real, real_labels, classes)


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(n, F), (n,) -> (classes, F): means by class as one matrix product, so that the sum has a fixed order on a GPU too."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    member = torch.nn.functional.one_hot(labels, classes).to(features)
    return (member / member.sum(0).clamp(min=1)).T @ features


def class_mean_distance_reference(
    fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor, classes: int
) -> Tensor:
    return (class_means(fake, fake_labels, classes) - class_means(real, real_labels, classes)).square().sum()


def class_mean_distance_triton(
    fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor, classes: int
) -> Tensor:
    """One launch and one sum forward, one launch backward; sums in the order of the rows, labels in any order."""
    refuse.gradient_of_real("class_mean_distance", real)
    sides = (fake, fake_labels, real, real_labels)
    if not (
        fake.dim() == 2
        and fake.shape[1:] == real.shape[1:]
        and fake_labels.shape == fake.shape[:1]
        and real_labels.shape == real.shape[:1]
        and fake.dtype == real.dtype
    ):
        raise BadInput(
            f"class_mean_distance: shapes {[tuple(side.shape) for side in sides]} of {fake.dtype} and {real.dtype}; "
            "give (n, F), (n,), (m, F), (m,) of one dtype"
        )
    with torch.cuda.device_of(fake):
        return _ClassMeanDistance.apply(*(side.contiguous() for side in sides), classes)


def by_class(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """(n,) -> (n,), (classes + 1,): the rows in the order of their classes, and where each class begins; without waiting for the GPU."""
    ordered, order = labels.sort(stable=True)
    return order, torch.searchsorted(
        ordered, torch.arange(classes + 1, dtype=labels.dtype, device=labels.device)
    )


class _ClassMeanDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx, fake, fake_labels, real, real_labels, classes):
        width = fake.shape[1]
        block = min(128, 1 << (width - 1).bit_length())
        wide = {"dtype": torch.promote_types(fake.dtype, torch.float32), "device": fake.device}
        grid = (classes, -(-width // block))
        difference, squares = torch.empty(classes, width, **wide), torch.empty(grid, **wide)
        fake_order, fake_starts = by_class(fake_labels, classes)
        real_order, real_starts = by_class(real_labels, classes)
        launch(
            _kernels()[0],
            grid,
            fake,
            fake_order,
            fake_starts,
            real,
            real_order,
            real_starts,
            width,
            difference,
            squares,
            MULTIPLE=multiple(width),
            ROWS=32,
            BLOCK=block,
            num_warps=8,
        )
        ctx.save_for_backward(difference, fake_starts, fake_labels)
        ctx.like, ctx.block = (fake.shape, fake.dtype), block
        return squares.sum()

    @staticmethod
    def backward(ctx, gradient):
        refuse.second_derivative("class_mean_distance")
        difference, starts, labels = ctx.saved_tensors
        (rows, width), dtype = ctx.like
        out = torch.empty(rows, width, dtype=dtype, device=gradient.device)
        grid = (-(-rows // 16), -(-width // ctx.block))
        launch(
            _kernels()[1],
            grid,
            difference,
            starts,
            labels,
            gradient,
            out,
            rows,
            width,
            len(difference),
            MULTIPLE=multiple(width),
            ROWS=16,
            BLOCK=ctx.block,
        )
        return out, None, None, None, None


@functools.cache
def _kernels():
    """Built at the first launch: importing ddcore does not import Triton, whose kernels want `tl` among the globals of their file."""
    global tl
    import triton
    import triton.language as tl

    @triton.jit
    def class_mean_distance_forward(
        fake,
        fake_order,
        fake_starts,
        real,
        real_order,
        real_starts,
        width,
        difference,
        squares,
        MULTIPLE: tl.constexpr,
        ROWS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Program (class, columns): m_c in these columns and its square, the rows of the class read once in their order."""
        label = tl.program_id(0)
        width = width // MULTIPLE * MULTIPLE
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        within = (column < width)[None, :]
        wide = difference.dtype.element_ty
        apart = tl.zeros([BLOCK], wide)
        for side in tl.static_range(2):
            features = fake if side == 0 else real
            order = fake_order if side == 0 else real_order
            starts = fake_starts if side == 0 else real_starts
            first, last = tl.load(starts + label), tl.load(starts + label + 1)
            sums = tl.zeros([ROWS, BLOCK], wide)
            for start in range(first, last, ROWS):
                place = start + tl.arange(0, ROWS)
                row = tl.load(order + place, place < last, other=0)
                sums += tl.load(
                    features + row[:, None] * width + column[None, :],
                    (place < last)[:, None] & within,
                    other=0,
                ).to(wide)
            mean = tl.sum(sums, 0) / tl.maximum(last - first, 1).to(wide)
            apart += mean if side == 0 else -mean
        tl.store(difference + label * width + column, apart, column < width)
        tl.store(squares + label * tl.num_programs(1) + tl.program_id(1), tl.sum(apart * apart, 0))

    @triton.jit
    def class_mean_distance_backward(
        difference,
        starts,
        labels,
        gradient,
        out,
        rows,
        width,
        classes,
        MULTIPLE: tl.constexpr,
        ROWS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        width = width // MULTIPLE * MULTIPLE
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        label = tl.load(labels + row, row < rows, other=-1)
        known, within = (label >= 0) & (label < classes), (column < width)[None, :]
        count = tl.load(starts + label + 1, known, other=1) - tl.load(starts + label, known, other=0)
        scale = 2 * tl.load(gradient) / count.to(difference.dtype.element_ty)
        apart = tl.load(
            difference + label[:, None] * width + column[None, :], known[:, None] & within, other=0
        )
        tl.store(
            out + row.to(tl.int64)[:, None] * width + column[None, :],
            scale[:, None] * apart,
            (row < rows)[:, None] & within,
        )

    return class_mean_distance_forward, class_mean_distance_backward

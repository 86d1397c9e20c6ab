"""Mean and variance by channel and the batch-norm statistics loss of SRe2L and DWA.

    L = sum_j |mu_j - mean|_2 + r_var |sigma2_j - var|_2

over groups j of images, norms over channels and not squared (Yin et al., *Squeeze, Recover and Relabel*, NeurIPS 2023; r_var from Du
et al., *Diversity-Driven Synthesis*, NeurIPS 2024). With n numbers in a group and channel, dL/dx = dL/dmu / n + 2 dL/dsigma2 (x - mu) / n.
"""

import functools
import math

import torch
from torch import Tensor

from ddcore.errors import BadInput
from ddcore.kernels import refuse
from ddcore.kernels.launch import launch, multiple
from ddcore.kernels.root import root


def channel_moments(x: Tensor, groups: int = 1) -> tuple[Tensor, Tensor]:
    """(N, C, *spatial) -> mean and biased variance, each (groups, C) and at least float32, over a group's images and space.

    Image n is of group n mod groups: in a set sorted by class with `groups` images a class, group j is the j-th image of every class.
    The gradient has no derivative (`channel_moments_reference` has one). Under `torch.compile`, which can't look into a kernel and would
    cut the graph at each, it is the reference that is compiled.
    """
    if x.dim() < 2 or groups < 1 or len(x) % groups or not x.numel():
        raise BadInput(
            f"channel_moments: {tuple(x.shape)} in {groups} groups; give (N, C, ...), not empty, N a multiple of the groups"
        )
    if torch.compiler.is_compiling():
        return channel_moments_reference(x, groups)
    return (channel_moments_triton if x.is_cuda else channel_moments_explicit)(x, groups)


def statistics_loss(
    x: Tensor, mean: Tensor, var: Tensor, groups: int = 1, r_var: float = 1.0, *, moments=channel_moments
) -> Tensor:
    """(N, C, *spatial), (C,), (C,) -> a scalar; its gradient is that of zero for a norm that is zero. `moments`: a form of that op."""
    mu, sigma2 = moments(x, groups)
    return (root((mu - mean).square().sum(1)) + r_var * root((sigma2 - var).square().sum(1))).sum()


def channel_moments_reference(x: Tensor, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Two passes over a view: the variance from distances to the mean, on a CPU ten times as fast as `torch.var_mean` over these axes."""
    x = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(0, (-1, groups))
    over = (0, *range(3, x.dim()))
    mean = x.mean(over, keepdim=True)
    return mean.reshape(groups, -1), (x - mean).square().mean(over)


def channel_moments_explicit(x: Tensor, groups: int = 1) -> tuple[Tensor, Tensor]:
    """The reference with its gradient spelled out, which needs x and the means alone: a batch norm keeps x anyway, and autograd would
    keep the distances to the means beside it, as large as x."""
    return _ExplicitMoments.apply(x, groups)


def channel_moments_triton(x: Tensor, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Forward reads x once, in one launch and a small one; backward reads it once and writes once."""
    with torch.cuda.device_of(x):
        return _ChannelMoments.apply(x.contiguous(), groups)


class _ExplicitMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, groups):
        mean, var = channel_moments_reference(x, groups)
        ctx.save_for_backward(x, mean)
        return mean, var

    @staticmethod
    def backward(ctx, of_mean, of_var):
        refuse.second_derivative("channel_moments", "explicit")
        x, mean = ctx.saved_tensors
        count = x.numel() // mean.numel()
        curve, slope = 2 * of_var / count, of_mean / count
        curve, offset = (
            one.unflatten(1, (-1, *[1] * (x.dim() - 2))) for one in (curve, slope - curve * mean)
        )
        wide = x.to(mean.dtype).unflatten(0, (-1, len(mean)))
        return torch.addcmul(offset, wide, curve).flatten(0, 1).to(x.dtype), None


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


class _ChannelMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, groups):
        images, channels, space = len(x) // groups, x.shape[1], math.prod(x.shape[2:])
        wide = {"dtype": torch.promote_types(x.dtype, torch.float32), "device": x.device}
        lanes = 8192 // wide["dtype"].itemsize  # as many as the registers of a program hold three numbers for
        block_space = min(512, _power(space))
        block_channels = min(
            _power(channels), max(1, 32 // block_space)
        )  # so that neighbours in memory are in one block
        block_images = min(_power(images), max(1, lanes // (block_space * block_channels)))
        columns = -(-channels // block_channels)
        blocks = -(-images // block_images) * -(-space // block_space)
        parts = max(1, min(64, blocks // 2, 1024 // (groups * columns)))  # enough programs for a large GPU
        partial = torch.empty(3, parts, groups * channels, **wide)
        mean, var, offset = (torch.empty(groups, channels, **wide) for _ in range(3))
        launch(
            _kernels()[0],
            (columns, groups, parts),
            x,
            partial,
            images,
            groups,
            channels,
            space,
            -(-blocks // parts),
            MULTIPLE=multiple(space),
            IMAGES=block_images,
            CHANNELS=block_channels,
            SPACE=block_space,
        )
        launch(
            _kernels()[1],
            (-(-groups * channels // 32),),
            x,
            partial,
            mean,
            var,
            offset,
            parts,
            groups * channels,
            space,
            PARTS=_power(parts),
            BLOCK=32,
        )
        ctx.save_for_backward(x, offset)
        return mean, var

    @staticmethod
    def backward(ctx, of_mean, of_var):
        refuse.second_derivative("channel_moments")
        x, offset = ctx.saved_tensors
        groups, channels = offset.shape
        space = math.prod(x.shape[2:])
        rows = len(x) * channels
        block = min(1024, _power(space))
        out = torch.empty_like(x)
        grid = (-(-rows * block // 2048), -(-space // block))
        launch(
            _kernels()[2],
            grid,
            x,
            offset,
            of_mean.contiguous(),
            of_var.contiguous(),
            out,
            rows,
            channels,
            groups,
            space,
            MULTIPLE=multiple(space),
            ROWS=2048 // block,
            SPACE=block,
        )
        return out, None


@functools.cache
def _kernels():
    """Built at the first launch: importing ddcore does not import Triton, whose kernels want `tl` among the globals of their file."""
    global tl
    import triton
    import triton.language as tl

    @triton.jit
    def channel_moments_parts(
        x,
        partial,
        images,
        groups,
        channels,
        space,
        blocks,
        MULTIPLE: tl.constexpr,
        IMAGES: tl.constexpr,
        CHANNELS: tl.constexpr,
        SPACE: tl.constexpr,
    ):
        """Count, mean, squared distances of `blocks` blocks of (images, space): Welford in each lane, then the lanes about their mean.

        Numbers are taken from the first one of their group and channel, so that a mean far from zero costs no digits of the variance.
        """
        wide = partial.dtype.element_ty
        space = space // MULTIPLE * MULTIPLE
        channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)[:, None]
        lane = tl.arange(0, IMAGES * SPACE)[None, :]
        across = tl.cdiv(space, SPACE)
        first = tl.program_id(2) * blocks
        column = tl.program_id(1) * channels + channel
        anchor = tl.load(x + column.to(tl.int64) * space, channel < channels, other=0).to(wide)
        count = tl.zeros([CHANNELS, IMAGES * SPACE], wide)
        mean = tl.zeros([CHANNELS, IMAGES * SPACE], wide)
        square = tl.zeros([CHANNELS, IMAGES * SPACE], wide)
        for block in range(first, min(first + blocks, tl.cdiv(images, IMAGES) * across)):
            image = (block // across) * IMAGES + lane // SPACE
            point = (block % across) * SPACE + lane % SPACE
            inside = (channel < channels) & (image < images) & (point < space)
            row = (tl.program_id(1) + image * groups).to(tl.int64) * channels + channel
            value = tl.load(x + row * space + point, inside, other=0).to(wide) - anchor
            count += inside.to(wide)
            away = tl.where(inside, value - mean, 0)
            mean += away / tl.maximum(count, 1)
            square += away * tl.where(inside, value - mean, 0)
        counts = tl.sum(count, 1)[:, None]
        means = tl.sum(count * mean, 1)[:, None] / tl.maximum(counts, 1)
        squares = tl.sum(square + count * (mean - means) * (mean - means), 1)[:, None]
        total = groups * channels
        place = partial + tl.program_id(2) * total + column
        tl.store(place, counts, channel < channels)
        tl.store(place + tl.num_programs(2) * total, means, channel < channels)
        tl.store(place + 2 * tl.num_programs(2) * total, squares, channel < channels)

    @triton.jit
    def channel_moments_whole(
        x, partial, mean_out, var_out, offset, parts, total, space, PARTS: tl.constexpr, BLOCK: tl.constexpr
    ):
        column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
        anchor = tl.load(x + column.to(tl.int64) * space, column < total, other=0).to(
            partial.dtype.element_ty
        )
        part = tl.arange(0, PARTS)[:, None]
        place, inside = partial + part * total + column, (part < parts) & (column < total)
        count = tl.load(place, inside, other=0)
        mean = tl.load(place + parts * total, inside, other=0)
        square = tl.load(place + 2 * parts * total, inside, other=0)
        counts = tl.maximum(tl.sum(count, 0), 1)[None, :]
        means = tl.sum(count * mean, 0)[None, :] / counts
        squares = tl.sum(square + count * (mean - means) * (mean - means), 0)[None, :]
        tl.store(offset + column, means, column < total)
        tl.store(mean_out + column, anchor + means, column < total)
        tl.store(var_out + column, squares / counts, column < total)

    @triton.jit
    def channel_moments_backward(
        x,
        offset,
        of_mean,
        of_var,
        out,
        rows,
        channels,
        groups,
        space,
        MULTIPLE: tl.constexpr,
        ROWS: tl.constexpr,
        SPACE: tl.constexpr,
    ):
        space = space // MULTIPLE * MULTIPLE
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
        point = tl.program_id(1) * SPACE + tl.arange(0, SPACE)[None, :]
        known, inside = row < rows, (row < rows) & (point < space)
        moment = row // channels % groups * channels + row % channels
        wide = offset.dtype.element_ty
        number = (
            tl.cast(rows // (channels * groups), wide) * space
        )  # an argument of one is a number of Python's, which has no `.to`
        slope = tl.load(of_mean + moment, known, other=0) / number
        curve = 2 * tl.load(of_var + moment, known, other=0) / number
        anchor = tl.load(x + moment.to(tl.int64) * space, known, other=0).to(wide)
        centre = tl.load(offset + moment, known, other=0)
        place = row.to(tl.int64) * space + point
        value = tl.load(x + place, inside, other=0).to(wide)
        tl.store(out + place, slope + curve * (value - anchor - centre), inside)

    return channel_moments_parts, channel_moments_whole, channel_moments_backward

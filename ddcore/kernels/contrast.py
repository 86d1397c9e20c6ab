"""Contrast of synthetic with real features by label: the noise-contrastive loss of MIM4DD (Shang, Yuan & Yan, NeurIPS 2023), and InfoNCE.

With rows u_i of a layer's M synthetic features and v_j of its N real ones, s_ij = <u_i, v_j> / tau. Positives P_i of row i are the
real rows of its class, negatives N_i those of the other classes, or with `own` all of them. The loss is the mean over i of

    nce:      mean_{P_i} -log h_ij + sum_{N_i} -log(1 - h_ij),    h_ij = sigmoid(s_ij - log|N_i| - log z)
    infonce:  log sum_{N_i} exp(s_ij) - mean_{P_i} s_ij,          h_ij = exp(s_ij) / sum_{N_i} exp(s_ij)

A sum over an empty set is zero, so an image whose class has no real row is pushed away alone. The critic of nce is that of CRD (Tian et
al., ICLR 2020), z its normaliser E exp(s); no code of MIM4DD is public, so this is our reconstruction. In both, dL/du_i is a sum of
real rows with weights that depend on s_ij alone (for infonce attention with keys as values, less the class mean): loss and gradient
come from one pass, and nothing of size M x N is kept.
"""

import functools
import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore.errors import BadInput
from ddcore.kernels import refuse
from ddcore.kernels.class_means import by_class, class_means
from ddcore.kernels.launch import launch, multiple
from ddcore.settings import one_of, positive

CRITICS = ("nce", "infonce")
BLOCK = 2**19  # pairs of all layers that the path for processors holds at once
TILE = 16  # rows of each side that a program contrasts at once: with 32, on some GPU or other, numbers spill out of the registers


class Contrast(NamedTuple):
    """Of each layer, (K,): the loss; the mean of log h over positives; the log of the mean of exp(s) over negatives."""

    loss: Tensor
    log_h: Tensor
    log_mean_exp: Tensor


def contrast(
    fake: Tensor,
    fake_labels: Tensor,
    real: Tensor,
    real_labels: Tensor,
    classes: int,
    *,
    temperature: float,
    critic: str = "nce",
    own: bool = False,
    log_z: Tensor | None = None,
) -> Contrast:
    """(K, M, D), (M,), (K, N, D), (N,) of K layers -> `Contrast`, at least float32. `log_z`: (K,), zero if None; infonce has none.

    The gradient goes to `fake` alone, through the loss alone, and has no derivative (`contrast_reference` has all of them).
    """
    chosen = contrast_triton if fake.is_cuda else contrast_chunked
    return chosen(
        fake,
        fake_labels,
        real,
        real_labels,
        classes,
        temperature=temperature,
        critic=critic,
        own=own,
        log_z=log_z,
    )


def contrast_reference(
    fake: Tensor,
    fake_labels: Tensor,
    real: Tensor,
    real_labels: Tensor,
    classes: int,
    *,
    temperature: float,
    critic: str = "nce",
    own: bool = False,
    log_z: Tensor | None = None,
) -> Contrast:
    wide = torch.promote_types(fake.dtype, torch.float32)
    s = fake.to(wide) @ real.to(wide).mT / temperature
    same = fake_labels[:, None] == real_labels
    negative = torch.ones_like(same) if own else ~same
    many, more = same.sum(1).to(wide), negative.sum(1).to(wide)
    share = same / many.clamp(min=1)[:, None]
    rows = torch.where(negative, s, -torch.inf)[:, more > 0].logsumexp(2)
    if critic == "nce":
        logit = s - more.clamp(min=1).log()[:, None] - (0 if log_z is None else log_z[:, None, None])
        log_h = (F.logsigmoid(logit) * share).sum(2)
        loss = -(log_h + (F.logsigmoid(-logit) * negative).sum(2)).mean(1)
    else:
        log_h = (s * share).sum(2) - s.new_zeros(s.shape[:2]).masked_scatter(
            (more > 0).expand(s.shape[:2]), rows
        )
        loss = -log_h.mean(1)
    return Contrast(
        loss,
        (log_h * (many > 0)).sum(1) / (many > 0).sum().clamp(min=1),
        rows.logsumexp(1) - more.sum().clamp(min=1).log(),
    )


def contrast_chunked(*sides, **how) -> Contrast:
    """`contrast` in blocks that fit the cache of a processor, both sides sorted by class: a class is a slice, no mask is needed."""
    return _contrast("chunked", _chunks, *sides, **how)


def contrast_triton(*sides, **how) -> Contrast:
    """`contrast` in one launch for all layers; programs share the real rows out, and their parts are summed in a fixed order."""
    with torch.cuda.device_of(sides[0]):
        return _contrast("triton", _launch, *sides, **how)


def _contrast(
    path,
    run,
    fake,
    fake_labels,
    real,
    real_labels,
    classes,
    *,
    temperature,
    critic="nce",
    own=False,
    log_z=None,
) -> Contrast:
    positive("contrast", temperature=temperature)
    one_of("contrast", CRITICS, critic=critic)
    refuse.gradient_of_real("contrast", real, path=path)
    if not (
        fake.dim() == real.dim() == 3
        and fake.shape[::2] == real.shape[::2]
        and fake_labels.shape == fake.shape[1:2]
        and real_labels.shape == real.shape[1:2]
        and fake.dtype == real.dtype
        and fake.numel()
        and real.numel()
    ):
        raise BadInput(
            f"contrast: shapes {[tuple(side.shape) for side in (fake, fake_labels, real, real_labels)]} of {fake.dtype} and "
            f"{real.dtype}; give (K, M, D), (M,), (K, N, D), (N,), not empty, of one dtype"
        )
    wide = torch.promote_types(fake.dtype, torch.float32)
    many = by_class(real_labels, classes)[1].diff()[fake_labels]
    more = torch.full_like(many, real.shape[1]) if own else real.shape[1] - many
    offset = torch.zeros(fake.shape[:2], dtype=wide, device=fake.device)
    if critic == "nce":
        offset = offset + more.clamp(min=1).to(wide).log() + (0 if log_z is None else log_z[:, None])
    rows, log_h, sums = _Rows.apply(
        fake.contiguous(),
        fake_labels,
        real.contiguous(),
        real_labels,
        classes,
        offset,
        1 / many.clamp(min=1).to(wide),
        temperature,
        critic == "infonce",
        own,
        path,
        run,
    )
    if critic == "infonce":
        means = torch.stack([class_means(layer, real_labels, classes)[fake_labels] for layer in real])
        rows = rows - (fake.to(wide) * means).sum(2) / temperature
        log_h = -rows.detach()
    return Contrast(
        rows.mean(1),
        (log_h * (many > 0)).sum(1) / (many > 0).sum().clamp(min=1),
        (sums + offset).logsumexp(1) - more.sum().clamp(min=1).to(wide).log(),
    )


class _Rows(torch.autograd.Function):
    """(K, M) each: the loss of nce, or of infonce the log of its sum; log h of nce, mean over positives; log sum_{N_i} exp(s - offset)."""

    @staticmethod
    def forward(
        ctx,
        fake,
        fake_labels,
        real,
        real_labels,
        classes,
        offset,
        share,
        temperature,
        softmax,
        own,
        path,
        run,
    ):
        *found, gradient = run(
            fake, fake_labels, real, real_labels, classes, offset, share, 1 / temperature, softmax, own
        )
        ctx.save_for_backward(gradient)
        ctx.how = path, fake.dtype, temperature
        ctx.mark_non_differentiable(*found[1:])
        return tuple(found)

    @staticmethod
    def backward(ctx, of_rows, *nothing):
        path, dtype, temperature = ctx.how
        refuse.second_derivative("contrast", path)
        return (ctx.saved_tensors[0] * (of_rows[:, :, None] / temperature)).to(dtype), *[None] * 11


def _chunks(fake, fake_labels, real, real_labels, classes, offset, share, scale, softmax, own):
    (order, starts), (fake_order, fake_starts) = (
        by_class(real_labels, classes),
        by_class(fake_labels, classes),
    )
    places = list(
        zip(itertools.pairwise(fake_starts.tolist()), itertools.pairwise(starts.tolist()), strict=True)
    )
    u, shift, each = (
        fake[:, fake_order].to(offset.dtype),
        -offset[:, fake_order, None],
        share[fake_order, None],
    )
    value, log_h, sums, pull = (
        torch.zeros_like(shift),
        torch.zeros_like(shift),
        torch.full_like(shift, -math.inf),
        torch.zeros_like(u),
    )
    high = min(512, u.shape[1])
    wide = max(1, BLOCK // (len(u) * high))
    for column in range(0, len(order), wide):
        v = real[:, order[column : column + wide]].to(u.dtype)
        for row in range(0, u.shape[1], high):
            rows = slice(row, row + high)
            same = [here for place in places if (here := _overlap(place, (row, column), (high, wide)))]
            _block(
                u[:, rows],
                v,
                shift[:, rows],
                each[rows],
                same,
                scale,
                softmax,
                own,
                *(whole[:, rows] for whole in (value, log_h, sums, pull)),
            )
    value = sums.where(sums > -math.inf, 0) if softmax else value - log_h
    back = fake_order.argsort()
    return *(found[:, back, 0] for found in (value, log_h, sums)), pull[:, back]


def _overlap(place, corner, size):
    """The slices of rows and of columns that a block has in common with `place`, the rows and columns of one class; None if nothing."""
    ends = [
        (max(first - at, 0), min(last - at, long))
        for (first, last), at, long in zip(place, corner, size, strict=True)
    ]
    return tuple(slice(*end) for end in ends) if all(first < last for first, last in ends) else None


def _block(u, v, shift, each, same, scale, softmax, own, value, log_h, sums, pull):
    """Adds a block of rows u and v of all layers to its parts of `value` (of negatives), `log_h`, `sums` and, of u / tau, `pull`."""
    x = torch.baddbmm(shift, u, v.mT, alpha=scale)
    positives = [] if softmax else [(i, j, x[:, i, j].clone()) for i, j in same]
    for i, j in () if own else same:
        x[:, i, j] = -math.inf
    past = sums.clone()
    sums.copy_(past.logaddexp(x.logsumexp(2, keepdim=True)))
    if softmax:
        top = sums.where(sums > -math.inf, 0)
        pull.mul_((past - top).exp()).baddbmm_(x.sub_(top).exp_(), v)
        return
    value += _softplus(x).sum(2, keepdim=True)
    weight = x.sigmoid_()
    for i, j, of_class in positives:
        log_h[:, i] -= _softplus(-of_class).sum(2, keepdim=True) * each[i]
        weight[:, i, j].sub_(of_class.neg_().sigmoid_() * each[i])
    pull.baddbmm_(weight, v)


def _softplus(x):
    """log(1 + exp x), to a rounding of 1 + exp made good to first order: torch's own takes five times as long on a CPU."""
    e = x.abs().neg_().exp_()
    w = 1 + e
    return x.clamp(min=0).add_(w.log()).add_(e.sub_(w - 1).div_(w))


def _launch(fake, fake_labels, real, real_labels, classes, offset, share, scale, softmax, own):
    import triton

    layers, rows, width = fake.shape
    if width > 256:
        raise BadInput(
            f"contrast_triton: features of {width} numbers, but a program holds no more than 256; project them"
        )
    many, wide = real.shape[1], {"dtype": offset.dtype, "device": fake.device}
    padded = max(16, triton.next_power_of_2(width))
    tiles, blocks = triton.cdiv(rows, TILE), triton.cdiv(many, TILE)
    span = triton.cdiv(blocks, max(1, 512 // (tiles * layers)))  # enough programs for a large GPU
    parts = triton.cdiv(blocks, span)
    found, pull = torch.empty(4, parts, layers, rows, **wide), torch.empty(parts, layers, rows, width, **wide)
    times = torch.full((1,), scale, **wide)  # a number passed as such would be rounded to float32
    launch(
        _kernel(),
        (tiles, parts, layers),
        fake,
        fake_labels,
        real,
        real_labels,
        offset,
        share,
        times,
        found,
        pull,
        rows,
        many,
        width,
        TILE * span,
        MULTIPLE=multiple(width),
        OWN=own,
        SOFTMAX=softmax,
        BLOCK=TILE,
        WIDTH=padded,
        num_warps=4 if padded == 32 else 8,
    )  # with 8, rows of 17 to 32 numbers spill in float32 on sm_100
    value, log_h, top, total = found
    sums = (top + total.log()).logsumexp(0)
    if softmax:
        value = sums.where(sums > -math.inf, 0)
        return value, torch.zeros_like(value), sums, (pull * (top - value).exp()[..., None]).sum(0)
    return value.sum(0), log_h.sum(0), sums, pull.sum(0)


@functools.cache
def _kernel():
    """Built at the first launch: importing ddcore does not import Triton, whose kernels want `tl` among the globals of their file."""
    global tl
    import triton
    import triton.language as tl

    @triton.jit
    def contrast_forward(
        fake,
        fake_labels,
        real,
        real_labels,
        offset,
        share,
        scale,
        found,
        pull,
        rows,
        many,
        width,
        span,
        MULTIPLE: tl.constexpr,
        OWN: tl.constexpr,
        SOFTMAX: tl.constexpr,
        BLOCK: tl.constexpr,
        WIDTH: tl.constexpr,
    ):
        """Program (rows, part of the real rows, layer). `found`: loss, log h, the largest exponent of a negative, and sum exp beside it."""
        wide = found.dtype.element_ty
        width = width // MULTIPLE * MULTIPLE
        part, layer = tl.program_id(1), tl.program_id(2).to(tl.int64)
        row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        number = tl.arange(0, WIDTH)[None, :]
        inside, within = row < rows, number < width
        place = layer * rows + row
        u = tl.load(fake + place[:, None] * width + number, inside[:, None] & within, other=0)
        label = tl.load(fake_labels + row, inside, other=0).to(tl.int32)[:, None]
        shift = tl.load(offset + place, inside, other=0)[:, None]
        each = tl.load(share + row, inside, other=0)[:, None]
        times = tl.load(scale)
        value, log_h, total = tl.zeros([BLOCK], wide), tl.zeros([BLOCK], wide), tl.zeros([BLOCK], wide)
        top = tl.full([BLOCK], -1e30, wide)
        sums = tl.zeros([BLOCK, WIDTH], wide)
        for start in range(part * span, min((part + 1) * span, many), BLOCK):
            column = start + tl.arange(0, BLOCK)
            known = column < many
            v = tl.load(
                real + (layer * many + column)[:, None] * width + number, known[:, None] & within, other=0
            )
            same = (label == tl.load(real_labels + column, known, other=0).to(tl.int32)[None, :]) & known[
                None, :
            ]
            negative = known[None, :] & (OWN | ~same)
            x = tl.dot(u, tl.trans(v), input_precision="ieee", out_dtype=wide) * times - shift
            past, masked = top, tl.where(negative, x, -1e30)
            top = tl.maximum(past, tl.max(masked, 1))
            weight = tl.where(negative, tl.exp(masked - top[:, None]), 0)
            total = total * tl.exp(past - top) + tl.sum(weight, 1)
            if SOFTMAX:
                sums = sums * tl.exp(past - top)[:, None]
            else:
                e = tl.exp(-tl.abs(x))
                up = 1 + e
                log1p = tl.where(up == 1, e, tl.log(up) * (e / tl.where(up == 1, 1, up - 1)))
                of_positive = tl.where(same, tl.minimum(x, 0) - log1p, 0) * each
                log_h += tl.sum(of_positive, 1)
                value += tl.sum(tl.where(negative, log1p + tl.maximum(x, 0), 0) - of_positive, 1)
                weight = (
                    tl.where(negative, tl.where(x > 0, 1, e) / up, 0)
                    - tl.where(same, tl.where(x > 0, e, 1) / up, 0) * each
                )
            sums += tl.dot(weight.to(v.dtype), v, input_precision="ieee", out_dtype=wide)
        step = tl.num_programs(1) * tl.num_programs(2) * rows
        place += part * tl.num_programs(2) * rows
        tl.store(found + place, value, inside)
        tl.store(found + step + place, log_h, inside)
        tl.store(found + 2 * step + place, top, inside)
        tl.store(found + 3 * step + place, total, inside)
        tl.store(pull + place[:, None] * width + number, sums, inside[:, None] & within)

    return contrast_forward

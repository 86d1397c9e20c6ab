"""The Triton kernels against the references: on a GPU, or on the CPU in the process that test_kernels.py starts with TRITON_INTERPRET=1.

Every tensor that the ops allocate empty is full of NaN and lies between two fences that no kernel may step over.
"""

import functools
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ddcore
from ddcore.kernels import class_means, contrast, row_cosine, statistics
from ddcore.random import stream

pytest.importorskip("triton")
import triton.language as tl
from triton.runtime import interpreter

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = (
    []
    if INTERPRETED
    else [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
)

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
FENCE, POST = 64, 12345


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    buffers = []

    def empty(*shape, dtype, device):
        shape = torch.Size(shape[0] if isinstance(shape[0], tuple) else shape)
        buffers.append(torch.full((shape.numel() + 2 * FENCE,), POST, dtype=dtype, device=device))
        return buffers[-1][FENCE : FENCE + shape.numel()].fill_(torch.nan).view(shape)

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(
        torch, "empty_like", lambda like: empty(*like.shape, dtype=like.dtype, device=like.device)
    )
    yield
    monkeypatch.undo()
    for buffer in buffers:
        fences = torch.cat([buffer[:FENCE], buffer[-FENCE:]])
        assert bool((fences == torch.full_like(fences, POST)).all())


@pytest.fixture(autouse=True)
def as_compiled(monkeypatch):
    """Where the interpreter differs from a compiled kernel: it truncates to bfloat16, multiplies its bits, and believes every hint."""
    if not INTERPRETED:
        return
    convert, dot = interpreter._convert_float, interpreter.InterpreterBuilder.create_dot

    def rounded(data, source, target, mode):
        if (source, target) != (tl.float32, tl.bfloat16):
            return convert(data, source, target, mode)
        return torch.tensor(data).bfloat16().view(torch.uint16).numpy()

    def of_numbers(self, a, b, *rest):
        return dot(
            self,
            *(
                self.cast_impl(side, tl.float32) if side.dtype.scalar == tl.bfloat16 else side
                for side in (a, b)
            ),
            *rest,
        )

    def true(self, name, values):
        if name == "tt.divisibility":
            assert not (self.data % np.uint64(values[0])).any(), f"said to be a multiple of {values[0]}"

    monkeypatch.setattr(interpreter, "_convert_float", rounded)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", of_numbers)
    monkeypatch.setattr(interpreter.TensorHandle, "set_attr", true)


def draw(name: str, *shape: int, dtype=torch.float64, scale: float = 1, shift: float = 0) -> torch.Tensor:
    return (torch.randn(shape, generator=stream(0, "kernels", name), dtype=torch.float64) * scale + shift).to(
        DEVICE, dtype
    )


def with_gradients(op, inputs):
    """Outputs of op(inputs) and the gradients of their weighted sum, detached from `inputs`."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    outputs = op(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weighted = sum(
        (output * draw(f"weights{i}", *output.shape).to(output.dtype)).sum()
        for i, output in enumerate(outputs)
    )
    return [tensor.detach() for tensor in (*outputs, *torch.autograd.grad(weighted, inputs))]


def check(ours, naive, wide, inputs):
    """Outputs and gradients: an error against float64 of at most twice the naive one's, give or take 1e-12, in float32 four roundings, and
    in bfloat16 one, that of the result."""
    exact = with_gradients(wide, [tensor.double() for tensor in inputs])
    for x, y, z in zip(with_gradients(ours, inputs), with_gradients(naive, inputs), exact, strict=True):
        assert x.shape == z.shape
        rounded = max(
            1e-12,
            2 * torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps,
            torch.finfo(x.dtype).eps / 2,
        )
        of_ours, of_naive = (float((found.double() - z).norm()) for found in (x, y))
        assert of_ours <= 2 * of_naive + rounded * max(1, float(z.norm())), (
            of_ours,
            of_naive,
            float(z.norm()),
        )


statistics_loss_reference, statistics_loss_triton = (
    functools.partial(statistics.statistics_loss, moments=moments)
    for moments in (statistics.channel_moments_reference, statistics.channel_moments_triton)
)

LAYERS = {
    "convnet": [(3, 4, 27), (3, 1, 1152), (3, 2, 2048)],
    "ragged": [(2, 5, 3), (1, 1, 2), (5, 1, 1025), (1, 3, 31), (2, 2, 4)],
    "one row": [(1, 1, 7)],
}


def naive_row_cosine(real, fake):
    return sum(
        (1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-6)).sum()
        for a, b in zip(real, fake, strict=True)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", LAYERS.values(), ids=LAYERS.keys())
def test_row_cosine(shapes, dtype):
    real = [draw(f"real{i}", *shape, dtype=dtype) for i, shape in enumerate(shapes)]
    fake = [draw(f"fake{i}", *shape, dtype=dtype) for i, shape in enumerate(shapes)]
    check(
        lambda *fake: row_cosine.row_cosine_distance_triton(real, fake),
        lambda *fake: naive_row_cosine(real, fake),
        lambda *fake: row_cosine.row_cosine_distance_reference([a.double() for a in real], fake),
        fake,
    )


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_row_cosine_where_the_norms_are_of_the_size_of_epsilon_or_zero_or_of_one_number(dtype, rtol):
    real = [
        draw("real", 4, 3, 9, dtype=dtype, scale=3e-4),
        draw("more", 2, 2, 40, dtype=dtype),
        draw("real1", 2, 5, 1, dtype=dtype),
    ]
    fake = [
        draw("fake", 4, 3, 9, dtype=dtype, scale=3e-4),
        draw("less", 2, 2, 40, dtype=dtype),
        draw("fake1", 2, 5, 1, dtype=dtype),
    ]
    for zero in (real[0][0], fake[0][1], real[1][0, 0], fake[1][0, 1], real[0][2, 1], fake[0][2, 1]):
        zero.zero_()
    ours = with_gradients(lambda *fake: row_cosine.row_cosine_distance_triton(real, fake), fake)
    theirs = with_gradients(lambda *fake: row_cosine.row_cosine_distance_reference(real, fake), fake)
    for x, y in zip(ours, theirs, strict=True):
        assert torch.allclose(x, y, rtol=rtol, atol=rtol)
    assert torch.allclose(
        ours[2][0, 1], -real[1][0, 1] / 1e-6 * draw("weights0").to(dtype), rtol=rtol, atol=0
    )


def moved(tensor, places):
    """The same numbers, the first of them `places` behind an aligned address."""
    return torch.nn.functional.pad(tensor.flatten(), (places, 0))[places:].view(tensor.shape)


@pytest.mark.parametrize("places", [(1, 0), (0, 1), (1, 1)])
def test_row_cosine_where_rows_of_a_multiple_of_sixteen_bytes_begin_between_two(places):
    real, fake = draw("real", 2, 3, 40), draw("fake", 2, 3, 40)
    ours = with_gradients(
        lambda x: row_cosine.row_cosine_distance_triton([moved(real, places[0])], [moved(x, places[1])]),
        [fake],
    )
    for x, y in zip(
        ours,
        with_gradients(lambda x: row_cosine.row_cosine_distance_reference([real], [x]), [fake]),
        strict=True,
    ):
        assert torch.allclose(x, y, rtol=1e-12, atol=1e-12)


def naive_class_mean_distance(fake, fake_labels, real, real_labels, classes):
    means = [
        [
            side[labels == c].mean(0) if (labels == c).any() else torch.zeros_like(side[0])
            for c in range(classes)
        ]
        for side, labels in ((fake, fake_labels), (real, real_labels))
    ]
    return sum(((a - b) ** 2).sum() for a, b in zip(*means, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("fakes", "reals", "width", "classes"), [(7, 90, 131, 3), (1, 1, 1, 1), (33, 40, 5, 11), (4, 65, 257, 2)]
)
def test_class_mean_distance(fakes, reals, width, classes, dtype):
    """Labels in no order; with eleven classes the fourth has no fake row and the last no real one."""
    fake_labels, real_labels = ((torch.arange(n) * 7 % 11 % classes).to(DEVICE) for n in (fakes, reals))
    fake_labels[fake_labels == 3], real_labels[real_labels == 10] = 2, 0
    fake, real = draw("fake", fakes, width, dtype=dtype), draw("real", reals, width, dtype=dtype, shift=1)
    check(
        lambda fake: class_means.class_mean_distance_triton(fake, fake_labels, real, real_labels, classes),
        lambda fake: naive_class_mean_distance(fake, fake_labels, real, real_labels, classes),
        lambda fake: class_means.class_mean_distance_reference(
            fake, fake_labels, real.double(), real_labels, classes
        ),
        [fake],
    )


def naive_moments(x, groups):
    sets = [x[j::groups].transpose(0, 1).flatten(1) for j in range(groups)]
    means = [rows.mean(1) for rows in sets]
    return torch.stack(means), torch.stack(
        [((rows - mean[:, None]) ** 2).mean(1) for rows, mean in zip(sets, means, strict=True)]
    )


def naive_statistics_loss(x, mean, var, groups, r_var):
    mu, sigma2 = naive_moments(x, groups)
    return ((mu - mean).norm(dim=1) + r_var * (sigma2 - var).norm(dim=1)).sum()


IMAGES = [
    ((6, 2, 7, 5), 3),
    ((4, 3), 1),
    ((5, 1, 1, 1), 5),
    ((30, 7, 3, 3), 3),
    ((76, 33), 2),
    ((2, 1, 40, 40), 1),
    ((6, 1, 13), 6),
    ((130, 2, 7, 5), 1),
]


@pytest.mark.parametrize(
    ("dtype", "shift"),
    [(torch.float64, 1000), (torch.float32, 0.5), (torch.float32, 1000), (torch.bfloat16, 0.5)],
)
@pytest.mark.parametrize(("shape", "groups"), IMAGES)
def test_channel_moments_and_statistics_loss(shape, groups, dtype, shift):
    x = draw("x", *shape, dtype=dtype, shift=shift)
    mean, var = draw("mean", shape[1], shift=shift).to(dtype), draw("var", shape[1]).square().to(dtype)
    check(
        lambda x: statistics.channel_moments_triton(x, groups),
        lambda x: naive_moments(x, groups),
        lambda x: statistics.channel_moments_reference(x, groups),
        [x],
    )
    check(
        lambda x: statistics_loss_triton(x, mean, var, groups, 0.3),
        lambda x: naive_statistics_loss(x, mean, var, groups, 0.3),
        lambda x: statistics_loss_reference(x, mean.double(), var.double(), groups, 0.3),
        [x],
    )


@settings(max_examples=8)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 40), st.lists(st.integers(1, 12), max_size=2))
def test_channel_moments_of_any_shape(images, groups, channels, space):
    x = draw("x", images * groups, channels, *space)
    ours = with_gradients(lambda x: statistics.channel_moments_triton(x, groups), [x])
    for found, expected in zip(
        ours, with_gradients(lambda x: statistics.channel_moments_reference(x, groups), [x]), strict=True
    ):
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_statistics_loss_at_equality_has_gradient_zero():
    x = draw("x", 4, 3, 2, 2).requires_grad_()
    mean, var = (moment[0].detach() for moment in statistics.channel_moments_triton(x))
    assert not torch.autograd.grad(statistics_loss_triton(x, mean, var), x)[0].any()


def naive_contrast(fake, fake_labels, real, real_labels, temperature, critic, own):
    """As written down, in the dtype that is given."""
    s, same = fake @ real.mT / temperature, fake_labels[:, None] == real_labels
    negative = torch.ones_like(same) if own else ~same
    many, more = same.sum(1).clamp(min=1), negative.sum(1).clamp(min=1)
    if critic == "infonce":
        s = s - torch.where(negative, s, -torch.inf).logsumexp(2, keepdim=True)
        return -((s * same).sum(2) / many).mean(1)
    logit = s - more.log().to(s)[:, None]
    log_h, log_rest = torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)
    return -((log_h * same).sum(2) / many + (log_rest * negative).sum(2)).mean(1)


def labelled(rows, classes):
    """In no order; of eleven classes the last is missing."""
    labels = (torch.arange(rows) * 7 % 11 % classes).to(DEVICE)
    labels[labels == 10] = 0
    return labels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("critic", "own"), [("nce", False), ("nce", True), ("infonce", False), ("infonce", True)]
)
@pytest.mark.parametrize(
    ("layers", "fakes", "reals", "width", "classes"),
    [(2, 7, 90, 5, 3), (1, 1, 65, 17, 2), (3, 70, 130, 33, 11)],
)
def test_contrast(layers, fakes, reals, width, classes, critic, own, dtype):
    fake, real = (
        torch.nn.functional.normalize(draw(name, layers, rows, width), dim=2).to(dtype)
        for name, rows in (("fake", fakes), ("real", reals))
    )
    fake_labels, real_labels = labelled(fakes, classes), labelled(reals, classes)
    how = {"temperature": 0.1, "critic": critic, "own": own}
    check(
        lambda fake: contrast.contrast_triton(fake, fake_labels, real, real_labels, classes, **how).loss,
        lambda fake: naive_contrast(fake, fake_labels, real, real_labels, **how),
        lambda fake: (
            contrast.contrast_reference(fake, fake_labels, real.double(), real_labels, classes, **how).loss
        ),
        [fake],
    )


@pytest.mark.parametrize("temperature", [1e-4, 1e4])
@pytest.mark.parametrize("critic", contrast.CRITICS)
def test_contrast_at_extreme_temperatures_without_some_class_and_of_one_class(critic, temperature):
    """Every output; the fakes of class 2 have no positive, and a real side of one class leaves its fakes no negative."""
    fake, labels = draw("fake", 2, 9, 6), labelled(9, 3)
    log_z = draw("log_z", 2)
    for real_labels in (labelled(80, 2), torch.ones(80, dtype=torch.int64, device=DEVICE)):

        def outputs(op, fake, real_labels=real_labels):
            found = op(
                fake,
                labels,
                draw("real", 2, 80, 6),
                real_labels,
                3,
                temperature=temperature,
                critic=critic,
                log_z=log_z,
            )
            return found.loss, found.log_h.detach(), found.log_mean_exp.detach()

        ours, theirs = (
            with_gradients(lambda fake, op=op: outputs(op, fake), [fake])
            for op in (contrast.contrast_triton, contrast.contrast_reference)
        )
        for x, y, size in zip(ours, theirs, (1, 1, 1, 1 / temperature), strict=True):
            assert float((x - y).norm()) <= 1e-12 * max(size, float(y.norm()))


def strided(tensor):
    return tensor.transpose(0, 1).contiguous().transpose(0, 1)


def ops(dtype=torch.float64):
    """name: (the Triton op, the public one, both of one tensor of that dtype); the same numbers in each."""
    real = draw("real", 3, 5, 7, dtype=torch.bfloat16).to(dtype)
    labels, others = torch.tensor([1, 0, 0], device=DEVICE), torch.tensor([0, 1, 1], device=DEVICE)
    side = (labels, strided(real[:, 0]), others, 2)
    five, more = torch.tensor([0, 1, 1, 0, 1], device=DEVICE), draw("more", 3, 8, 7).to(dtype)
    contrasted = (five, more, torch.arange(8, device=DEVICE) % 2, 2)
    return {
        "row_cosine_distance": (
            lambda x: row_cosine.row_cosine_distance_triton([strided(real)], [x]),
            lambda x: row_cosine.row_cosine_distance([real], [x]),
        ),
        "class_mean_distance": (
            lambda x: class_means.class_mean_distance_triton(x[:, 1], *side),
            lambda x: class_means.class_mean_distance(x[:, 1], *side),
        ),
        "contrast": (
            lambda x: contrast.contrast_triton(
                x, five, strided(more), *contrasted[2:], temperature=0.3
            ).loss.sum(),
            lambda x: contrast.contrast(x, *contrasted, temperature=0.3).loss.sum(),
        ),
        "channel_moments": (
            lambda x: statistics_loss_triton(x, real[0, :, 0], real[1, :, 0]),
            lambda x: statistics.statistics_loss(x, real[0, :, 0], real[1, :, 0]),
        ),
    }


NAMES = ["row_cosine_distance", "class_mean_distance", "contrast", "channel_moments"]


@pytest.mark.parametrize("name", NAMES)
def test_strided_inputs_and_the_public_name_give_the_same(name):
    ours, public = ops()[name]
    x = draw("x", 3, 5, 7)
    for found, expected in zip(with_gradients(ours, [strided(x)]), with_gradients(public, [x]), strict=True):
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "contrast"])
def test_a_gradient_in_bfloat16_is_the_one_in_float32_rounded_to_nearest(name):
    x, ours = (
        draw("x", 3, 5, 7, dtype=torch.bfloat16),
        [ops(dtype)[name][0] for dtype in (torch.bfloat16, torch.float32)],
    )
    (_, found), (_, exact) = (
        with_gradients(op, [x.to(dtype)])
        for op, dtype in zip(ours, (torch.bfloat16, torch.float32), strict=True)
    )
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(
        found.float(), exact, rtol=torch.finfo(torch.bfloat16).eps / 2 * 1.001, atol=1e-12
    )


@pytest.mark.parametrize("name", NAMES)
def test_twice_gives_the_same_bits(name):
    ours, _ = ops()[name]
    once, twice = (with_gradients(ours, [draw("x", 3, 5, 7)]) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(once, twice, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_second_derivative_is_refused_and_names_the_way_out(name):
    ours, _ = ops()[name]
    x = draw("x", 3, 5, 7).requires_grad_()
    with pytest.raises(
        NotImplementedError, match=f"{name}_triton has no second derivative.*{name}_reference"
    ):
        torch.autograd.grad(ours(x), x, create_graph=True)


def test_a_gradient_for_real_is_refused(refuses):
    real, labels = draw("real", 2, 3, 4).requires_grad_(), torch.tensor([0, 1], device=DEVICE)
    with refuses("row_cosine_distance", "`real`", "reference"):
        row_cosine.row_cosine_distance_triton([real], [real.detach()])
    with refuses("class_mean_distance", "`real`", "reference"):
        class_means.class_mean_distance_triton(real[:, 0].detach(), labels, real[:, 0], labels, 2)
    with refuses("contrast_triton", "`real`", "reference"):
        contrast.contrast_triton(
            real.detach(), labels.repeat(2)[:3], real, labels.repeat(2)[:3], 2, temperature=1.0
        )


def test_what_would_be_read_out_of_bounds_is_refused():
    x, labels = draw("x", 2, 3), torch.tensor([0, 1], device=DEVICE)
    for wrong in [
        (x, labels, x[:, :2], labels),
        (x, labels[:1], x, labels),
        (x, labels, x, labels[:1]),
        (x, labels, x.float(), labels),
    ]:
        with pytest.raises(ddcore.BadInput, match="class_mean_distance: shapes"):
            class_means.class_mean_distance_triton(*wrong, 2)
    with pytest.raises(ddcore.BadInput, match="257 numbers"):
        contrast.contrast_triton(
            draw("wide", 1, 2, 257), labels, draw("wide", 1, 2, 257), labels, 2, temperature=1.0
        )
    with pytest.raises(ddcore.BadInput, match="one dtype"):
        row_cosine.row_cosine_distance_triton([x], [x.float()])

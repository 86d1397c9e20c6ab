import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ddcore import augment, networks
from ddcore.augment import DSA, FAMILIES, WITHOUT_FLIP, Draw, apply, draw, join
from ddcore.random import stream

shapes = st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(4, 13), st.integers(4, 13))


def pictures(shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=stream(seed, "pictures"), dtype=dtype)


def whole(u, low, high):
    return min(high, low + math.floor(float(u) * (high - low + 1)))


def bilinear(image, row, column):
    """The value at a place between pixels, zero outside, of a (C, H, W) image."""
    found = torch.zeros_like(image[:, 0, 0])
    top, left = math.floor(row), math.floor(column)
    for r in (top, top + 1):
        for c in (left, left + 1):
            if 0 <= r < image.shape[1] and 0 <= c < image.shape[2]:
                found = found + image[:, r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return found


def warped(image, matrix):
    """Output pixel (i, j) reads the input where `matrix` sends its centre, in coordinates from -1 to 1 (x to the right, y down)."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for i in range(height):
        for j in range(width):
            x, y = (2 * j + 1) / width - 1, (2 * i + 1) / height - 1
            x, y = matrix[0][0] * x + matrix[0][1] * y, matrix[1][0] * x + matrix[1][1] * y
            out[:, i, j] = bilinear(image, ((y + 1) * height - 1) / 2, ((x + 1) * width - 1) / 2)
    return out


def oracle(family, image, u):
    """One image of one family, pixel by pixel, from the published definitions (ParamDiffAug)."""
    channels, height, width = image.shape
    u = [float(part) for part in u]
    out = torch.zeros_like(image)
    if family == "color":
        out = image + (u[0] - 0.5)
        grey = sum(out) / channels
        out = torch.stack([(plane - grey) * (2 * u[1]) + grey for plane in out])
        middle = out.sum() / out.numel()
        return (out - middle) * (u[2] + 0.5) + middle
    if family == "flip":
        return torch.stack([image[:, :, width - 1 - j] for j in range(width)], 2) if u[0] < 0.5 else image
    if family == "crop":
        down, right = (
            whole(u[axis], -math.floor(side / 8 + 0.5), math.floor(side / 8 + 0.5))
            for axis, side in ((0, height), (1, width))
        )
        for i in range(height):
            for j in range(width):
                if 0 <= i + down < height and 0 <= j + right < width:
                    out[:, i, j] = image[:, i + down, j + right]
        return out
    if family == "cutout":
        out = image.clone()
        cuts = math.floor(height / 2 + 0.5), math.floor(width / 2 + 0.5)
        centres = whole(u[0], 0, height - cuts[0] % 2), whole(u[1], 0, width - cuts[1] % 2)
        for a in range(cuts[0]):
            for b in range(cuts[1]):
                i, j = centres[0] + a - cuts[0] // 2, centres[1] + b - cuts[1] // 2
                out[:, min(max(i, 0), height - 1), min(max(j, 0), width - 1)] = 0
        return out
    if family == "scale":
        return warped(image, [[1 / 1.2 + u[0] * (1.2 - 1 / 1.2), 0], [0, 1 / 1.2 + u[1] * (1.2 - 1 / 1.2)]])
    angle = (2 * u[0] - 1) * 15 * math.pi / 180
    return warped(image, [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


@pytest.mark.parametrize("family", FAMILIES)
@given(shape=shapes, seed=st.integers(0, 10**6))
def test_family_equals_its_published_definition(family, shape, seed):
    x = pictures(shape)
    drawn = draw(family, 1, stream(seed, "draw"), each=len(x))
    expected = torch.stack([oracle(family, image, u) for image, u in zip(x, drawn.uniform, strict=True)])
    torch.testing.assert_close(apply(drawn, x, torch.arange(len(x))), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_family_equals_its_definition_at_the_ends_of_its_range(family, u):
    x = pictures((1, 3, 9, 12))
    drawn = Draw(torch.tensor([FAMILIES.index(family)]), torch.full((1, 4), u))
    torch.testing.assert_close(
        apply(drawn, x, torch.zeros(1, dtype=torch.long))[0],
        oracle(family, x[0], drawn.uniform[0]),
        rtol=1e-6,
        atol=1e-6,
    )


@given(st.integers(0, 10**6))
def test_siamese_gives_a_class_one_transform(seed):
    x = pictures((1, 3, 8, 8)).expand(12, -1, -1, -1)
    classes = torch.arange(3).repeat_interleave(4)
    out = apply(draw(DSA, 3, stream(seed, "draw")), x, classes)
    for label in range(3):
        assert (out[classes == label] == out[classes == label][:1]).all()


def test_siamese_sides_share_their_transform():
    drawn, x = draw(DSA, 10, stream(0, "draw")), pictures((10, 1, 8, 8))
    real = apply(drawn, x.repeat_interleave(5, 0), torch.arange(10).repeat_interleave(5))
    assert torch.equal(real[::5], apply(drawn, x, torch.arange(10)))
    assert (
        len(
            {
                tuple(part.flatten().tolist())
                for part in apply(drawn, x[:1].expand(10, -1, -1, -1), torch.arange(10))
            }
        )
        > 5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_per_sample_gives_each_image_its_own(family):
    x = pictures((1, 3, 16, 16)).expand(40, -1, -1, -1)
    drawn = draw(family, 1, stream(0, "draw"), each=40)
    assert drawn.family.tolist() == [FAMILIES.index(family)] * 40
    found = {tuple(image.flatten().tolist()) for image in apply(drawn, x, torch.arange(40))}
    assert len(found) == 2 if family == "flip" else len(found) > 10


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_of_one_works(family, channels):
    out = apply(
        draw(family, 1, stream(0, "draw")), pictures((1, channels, 28, 28)), torch.zeros(1, dtype=torch.long)
    )
    assert out.shape == (1, channels, 28, 28)
    assert out.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_augmented_image_goes_on_through_a_convnet(family, channels):
    x = pictures((4, channels, 28, 28), dtype=torch.float32).requires_grad_()
    out = apply(draw(family, 4, stream(0, "draw")), x, torch.arange(4))
    assert out.view(4, -1).shape == (4, channels * 28 * 28)
    logits = networks.build("convnet", (channels, 28, 28), 10, width=8, generator=stream(0, "net"))(out)
    assert torch.autograd.grad(logits.square().sum(), x)[0].abs().max() > 0


@pytest.mark.parametrize("family", [*FAMILIES, DSA])
def test_gradients_are_those_of_finite_differences(family):
    x = pictures((3, 3, 5, 6)).requires_grad_()
    drawn = draw(family, 3, stream(5, "draw"))
    assert torch.autograd.gradcheck(lambda images: apply(drawn, images, torch.arange(3)), (x,))


@given(st.integers(0, 10**6), shapes)
def test_mixed_families_keep_the_order_of_the_images(seed, shape):
    drawn = join([draw(DSA, 6, stream(seed, "draw")), draw("none", 1, stream(seed, "none"))])
    x = pictures((9, *shape[1:]))
    group = torch.randint(7, (9,), generator=stream(seed, "group"))
    alone = [apply(drawn, x[i : i + 1], group[i : i + 1]) for i in range(9)]
    torch.testing.assert_close(apply(drawn, x, group), torch.cat(alone), rtol=0, atol=1e-12)


@pytest.mark.parametrize("strategy", ["", "none"])
def test_no_strategy_changes_nothing(strategy):
    x = pictures((3, 1, 8, 8))
    assert torch.equal(apply(draw(strategy, 3, stream(0, "draw")), x, torch.arange(3)), x)


@given(
    st.integers(0, 10**6),
    st.sampled_from([DSA, WITHOUT_FLIP, "flip", "none"]),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_a_draw_depends_on_its_generator_only(seed, strategy, calls, each):
    one, other = (draw(strategy, calls, stream(seed, "draw"), each=each) for _ in range(2))
    assert torch.equal(one.family, other.family)
    assert torch.equal(one.uniform, other.uniform)
    assert one.family.shape == (calls * each,)
    assert one.uniform.shape == (calls * each, 4)
    assert (one.family.view(calls, each) == one.family.view(calls, each)[:, :1]).all()
    assert not torch.equal(one.uniform, draw(strategy, calls, stream(seed + 1, "draw"), each=each).uniform)


def test_families_are_drawn_equally_often_and_only_from_the_strategy():
    count = torch.bincount(draw(DSA, 6000, stream(0, "draw")).family, minlength=6)
    assert ((count - 1000) ** 2 / 1000).sum() < 20.5  # chi-square, 5 degrees of freedom, p = 0.001
    assert draw("crop_rotate", 500, stream(0, "draw")).family.unique().tolist() == [
        FAMILIES.index("crop"),
        FAMILIES.index("rotate"),
    ]
    assert FAMILIES.index("flip") not in draw(WITHOUT_FLIP, 500, stream(0, "draw")).family


@given(st.integers(4, 33), st.integers(4, 33), st.integers(0, 10**6))
def test_crop_shifts_by_at_most_an_eighth(height, width, seed):
    x = torch.arange(1.0, height * width + 1).view(1, 1, height, width)
    out = apply(draw("crop", 1, stream(seed, "draw")), x, torch.zeros(1, dtype=torch.long))[0, 0]
    rows, columns = out.nonzero().T
    value = (out[rows, columns] - 1).long()
    down, right = (value // width - rows).unique(), (value % width - columns).unique()
    assert len(down) == len(right) == 1
    assert abs(int(down)) <= math.floor(height / 8 + 0.5)
    assert abs(int(right)) <= math.floor(width / 8 + 0.5)
    assert len(value) == (height - abs(int(down))) * (width - abs(int(right)))


@given(st.integers(4, 33), st.integers(4, 33), st.integers(0, 10**6))
def test_cutout_hides_at_most_half_of_each_side_and_at_least_one_pixel(height, width, seed):
    drawn = draw("cutout", 1, stream(seed, "draw"), each=20)
    hidden = apply(drawn, torch.ones(20, 1, height, width), torch.arange(20))[:, 0] == 0
    tall, wide = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert (hidden.sum((1, 2)) == tall * wide).all()
    assert (tall >= 1).all()
    assert (tall <= math.floor(height / 2 + 0.5)).all()
    assert (wide >= 1).all()
    assert (wide <= math.floor(width / 2 + 0.5)).all()


def test_crop_shifts_and_cutout_places_are_equally_likely():
    x = torch.arange(1.0, 65).view(1, 1, 8, 8).expand(9000, -1, -1, -1)
    out = apply(draw("crop", 1, stream(0, "draw"), each=9000), x, torch.arange(9000))
    count = torch.bincount((out[:, 0, 4, 4] - 1).long(), minlength=64)
    assert (count > 0).sum() == 9
    assert (
        (count[count > 0] - 1000.0) ** 2 / 1000
    ).sum() < 26.1  # chi-square, 8 degrees of freedom, p = 0.001
    hidden = (
        apply(draw("cutout", 1, stream(0, "draw"), each=9000), torch.ones(9000, 1, 8, 8), torch.arange(9000))[
            :, 0
        ]
        == 0
    )
    chance = (
        torch.tensor([3, 4, 4, 4, 4, 4, 4, 3]) / 9
    )  # of the nine windows of four rows, from -2 to 1 up to 6 to 9, those over a row
    assert ((hidden.any(2).double().mean(0) - chance).abs() < 4 * (0.25 / 9000) ** 0.5).all()


def test_flip_happens_half_of_the_time():
    x = pictures((1, 1, 4, 4)).expand(4000, -1, -1, -1)
    flipped = (
        (apply(draw("flip", 1, stream(0, "draw"), each=4000), x, torch.arange(4000)) != x).flatten(1).any(1)
    )
    assert abs(flipped.double().mean() - 0.5) < 4 * 0.5 / 4000**0.5


def moment(images, axis):
    """The spread of brightness along an axis, in pixels."""
    mass = images.sum((1, 2 if axis == 3 else 3))
    place = torch.arange(mass.shape[1], dtype=mass.dtype)
    middle = (mass * place).sum(1) / mass.sum(1)
    return ((mass * (place - middle[:, None]) ** 2).sum(1) / mass.sum(1)).sqrt()


def bump(many, turn=0.0):
    side = torch.linspace(-1.5, 1.5, 64, dtype=torch.float64)
    y, x = torch.meshgrid(side, side, indexing="ij")
    x, y = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    return torch.exp(-4 * x**2 - 16 * y**2).expand(many, 1, -1, -1)


def test_scale_stays_between_one_sixth_smaller_and_one_fifth_larger():
    x = bump(500)
    out = apply(draw("scale", 1, stream(0, "draw"), each=500), x, torch.arange(500))
    for axis in (2, 3):
        factor = moment(out, axis) / moment(x, axis)
        assert 1 / 1.2 - 0.01 < factor.min() < 0.85
        assert 1.17 < factor.max() < 1.2 + 0.02
    across = moment(out, 2) / moment(x, 2), moment(out, 3) / moment(x, 3)
    assert abs(torch.corrcoef(torch.stack(across))[0, 1]) < 0.15


def test_rotate_stays_within_fifteen_degrees_both_ways():
    out = apply(draw("rotate", 1, stream(0, "draw"), each=500), bump(500), torch.arange(500))
    place = torch.arange(64, dtype=torch.float64) - 31.5
    mass = out[:, 0] / out.sum((1, 2, 3))[:, None, None]
    xx, yy = (mass * place**2).sum((1, 2)), (mass * place[:, None] ** 2).sum((1, 2))
    xy = (mass * place * place[:, None]).sum((1, 2))
    angle = torch.rad2deg(0.5 * torch.atan2(2 * xy, xx - yy))
    assert -15.1 < angle.min() < -14.5
    assert 14.5 < angle.max() < 15.1
    assert abs(angle.mean()) < 1.5


def test_color_keeps_within_its_ranges():
    x = pictures((1, 1, 8, 8)).expand(500, -1, -1, -1)
    out = apply(draw("color", 1, stream(0, "draw"), each=500), x, torch.arange(500))
    shift, contrast = (out.mean((1, 2, 3)) - x.mean((1, 2, 3))), out.flatten(1).std(1) / x.flatten(1).std(1)
    assert -0.5 <= shift.min() < -0.49
    assert 0.49 < shift.max() <= 0.5
    assert 0.5 <= contrast.min() < 0.51
    assert 1.49 < contrast.max() <= 1.5
    tinted = pictures((1, 3, 1, 1)).expand(500, -1, 8, 8)
    out = apply(draw("color", 1, stream(0, "draw"), each=500), tinted, torch.arange(500))
    tint = out[:, :, 0, 0].std(1) / tinted[:, :, 0, 0].std(1)
    assert tint.min() < 0.03
    assert 2.3 < tint.max() <= 3.0


@pytest.mark.parametrize("strategy", ["zoom", "color_crp", "flip_", "Flip", "color crop"])
def test_an_unknown_family_is_refused(strategy, refuses):
    with refuses("unknown augmentation", "color, crop, cutout, flip, rotate, scale"):
        draw(strategy, 1, stream(0, "draw"))


def test_strategies_name_their_families():
    assert [FAMILIES[index] for index in augment.families(DSA)] == list(FAMILIES)
    assert augment.families("flip_crop") == [FAMILIES.index("flip"), FAMILIES.index("crop")]
    assert set(augment.families(WITHOUT_FLIP)) == set(augment.families(DSA)) - {FAMILIES.index("flip")}


@given(st.integers(0, 10**6))
def test_join_keeps_each_draw(seed):
    draws = [draw(DSA, 2, stream(seed, "draw", index), each=3) for index in range(2)]
    x = pictures((12, 1, 6, 6))
    parts = [apply(one, part, torch.arange(6)) for one, part in zip(draws, x.split(6), strict=True)]
    torch.testing.assert_close(apply(join(draws), x, torch.arange(12)), torch.cat(parts), rtol=0, atol=1e-12)


def test_identity_parameters_give_the_image_back():
    x = pictures((1, 3, 8, 8))
    for family, u in (
        ("color", [0.5, 0.5, 0.5, 0]),
        ("crop", [0.5, 0.5, 0, 0]),
        ("flip", [0.7, 0, 0, 0]),
        ("rotate", [0.5, 0, 0, 0]),
    ):
        drawn = Draw(torch.tensor([FAMILIES.index(family)]), torch.tensor([u]))
        torch.testing.assert_close(apply(drawn, x, torch.zeros(1, dtype=torch.long)), x, rtol=0, atol=1e-12)


def test_affine_families_agree_with_torch_on_a_rotation_of_the_grid():
    x, u = pictures((1, 1, 9, 9)), torch.tensor([[0.9, 0.2, 0.0, 0.0]])
    angle = torch.tensor(0.8 * math.radians(15), dtype=torch.float64)
    theta = torch.stack(
        [
            torch.stack([angle.cos(), -angle.sin(), angle * 0]),
            torch.stack([angle.sin(), angle.cos(), angle * 0]),
        ]
    )[None]
    expected = F.grid_sample(x, F.affine_grid(theta, (1, 1, 9, 9), align_corners=True), align_corners=True)
    torch.testing.assert_close(augment.rotate(x, u.double()), expected, rtol=1e-5, atol=1e-5)

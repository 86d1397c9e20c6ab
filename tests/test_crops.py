"""Crops, mirror images, rolls: what each image becomes, and how it is drawn."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop

from ddcore.augment import crops
from ddcore.data import whitening
from ddcore.random import stream

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))


def images(shape):
    return torch.randn(shape, generator=stream(0, "images", *shape), dtype=torch.float64)


@given(SHAPES, st.integers(0, 5), st.integers(0, 10**6))
def test_a_crop_is_the_window_of_the_padded_image(shape, pad, seed):
    x, drawn = images(shape), crops.draw(shape[0], stream(seed, "draw"), pad=pad)
    fill = torch.arange(shape[1], dtype=torch.float64).view(-1, 1, 1) - 7
    found = crops.apply(drawn, x, fill)
    for image, one, (down, right), mirrored in zip(
        x, found, drawn.offset.tolist(), drawn.mirrored.tolist(), strict=True
    ):
        padded = F.pad(image - fill, (pad,) * 4) + fill
        window = padded[:, pad + down : pad + down + shape[2], pad + right : pad + right + shape[3]]
        torch.testing.assert_close(one, window.flip(2) if mirrored else window, rtol=0, atol=1e-12)


@given(SHAPES, st.integers(0, 10**6))
def test_a_roll_is_that_of_torch(shape, seed):
    x, shifts = images(shape), torch.randint(-3, 12, (shape[0], 2), generator=stream(seed, "shift"))
    for image, one, shift in zip(x, crops.roll(x, shifts), shifts.tolist(), strict=True):
        assert torch.equal(one, torch.roll(image, shift, (1, 2)))


def test_the_gradient_of_a_roll_is_the_roll_back():
    x, shifts = images((4, 2, 5, 6)).requires_grad_(), torch.tensor([[0, 0], [1, 2], [4, 5], [3, 0]])
    weight = images((4, 2, 5, 6)).flip(0)
    gradient = torch.autograd.grad((crops.roll(x, shifts) * weight).sum(), x)[0]
    assert torch.equal(gradient, crops.roll(weight, -shifts))


def test_offsets_are_uniform_and_half_are_mirrored():
    drawn = crops.draw(20000, stream(0, "draw"), pad=2)
    counts = torch.bincount((drawn.offset[:, 0] + 2) * 5 + drawn.offset[:, 1] + 2, minlength=25)
    assert set(map(tuple, drawn.offset.unique(dim=0).tolist())) == set(
        itertools.product(range(-2, 3), repeat=2)
    )
    assert float((counts - 800).abs().max()) < 5 * 800**0.5
    assert float(drawn.mirrored.double().mean()) == pytest.approx(0.5, abs=0.02)


def test_no_crop_and_no_flip_leave_images_as_they_are():
    x = images((6, 3, 4, 5))
    assert torch.equal(crops.apply(crops.draw(6, stream(0, "draw"), pad=0, flip=False), x, 9.0), x)
    assert not crops.draw(100, stream(0, "draw"), flip=False).mirrored.any()


def test_offsets_do_not_depend_on_whether_images_are_mirrored():
    one, other = (crops.draw(9, stream(0, "draw"), flip=flip) for flip in (True, False))
    assert torch.equal(one.offset, other.offset)


def test_padding_is_black(digits):
    image = torch.full((1, 1, 8, 8), 5.0)
    drawn = crops.Crop(torch.tensor([[2, -3]]), torch.tensor([False]))
    found = digits.to_pixels(crops.apply(drawn, image, crops.black(digits)))[0, 0]
    assert float(found[6:].max()) == float(found[:, :3].max()) == pytest.approx(0, abs=1e-6)
    assert float(found[:6, 3:].min()) > 0


def test_one_value_of_black_a_channel(coloured):
    assert crops.black(coloured).shape == (3, 1, 1)
    assert crops.black(coloured).flatten().tolist() == [-2.0] * 3


@pytest.mark.usefixtures("untouched")
def test_black_is_black_where_images_are_whitened(digits):
    white = whitening.whiten(digits)
    assert white.to_pixels(crops.black(white)[None]).abs().max() < 1e-4


def test_drawing_touches_no_global_state():
    crops.draw(5, stream(0, "draw"))


# Random resized crops


@given(SHAPES, st.floats(0.01, 1), st.integers(0, 10**6))
def test_a_resized_window_is_that_of_torchvision(shape, scale, seed):
    x, drawn = images(shape), crops.windows(shape[0], shape[2:], stream(seed, "windows"), scale=scale)
    for image, one, window in zip(x, crops.resized(x, drawn), drawn.tolist(), strict=True):
        torch.testing.assert_close(
            one, resized_crop(image, *window, list(shape[2:]), antialias=False), rtol=0, atol=1e-12
        )


def test_a_window_in_single_precision_is_exact_to_rounding_at_the_size_of_imagenet():
    x = images((2, 3, 224, 224))
    drawn = crops.windows(2, (224, 224), stream(0, "windows"), scale=0.08)
    torch.testing.assert_close(
        crops.resized(x.float(), drawn).double(), crops.resized(x, drawn), rtol=0, atol=2e-4
    )


def test_the_gradient_of_a_resized_window_is_exact():
    x, drawn = images((2, 1, 4, 5)).requires_grad_(), torch.tensor([[0, 1, 3, 2], [2, 0, 2, 5]])
    assert torch.autograd.gradcheck(lambda x: crops.resized(x, drawn), x)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 1), st.integers(0, 10**6))
def test_windows_lie_in_the_image_and_keep_the_part_asked_for(height, width, scale, seed):
    drawn = crops.windows(20, (height, width), stream(seed, "windows"), scale=scale)
    top, left, high, wide = drawn.T
    assert int(torch.stack([top, left]).min()) >= 0
    assert int(torch.stack([high, wide]).min()) > 0
    assert bool((top + high <= height).all() & (left + wide <= width).all())
    inner = (
        (3 / 4 <= width / height <= 4 / 3) * scale * height * width
    )  # an image of another shape has no such window at times
    assert bool(((high + 0.5) * (wide + 0.5) >= inner).all())


@pytest.mark.parametrize("sides", [(64, 64), (40, 90)])
def test_windows_are_drawn_as_torchvision_draws_them(sides):
    ours = crops.windows(4000, sides, stream(0, "windows"), scale=0.08)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.tensor(
            [
                RandomResizedCrop.get_params(torch.empty(1, *sides), [0.08, 1.0], list(crops.RATIOS))
                for _ in range(4000)
            ]
        )
    for axis in range(4):
        assert ks_2samp(ours[:, axis], theirs[:, axis]).pvalue > 1e-3
    assert ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 1e-3


def test_a_window_may_lie_anywhere_in_the_image():
    top, left, high, wide = crops.windows(20000, (8, 8), stream(0, "windows"), scale=0.08).T
    for corner, side in ((top, high), (left, wide)):
        for free in range(1, 6):
            places = corner[side == 8 - free].bincount(minlength=free + 1)
            assert len(places) == free + 1
            assert chisquare(places).pvalue > 1e-4


@pytest.mark.parametrize("sides", [(9, 90), (90, 9), (10, 10), (30, 50)])
def test_where_no_window_fits_the_middle_is_taken(sides):
    found = crops.windows(20, sides, stream(0, "windows"), scale=1.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = RandomResizedCrop.get_params(torch.empty(1, *sides), [1.0, 1.0], list(crops.RATIOS))
    assert {tuple(one) for one in found.tolist()} == {expected}


def test_windows_do_not_depend_on_how_many_are_drawn():
    drawn = [crops.windows(count, (32, 48), stream(3, "windows"), scale=0.2) for count in (1, 7, 40)]
    assert torch.equal(drawn[0], drawn[2][:1])
    assert torch.equal(drawn[1], drawn[2][:7])
    assert len(drawn[2].unique(dim=0)) > 35


def test_a_view_cuts_then_mirrors_then_rolls():
    x, drawn = images((3, 2, 6, 8)), crops.windows(3, (6, 8), stream(0, "windows"), scale=0.3)
    view = crops.View(torch.tensor([[1, 2], [0, 0], [3, 1]]), torch.tensor([True, False, True]), drawn)
    for image, one, window, shift, flip in zip(
        x, view.through(x), drawn.tolist(), view.shift.tolist(), (1, 0, 1), strict=True
    ):
        expected = resized_crop(image, *window, [6, 8], antialias=False)
        torch.testing.assert_close(
            one, torch.roll(expected.flip(2) if flip else expected, shift, (1, 2)), rtol=0, atol=1e-12
        )
    again = view.of(torch.tensor([2, 2])).through(x[1:])
    torch.testing.assert_close(again[1], view.through(x)[2], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((0, 0.0), ("crop_scale=0.0", "above 0")),
        ((0, 1.5), ("crop_scale=1.5",)),
        ((0, float("nan")), ("crop_scale=nan",)),
        ((4, 0.08), ("crop=4", "crop_scale=0.08", "one")),
    ],
)
def test_ill_crops_are_refused(given, words, refuses):
    with refuses("relabel", *words):
        crops.check("relabel", *given)

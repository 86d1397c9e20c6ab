"""Crops, mirror images, rolls: what each image becomes, and how it is drawn."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ddcore import crops
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
    for image, one, (down, right), mirrored in zip(x, found, drawn.offset.tolist(), drawn.mirrored.tolist(), strict=True):
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
    assert set(map(tuple, drawn.offset.unique(dim=0).tolist())) == set(itertools.product(range(-2, 3), repeat=2))
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

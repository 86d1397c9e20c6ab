"""ZCA: the covariance it leaves, its inverse, and that a set takes the transform along."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import ddcore
from ddcore.data import whitening
from ddcore.random import stream
from ddcore.synthetic import load_synthetic


@pytest.fixture(scope="module")
def white(digits):
    return whitening.whiten(digits)


def pixels_of(data, split="x_train"):
    return data.to_pixels(getattr(data, split)[:])


@given(
    st.integers(1, 3),
    st.integers(2, 4),
    st.integers(2, 4),
    st.sampled_from([1e-12, 0.1, 3.0]),
    st.integers(0, 99),
    st.integers(1, 50),
)
def test_the_covariance_is_what_eps_leaves_of_the_identity(channels, height, width, eps, seed, split):
    size = channels * height * width
    mix = torch.randn(size, size, generator=stream(seed, "mix"), dtype=torch.float64)
    x = (torch.randn(4 * size, size, generator=stream(seed, "x"), dtype=torch.float64) @ mix + 2).view(
        -1, channels, height, width
    )
    found = whitening.fit(x.split(split), eps)
    left = torch.cov(found.apply(x).flatten(1).T)
    before = torch.cov(x.flatten(1).T)
    expected = torch.linalg.solve(before + eps * torch.eye(size, dtype=torch.float64), before)
    torch.testing.assert_close(left, expected, rtol=1e-6, atol=1e-6)
    if eps < 1e-6:
        torch.testing.assert_close(left, torch.eye(size, dtype=torch.float64), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.transform, found.transform.T)
    assert torch.linalg.eigvalsh(found.transform).min() > 0
    torch.testing.assert_close(found.invert(found.apply(x)), x, rtol=1e-7, atol=1e-7)


def test_it_is_fitted_on_bare_training_pixels_and_applied_to_both_splits(digits, white):
    """The published call by hand: mean, covariance over n - 1, singular vectors, (S + 0.1)^(-1/2), all of pixels in [0, 1]."""
    train = pixels_of(digits).flatten(1).double()
    centred = train - train.mean(0)
    u, s, _ = torch.linalg.svd(centred.T @ centred / (len(train) - 1))
    transform = u @ torch.diag((s + 0.1) ** -0.5) @ u.T
    for split in ("x_train", "x_test"):
        expected = (pixels_of(digits, split).flatten(1).double() - train.mean(0)) @ transform
        torch.testing.assert_close(
            getattr(white, split)[:].flatten(1).double(), expected, rtol=1e-4, atol=1e-5
        )
    assert torch.equal(white.y_test, digits.y_test)


def test_the_whitened_dataset_is_another_one_by_name_and_sha256(digits, white):
    assert white.name == "digits-zca"
    assert len({digits.sha256, white.sha256, whitening.whiten(digits, eps=0.2).sha256}) == 3
    loaded = ddcore.load("digits-zca", "cpu")
    assert loaded.sha256 == white.sha256
    assert torch.equal(loaded.x_train[:], white.x_train[:])
    assert white.mean == (0.0,)
    assert white.std == (1.0,)
    torch.testing.assert_close(pixels_of(white, "x_test"), pixels_of(digits, "x_test"), rtol=0, atol=1e-5)
    assert digits.whitening is None
    assert white.holdout(0.2).whitening is white.whitening


@pytest.mark.parametrize(
    "make",
    [
        lambda data: ddcore.Pixels(data, 2, soft=1.0, step=0.1),
        lambda data: ddcore.LowRank(data, 2, rank=1),
        lambda data: ddcore.baseline("random", data, 2),
    ],
)
def test_a_saved_set_takes_the_transform_along_uncounted_and_shows_pixels(white, make, tmp_path):
    synthetic = make(white)
    found = load_synthetic(synthetic.save(tmp_path / "a.safetensors"))
    assert torch.equal(found.whitening.transform, white.whitening.transform)
    assert torch.equal(found.whitening.mean, white.whitening.mean)
    assert found.stored_numbers == synthetic.stored_numbers <= synthetic.budget
    assert found.tensors.keys() == synthetic.tensors.keys()
    assert len(found.parameters()) == len(synthetic.parameters())
    torch.testing.assert_close(found.pictures(), synthetic.pictures(), rtol=0, atol=0)
    by_hand = torch.linalg.inv(white.whitening.transform.double())
    by_hand = (found.images().detach().flatten(1).double() @ by_hand + white.whitening.mean.double()).clamp(
        0, 1
    )
    torch.testing.assert_close(found.pictures().flatten(1).double(), by_hand, rtol=0, atol=1e-5)
    again = found.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == again.read_bytes()


def test_real_images_of_a_whitened_set_look_as_they_were(digits, white):
    torch.testing.assert_close(
        ddcore.Pixels(white, 3, seed=5).pictures(),
        ddcore.Pixels(digits, 3, seed=5).pictures(),
        rtol=0,
        atol=1e-5,
    )


def test_a_set_without_whitening_saves_none(digits, tmp_path):
    path = ddcore.Pixels(digits, 1).save(tmp_path / "a.safetensors")
    assert set(load_file(path)) == {"pixels", "labels"}
    assert load_synthetic(path).whitening is None


def test_half_a_transform_is_refused(white, tmp_path, refuses):
    import json

    synthetic = ddcore.Pixels(white, 1)
    path = synthetic.save(tmp_path / "a.safetensors")
    tensors = load_file(path)
    del tensors["whitening.transform"]
    save_file(tensors, path, {"ddcore": json.dumps(synthetic.settings)})
    with refuses(path, "distil it again"):
        load_synthetic(path)


def test_clip_and_ill_eps_are_refused(digits, white, refuses):
    with refuses("digits-zca", "clip"):
        ddcore.Pixels(white, 1, clip=True)
    with refuses("eps=0"):
        whitening.whiten(digits, eps=0)


def test_a_set_of_whitened_images_is_distilled_and_evaluated(white):
    synthetic = ddcore.LowRank(white, 1, rank=1)
    ddcore.distill(white, synthetic, ddcore.DM(width=4, batch_real=5), steps=2)
    assert synthetic.settings["dataset"] == "digits-zca"
    assert dataclasses.is_dataclass(ddcore.evaluate(synthetic, white, seeds=[0], width=4, epochs=1))

"""Stored images against the numbers that a whole float32 copy of them would hold."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ddcore
from ddcore.data import Images, data_folder, mean_image, npz, standard_deviation
from ddcore.data.images import part
from ddcore.data.statistics import AT_ONCE, ONE_LEVEL, channel_statistics
from ddcore.random import stream


def former(arrays, mean, std, split):
    """What `ddcore.load` held before images were stored in 8 bits."""
    y = torch.from_numpy(arrays[f"y_{split}"].astype(np.int64))
    order = y.argsort(stable=True)
    x = torch.from_numpy(arrays[f"x_{split}"])[order].permute(0, 3, 1, 2).float().div_(255)
    return x.sub_(x.new_tensor(mean).view(1, -1, 1, 1)).div_(
        x.new_tensor(std).view(1, -1, 1, 1)
    ).contiguous(), y[order]


def arrays(many=23, classes=3, shape=(5, 6, 3), seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(many) % classes
    return {
        "x_train": rng.integers(0, 256, (many, *shape), np.uint8),
        "y_train": rng.permutation(y),
        "x_test": rng.integers(0, 256, (many, *shape), np.uint8),
        "y_test": rng.permutation(y),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "some.npz"
    np.savez(path, **arrays())
    return ddcore.load(path, "cpu")


@given(
    many=st.integers(3, 30),
    channels=st.sampled_from([1, 3]),
    side=st.integers(1, 7),
    seed=st.integers(0, 99),
    mapped=st.booleans(),
    compressed=st.booleans(),
)
def test_every_number_is_that_of_the_former_loader(
    tmp_path_factory, many, channels, side, seed, mapped, compressed
):
    given = arrays(many, 3, (side, 4, channels), seed)
    path = tmp_path_factory.getbasetemp() / f"{mapped} {compressed}.npz"
    (np.savez_compressed if compressed else np.savez)(path, **given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npz, "MAPPED_FROM", 0 if mapped else 1 << 24)
        data = ddcore.load(path, "cpu")
    assert isinstance(data.x_train.stored, npz.Mapped) == (mapped and not compressed)
    for split in ("train", "test"):
        x, y = former(given, data.mean, data.std, split)
        found = getattr(data, f"x_{split}")
        assert torch.equal(getattr(data, f"y_{split}"), y)
        assert torch.equal(found[:], x)
        assert found[:].is_contiguous()
        assert (found.shape, len(found), found.dtype, found.device) == (x.shape, len(x), x.dtype, x.device)


indices = st.one_of(
    st.integers(-23, 22),
    st.slices(23),
    st.lists(st.integers(-23, 22), min_size=1, max_size=9),
    st.lists(st.integers(0, 22), max_size=9).map(lambda rows: torch.tensor(rows, dtype=torch.long)),
    st.lists(st.booleans(), min_size=23, max_size=23).map(torch.tensor),
    st.just(torch.arange(12).view(3, 4)),
    st.just(torch.tensor(5)),
).filter(lambda index: not isinstance(index, slice) or (index.step or 1) > 0)


@given(index=indices, again=st.integers(0, 10**6))
def test_an_index_draws_what_it_would_of_a_tensor(saved, index, again):
    whole = saved.x_train[:]
    assert torch.equal(saved.x_train[index], whole[index])
    assert saved.x_train[index].is_contiguous()
    if not isinstance(index, int) and whole[index].ndim == 4:
        chosen = saved.x_train.part(index)
        assert isinstance(chosen, Images)
        assert torch.equal(chosen[:], whole[index])
        assert len(chosen) == len(whole[index])
        if len(chosen):
            second = torch.randint(len(chosen), (4,), generator=stream(again, "index"))
            assert torch.equal(part(chosen, second)[:], part(whole[index], second))


@given(size=st.integers(1, 30))
def test_a_split_draws_all_in_order(saved, size):
    parts = list(saved.x_test.split(size))
    assert [len(one) for one in parts] == [len(one) for one in saved.x_test[:].split(size)]
    assert torch.equal(torch.cat(parts), saved.x_test[:])


def test_drawing_changes_nothing_that_is_stored(saved):
    before = saved.x_train[:]
    saved.x_train[:].zero_()
    saved.batch(torch.arange(3)).add_(1)
    assert torch.equal(saved.x_train[:], before)


def test_another_type_holds_the_same_numbers(saved):
    for images in (saved.x_train.double(), saved.x_train.to(torch.float64)):
        assert images.dtype == torch.float64
        assert torch.equal(images[:], saved.x_train[:].double())
        assert torch.equal(images.part([3])[0], saved.x_train[3].double())


@pytest.mark.parametrize("index", [(0, 1), (..., slice(0, 2)), (slice(None), 0)])
def test_an_index_into_the_images_themselves_is_refused(index, saved):
    with pytest.raises(IndexError, match="first axis"):
        saved.x_train[index]


@pytest.mark.parametrize("index", [23, -24, torch.tensor([0, 23])])
def test_an_index_beyond_the_end_is_refused(index, saved):
    with pytest.raises(IndexError):
        saved.x_train[index]


def test_a_dataset_of_tensors_is_one_of_images(saved):
    tensors = dataclasses.replace(saved, x_train=saved.x_train[:], x_test=saved.x_test[:])
    for name in ("shape", "device", "sizes"):
        assert getattr(tensors, name) == getattr(saved, name)
    pairs = [
        (tensors, saved),
        (tensors.holdout(0.3, 1), saved.holdout(0.3, 1)),
        (tensors.only([2, 0]), saved.only([2, 0])),
        (tensors.only([1]).holdout(0.5), saved.only([1]).holdout(0.5)),
    ]
    for one, other in pairs:
        assert (one.sha256, one.name, one.class_names) == (other.sha256, other.name, other.class_names)
        assert torch.equal(one.batch(slice(None)), other.batch(slice(None)))
        assert torch.equal(one.x_test[:], other.x_test[:])
        assert torch.equal(one.y_train, other.y_train)
        assert torch.equal(one.class_images(0)[:], other.class_images(0)[:])
        assert isinstance(other.x_train, Images)
        assert isinstance(other.class_images(0), Images)


# sampling what there is


@given(per_class=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_sample_up_to_takes_what_a_class_has(coloured, per_class, seed):
    index, sizes = coloured.sample_up_to(per_class, stream(seed, "sample"))
    assert sizes == tuple(min(per_class, size) for size in (4, 7, 9))
    assert all(type(size) is int for size in sizes)
    assert torch.equal(coloured.y_train[index], torch.arange(3).repeat_interleave(torch.tensor(sizes)))
    assert len(index.unique()) == len(index)
    if per_class <= 4:
        assert torch.equal(index, coloured.sample(per_class, stream(seed, "sample")))


def test_a_small_class_does_not_change_what_is_drawn_of_the_others(coloured):
    index, sizes = coloured.sample_up_to(7, stream(3, "sample"))
    few, _ = coloured.sample_up_to(4, stream(3, "sample"))
    starts = [0, 4, 11, 20]
    for label, start in enumerate(starts[:-1]):
        mine = index[sum(sizes[:label]) : sum(sizes[: label + 1])]
        assert torch.equal(mine[:4], few[4 * label : 4 * label + 4])
        assert start <= int(mine.min()) <= int(mine.max()) < starts[label + 1]


# statistics


@given(
    many=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
    size=st.integers(1, 40),
)
def test_channel_statistics_are_those_of_all_pixels(many, channels, seed, size):
    x = np.random.default_rng(seed).integers(0, 256, (many, 3, 4, channels), np.uint8)
    mean, std = channel_statistics(x[start : start + size] for start in range(0, many, size))
    flat = x.reshape(-1, channels).astype(np.float64)
    assert mean == tuple(round(float(value) / 255, 4) for value in flat.mean(0))
    assert std == tuple(max(round(float(value) / 255, 4), ONE_LEVEL) for value in flat.std(0))


@pytest.mark.parametrize(("value", "spread"), [(0, 0), (77, 0), (255, 0), (0, 1)])
def test_a_channel_that_is_the_same_everywhere_stays_finite_and_is_said(value, spread, tmp_path):
    given = arrays()
    given["x_train"][..., 1] = value
    given["x_train"][0, 0, 0, 1] += spread
    np.savez(tmp_path / "flat.npz", **given)
    data = ddcore.load(tmp_path / "flat.npz", "cpu")
    assert data.std[1] == ONE_LEVEL
    assert data.x_train[:].isfinite().all()
    assert data.x_test[:].isfinite().all()
    assert data.x_train[5][1].abs().max() < 0.05
    assert any("channel 1" in note for note in data.notes)
    assert not any("channel 0" in note for note in data.notes)


def test_moments_of_drawn_images_are_those_of_a_copy_in_float64(digits, monkeypatch):
    monkeypatch.setattr("ddcore.data.statistics.AT_ONCE", 64 * 100)
    whole = digits.x_train[:].double()
    for x in (digits.x_train, digits.x_train[:]):
        torch.testing.assert_close(mean_image(x), whole.mean(0).float(), rtol=0, atol=1e-7)
        torch.testing.assert_close(standard_deviation(x), whole.std().float(), rtol=1e-6, atol=0)
        assert mean_image(x).dtype == standard_deviation(x).dtype == torch.float32


# files that are mapped


def test_a_mapped_file_that_was_written_to_is_refused_and_one_that_is_replaced_or_removed_is_not(
    tmp_path, monkeypatch, refuses
):
    monkeypatch.setattr(npz, "MAPPED_FROM", 0)
    path, other = tmp_path / "some.npz", tmp_path / "other.npz"
    np.savez(path, **arrays())
    np.savez(other, **arrays(seed=1))
    data = ddcore.load(path, "cpu")
    before = data.x_train[:]
    os.replace(other, path)
    assert torch.equal(data.x_train[:], before)
    path.unlink()
    assert torch.equal(data.x_train[:], before)
    np.savez(path, **arrays())
    data = ddcore.load(path, "cpu")
    with path.open("r+b") as file:
        file.write(b"PK")
    os.utime(path, (1, 1))
    with refuses(path, "written to after it was loaded"):
        data.x_train[:]


def test_a_mapped_file_with_a_spoilt_pixel_is_refused(tmp_path, monkeypatch, refuses):
    monkeypatch.setattr(npz, "MAPPED_FROM", 0)
    path = tmp_path / "some.npz"
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    place = content.find(arrays()["x_test"].tobytes())
    content[place + 17] ^= 1
    path.write_bytes(content)
    with refuses(path, "not a whole .npz file", "x_test"):
        ddcore.load(path, "cpu")


def test_a_large_dataset_takes_no_memory_but_that_of_its_pixels(tmp_path):
    """One of 100 MB in 8 bits, mapped: loaded and drawn from in less than a quarter of what float32 would take."""
    path, rng = tmp_path / "large.npz", np.random.default_rng(0)
    x, y = rng.integers(0, 256, (32_000, 32, 32, 3), np.uint8), np.arange(32_000) % 10
    np.savez(path, x_train=x, y_train=y, x_test=x[:1000], y_test=y[:1000])
    program = (
        "import resource, sys, torch, ddcore; peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024; "
        "ddcore.load('digits', 'cpu'); before = peak(); data = ddcore.load(sys.argv[1], 'cpu'); data.holdout(0.1); "
        "assert sum(len(x) for x in data.x_train.split(500)) == 32000; print(peak() - before)"
    )
    spent = float(
        subprocess.run(
            [sys.executable, "-c", program, str(path)], check=True, capture_output=True, encoding="utf-8"
        ).stdout
    )
    assert spent < 180, "MB"
    assert AT_ONCE * 8 < 100e6


@pytest.mark.skipif(not (data_folder() / "cifar10.npz").is_file(), reason="needs CIFAR-10 in the data folder")
def test_cifar10_loads_in_the_memory_of_its_pixels():
    program = (
        "import resource; peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024; import torch; before = peak(); "
        "import ddcore; data = ddcore.load('cifar10', 'cpu'); data.batch(data.sample(64, torch.Generator())); "
        "assert data.sha256 == ddcore.data.KNOWN_SHA256['cifar10']; print(peak() - before)"
    )
    spent = float(
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, encoding="utf-8"
        ).stdout
    )
    assert spent < 400, "MB"

import contextlib
import hashlib
import io
import types
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

import ddcore
from ddcore.data import load
from ddcore.random import stream


def arrays(many=12, classes=3, shape=(5, 6, 3), seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(many) % classes
    return {
        "x_train": rng.integers(0, 256, (many, *shape), np.uint8),
        "y_train": y[::-1].copy(),
        "x_test": rng.integers(0, 256, (classes, *shape), np.uint8),
        "y_test": np.arange(classes),
    }


@pytest.fixture
def saved(tmp_path):
    """Write an .npz, with some arrays replaced, and give its path."""

    def save(**replaced):
        np.savez_compressed(tmp_path / "some.npz", **arrays() | replaced)
        return tmp_path / "some.npz"

    return save


@pytest.fixture
def folder(tmp_path):
    """train/ and test/ of classes ant and bee, three and two 6x5 colour images each."""
    rng = np.random.default_rng(0)
    for split, many in (("train", 3), ("test", 2)):
        for name in ("bee", "ant"):
            (tmp_path / "insects" / split / name).mkdir(parents=True)
            for index in range(many):
                pixels = rng.integers(0, 256, (5, 6, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "insects" / split / name / f"{index}.png")
    return tmp_path / "insects"


def pixels_of(data, x):
    """Denormalised, as uint8 NHWC, with the rounding error before it."""
    exact = (
        x[:].double() * torch.tensor(data.std, dtype=torch.float64).view(-1, 1, 1)
        + torch.tensor(data.mean, dtype=torch.float64).view(-1, 1, 1)
    ) * 255
    assert (exact - exact.round()).abs().max() < 1e-3
    return exact.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


# digits


def test_digits_are_1797_sorted_images(digits):
    assert len(digits.x_train) + len(digits.x_test) == 1797
    assert digits.shape == (1, 8, 8)
    assert digits.classes == 10
    for x, y in ((digits.x_train, digits.y_train), (digits.x_test, digits.y_test)):
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert torch.equal(y, y.sort().values)
        assert y.unique().tolist() == list(range(10))
    assert digits.counts.sum() == len(digits.x_train)


def test_digits_invert_to_the_source_exactly(digits):
    source = load_digits()
    pixels = np.round(source.images * 255 / 16).astype(np.uint8)[..., None]
    test = np.arange(1797) % 5 == 0
    for x, y, part in ((digits.x_train, digits.y_train, ~test), (digits.x_test, digits.y_test, test)):
        order = np.argsort(source.target[part], kind="stable")
        assert np.array_equal(pixels_of(digits, x), pixels[part][order])
        assert np.array_equal(y.numpy(), source.target[part][order])


def test_digits_are_normalised(digits):
    assert abs(digits.x_train[:].mean()) < 1e-3
    assert abs(digits.x_train[:].std() - 1) < 1e-3
    assert torch.allclose(
        digits.to_pixels(digits.x_test[:]) * 255,
        (digits.to_pixels(digits.x_test[:]) * 255).round(),
        atol=1e-3,
    )


def test_sha256_is_that_of_the_bytes(digits):
    source = load_digits()
    pixels, labels = np.round(source.images * 255 / 16).astype(np.uint8), source.target.astype(np.uint8)
    test = np.arange(1797) % 5 == 0
    content = b"".join(part.tobytes() for part in (pixels[~test], labels[~test], pixels[test], labels[test]))
    assert digits.sha256 == load("digits", "cpu").sha256 == hashlib.sha256(content).hexdigest()


def test_sha256_sees_one_pixel_and_one_label_but_not_the_integer_type(saved):
    plain = load(saved(), "cpu").sha256
    given = arrays()
    assert load(saved(y_train=given["y_train"].astype(np.uint8)), "cpu").sha256 == plain
    given["x_test"][0, 0, 0, 0] ^= 1
    assert load(saved(**given), "cpu").sha256 != plain
    labels = arrays()["y_train"]
    labels[[0, 1]] = labels[[1, 0]]
    assert load(saved(y_train=labels), "cpu").sha256 != plain
    many = {"x_train": np.zeros((300, 1, 1, 1), np.uint8), "x_test": np.zeros((300, 1, 1, 1), np.uint8)}
    wide = {
        load(saved(**many, y_train=np.arange(300, dtype=kind), y_test=np.arange(300)), "cpu").sha256
        for kind in (np.int16, np.int64)
    }
    assert len(wide) == 1


# npz


def test_npz_by_path_and_by_name_are_one(saved, monkeypatch, refuses):
    path = saved()
    monkeypatch.setenv("DDCORE_DATA", str(path.parent))
    monkeypatch.delenv("DDCORE_CACHE", raising=False)
    by_path, by_name, by_root = load(path, "cpu"), load("some", "cpu"), load("some", "cpu", root=path.parent)
    for found in (by_name, by_root):
        assert found.sha256 == by_path.sha256
        assert found.name == by_path.name == "some"
        assert torch.equal(found.x_train[:], by_path.x_train[:])
    with refuses("'other'", str(path.parent / "other.npz"), "digits"):
        load("other", "cpu")


@given(
    many=st.integers(3, 20), channels=st.sampled_from([1, 3]), side=st.integers(1, 7), seed=st.integers(0, 99)
)
def test_npz_inverts_to_its_pixels(tmp_path_factory, many, channels, side, seed):
    given = arrays(many, 3, (side, 4, channels), seed)
    path = tmp_path_factory.getbasetemp() / "inverts.npz"
    np.savez(path, **given)
    data = load(path, "cpu")
    for split in ("train", "test"):
        order = np.argsort(given[f"y_{split}"], kind="stable")
        assert np.array_equal(pixels_of(data, getattr(data, f"x_{split}")), given[f"x_{split}"][order])
        assert np.array_equal(getattr(data, f"y_{split}").numpy(), given[f"y_{split}"][order])


def test_published_statistics_go_with_the_name(tmp_path):
    np.savez(tmp_path / "cifar10.npz", **arrays())
    data = load("cifar10", "cpu", root=tmp_path)
    assert data.mean == (0.4914, 0.4822, 0.4465)
    assert data.std == (0.2023, 0.1994, 0.2010)


class Dangerous:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def npz_cases():
    x, y = arrays()["x_train"], arrays()["y_train"]
    late = y.copy()
    late[0] = 7
    missing = np.where(y == 1, 2, y)
    nan = x.astype(np.float32)
    nan[0, 0, 0, 0] = np.nan
    return {
        "float": ({"x_train": x.astype(np.float32)}, ("x_train", "float32", "uint8")),
        "NaN": ({"x_test": nan}, ("x_test", "NaN", "uint8")),
        "int64 pixels": ({"x_train": x.astype(np.int64)}, ("x_train", "int64", "uint8")),
        "rank 3": ({"x_train": x[..., 0]}, ("x_train", "(12, 5, 6)", "1 or 3 channels")),
        "two channels": ({"x_train": x[..., :2]}, ("(12, 5, 6, 2)", "1 or 3 channels")),
        "NCHW": ({"x_train": x.transpose(0, 3, 1, 2)}, ("(12, 3, 5, 6)", "1 or 3 channels")),
        "no image": ({"x_train": x[:0], "y_train": y[:0]}, ("x_train", "(0, 5, 6, 3)")),
        "float labels": ({"y_train": y.astype(float)}, ("y_train", "float64", "integer")),
        "bool labels": ({"y_train": y.astype(bool)}, ("y_train", "bool", "integer")),
        "too few labels": ({"y_train": y[:-1]}, ("y_train", "(11,)", "12 images")),
        "one-hot labels": ({"y_train": np.eye(3, dtype=int)[y]}, ("y_train", "(12, 3)", "12 images")),
        "negative label": ({"y_train": y - 1}, ("y_train", "-1 to 1", "0 to 1")),
        "test label too high": ({"y_test": np.array([0, 1, 3])}, ("y_test", "0 to 3", "0 to 2")),
        "gap": ({"y_train": missing}, ("class 1", "no training image")),
        "fourteen labels an image": (
            {"y_train": np.ones((12, 14), int)},
            ("(12, 14)", "(12,)", "one class an image", "argmax"),
        ),
        "from 1 with a gap": (
            {"y_train": np.where(y == 1, 3, y + 1), "y_test": np.array([1, 2, 3])},
            ("class 2 of 1 to 3",),
        ),
        "from 1, tested from 0": ({"y_train": y + 1}, ("class 0 of 0 to 3", "no training image")),
        "from 2": ({"y_train": y + 2, "y_test": np.array([2, 3, 4])}, ("class 0", "no training image")),
        "late gap": ({"y_train": late}, ("class 3", "no training image")),
        "huge label": ({"y_train": np.where(y == 2, 2**60, y)}, ("class 2", "no training image")),
        "other shapes": ({"x_test": arrays()["x_test"][:, 1:]}, ("(5, 6, 3)", "(4, 6, 3)")),
        "objects": ({"y_train": np.array([Dangerous()] * 12)}, ("not a whole .npz", "fetch it again")),
    }


@pytest.mark.parametrize("case", npz_cases())
def test_wrong_arrays_are_refused(case, saved, refuses):
    replaced, words = npz_cases()[case]
    path = saved(**replaced)
    with refuses(path, *words):
        load(path, "cpu")


def test_labels_in_one_column_are_labels(saved):
    plain, given = load(saved(), "cpu"), arrays()
    columns = load(
        saved(**{f"y_{split}": given[f"y_{split}"][:, None] for split in ("train", "test")}), "cpu"
    )
    assert columns.sha256 == plain.sha256
    assert torch.equal(columns.y_train, plain.y_train)
    assert columns.notes == ()


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64])
def test_labels_that_begin_at_1_are_taken_from_0_and_that_is_said(kind, saved):
    plain, given = load(saved(), "cpu"), arrays()
    data = load(
        saved(**{f"y_{split}": (given[f"y_{split}"] + 1).astype(kind) for split in ("train", "test")}), "cpu"
    )
    assert data.class_names == ("1", "2", "3")
    for split in ("train", "test"):
        assert torch.equal(getattr(data, f"y_{split}"), getattr(plain, f"y_{split}"))
        assert torch.equal(getattr(data, f"x_{split}")[:], getattr(plain, f"x_{split}")[:])
    assert data.notes == ("labels begin at 1: 1 to 3 are taken as classes 0 to 2",)


def test_a_missing_array_is_refused(tmp_path, refuses):
    np.savez(tmp_path / "half.npz", x_train=arrays()["x_train"], other=np.zeros(1))
    with refuses(tmp_path / "half.npz", "holds x_train, other", "y_train, x_test, y_test is missing"):
        load(tmp_path / "half.npz", "cpu")


def test_a_missing_file_is_refused(tmp_path, refuses):
    with refuses(tmp_path / "no.npz", "no such file", "x_train"):
        load(tmp_path / "no.npz", "cpu")


@pytest.mark.parametrize("content", ["empty", "text", "npy", "pickle", "zip of text"])
def test_a_file_of_another_kind_is_refused(content, tmp_path, refuses):
    import pickle

    path = tmp_path / "wrong.npz"
    held = io.BytesIO()
    if content == "npy":
        np.save(held, np.zeros(3))
    elif content == "pickle":
        pickle.dump(Dangerous(), held)
    elif content == "zip of text":
        with zipfile.ZipFile(held, "w") as archive:
            for key in arrays():
                archive.writestr(f"{key}.npy", "these are no numbers")
    path.write_bytes({"empty": b"", "text": b"hello\n"}.get(content, held.getvalue()))
    with refuses(path, "not a whole .npz file"):
        load(path, "cpu")


def npz_bytes():
    held = io.BytesIO()
    np.savez_compressed(held, **arrays(6, 3, (3, 3, 1)))
    return held.getvalue()


@pytest.fixture(scope="module")
def whole():
    return npz_bytes()


@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_cut_npz_is_refused_at_any_length(fraction, whole, tmp_path_factory, refuses):
    path = tmp_path_factory.getbasetemp() / "cut.npz"
    path.write_bytes(whole[: int(fraction * len(whole))])
    with refuses(path, "not a whole .npz file"):
        load(path, "cpu")


def test_a_spoilt_byte_is_refused_or_harmless(whole, tmp_path):
    path = tmp_path / "spoilt.npz"
    path.write_bytes(whole)
    good = load(path, "cpu")
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(ddcore.BadInput):
            assert load(path, "cpu").sha256 == good.sha256


def test_names_that_are_nothing_are_refused_with_the_nearest(tmp_path, refuses):
    with refuses("unknown dataset", "'digitz'", "did you mean 'digits'?"):
        load("digitz", "cpu", root=tmp_path)


# torchvision


def test_torchvision_gives_the_five_names(tmp_path, monkeypatch):
    def fake(root, download, train):
        assert root == tmp_path / "torchvision"
        images = torch.arange(20 * 4 * 4, dtype=torch.uint8).view(20, 4, 4)
        return types.SimpleNamespace(
            data=images if train else images[:10], targets=torch.arange(20 if train else 10) % 10
        )

    monkeypatch.setattr(datasets, "FashionMNIST", fake)
    data = load("fashion_mnist", "cpu", root=tmp_path)
    assert data.shape == (1, 4, 4)
    assert data.name == "fashion_mnist"
    assert (data.mean, data.std) == ((0.2861,), (0.3530,))
    assert data.counts.tolist() == [2] * 10
    assert pixels_of(data, data.x_train)[1].flatten().tolist() == [(10 * 16 + i) % 256 for i in range(16)]


def test_torchvision_svhn_is_turned_to_channels_last(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (10, 3, 4, 4), np.uint8)
    monkeypatch.setattr(
        datasets,
        "SVHN",
        lambda root, download, split: types.SimpleNamespace(data=images, labels=np.arange(10)),
    )
    data = load("svhn", "cpu", root=tmp_path)
    assert np.array_equal(pixels_of(data, data.x_train), images.transpose(0, 2, 3, 1))


def test_torchvision_cifar_lists_become_arrays(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), np.uint8)
    monkeypatch.setattr(
        datasets,
        "CIFAR10",
        lambda root, download, train: types.SimpleNamespace(data=images, targets=list(range(10))),
    )
    data = load("cifar10", "cpu", root=tmp_path)
    assert np.array_equal(pixels_of(data, data.x_train), images)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("Dataset not found.\nYou can download it"), OSError("no route to host"), RuntimeError()],
)
def test_no_download_is_refused(error, tmp_path, monkeypatch, refuses):
    def fail(*args, **settings):
        raise error

    monkeypatch.setattr(datasets, "FashionMNIST", fail)
    with refuses("fashion_mnist", tmp_path / "fashion_mnist.npz", str(error).split("\n")[0], "DDCORE_DATA"):
        load("fashion_mnist", "cpu", root=tmp_path)


def test_a_file_goes_before_a_download(tmp_path, monkeypatch):
    monkeypatch.setattr(
        datasets, "FashionMNIST", lambda *args, **settings: pytest.fail("asked for a download")
    )
    np.savez(tmp_path / "fashion_mnist.npz", **arrays(shape=(4, 4, 1)))
    assert load("fashion_mnist", "cpu", root=tmp_path).shape == (1, 4, 4)


def test_a_file_of_other_channels_than_its_name_is_refused(tmp_path, refuses):
    np.savez(tmp_path / "cifar10.npz", **arrays(shape=(4, 4, 1)))
    with refuses("cifar10", "1 channels", "3"):
        load("cifar10", "cpu", root=tmp_path)


# what a dataset can do


def test_class_images_are_those_of_the_class(coloured):
    for label in range(3):
        assert torch.equal(coloured.class_images(label), coloured.x_train[coloured.y_train == label])
    assert coloured.counts.tolist() == [4, 7, 9]


@given(per_class=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_sample_is_sorted_balanced_and_without_replacement(coloured, per_class, seed):
    index = coloured.sample(per_class, stream(seed, "sample"))
    assert torch.equal(coloured.y_train[index], torch.arange(3).repeat_interleave(per_class))
    assert len(index.unique()) == len(index)
    assert torch.equal(index, coloured.sample(per_class, stream(seed, "sample")))


def test_sample_is_uniform_in_each_class(coloured):
    generator, draws = stream(0, "sample"), 3000
    count = torch.bincount(
        torch.cat([coloured.sample(3, generator) for _ in range(draws)]), minlength=20
    ).double()
    expected = 3 * draws / coloured.counts[coloured.y_train].double()
    # Of class c: (n_c - 3) / (n_c - 1) times a chi-square of n_c - 1 degrees of freedom; 41 is the 99.9 % point of 17 in all.
    assert ((count - expected) ** 2 / expected).sum() < 41


def test_sample_of_a_whole_class_takes_all_of_it(coloured):
    assert set(coloured.sample(4, stream(0, "sample"))[:4].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("per_class", [5, 8, 10])
def test_sample_of_more_than_a_class_holds_is_refused(per_class, coloured, refuses):
    with refuses("coloured", "class a has 4 training images", f"asks for {per_class}"):
        coloured.sample(per_class, stream(0, "sample"))


@pytest.mark.parametrize(
    "call",
    [
        lambda data: data.need(5, "this test"),
        lambda data: ddcore.Pixels(data, 5),
        lambda data: ddcore.LowRank(data, 5, rank=3, init="svd"),
        lambda data: ddcore.baseline("herding", data, 5, width=4),
    ],
)
def test_fewer_images_than_asked_for_are_refused(call, coloured, refuses):
    with refuses("coloured", "class a has 4 training images", "a class"):
        call(coloured)


def rows(x):
    return {tuple(image.flatten().tolist()) for image in x}


@given(fraction=st.floats(0.001, 0.999), seed=st.integers(0, 10**6))
def test_holdout_cuts_the_training_set_in_two(coloured, fraction, seed):
    part = coloured.holdout(fraction, seed)
    assert rows(part.x_train) | rows(part.x_test) == rows(coloured.x_train)
    assert not rows(part.x_train) & rows(part.x_test)
    for y in (part.y_train, part.y_test):
        assert y.unique().tolist() == [0, 1, 2]
        assert torch.equal(y, y.sort().values)
    assert part.sha256 != coloured.sha256
    assert part.sha256 == coloured.holdout(fraction, seed).sha256


def test_holdout_holds_the_fraction_of_each_class_and_no_test_image(digits):
    part = digits.holdout(0.25)
    assert torch.equal(torch.bincount(part.y_test), (digits.counts // 4).clamp(min=1))
    assert part.holdout(0.25).sha256 != part.sha256 != digits.holdout(0.25, 1).sha256
    assert rows(part.x_test) <= rows(digits.x_train)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_holdout_of_no_fraction_is_refused(fraction, coloured, refuses):
    with refuses("holdout", f"fraction={fraction}", "between 0 and 1"):
        coloured.holdout(fraction)


def test_holdout_keeps_an_image_on_either_side_at_any_fraction(coloured):
    assert coloured.holdout(1 - 1e-12).counts.tolist() == [1, 1, 1]


def test_holdout_of_a_class_of_one_is_refused(saved, refuses):
    with refuses("some", "class 2 has 1 training images", "holdout"):
        load(saved(y_train=np.array([0, 1] * 5 + [1, 2])), "cpu").holdout()

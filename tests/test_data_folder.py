"""Folders of images: which files are read as what, what is said of the others, and what is kept in memory."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ddcore
from ddcore.data import decoding, folder, load
from ddcore.data.files import Files, Kept
from ddcore.data.listing import listing, natural
from ddcore.data.statistics import channel_statistics


def picture(seed, shape=(5, 6, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(path, seed=0, shape=(5, 6, 3), **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, shape)).save(path, **settings)
    return path


def make(root, classes=("bee", "ant"), splits=(("train", 3), ("test", 2))):
    """`root` with so many images a class in each split, each another one."""
    seed = 0
    for split, many in splits:
        for name in classes:
            for index in range(many):
                write(root / split / name / f"{index}.png", seed := seed + 1)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DDCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "folders"


@pytest.fixture
def insects(tmp_path):
    """train/ and test/ of classes ant and bee, three and two 6x5 colour images each."""
    return make(tmp_path / "insects")


def stored(x):
    """(n, H, W, C) uint8, what is drawn from."""
    return x.stored[x.rows].numpy()


def files(root, pattern):
    return np.stack(
        [
            np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
            for path in sorted(root.glob(pattern))
        ]
    )


@pytest.fixture
def settled(monkeypatch):
    """Files are taken to be old enough to be remembered."""
    monkeypatch.setattr("ddcore.data.remembered.SETTLED_NS", -(10**18))


def age(root):
    """Give all files one time of change."""
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))


# layouts


def test_train_and_test(insects):
    data = load(insects, "cpu")
    assert data.class_names == ("ant", "bee")
    assert data.shape == (3, 5, 6)
    assert data.sizes == (3, 3)
    assert data.notes == ()
    assert np.array_equal(stored(data.x_train), files(insects, "train/*/*.png"))
    assert np.array_equal(stored(data.x_test), files(insects, "test/*/*.png"))
    assert data.y_test.tolist() == [0, 0, 1, 1]
    mean, std = channel_statistics([files(insects, "train/*/*.png")])
    assert (data.mean, data.std) == (mean, std)
    x = torch.from_numpy(files(insects, "train/*/*.png")).permute(0, 3, 1, 2).float().div(255)
    assert torch.equal(
        data.x_train[:], (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    )
    assert load("insects", "cpu", root=insects.parent).sha256 == data.sha256


def test_imagenet_has_val_for_testing_and_names_of_wordnet(tmp_path):
    root = make(tmp_path / "imagenet", ("n02", "n01"), (("train", 2), ("val", 1)))
    (root / "test").mkdir()
    write(root / "test" / "0.JPEG")
    (root / "words.txt").write_text("n01\ttench, Tinca tinca\nn02\tgoldfish\nn03\tshark\n", encoding="utf-8")
    data = load(root, "cpu")
    assert data.class_names == ("n01 tench", "n02 goldfish")
    assert np.array_equal(stored(data.x_test), files(root, "val/*/*.png"))
    assert data.notes == ("1 file(s) left out: test/, as val/ is for testing",)


def tiny(root):
    for number, name in enumerate(("n03", "n01", "n02")):
        for index in range(2):
            write(root / "train" / name / "images" / f"{name}_{index}.JPEG", 10 * number + index)
        (root / "train" / name / f"{name}_boxes.txt").write_text("boxes", encoding="utf-8")
        write(root / "val" / "images" / f"val_{number}.JPEG", 100 + number)
    write(root / "test" / "images" / "test_0.JPEG", 7)
    lines = (f"val_{number}.JPEG\t{name}\t0\t0\t9\t9\n" for number, name in enumerate(("n03", "n01", "n02")))
    (root / "val" / "val_annotations.txt").write_text("".join(lines), encoding="utf-8")
    return root


def test_tiny_imagenet_names_its_val_images_in_a_file(tmp_path):
    data = load(tiny(tmp_path / "tiny"), "cpu")
    assert data.class_names == ("n01", "n02", "n03")
    assert data.sizes == (2, 2, 2)
    assert np.array_equal(stored(data.x_test), files(tmp_path, "tiny/val/images/*.JPEG")[[1, 2, 0]])
    assert np.array_equal(stored(data.x_train), files(tmp_path, "tiny/train/*/images/*.JPEG"))
    assert set(data.notes) == {
        "1 file(s) left out: test/, as val/ is for testing",
        "3 file(s) left out: '.txt' is not read as an image",
    }


def test_tiny_imagenet_with_files_and_lines_that_do_not_agree(tmp_path, refuses):
    root = tiny(tmp_path / "tiny")
    path = root / "val" / "val_annotations.txt"
    whole = path.read_text(encoding="utf-8")
    write(root / "val" / "images" / "more.JPEG")
    assert "1 file(s) left out: without a line in val/val_annotations.txt" in load(root, "cpu").notes
    path.write_text(whole.replace("n02", "n04"), encoding="utf-8")
    with refuses(path, "n04", "train/"):
        load(root, "cpu")
    path.write_text(whole.replace("val_1", "val_9"), encoding="utf-8")
    with refuses(path, "val_9.JPEG", "not in"):
        load(root, "cpu")
    path.write_text("".join(whole.splitlines(keepends=True)[:2]), encoding="utf-8")
    with refuses(root / "val" / "n02", "no image found"):
        load(root, "cpu")


@pytest.mark.parametrize("inside", ["", "train"])
def test_classes_alone_are_split_by_a_fraction_and_a_seed(inside, tmp_path):
    root = tmp_path / "flat"
    make(root, ("a", "b"), ((inside, 10),))
    data = load(root, "cpu", test_fraction=0.3)
    assert data.sizes == (7, 7)
    assert torch.bincount(data.y_test).tolist() == [3, 3]
    assert data.name == "flat (test 0.3 0)"
    every = [tuple(image.flatten().tolist()) for image in files(root, f"{inside}/*/*.png".lstrip("/"))]
    parts = [[tuple(image.flatten().tolist()) for image in stored(x)] for x in (data.x_train, data.x_test)]
    assert sorted(parts[0] + parts[1]) == sorted(every)
    assert parts[0] == [image for image in every if image in parts[0]]
    assert load(root, "cpu", test_fraction=0.3).sha256 == data.sha256
    others = [load(root, "cpu", test_fraction=0.2), load(root, "cpu", test_fraction=0.3, split_seed=1)]
    assert len({data.sha256, *(other.sha256 for other in others)}) == 3
    assert [tuple(image.flatten().tolist()) for image in stored(others[1].x_test)] != parts[1]


def test_a_fraction_where_it_has_no_meaning_is_refused(insects, tmp_path, refuses):
    with refuses(insects, "test split of its own", "test_fraction=0.5"):
        load(insects, "cpu", test_fraction=0.5)
    with refuses("digits", "test split of its own"):
        load("digits", "cpu", test_fraction=0.5)
    shutil.rmtree(insects / "test")
    for fraction in (0, 1, -1, float("nan")):
        with refuses(f"test_fraction={fraction}", "between 0 and 1"):
            load(insects, "cpu", test_fraction=fraction)
    for name in ("1.png", "2.png"):
        (insects / "train" / "bee" / name).unlink()
    with refuses(insects, "class bee has one image", "test_fraction"):
        load(insects, "cpu", test_fraction=0.5)


def test_what_is_missing_is_said(insects, tmp_path, refuses):
    (insects / "test" / "bee").rename(insects / "test" / "wasp")
    with refuses(insects / "test", "ant, wasp", "ant, bee"):
        load(insects, "cpu")
    shutil.rmtree(insects / "test")
    with refuses(insects / "test", "no class folders", "train/<class>/*.png", "test_fraction"):
        load(insects, "cpu")
    (insects / "test").mkdir()
    with refuses(insects / "test", "no class folders"):
        load(insects, "cpu")
    shutil.rmtree(insects / "train")
    with refuses(insects / "train", "no class folders", "train/<class>/*.png"):
        load(insects, "cpu")
    (tmp_path / "nothing").mkdir()
    with refuses(tmp_path / "nothing" / "train", "no class folders"):
        load(tmp_path / "nothing", "cpu")


@pytest.mark.parametrize("name", ["ant", "bee"])
def test_a_class_folder_without_images_is_refused(name, insects, refuses):
    for split in ("test", "train"):
        for path in (insects / split / name).iterdir():
            path.unlink()
        with refuses(insects / split / name, "no image found", ".png"):
            load(insects, "cpu")


# names


def test_hidden_and_foreign_files_are_left_out_and_counted(insects):
    before = load(insects, "cpu")
    write(insects / "train" / ".ipynb_checkpoints" / "0.png")
    write(insects / "train" / "ant" / ".thumbnails" / "0.png")
    write(insects / "train" / "__MACOSX" / "ant" / "0.png")
    (insects / "train" / "ant" / "._0.png").write_bytes(b"no image")
    (insects / "train" / "ant" / "Thumbs.db").write_bytes(b"x")
    (insects / "test" / "bee" / "notes.txt").write_text("x", encoding="utf-8")
    (insects / "test" / "bee" / "photo.heic").write_text("x", encoding="utf-8")
    (insects / "test" / "bee" / "README").write_text("x", encoding="utf-8")
    write(insects / "train" / "lost.png")
    data = load(insects, "cpu")
    assert data.sha256 == before.sha256
    assert data.sizes == (3, 3)
    reasons = [f"'.{suffix}' is not read as an image" for suffix in ("db", "heic", "txt")]
    reasons += ["no suffix, so no image by name", "in no class folder"]
    assert set(data.notes) == {
        "4 file(s) left out: hidden",
        *(f"1 file(s) left out: {reason}" for reason in reasons),
    }


@pytest.mark.parametrize(
    "name", ["sub/deeper/0.png", "0.PNG", "0.JPG", "0.tif", "0.TIFF", "0.gif", "0.bmp", "0.webp", "0.ppm"]
)
def test_sub_folders_suffixes_in_capitals_and_other_kinds_are_read(name, insects):
    path = insects / "train" / "ant" / "x" / name
    write(path, 9)
    data = load(insects, "cpu")
    assert data.sizes == (4, 3)
    assert np.array_equal(stored(data.x_train)[3], files(path.parent, path.name)[0])


def test_numbers_in_class_names_are_sorted_by_size_and_that_is_said(tmp_path):
    names = [str(number) for number in range(1, 13)]
    root = make(tmp_path / "months", names, (("train", 1), ("test", 1)))
    data = load(root, "cpu")
    assert data.class_names == tuple(names)
    assert any(note.startswith("classes are in natural order: 1, 2, 3, 4") for note in data.notes)
    assert np.array_equal(stored(data.x_train)[1], np.asarray(Image.open(root / "train" / "2" / "0.png")))


@given(st.lists(st.text("ab019_ Aé٣", min_size=1, max_size=6), unique=True, max_size=8))
def test_natural_order_is_one_order_of_all_names(names):
    backwards = names[::-1]
    assert sorted(names, key=natural) == sorted(backwards, key=natural)
    whole = sorted({int(name) for name in names if name.isdecimal()})
    assert [int(name) for name in sorted(map(str, whole), key=natural)] == whole


def test_class_names_stay_with_the_set(insects, digits, tmp_path):
    data = load(insects, "cpu")
    saved = ddcore.Pixels(data, 1).save(tmp_path / "a.safetensors")
    assert ddcore.load_synthetic(saved).class_names == ("ant", "bee")
    assert "class_names" not in ddcore.Pixels(digits, 1).settings
    assert ddcore.Pixels(digits, 1).class_names == digits.class_names
    assert ddcore.Pixels(digits.only([3, 1]), 1).class_names == ("3", "1")


# sizes and channels


def test_size_brings_all_to_one_and_is_part_of_the_identity(insects, refuses):
    plain = load(insects, "cpu").sha256
    path = insects / "train" / "bee" / "wide.jpg"
    Image.new("RGB", (40, 20), (255, 0, 0)).save(path)
    with refuses(path, "(20, 40)", "(5, 6)", "--size"):
        load(insects, "cpu")
    data, other = load(insects, "cpu", size=4), load(insects, "cpu", size=3)
    assert data.shape == (3, 4, 4)
    assert other.shape == (3, 3, 3)
    assert len({plain, data.sha256, other.sha256}) == 3
    assert stored(data.x_train)[-1, :, :, 0].min() > 250
    assert any("central square" in note for note in data.notes)
    for size in (0, -3):
        with refuses(f"size={size}", "above 0"):
            load(insects, "cpu", size=size)


def test_a_size_that_an_array_does_not_have_is_refused(refuses):
    assert load("digits", "cpu", size=8).shape == (1, 8, 8)
    with refuses("digits", "size=16", "8x8", "folders"):
        load("digits", "cpu", size=16)


def test_grey_images_among_coloured_ones_become_coloured_and_alone_they_do_not(insects):
    Image.new("L", (6, 5), 77).save(insects / "train" / "ant" / "0.png")
    data = load(insects, "cpu")
    assert data.shape == (3, 5, 6)
    assert (stored(data.x_train)[0] == 77).all()
    for path in insects.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert load(insects, "cpu").shape == (1, 5, 6)


def test_what_was_done_to_images_is_counted(insects):
    exif = Image.Exif()
    exif[0x0112] = 3
    write(insects / "train" / "ant" / "0.png", 5, exif=exif)
    write(insects / "train" / "ant" / "1.png", 5, (5, 6, 4))
    Image.fromarray(np.full((5, 6), 25700, np.uint16)).save(insects / "test" / "bee" / "0.png")
    data = load(insects, "cpu")
    done = (
        "turned upright, as their EXIF orientation says",
        "laid on white where they are transparent",
        "of 16 bits scaled to 8",
    )
    assert data.notes == tuple(f"1 image(s) {what}" for what in done)
    assert np.array_equal(stored(data.x_train)[0], picture(5)[::-1, ::-1])
    assert (stored(data.x_test)[2] == 100).all()


def test_a_mode_without_a_meaning_is_refused_by_file_and_mode(insects, refuses):
    path = insects / "train" / "ant" / "depth.tif"
    Image.fromarray(np.ones((5, 6), np.float32)).save(path)
    with refuses(path, "mode F"):
        load(insects, "cpu")


def test_a_channel_that_is_the_same_everywhere_is_finite(insects):
    for path in insects.rglob("*.png"):
        pixels = np.array(Image.open(path))
        pixels[..., 2] = 0
        Image.fromarray(pixels).save(path)
    data = load(insects, "cpu")
    assert data.x_train[:].isfinite().all()
    assert any("channel 2" in note for note in data.notes)


# content


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif", ".gif"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_cut_image_is_refused_or_whole(suffix, split, insects, refuses):
    path = insects / split / "ant" / f"0{suffix}"
    (insects / split / "ant" / "0.png").unlink()
    write(path, 1)
    whole, good = path.read_bytes(), load(insects, "cpu")
    refused = 0
    for length in range(0, len(whole), max(1, len(whole) // 30)):
        path.write_bytes(whole[:length])
        try:
            found = load(insects, "cpu")
        except ddcore.BadInput:
            refused += 1
        else:
            assert np.array_equal(stored(getattr(found, f"x_{split}")), stored(getattr(good, f"x_{split}")))
    assert refused > 15
    path.write_bytes(whole[: len(whole) // 2])
    with refuses(path, "not a whole image"):
        load(insects, "cpu")


def test_a_text_named_png_is_refused(insects, refuses):
    (insects / "test" / "ant" / "1.png").write_text("no image", encoding="utf-8")
    with refuses(insects / "test" / "ant" / "1.png", "not a whole image", "replace"):
        load(insects, "cpu")


def test_sha256_sees_bytes_names_and_classes_but_neither_place_nor_time(insects, tmp_path, settled):
    plain = load(insects, "cpu").sha256
    assert load(shutil.copytree(insects, tmp_path / "elsewhere" / "insects"), "cpu").sha256 == plain
    age(insects)
    assert load(insects, "cpu").sha256 == plain
    first, second = (insects / "train" / name / "0.png" for name in ("ant", "bee"))
    first.rename(tmp_path / "kept")
    second.rename(first)
    (tmp_path / "kept").rename(second)
    swapped = load(insects, "cpu").sha256
    first.rename(first.with_name("00.png"))
    renamed = load(insects, "cpu").sha256
    (insects / "train" / "ant").rename(insects / "train" / "asp")
    (insects / "test" / "ant").rename(insects / "test" / "asp")
    assert len({plain, swapped, renamed, load(insects, "cpu").sha256}) == 4


def test_a_file_that_changed_or_went_after_loading_is_refused_when_drawn(insects, monkeypatch, refuses):
    monkeypatch.setattr(Kept, "put", lambda *given: None)
    data, path = load(insects, "cpu"), insects / "train" / "bee" / "0.png"
    assert len(data.batch(slice(None))) == 6
    write(path, 77)
    os.utime(path, (1, 1))
    data.batch(slice(0, 3))
    with refuses(path, "after the dataset was loaded"):
        data.batch(slice(3, 4))
    path.unlink()
    with refuses(path, "can't be read"):
        data.batch([3])


def test_a_broken_link_is_refused(insects, refuses):
    (insects / "train" / "ant" / "9.png").symlink_to(insects / "nowhere.png")
    with refuses(insects / "train" / "ant" / "9.png", "can't be read"):
        load(insects, "cpu")


# what is remembered


def test_what_was_found_out_is_remembered_until_a_file_changes(insects, cache, monkeypatch, settled):
    first = load(insects, "cpu")
    assert len(list(cache.glob("*.json"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "header", lambda *given: pytest.fail("read again"))
        patch.setattr(decoding, "pixels", lambda *given: pytest.fail("decoded again"))
        again = load(insects, "cpu")
        assert (again.sha256, again.mean, again.std, again.notes) == (
            first.sha256,
            first.mean,
            first.std,
            first.notes,
        )
        write(insects / "train" / "ant" / "0.png", 0)
        with pytest.raises(pytest.fail.Exception, match="read again"):
            load(insects, "cpu")
    assert load(insects, "cpu").sha256 != first.sha256


def test_what_changed_a_moment_ago_is_not_remembered(insects, cache):
    load(insects, "cpu")
    assert not list(cache.glob("*"))


@pytest.mark.parametrize("content", ["", "[1", "7", '{"content": 3'])
def test_a_spoilt_memory_is_no_harm(content, insects, cache, settled):
    data = load(insects, "cpu")
    (path,) = cache.glob("*.json")
    whole = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(content, encoding="utf-8")
    assert load(insects, "cpu").sha256 == data.sha256
    assert json.loads(path.read_text(encoding="utf-8")) == whole


def test_a_cache_that_cannot_be_written_is_no_harm(insects, tmp_path, monkeypatch, settled):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("DDCORE_CACHE", str(tmp_path / "file"))
    assert load(insects, "cpu").sizes == (3, 3)


def test_many_images_are_sampled_evenly_and_that_is_said(tmp_path, monkeypatch):
    root = make(tmp_path / "many", ("a", "b"), (("train", 10), ("test", 1)))
    monkeypatch.setattr(folder, "SAMPLE", 7)
    data = load(root, "cpu")
    chosen = files(root, "train/*/*.png")[np.rint(np.linspace(0, 19, 7)).astype(int)]
    assert (data.mean, data.std) == channel_statistics([chosen])
    assert data.notes == ("mean and standard deviation are those of 7 of 20 training images, evenly spaced",)


# memory


def test_the_images_drawn_last_are_kept_and_no_more_than_their_bytes_allow():
    kept = Kept(limit=100)
    for name in "abc":
        kept.put(name, np.zeros(40, np.uint8))
    assert kept.get("a") is None
    assert kept.bytes == 80
    assert kept.get("b") is not None
    kept.put("d", np.zeros(40, np.uint8))
    assert kept.get("c") is None
    assert kept.get("b") is not None
    kept.put("b", np.zeros(40, np.uint8))
    assert kept.bytes == 80
    kept.put("e", np.zeros(101, np.uint8))
    assert kept.bytes == 0


def test_many_threads_draw_what_one_does(tmp_path, monkeypatch):
    root = make(tmp_path / "many", ("a", "b"), (("train", 40), ("test", 1)))
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, 80, 300))
    drawn = []
    for threads in (1, 7):
        monkeypatch.setattr("ddcore.data.files.THREADS", threads)
        data = load(root, "cpu")
        assert isinstance(data.x_train.stored, Files)
        data.x_train.stored.kept.limit = 500
        drawn.append(data.batch(rows))
    assert torch.equal(*drawn)
    assert np.array_equal(stored(data.x_train), files(root, "train/*/*.png"))


def test_a_folder_takes_memory_for_what_is_drawn_only(tmp_path):
    """2,000 JPEGs of 128 x 128, 98 MB in 8 bits and 393 MB in float32, of 20 classes, with 8 MB of them kept."""
    held = io.BytesIO()
    Image.fromarray(picture(0, (16, 16, 3))).resize((128, 128)).save(held, "JPEG")
    for split, many in (("train", 99), ("val", 1)):
        for label in range(20):
            (tmp_path / "jpegs" / split / str(label)).mkdir(parents=True)
            for index in range(many):
                (tmp_path / "jpegs" / split / str(label) / f"{index}.jpg").write_bytes(held.getvalue())
    program = (
        "import resource, sys, torch, ddcore; from ddcore.data import files; from ddcore.random import stream; "
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024; import torchvision; before = peak(); "
        "files.Kept.__init__.__defaults__ = (8 << 20,); data = ddcore.load(sys.argv[1], 'cpu'); "
        "[data.batch(data.sample(3, stream(0, step))) for step in range(20)]; print(peak() - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "jpegs")],
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    assert float(run.stdout) < 90, "MB"


def test_listing_opens_no_file(insects, monkeypatch):
    monkeypatch.setattr(Path, "open", lambda *given: pytest.fail("opened"))
    assert listing(insects).class_names == ("ant", "bee")

import dataclasses
import os
import stat

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

import ddcore
from ddcore.data import Dataset, whiten
from ddcore.random import stream
from ddcore.synthetic import export


@pytest.fixture
def colours():
    """Three classes of eight 3x8x8 images in the statistics of CIFAR-100, whose names are not in the order of letters."""
    y = torch.arange(3).repeat_interleave(8)
    pixels = torch.rand(24, 3, 8, 8, generator=stream(0, "colours"))
    mean, std = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)
    x = (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    return Dataset("cifar100", x, y, x, y, mean, std, "0" * 64, ("2", "10", "a/b"))


def spread(data, factor, ipc=2):
    """A set of pixels, `factor` times as far from the mean as real ones."""
    found = ddcore.Pixels(data, ipc)
    with torch.no_grad():
        found.tensors["pixels"].mul_(factor)
    return found


def cells(path, rows, columns, side=8):
    """(rows * columns, H, W, C): the images of a grid, whose borders are white."""
    with Image.open(path) as image:
        picture = np.array(image)
    at = [1 + place * (side + 1) for place in range(max(rows, columns))]
    borders = np.ones(picture.shape[:2], bool)
    for top in at[:rows]:
        for left in at[:columns]:
            borders[top : top + side, left : left + side] = False
    assert (picture[borders] == 255).all()
    return np.stack(
        [picture[top : top + side, left : left + side] for top in at[:rows] for left in at[:columns]]
    )


# to look at


@pytest.mark.parametrize(("columns", "shown"), [(10, 4), (3, 3)])
def test_a_grid_is_a_row_a_class(columns, shown, digits, tmp_path):
    export.grid(ddcore.Pixels(digits, 4), tmp_path / "grid.png", columns=columns)
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (shown * 9 + 1, 10 * 9 + 1)


def test_the_cells_of_a_grid_are_the_pictures(digits, tmp_path):
    pixels = ddcore.Pixels(digits, 4)
    assert export.grid(pixels, tmp_path / "grid.png", columns=3) == ""
    with Image.open(tmp_path / "grid.png") as image:
        cell = torch.tensor(
            image.convert("L").crop((1 + 2 * 9, 1 + 5 * 9, 9 + 2 * 9, 9 + 5 * 9)).get_flattened_data()
        ).view(8, 8)
    assert (cell - pixels.pictures()[5 * 4 + 2, 0] * 255).abs().max() <= 1


def test_a_set_that_would_be_black_and_white_is_scaled_to_its_own_range_and_says_so(colours, tmp_path):
    wide = spread(colours, 40)
    black_or_white = ((wide.pictures() == 0) | (wide.pictures() == 1)).float().mean()
    assert black_or_white > 0.9
    low, high, said = export.visible(wide)
    values = export.pixels(wide)
    assert ((values <= low).float().mean(), (values >= high).float().mean()) == pytest.approx(
        (0.01, 0.01), abs=2e-3
    )
    assert f"{export.clipped(wide):.0%} of the pixels lie outside" in said
    assert f"scaled: black is {low:.2f}, white {high:.2f}, where real" in said
    assert export.grid(wide, tmp_path / "grid.png") == said
    drawn = torch.from_numpy(cells(tmp_path / "grid.png", 3, 2)).permute(0, 3, 1, 2)
    assert torch.equal(drawn, ((values - low) / (high - low) * 255 + 0.5).clamp(0, 255).byte())


def test_a_set_within_the_range_of_real_pixels_is_drawn_as_it_is(colours):
    for factor, words in ((1, ""), (1.2, "clipped to black or white")):
        low, high, said = export.visible(spread(colours, factor))
        assert (low, high) == (0, 1)
        assert said.endswith(words)
        assert bool(said) == bool(words)


@pytest.mark.parametrize("factor", [1, 1.2, 40])
@pytest.mark.parametrize("write", ["grid", "pngs"])
def test_images_are_formed_a_few_at_a_time_and_are_the_same(write, factor, colours, tmp_path, monkeypatch):
    made = spread(dataclasses.replace(colours), factor, ipc=5)
    said = getattr(export, write)(made, tmp_path / "at once")
    seen, images = [], made.images
    monkeypatch.setattr(
        made, "images", lambda index=slice(None): seen.append(len(images(index))) or images(index)
    )
    monkeypatch.setattr(export, "AT_ONCE", 2 * 3 * 8 * 8 + 1)
    monkeypatch.setattr(
        export, "_some", lambda one: torch.cat([*export.parts(one)]).numpy()
    )  # the test of it is the next one
    assert getattr(export, write)(made, tmp_path / "in parts") == said
    assert max(seen) == 2
    files = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in [*(tmp_path / name).rglob("*.png")] or [tmp_path / name]
        }
        for name in ("at once", "in parts")
    ]
    assert [*files[0].values()] == [*files[1].values()]
    assert len(files[0]) == (15 if write == "pngs" else 1)


@pytest.mark.parametrize("at_once", [1, 7, 64, 100, 192, 577, 10**6])
def test_the_range_of_a_large_set_is_that_of_pixels_at_even_distances(at_once, colours, monkeypatch):
    made = ddcore.Pixels(colours, 3)
    with torch.no_grad():
        made.tensors["pixels"].copy_(torch.arange(9 * 192).view(9, 3, 8, 8))
    monkeypatch.setattr(export, "pixels", lambda one, rows: one.images(rows).detach())
    monkeypatch.setattr(export, "AT_ONCE", at_once)
    found = export._some(made)
    assert len(found) == min(len(found), at_once)
    assert found[0] == 0
    every = found[1] if len(found) > 1 else 9 * 192
    assert np.array_equal(found, np.arange(0, 9 * 192, every))
    assert np.gcd(int(every), 192) == 1 or len(found) == 1


# to train on


@pytest.mark.parametrize("form", ["npz", "pt"])
@pytest.mark.parametrize("how", [{}, {"soft": 2.0}, {"step": 0.02}], ids=str)
def test_arrays_keep_the_numbers_and_what_was_learned(form, how, colours, tmp_path):
    made = ddcore.Pixels(colours, 2, **how)
    with torch.no_grad():
        for tensor in made.parameters():
            tensor.mul_(40).add_(0.1)
    getattr(export, form)(made, tmp_path / "set")
    found = (
        dict(np.load(tmp_path / "set")) if form == "npz" else torch.load(tmp_path / "set", weights_only=True)
    )
    found = {
        name: torch.as_tensor(value) if name not in ("class_names", "mean", "std") else list(value)
        for name, value in found.items()
    }
    assert torch.equal(found["images"], made.images().detach())
    assert torch.equal(found["labels"], made.labels)
    assert found["class_names"] == ["2", "10", "a/b"]
    assert (tuple(found["mean"]), tuple(found["std"])) == (colours.mean, colours.std)
    assert ("soft_labels" in found) == ("soft" in how)
    assert "soft" not in how or torch.equal(found["soft_labels"], made.targets().detach())
    assert ("step" in found) == ("step" in how)
    assert "step" not in how or found["step"] == made.step_size.detach()


def test_a_whitened_set_takes_its_transform_along(colours, tmp_path):
    data = whiten(
        dataclasses.replace(colours, x_train=colours.x_train.double(), x_test=colours.x_test.double())
    )
    made = ddcore.Pixels(data, 2)
    export.npz(made, tmp_path / "set.npz")
    found = np.load(tmp_path / "set.npz")
    pixels = (
        np.linalg.solve(found["whitening_transform"], found["images"].reshape(6, -1).T).T
        + found["whitening_mean"]
    )
    np.testing.assert_allclose(pixels, export.pixels(made).flatten(1), atol=1e-6)


def test_images_are_read_in_the_order_of_labels_and_say_what_was_clipped(colours, tmp_path):
    plain, wide = ddcore.Pixels(colours, 2), spread(colours, 40)
    assert export.pngs(plain, tmp_path / "plain") == 0
    share = export.pngs(wide, tmp_path / "wide")
    values = wide.images().detach() * torch.tensor(colours.std).view(1, 3, 1, 1) + torch.tensor(
        colours.mean
    ).view(1, 3, 1, 1)
    assert share == pytest.approx(float(((values < 0) | (values > 1)).float().mean()), abs=0.02)
    assert share > 0.9
    found = ImageFolder(tmp_path / "plain")
    assert found.classes == ["0_2", "1_10", "2_a_b"]
    assert found.targets == plain.labels.tolist()
    drawn = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in found])
    assert torch.equal(drawn, (plain.pictures() * 255 + 0.5).clamp(0, 255).byte())


def test_folders_of_many_classes_are_in_the_order_of_labels_too(digits, tmp_path):
    y = torch.arange(11)
    names = tuple("kjihgfedcba")
    data = dataclasses.replace(
        digits, x_train=digits.x_train[:11], y_train=y, x_test=digits.x_test[:11], y_test=y, class_names=names
    )
    (tmp_path / "set").mkdir()
    export.pngs(ddcore.Pixels(data, 1), tmp_path / "set")
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        f"{label:02d}_{name}" for label, name in enumerate(names)
    ]


@pytest.mark.parametrize("write", [export.pngs, export.ddranking])
def test_a_folder_that_holds_something_is_refused_and_one_that_fails_is_not_left(
    write, colours, tmp_path, refuses, monkeypatch
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old.png").touch()
    with refuses(tmp_path / "full", "not an empty folder"):
        write(ddcore.Pixels(colours, 1), tmp_path / "full")

    def fail(*given):
        raise OSError("full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="full"):
        write(ddcore.Pixels(colours, 1), tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_who_may_read_a_file_is_what_the_umask_says(mask, colours, tmp_path):
    made, before = ddcore.Pixels(colours, 1), os.umask(mask)
    try:
        made.save(tmp_path / "a.safetensors")
        export.npz(made, tmp_path / "a.npz")
        export.pt(made, tmp_path / "a.pt")
        export.grid(made, tmp_path / "a.png")
        export.pngs(made, tmp_path / "folder")
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~mask, path.name


# for ddranking (the package itself: test_ddranking.py)


def ddranking(made, folder, **how):
    said = export.ddranking(made, folder, **how)
    return said, {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


def test_ddranking_is_given_what_was_learned(colours, tmp_path):
    said, plain = ddranking(ddcore.Pixels(colours, 2), tmp_path / "a" / "plain", lr=0.03)
    assert set(plain) == {"images", "labels", "lr"}
    assert plain["lr"] == pytest.approx(0.03)
    assert plain["labels"].tolist() == [0, 0, 1, 1, 2, 2]
    assert not any("labels" in sentence for sentence in said)
    made = ddcore.Pixels(colours, 2, step=0.02, soft=2.0)
    with torch.no_grad():
        made.tensors["step"].fill_(500.0)
    said, found = ddranking(made, tmp_path / "b", lr=0.03)
    assert found["lr"] == made.step_size.detach() != pytest.approx(0.02)
    assert torch.equal(found["soft_labels"], made.targets().detach())
    assert any("soft_labels.pt" in sentence and "hard ones" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("name", "by"), [("cifar10", export.CIFAR), ("cifar100", export.CIFAR), ("photographs", export.IMAGENET)]
)
def test_ddranking_is_given_images_normalised_as_its_test_images(name, by, colours, tmp_path):
    made = spread(dataclasses.replace(colours, name=name), 40)
    said, found = ddranking(made, tmp_path / "set")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in by)
    torch.testing.assert_close(found["images"] * std + mean, export.pixels(made), rtol=1e-4, atol=1e-4)
    assert any("normalised as ddranking does" in sentence for sentence in said)
    assert any("clipped" in sentence for sentence in said)
    alike = dataclasses.replace(colours, name=name, mean=by[0], std=by[1])
    said, found = ddranking(ddcore.Pixels(alike, 1), tmp_path / "alike")
    assert torch.equal(found["images"], ddcore.Pixels(alike, 1).images().detach())
    assert not any("normalised" in sentence for sentence in said)


def test_a_whitened_set_stays_so_for_ddranking_and_that_is_said(colours, tmp_path):
    made = ddcore.Pixels(whiten(colours), 1)
    said, found = ddranking(made, tmp_path / "set")
    assert torch.equal(found["images"], made.images().detach())
    assert any("use_zca=True" in sentence for sentence in said)


def test_ddranking_has_no_network_for_one_channel(digits, tmp_path, refuses):
    with refuses("digits has 1 channel", "takes 3", "--npz"):
        export.ddranking(ddcore.Pixels(digits, 1), tmp_path / "set")
    assert list(tmp_path.iterdir()) == []

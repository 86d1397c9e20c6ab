"""Files of the field's published code: what they hold comes through, and nothing pickled is run."""

import numpy as np
import pytest
import torch

import ddcore
from ddcore.synthetic.published_sets import import_published


@pytest.fixture(scope="module")
def images():
    return torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))


LABELS = torch.arange(10).repeat_interleave(2)


class Dangerous:
    def __reduce__(self):
        return (pytest.fail, ("what is pickled was run",))


@pytest.fixture
def saved(tmp_path):
    def save(content, name="res_DC_digits_ConvNet_2ipc.pt", **settings):
        torch.save(content, tmp_path / name, **settings)
        return tmp_path / name

    return save


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
def test_a_result_of_dc_with_accuracies_of_numpy(old, saved, images, digits):
    before = set(torch.serialization.get_safe_globals())
    accuracies = {"ConvNet": [np.float64(0.3), np.float32(0.2)], "MLP": [np.int64(3), 0.5]}
    path = saved(
        {"data": [[images, LABELS], [2 * images, LABELS]], "accs_all_exps": accuracies},
        _use_new_zipfile_serialization=not old,
    )
    for run in (0, 1):
        found = import_published(path, digits, run=run)
        assert torch.equal(found.images().detach(), (run + 1) * images)
        assert torch.equal(found.labels, LABELS)
        assert (found.per_class, found.settings["dataset"], found.settings["init"]) == (
            2,
            "digits",
            "imported",
        )
        assert found.normalised_as(digits)
    assert set(torch.serialization.get_safe_globals()) == before


def test_images_of_mtt_have_their_labels_beside_them(saved, images, digits, tmp_path):
    saved(LABELS.flip(0), "labels_best.pt")
    found = import_published(saved(images, "images_best.pt"), digits)
    assert torch.equal(found.labels, LABELS)
    assert torch.equal(found.images().detach(), images.view(10, 2, 1, 8, 8).flip(0).flatten(0, 1))


def test_an_imported_set_is_saved_and_evaluated_like_any_other(saved, images, digits, tmp_path):
    found = import_published(saved({"data": [[images.double().requires_grad_(), LABELS.int()]]}), digits)
    again = ddcore.load_synthetic(found.save(tmp_path / "a.safetensors"))
    assert torch.equal(again.images(), found.images())
    assert ddcore.evaluate(again, digits, seeds=[0], width=4, epochs=1).per_class == 2


def wrong(x):
    return {
        "a pickle": ({"data": Dangerous()}, ("nothing is run",)),
        "arrays of numpy": ({"data": [[x.numpy(), LABELS.numpy()]]}, ("numpy", "nothing is run")),
        "another mapping": ({"weights": x}, ("'weights'", "DC, DSA or DM")),
        "a tensor by another name": (x, ("(20, 1, 8, 8)", "labels_*.pt")),
        "a list": ([x, LABELS], ("a list",)),
        "triples": ({"data": [[x, LABELS, LABELS]]}, ("'data'",)),
        "no runs": ({"data": []}, ("run=0", "0 result(s)")),
        "another shape": ({"data": [[x[..., :7], LABELS]]}, ("(20, 1, 8, 7)", "(n, 1, 8, 8)")),
        "whole numbers": ({"data": [[(9 * x).long(), LABELS]]}, ("torch.int64", "floating point")),
        "soft labels": ({"data": [[x, torch.eye(10)[LABELS]]]}, ("(20, 10)", "soft")),
        "too few labels": ({"data": [[x, LABELS[:19]]]}, ("(19,)",)),
        "unequal classes": ({"data": [[x[:19], LABELS[:19]]]}, ("equally many",)),
        "a class too many": ({"data": [[x, LABELS + 1]]}, ("0 to 9",)),
        "a class below": ({"data": [[x, LABELS - 1]]}, ("0 to 9",)),
        "not finite": ({"data": [[x / 0, LABELS]]}, ("1280 numbers", "not finite")),
    }


@pytest.mark.parametrize("case", wrong(torch.ones(20, 1, 8, 8)))
def test_what_is_not_read_is_refused(case, saved, images, digits, refuses):
    content, words = wrong(images)[case]
    path = saved(content)
    with refuses(path, *words):
        import_published(path, digits)


def test_files_that_are_missing_cut_or_of_another_kind_are_refused(saved, images, digits, tmp_path, refuses):
    path = saved({"data": [[images, LABELS]]})
    path.write_bytes(path.read_bytes()[:300])
    with refuses(path, "not a whole file"):
        import_published(path, digits)
    path.write_text("hello", encoding="utf-8")
    with refuses(path, "not a whole file"):
        import_published(path, digits)
    with refuses("none.pt", "no such file"):
        import_published("none.pt", digits)
    with refuses(tmp_path / "labels_best.pt", "no such file"):
        import_published(saved(images, "images_best.pt"), digits)
    with refuses("run=-1"):
        import_published(saved({"data": [[images, LABELS]]}), digits, run=-1)

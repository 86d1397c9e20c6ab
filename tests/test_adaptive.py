import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ddcore
from ddcore import Adaptive, LowRank
from ddcore.errors import BadInput
from ddcore.random import stream
from ddcore.synthetic import load_synthetic
from ddcore.synthetic.adaptive import largest


def real_of(data, per_class, seed):
    """The images that `LowRank` from SVD factors."""
    return data.x_train[data.sample(per_class, stream(seed, "lowrank", "svd"))]


@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 100))
@settings(deadline=None, max_examples=25)
def test_it_has_the_images_of_a_fixed_rank_and_keeps_to_the_budget(budget_ipc, rank, seed):
    data = ddcore.load("digits", "cpu")
    found, fixed = (kind(data, budget_ipc, rank=rank, init="svd", seed=seed) for kind in (Adaptive, LowRank))
    assert found.per_class == fixed.per_class
    counted = sum(tensor.numel() for tensor in found.tensors.values())
    assert counted == found.stored_numbers <= found.budget < found.stored_numbers + 10 * 16
    assert sum(found.settings["ranks"]) * 16 == counted


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 100))
@settings(deadline=None, max_examples=25)
def test_no_set_of_a_fixed_rank_is_nearer_to_the_real_images(budget_ipc, rank, seed):
    data = ddcore.load("digits", "cpu")
    found, fixed = (kind(data, budget_ipc, rank=rank, init="svd", seed=seed) for kind in (Adaptive, LowRank))
    real = real_of(data, found.per_class, seed)
    errors = [float((real - one.images().detach()).square().sum()) for one in (found, fixed)]
    assert errors[0] <= errors[1] * (1 + 1e-5)


def test_a_rank_above_break_even_is_warned_of(digits):
    with pytest.warns(
        UserWarning,
        match=r"Adaptive: an image of rank 5 takes 80 numbers.*pixels 64: 1 images a class in place of 2",
    ):
        Adaptive(digits, 2, rank=5)


def test_what_is_lost_are_the_smallest_singular_values_of_each_class(digits):
    found = Adaptive(digits, 3, rank=2, seed=4)
    real = real_of(digits, found.per_class, 4).view(10, found.per_class, 8, 8)
    values = torch.linalg.svdvals(real).flatten(1).sort(1, descending=True).values
    lost = values[:, 3 * 64 // 16 :].square().sum(1)
    error = (real.flatten(1) - found.images().detach().view(10, -1)).square().sum(1)
    assert torch.allclose(error, lost, rtol=1e-3)


def test_images_are_sums_of_their_own_triplets_and_slices_rows_of_the_whole(digits):
    found = Adaptive(digits, 4, rank=2, seed=1)
    ranks, whole = found.settings["ranks"], found.images().detach()
    assert len(set(ranks)) > 1
    for image in (0, 7, len(ranks) - 1):
        rows = slice(sum(ranks[:image]), sum(ranks[: image + 1]))
        assert torch.allclose(
            whole[image, 0], found.tensors["u"][rows].mT @ found.tensors["v"][rows], atol=1e-6
        )
    index = torch.tensor([5, 0, 31])
    assert torch.equal(found.images(index), whole[index])
    gradients = torch.autograd.grad(found.images().square().sum(), found.parameters())
    assert all((gradient.abs().sum(1) > 0).all() for gradient in gradients)


@given(st.lists(st.lists(st.floats(0, 9), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(1, 5))
def test_largest_leaves_none_that_is_larger(values, count):
    values = torch.tensor(values)
    chosen = largest(values, count)
    assert (chosen.sum(1) == min(count, 3)).all()
    for row, taken in zip(values, chosen, strict=True):
        assert taken.all() or row[taken].min() >= row[~taken].max()


def test_a_file_whose_ranks_are_of_another_set_is_refused(digits, tmp_path):
    found = Adaptive(digits, 2, rank=2)
    found.settings["ranks"][0] += 3
    with pytest.raises(BadInput, match="not those that its settings name"):
        load_synthetic(found.save(tmp_path / "set.safetensors"))


def test_a_rank_that_yields_no_image_is_refused(digits):
    with pytest.raises(BadInput, match="a mean rank of 5 at budget_ipc=1 stores no 8x8 image"):
        Adaptive(digits, 1, rank=5)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ddcore
from ddcore import Tucker
from ddcore.errors import BadInput
from ddcore.synthetic import truncated_svd
from ddcore.synthetic.tucker import hosvd


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(1, 40), st.integers(1, 8), st.sampled_from(["noise", "svd"]))
@settings(deadline=None, max_examples=25)
def test_it_stores_as_many_images_as_the_budget_pays_for(budget_ipc, rank, init):
    data = ddcore.load("digits", "cpu")
    if budget_ipc * 64 - rank * 16 < rank**2:
        with pytest.raises(BadInput, match="use a lower rank"):
            Tucker(data, budget_ipc, rank=rank, init=init)
        return
    if init == "svd" and (budget_ipc * 64 - rank * 16) // rank**2 > int(data.counts.min()):
        return
    found = Tucker(data, budget_ipc, rank=rank, init=init)
    counted = sum(tensor.numel() for tensor in found.tensors.values())
    assert counted == found.stored_numbers == 10 * (rank * 16 + found.per_class * rank**2) <= found.budget
    assert found.stored_numbers + 10 * rank**2 > found.budget


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 6))
@settings(deadline=None)
def test_full_rank_holds_every_image_and_a_lower_one_a_projection(seed, count, rank):
    images = draw(seed, 2, count, 6, 7)
    left, core, right = hosvd(images, 6)
    assert torch.allclose(
        left[:, None] @ core @ right[:, None], images @ (right.mT @ right)[:, None], atol=1e-12
    )
    left, core, right = hosvd(images, rank)
    error = images - left[:, None] @ core @ right[:, None]
    assert torch.allclose(error.square().sum() + core.square().sum(), images.square().sum())
    assert torch.allclose(left.mT @ left, torch.eye(rank, dtype=left.dtype).expand(2, -1, -1), atol=1e-12)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_the_basis_of_a_single_image_is_that_of_its_svd(seed, rank):
    image = draw(seed, 1, 6, 6)
    left, core, right = hosvd(image, rank)
    u, v = truncated_svd(image, rank)
    assert torch.allclose(left @ core[0] @ right, (u @ v)[0], atol=1e-8)


def test_noise_has_pixels_of_variance_one(digits):
    found = Tucker(digits, 50, rank=4, seed=1)
    assert float(found.images().detach().var()) == pytest.approx(1, rel=0.15)


def test_slices_are_rows_of_the_whole_and_gradients_reach_every_tensor(digits):
    found = Tucker(digits, 3, rank=3, init="svd")
    whole = found.images()
    index = torch.tensor([7, 0, 30])
    assert torch.equal(found.images(index), whole[index])
    assert torch.equal(found.images(slice(2, 5)), whole[2:5])
    gradients = torch.autograd.grad(whole.square().sum(), found.parameters())
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_a_rank_beyond_the_image_is_refused(digits):
    with pytest.raises(BadInput, match="above the side of a 8x8 image"):
        Tucker(digits, 10, rank=9)


def test_an_image_is_its_core_between_the_bases_of_its_class(digits):
    found = Tucker(digits, 3, rank=3, seed=2)
    left, core, right = (found.tensors[name].detach() for name in ("left", "core", "right"))
    at = 2 * found.per_class + 1
    assert torch.allclose(found.images()[at, 0].detach(), left[2, 0] @ core[at, 0] @ right[2, 0])

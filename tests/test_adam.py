"""Adam and AdamW are those of torch.optim."""

import pytest
import torch

from ddcore.optim.adam import Adam
from ddcore.random import stream


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_is_that_of_torch(betas, decay):
    from torch import optim

    ours, theirs = (
        [
            torch.randn(3, 2, generator=stream(0, "a"), dtype=torch.float64),
            torch.randn(4, generator=stream(0, "b"), dtype=torch.float64),
        ]
        for _ in range(2)
    )
    theirs = [tensor.requires_grad_() for tensor in theirs]
    mine = Adam(ours, lr=0.05, betas=betas, weight_decay=decay)
    optimiser = (
        optim.AdamW(theirs, lr=0.05, betas=betas, weight_decay=decay)
        if decay
        else optim.Adam(theirs, lr=0.05, betas=betas)
    )
    for step in range(40):
        gradients = [
            torch.randn(tensor.shape, generator=stream(step, "gradient"), dtype=torch.float64)
            * 10.0 ** (step % 5 - 3)
            for tensor in ours
        ]
        mine.lr = optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / 50)
        mine.step(gradients)
        for tensor, gradient in zip(theirs, gradients, strict=True):
            tensor.grad = gradient.clone()
        optimiser.step()
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other.detach(), rtol=0, atol=1e-14)


def test_its_state_is_all_it_needs_to_go_on():
    start, gradients = (
        torch.ones(3, dtype=torch.float64),
        [[torch.randn(3, generator=stream(step, "g")).double()] for step in range(6)],
    )
    whole, half = [start.clone()], [start.clone()]
    one, two = Adam(whole, lr=0.1), Adam(half, lr=0.1)
    for gradient in gradients:
        one.step(gradient)
    for gradient in gradients[:3]:
        two.step(gradient)
    third = Adam(half, lr=0.1)
    for kind, tensors in third.state.items():
        for tensor, kept in zip(tensors, two.state[kind], strict=True):
            tensor.copy_(kept)
    third.steps = two.steps
    for gradient in gradients[3:]:
        third.step(gradient)
    assert torch.equal(whole[0], half[0])


def test_a_gradient_of_zero_moves_nothing_and_is_finite():
    x = [torch.ones(2)]
    Adam(x, lr=0.1).step([torch.zeros(2)])
    assert torch.equal(x[0], torch.ones(2))

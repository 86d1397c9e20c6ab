import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ddcore.kernels.rectified_pool import rectified_pool, rectified_pool_reference
from ddcore.random import stream


def draw(*shape):
    return torch.randn(*shape, generator=stream(0, "pool"), dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("sides", [(2, 2), (4, 6), (5, 4), (4, 7), (3, 3)])
def test_it_is_torchs_relu_and_pooling(sides):
    x = draw(2, 3, *sides)
    ours, theirs = rectified_pool(x), rectified_pool_reference(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-15)
    gradients = [torch.autograd.grad((one**2).sum(), x)[0] for one in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("sides", [(4, 4), (5, 3)])
def test_its_derivatives(sides):
    x = draw(1, 2, *sides)
    assert gradcheck(lambda x: rectified_pool(x) ** 2, x)
    assert gradgradcheck(lambda x: rectified_pool(x) ** 2, x)


def test_at_zero_the_derivative_is_torchs():
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    assert float(torch.autograd.grad(rectified_pool(x).sum(), x)[0].abs().max()) == 0


def test_it_is_its_own_function_and_can_be_mapped():
    x = draw(3, 2, 1, 4, 4)
    assert "RectifiedPool" in type(rectified_pool(x[0]).grad_fn).__name__
    mapped = torch.func.vmap(torch.func.grad(lambda one: (rectified_pool(one) ** 2).sum()))(x.detach())
    expected = torch.autograd.grad(sum((rectified_pool_reference(one) ** 2).sum() for one in x), x)[0]
    torch.testing.assert_close(mapped, expected, rtol=1e-14, atol=0)

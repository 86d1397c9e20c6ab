"""Our SGD is torch.optim.SGD, to the bit."""

import pytest
import torch

from ddcore.optim.sgd import SGD
from ddcore.random import stream


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_equal_to_torch_to_the_bit(dtype, weight_decay, momentum):
    generator = stream(0, "sgd")
    ours = [torch.randn(shape, generator=generator, dtype=dtype) for shape in ((3, 4), (7,), (2, 1, 5))]
    theirs = [one.clone().requires_grad_() for one in ours]
    optimiser = torch.optim.SGD(theirs, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    sgd = SGD(ours, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    for _ in range(5):
        gradients = [torch.randn(one.shape, generator=generator, dtype=dtype) for one in ours]
        sgd.step(gradients)
        for one, gradient in zip(theirs, gradients, strict=True):
            one.grad = gradient
        optimiser.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))

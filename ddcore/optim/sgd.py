"""SGD with momentum and weight decay, the field's optimiser: torch.optim.SGD to the bit, its state in plain sight.

The state is a list of tensors, so that a checkpoint can hold it, and no compiler is imported (torch.optim brings one along,
seconds in every process).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def cosine(step: int, steps: int) -> float:
    """The part of the rate that is left at `step` of `steps`: 1 at first, towards 0 at the end."""
    return (1 + math.cos(math.pi * step / steps)) / 2


class SGD:
    """velocity <- momentum * velocity + gradient + weight_decay * x; x <- x - lr * velocity, for each tensor in place."""

    def __init__(
        self, parameters: Sequence[Tensor], *, lr: float, momentum: float, weight_decay: float = 0.0
    ):
        self.parameters, self.lr, self.momentum, self.weight_decay = (
            list(parameters),
            lr,
            momentum,
            weight_decay,
        )
        self.velocity = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = 0

    @property
    def state(self) -> dict[str, list[Tensor]]:
        """What a checkpoint keeps beside the parameters and the number of steps."""
        return {"momentum": self.velocity}

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """One update by `gradients`, in the order of the parameters."""
        if self.weight_decay:
            gradients = torch._foreach_add(gradients, self.parameters, alpha=self.weight_decay)
        torch._foreach_mul_(self.velocity, self.momentum)
        torch._foreach_add_(self.velocity, gradients)
        torch._foreach_add_(self.parameters, self.velocity, alpha=-self.lr)
        self.steps += 1

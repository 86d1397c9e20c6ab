"""Adam and AdamW (Loshchilov & Hutter 2019): the numbers of torch.optim, with the state in plain sight, as in `ddcore.optim.sgd`."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Adam:
    """x <- x (1 - lr * weight_decay) - lr * m_hat / (sqrt(v_hat) + eps), for each tensor in place; weight decay is decoupled."""

    def __init__(
        self,
        parameters: Sequence[Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        self.parameters, self.lr, self.betas, self.eps, self.weight_decay = (
            list(parameters),
            lr,
            betas,
            eps,
            weight_decay,
        )
        self.first, self.second = (
            [torch.zeros_like(parameter) for parameter in self.parameters] for _ in range(2)
        )
        self.steps = 0

    @property
    def state(self) -> dict[str, list[Tensor]]:
        """What a checkpoint keeps beside the parameters and the number of steps."""
        return {"first": self.first, "second": self.second}

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """One update by `gradients`, in the order of the parameters."""
        self.steps += 1
        beta1, beta2 = self.betas
        if self.weight_decay:
            torch._foreach_mul_(self.parameters, 1 - self.lr * self.weight_decay)
        torch._foreach_lerp_(self.first, list(gradients), 1 - beta1)
        torch._foreach_mul_(self.second, beta2)
        torch._foreach_addcmul_(self.second, gradients, gradients, 1 - beta2)
        scale = torch._foreach_sqrt(self.second)
        torch._foreach_div_(scale, math.sqrt(1 - beta2**self.steps))
        torch._foreach_add_(scale, self.eps)
        torch._foreach_addcdiv_(self.parameters, self.first, scale, -self.lr / (1 - beta1**self.steps))

"""What the analytic gradients do not compute they refuse; autograd itself would take a silent zero for it."""

import torch
from torch import Tensor

from ddcore.errors import BadInput


def second_derivative(op: str, path: str = "triton") -> None:
    """First line of an analytic backward: raises where autograd records it (`create_graph=True`).

    `once_differentiable` of torch is silent where the incoming gradient is constant, as it is behind `loss.backward`.
    """
    if torch.is_grad_enabled():
        raise NotImplementedError(
            f"{op}_{path} has no second derivative: call {op}_reference where create_graph=True"
        )


def gradient_of_real(op: str, *real: Tensor, path: str = "triton") -> None:
    if any(tensor.requires_grad for tensor in real):
        raise BadInput(f"{op}_{path} has no gradient for `real`: detach it, or call {op}_reference")

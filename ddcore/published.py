"""Published loops written plainly, as their code has them: what tests and benchmarks compare this package with."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcore.squeeze import cosine


class _StatisticsHook:
    """The forward hook of SRe2L's code: a permuted copy of the input for its variance, and its mean apart."""

    def __init__(self, module: nn.BatchNorm2d):
        self.handle = module.register_forward_hook(self)

    def __call__(self, module, inputs, output):
        x = inputs[0]
        mean = x.mean([0, 2, 3])
        var = x.permute(1, 0, 2, 3).contiguous().view(x.shape[1], -1).var(1, unbiased=False)
        self.var_term = torch.norm(module.running_var.data - var, 2)
        self.mean_term = torch.norm(module.running_mean.data - mean, 2)


def recover_published(teacher: nn.Module, images: Tensor, *, classes: int, steps: int, shift: Callable[[int, int], tuple[int, int]],
                      low: Tensor, high: Tensor, lr: float = 0.25, betas: tuple[float, float] = (0.5, 0.9), r_bn: float = 0.01,
                      r_var: float = 1.0, first_bn: float = 10.0) -> tuple[Tensor, list[list[float]]]:
    """SRe2L's recover as published for CIFAR: batch after batch of one image a class, weights that ask for gradients as well, a
    number fetched from the device in every iteration. Gives the images and the losses of each batch.

    images: (classes * per_class, C, H, W) sorted by class; `shift(batch, step)` is the roll, down and right; low, high: (C, 1, 1).
    """
    from torch.optim import Adam

    per_class = len(images) // classes
    teacher.eval().requires_grad_(True)
    labels = torch.arange(classes, device=images.device)
    found, losses = torch.empty_like(images), []
    for batch in range(per_class):
        hooks = [_StatisticsHook(module) for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
        inputs = images[batch::per_class].clone().requires_grad_()
        optimiser, best, past = Adam([inputs], lr=lr, betas=betas, eps=1e-8), 1e4, []
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = lr * cosine(step, steps)
            optimiser.zero_grad()
            outputs = teacher(torch.roll(inputs, shift(batch, step), (2, 3)))
            rescale = [first_bn] + [1.0] * (len(hooks) - 1)
            term = sum(weight * (hook.mean_term + r_var * hook.var_term) for weight, hook in zip(rescale, hooks, strict=True))
            loss = F.cross_entropy(outputs, labels) + r_bn * term
            loss.backward()
            optimiser.step()
            past.append(loss.item())
            best = min(best, past[-1])
            inputs.data = torch.minimum(torch.maximum(inputs.data, low), high)
        found[batch::per_class] = inputs.detach()
        losses.append(past)
        for hook in hooks:
            hook.handle.remove()
    teacher.zero_grad()
    teacher.requires_grad_(False)
    return found, losses

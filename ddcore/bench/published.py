"""Steps in the structure of the published code, written plainly: what the benchmarks are measured against and the tests compare with.

Only the structure is kept (loops over classes, everything on one tape), not the defects.
"""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcore import augment
from ddcore.networks import Network, RectifiedPool
from ddcore.optim.sgd import cosine


def plain(network: Network) -> Network:
    """A copy made of torch's own modules, as the published networks are."""
    found = copy.deepcopy(network)
    for block in found.blocks:
        for place, module in enumerate(block):
            if isinstance(module, RectifiedPool):
                block[place] = nn.Sequential(nn.ReLU(), nn.AvgPool2d(2))
    return found


def row_cosine_per_class(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """DC's distance of the gradients of all classes, class by class and layer by layer."""
    loss = torch.zeros((), dtype=real[0].dtype, device=real[0].device)
    for label in range(len(real[0])):
        for a, b in zip(real, fake, strict=True):
            loss = loss + _row_cosine(a[label], b[label])
    return loss


def _row_cosine(a: Tensor, b: Tensor) -> Tensor:
    return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()


def mean_distance_per_class(
    fake: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, classes: int
) -> Tensor:
    """DM's distance of embedded images, class by class."""
    loss = torch.zeros((), dtype=real.dtype, device=real.device)
    for label in range(classes):
        loss = loss + (real[real_labels == label].mean(0) - fake[labels == label].mean(0)).square().sum()
    return loss


def _sides(drawn: augment.Draw, label: int, real, real_labels, fake, labels) -> list[Tensor]:
    """The images of one class on either side, augmented alike."""
    found = []
    for images, of in ((real, real_labels), (fake, labels)):
        chosen = images[of == label]
        found.append(augment.apply(drawn, chosen, torch.full((len(chosen),), label, device=images.device)))
    return found


def dm_per_class(
    net: Network,
    drawn: augment.Draw,
    real: Tensor,
    real_labels: Tensor,
    fake: Tensor,
    labels: Tensor,
    classes: int,
) -> Tensor:
    """DM's loss: a loop over classes, two passes each, the real one with a tape too."""
    loss = torch.zeros((), dtype=real.dtype, device=real.device)
    for label in range(classes):
        x, s = _sides(drawn, label, real, real_labels, fake, labels)
        loss = loss + (net.embed(x).detach().mean(0) - net.embed(s).mean(0)).square().sum()
    return loss


def dc_per_class(
    net: Network,
    drawn: augment.Draw,
    real: Tensor,
    real_labels: Tensor,
    fake: Tensor,
    targets: Tensor,
    classes: int,
) -> Tensor:
    """DC's and DSA's loss: a loop over classes, gradients of every parameter, those of the synthetic images on a tape.

    `targets`: (n,) labels, or (n, classes) probabilities of images sorted by class.
    """
    parameters = list(net.parameters())
    labels = (
        targets
        if targets.ndim == 1
        else torch.arange(classes, device=fake.device).repeat_interleave(len(fake) // classes)
    )
    loss = torch.zeros((), dtype=real.dtype, device=real.device)
    for label in range(classes):
        x, s = _sides(drawn, label, real, real_labels, fake, labels)
        of_real = torch.autograd.grad(
            F.cross_entropy(net(x), torch.full((len(x),), label, device=x.device)), parameters
        )
        of_real = [gradient.detach().clone() for gradient in of_real]
        of_fake = torch.autograd.grad(
            F.cross_entropy(net(s), targets[labels == label]), parameters, create_graph=True
        )
        for a, b in zip(of_real, of_fake, strict=True):
            if a.ndim > 1:
                loss = loss + _row_cosine(a.flatten(1), b.flatten(1))
    return loss


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


def recover_published(
    teachers: Sequence[nn.Module],
    images: Tensor,
    *,
    classes: int,
    steps: int,
    shift: Callable[[int, int], tuple[int, int]],
    low: Tensor,
    high: Tensor,
) -> tuple[Tensor, list[list[float]]]:
    """SRe2L's recover as published for CIFAR, its numbers too: batch after batch of one image a class, weights that ask for gradients
    as well, a number fetched from the device in every iteration. Gives the images and the losses of each batch.

    teachers: one a batch, in SRe2L always the same; images: (classes * per_class, C, H, W) sorted by class; `shift(batch, step)` is the
    roll, down and right; low, high: (C, 1, 1).
    """
    from torch.optim import Adam

    per_class = len(images) // classes
    labels = torch.arange(classes, device=images.device)
    found, losses = torch.empty_like(images), []
    for batch, teacher in enumerate(teachers):
        teacher.eval().requires_grad_(True)
        hooks = [
            _StatisticsHook(module) for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)
        ]
        inputs = images[batch::per_class].clone().requires_grad_()
        optimiser, best, past = Adam([inputs], lr=0.25, betas=(0.5, 0.9), eps=1e-8), 1e4, []
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = 0.25 * cosine(step, steps)
            optimiser.zero_grad()
            outputs = teacher(torch.roll(inputs, shift(batch, step), (2, 3)))
            rescale = [10.0] + [1.0] * (len(hooks) - 1)
            term = sum(
                weight * (hook.mean_term + hook.var_term) for weight, hook in zip(rescale, hooks, strict=True)
            )
            loss = F.cross_entropy(outputs, labels) + 0.01 * term
            loss.backward()
            optimiser.step()
            past.append(loss.item())
            best = min(best, past[-1])
            inputs.data = torch.minimum(torch.maximum(inputs.data, low), high)
        found[batch::per_class] = inputs.detach()
        losses.append(past)
        for hook in hooks:
            hook.handle.remove()
    for teacher in teachers:
        teacher.zero_grad()
        teacher.requires_grad_(False)
    return found, losses

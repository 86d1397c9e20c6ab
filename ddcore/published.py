"""Steps in the structure of the published code, written plainly: what the benchmarks are measured against and the tests compare with.

Only the structure is kept (loops over classes, everything on one tape), not the defects.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore import augment
from ddcore.networks import Network


def row_cosine_per_class(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """DC's distance of the gradients of all classes, class by class and layer by layer."""
    loss = torch.zeros((), dtype=real[0].dtype, device=real[0].device)
    for label in range(len(real[0])):
        for a, b in zip(real, fake, strict=True):
            loss = loss + _row_cosine(a[label], b[label])
    return loss


def _row_cosine(a: Tensor, b: Tensor) -> Tensor:
    return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()


def mean_distance_per_class(fake: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, classes: int) -> Tensor:
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


def dm_per_class(net: Network, drawn: augment.Draw, real: Tensor, real_labels: Tensor, fake: Tensor, labels: Tensor,
                 classes: int) -> Tensor:
    """DM's loss: a loop over classes, two passes each, the real one with a tape too."""
    loss = torch.zeros((), dtype=real.dtype, device=real.device)
    for label in range(classes):
        x, s = _sides(drawn, label, real, real_labels, fake, labels)
        loss = loss + (net.embed(x).detach().mean(0) - net.embed(s).mean(0)).square().sum()
    return loss


def dc_per_class(net: Network, drawn: augment.Draw, real: Tensor, real_labels: Tensor, fake: Tensor, targets: Tensor,
                 classes: int) -> Tensor:
    """DC's and DSA's loss: a loop over classes, gradients of every parameter, those of the synthetic images on a tape.

    `targets`: (n,) labels, or (n, classes) probabilities of images sorted by class.
    """
    parameters = list(net.parameters())
    labels = targets if targets.ndim == 1 else torch.arange(classes, device=fake.device).repeat_interleave(len(fake) // classes)
    loss = torch.zeros((), dtype=real.dtype, device=real.device)
    for label in range(classes):
        x, s = _sides(drawn, label, real, real_labels, fake, labels)
        of_real = torch.autograd.grad(F.cross_entropy(net(x), torch.full((len(x),), label, device=x.device)), parameters)
        of_real = [gradient.detach().clone() for gradient in of_real]
        of_fake = torch.autograd.grad(F.cross_entropy(net(s), targets[labels == label]), parameters, create_graph=True)
        for a, b in zip(of_real, of_fake, strict=True):
            if a.ndim > 1:
                loss = loss + _row_cosine(a.flatten(1), b.flatten(1))
    return loss

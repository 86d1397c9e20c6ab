"""Squared distance of class means, the loss of DM, for all classes at once."""

import torch
from torch import Tensor


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(n, F), (n,) -> (classes, F): means by class as one matrix product, so that the sum has a fixed order on a GPU too.

    A class without a row has mean zero.
    """
    member = torch.nn.functional.one_hot(labels, classes).to(features)
    return (member / member.sum(0).clamp(min=1)).T @ features


def class_mean_distance(fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor, classes: int) -> Tensor:
    """sum_c || mean of fake features of class c - mean of real features of class c ||^2, a scalar."""
    return (class_means(fake, fake_labels, classes) - class_means(real, real_labels, classes)).square().sum()

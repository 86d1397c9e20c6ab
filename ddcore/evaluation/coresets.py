"""Baselines: sets of real images that cost what a synthetic set costs, and the whole training set.

'random' and 'svd' are the two initialisations of the parametrisations, left as they are. Herding and k-center follow the
pseudocode that the authors of DC gave (VICO-UoE/DatasetCondensation issues 15, 21), class by class, on the penultimate
features of a randomly initialised ConvNet of the evaluation's width: the published features are not available.
"""

import math

import torch
from torch import Tensor

from ddcore import compute, networks
from ddcore.data import Dataset, Images
from ddcore.errors import BadInput
from ddcore.random import stream
from ddcore.settings import positive, unknown
from ddcore.synthetic import LowRank, Pixels, Synthetic, images_per_class

VERSION = 1


def herding(features: Tensor, count: int) -> Tensor:
    """(count,) indices into (n, F): each one brings the running sum nearest to the mean times its size (Welling 2009)."""
    mean, total = features.mean(0), torch.zeros_like(features[0])
    left = torch.ones(len(features), dtype=torch.bool, device=features.device)
    chosen = []
    for size in range(1, count + 1):
        distance = (mean * size - total - features).norm(dim=1).masked_fill(~left, torch.inf)
        best = int(distance.argmin())
        chosen.append(best)
        left[best] = False
        total = total + features[best]
    return torch.tensor(chosen, device=features.device)


def k_center(features: Tensor, count: int) -> Tensor:
    """(count,) indices: the one nearest to the mean, then each time the one farthest from all chosen (greedy)."""
    chosen = [int((features - features.mean(0)).norm(dim=1).argmin())]
    nearest = torch.full_like(features[:, 0], torch.inf)
    while len(chosen) < count:
        nearest = torch.minimum(nearest, (features - features[chosen[-1]]).norm(dim=1))
        nearest[chosen[-1]] = -1  # below the 0 of an image whose twin is chosen: that one may still be taken
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen, device=features.device)


@torch.no_grad()
def _select(data: Dataset, count: int, rule, network: str, width: int | None, seed: int) -> Tensor:
    generator = stream(seed, "coreset", device=data.device)
    net = networks.build(
        network, data.shape, data.classes, width=width, device=data.device, generator=generator
    ).eval()
    starts, chosen, size = data.counts.cumsum(0) - data.counts, [], compute.chunk(net, data.shape)
    for label in range(data.classes):
        features = torch.cat([net.embed(part) for part in data.class_images(label).split(size)])
        chosen.append(rule(features, count) + starts[label])
    return torch.cat(chosen)


NAMES = ("random", "herding", "k_center", "svd", "whole")


def images_needed(name: str, data: Dataset, budget_ipc: int, rank: int = 2) -> int:
    """How many training images a class a baseline of `NAMES` takes: 'whole' takes those that there are."""
    if name not in NAMES:
        raise unknown("baseline", name, NAMES)
    if name == "whole":
        return 0
    return images_per_class(budget_ipc, rank, *data.shape[1:]) if name == "svd" else budget_ipc


def baseline(
    name: str,
    data: Dataset,
    budget_ipc: int,
    *,
    rank: int = 2,
    network: str = "convnet",
    width: int | None = None,
    seed: int = 0,
) -> Synthetic:
    """'random', 'herding', 'k_center': budget_ipc real images a class; 'svd': real images cut to `rank`, as many as the
    same stored numbers hold; 'whole': the training set. Raises BadInput for another name or too few images."""
    if name not in NAMES:
        raise unknown("baseline", name, NAMES)
    positive("baseline", budget_ipc=budget_ipc)
    if name == "random":
        return Pixels(data, budget_ipc, init="real", seed=seed)
    if name == "svd":
        return LowRank(data, budget_ipc, rank=rank, init="svd", seed=seed)
    if name == "whole":
        return Whole(data)
    data.need(budget_ipc, f"{name} with budget_ipc={budget_ipc}")
    rule = {"herding": herding, "k_center": k_center}[name]
    return Pixels.select(data, _select(data, budget_ipc, rule, network, width, seed), init=name)


class Whole(Synthetic):
    """The training set itself, as an upper reference; its budget is its size."""

    kind, version = "whole", 1

    def __init__(self, data: Dataset):
        self.settings = self._start(data, 1, 1, init="whole")
        self.data, self.labels, self.tensors = data, data.y_train, {}

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        return self.data.batch(index)

    def training_images(self) -> Tensor | Images:
        return self.data.x_train

    @property
    def stored_numbers(self) -> int:
        return len(self.labels) * math.prod(self.shape)

    def save(self, path) -> None:
        raise BadInput("the whole training set is not saved as a synthetic set: it is the dataset itself")

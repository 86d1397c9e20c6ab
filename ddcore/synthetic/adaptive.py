"""Ranks chosen image by image under one budget: beyond LoDC, whose images all have the same rank.

Of all singular triplets (u, s, v) of the images of a class, the K largest are kept, whichever image and channel they belong to. By
Eckart and Young no other choice of K triplets leaves a smaller squared error, so flat images give room to detailed ones.
"""

import functools

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.random import stream
from ddcore.settings import one_of, positive
from ddcore.synthetic.base import Synthetic, count, steps
from ddcore.synthetic.lowrank import break_even, images_per_class


class Adaptive(Synthetic):
    """As many images a class as `LowRank` of this `rank` has, about the mean rank here; a class has
    K = floor(budget_ipc C HW / (H + W)) triplets, or images_per_class * C * rank.

    init 'svd' factors the real images that `LowRank` with the same seed does; noise has no singular values to choose by. The
    ranks, one small integer an image and channel, are kept in the settings and, like labels, not counted. Raises BadInput for a rank that
    yields no image, and warns of one above break-even, as `LowRank` does.
    """

    kind, version, inits = "adaptive", 1, ("svd",)
    shared = ("step", "u", "v")

    def __init__(
        self,
        data: Dataset,
        budget_ipc: int,
        *,
        rank: int,
        init: str = "svd",
        step: float | None = None,
        step_rate: float | None = None,
        images_per_class: int | None = None,
        seed: int = 0,
    ):
        positive("Adaptive", budget_ipc=budget_ipc, rank=rank)
        one_of("Adaptive", self.inits, init=init)
        channels, height, width = data.shape
        per_class = self.most(data, budget_ipc, rank=rank)
        if per_class == 0:
            raise BadInput(
                f"Adaptive: a mean rank of {rank} at budget_ipc={budget_ipc} stores no {height}x{width} image; one of at most "
                f"{budget_ipc * height * width // (height + width)} does"
            )
        break_even("Adaptive", per_class, budget_ipc, rank, height, width)
        per_class = count("Adaptive", images_per_class, per_class, budget_ipc)
        triplets = budget_ipc * channels * height * width // (height + width)
        triplets = triplets if images_per_class is None else min(triplets, per_class * channels * rank)
        data.need(per_class, f"Adaptive with budget_ipc={budget_ipc}, rank={rank}")
        real = data.batch(data.sample(per_class, stream(seed, "lowrank", "svd", device=data.device)))
        a, s, b = torch.linalg.svd(real, full_matrices=False)
        kept = largest(s.view(data.classes, -1), triplets).view_as(s)
        root = s[kept].sqrt()[:, None]
        self.settings = self._start(
            data,
            per_class,
            budget_ipc,
            rank=rank,
            init=init,
            images_per_class=images_per_class,
            seed=seed,
            **steps(step, step_rate),
            ranks=kept.sum(-1).flatten().tolist(),
        )
        self.tensors = {"u": a.mT[kept] * root, "v": b[kept] * root}
        self._learn()

    @classmethod
    def most(cls, data: Dataset, budget_ipc: int, *, rank: int) -> int:
        """The images a class that the budget holds."""
        return images_per_class(budget_ipc, rank, *data.shape[1:])

    @functools.cached_property
    def places(self) -> Tensor:
        """(n, C, largest rank): the rows of u and v that make each image's channel, then the row after the last, which is zero."""
        ranks = torch.tensor(self.settings["ranks"], device=self.labels.device)
        if int(ranks.sum()) != len(self.tensors["u"]):
            raise RuntimeError(
                f"ranks of {int(ranks.sum())} triplets, but {len(self.tensors['u'])} are stored"
            )
        each = torch.arange(int(ranks.max()), device=ranks.device)
        rows = (ranks.cumsum(0) - ranks)[:, None] + each
        return torch.where(each < ranks[:, None], rows, ranks.sum()).view(len(self.labels), self.shape[0], -1)

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        u, v = (
            torch.nn.functional.pad(self.tensors[name], (0, 0, 0, 1))[self.places[index]]
            for name in ("u", "v")
        )
        return u.mT @ v


def largest(values: Tensor, count: int) -> Tensor:
    """(classes, m) -> (classes, m) bool: the `count` largest of each row, all if there are fewer."""
    chosen = values.topk(min(count, values.shape[1]), dim=1).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, chosen, True)

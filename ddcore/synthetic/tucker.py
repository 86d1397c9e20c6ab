"""A basis a class and channel, shared by its images (Tucker-2): beyond LoDC, whose images share nothing.

X[i, c] = A[y_i, c] S[i, c] B[y_i, c] with A (H, p), B (p, W) of the class y_i and a core S (p, p) of the image's own. The bases cost
p (H + W) numbers once a class and channel, each image p^2 more: at 28 x 28 and p = 8 five images fit where LoDC's rank 2 has seven,
but each may have rank 8.
"""

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.random import stream
from ddcore.settings import one_of, positive
from ddcore.synthetic.base import Synthetic, count, steps


class Tucker(Synthetic):
    """floor((budget_ipc HW - p (H + W)) / p^2) images a class, `rank` being p.

    init 'noise' draws A and B from N(0, 1/p) and S from N(0, 1), so that pixels have variance 1; 'svd' takes, of real images, the
    leading eigenvectors of sum X X' and sum X' X of each class and channel (HOSVD, De Lathauwer et al. 2000), and the cores that fit them
    best. Raises BadInput for a rank above an image's side, or one that yields no image.
    """

    kind, version, inits = "tucker", 1, ("noise", "svd")
    shared = ("step", "left", "right")

    def __init__(
        self,
        data: Dataset,
        budget_ipc: int,
        *,
        rank: int,
        init: str = "noise",
        step: float | None = None,
        step_rate: float | None = None,
        images_per_class: int | None = None,
        seed: int = 0,
    ):
        positive("Tucker", budget_ipc=budget_ipc, rank=rank)
        one_of("Tucker", self.inits, init=init)
        channels, height, width = data.shape
        if rank > min(height, width):
            raise BadInput(
                f"Tucker: rank={rank} is above the side of a {height}x{width} image; a rank of at most {min(height, width)} "
                "already holds every image"
            )
        per_class = self.most(data, budget_ipc, rank=rank)
        if per_class == 0:
            left_over = budget_ipc * height * width - rank * (height + width)
            raise BadInput(
                f"Tucker: bases of rank {rank} at budget_ipc={budget_ipc} leave {max(0, left_over)} numbers a channel, "
                f"and an image's core takes {rank**2}; use a lower rank"
            )
        per_class = count("Tucker", images_per_class, per_class, budget_ipc)
        self.settings = self._start(
            data,
            per_class,
            budget_ipc,
            rank=rank,
            init=init,
            images_per_class=images_per_class,
            seed=seed,
            **steps(step, step_rate),
        )
        sizes = (data.classes, channels)
        if init == "svd":
            data.need(per_class, f"Tucker with budget_ipc={budget_ipc}, rank={rank} and init 'svd'")
            real = data.batch(data.sample(per_class, stream(seed, "tucker", "svd", device=data.device)))
            left, core, right = hosvd(real.unflatten(0, (data.classes, per_class)).transpose(1, 2), rank)
            core = core.transpose(1, 2).flatten(0, 1)
        else:
            generator = stream(seed, "tucker", "noise", device=data.device)
            left, right, core = (
                torch.randn(*shape, generator=generator, device=data.device, dtype=data.x_train.dtype)
                for shape in (
                    (*sizes, height, rank),
                    (*sizes, rank, width),
                    (len(self.labels), channels, rank, rank),
                )
            )
            left, right = left / rank**0.5, right / rank**0.5
        self.tensors = {"left": left, "core": core, "right": right}
        self._learn()

    @classmethod
    def most(cls, data: Dataset, budget_ipc: int, *, rank: int) -> int:
        """The images a class that the budget holds."""
        height, width = data.shape[1:]
        return max(0, budget_ipc * height * width - rank * (height + width)) // rank**2

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        labels = self.labels[index]
        return self.tensors["left"][labels] @ self.tensors["core"][index] @ self.tensors["right"][labels]


def hosvd(images: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """(..., n, H, W) -> A (..., H, p), S (..., n, p, p), B (..., p, W), with A and B orthonormal and A S B near the images."""
    left = torch.linalg.eigh((images @ images.mT).sum(-3)).eigenvectors[..., -rank:]
    right = torch.linalg.eigh((images.mT @ images).sum(-3)).eigenvectors[..., -rank:].mT
    core = left.mT[..., None, :, :] @ images @ right.mT[..., None, :, :]
    return left.contiguous(), core.contiguous(), right.contiguous()

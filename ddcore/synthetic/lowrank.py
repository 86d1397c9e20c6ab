"""Images stored as low-rank factors (LoDC, NeurIPS 2023): X = U V for each image and channel."""

import warnings

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.random import stream
from ddcore.settings import one_of, positive
from ddcore.synthetic.base import Synthetic, count, steps


class LowRank(Synthetic):
    """LoDC's factors, as its published code has them: floor(budget_ipc * HW / (r (H + W))) images a class.

    init 'noise' draws both factors from N(0, 1) (published); 'svd' factors real images by truncated SVD, U = A sqrt(S),
    V = sqrt(S) B^T, the best approximation of that rank (Eckart-Young). `balance`: after each update the two factors of an image's
    channel are scaled to equal norms, their product left as it is. Raises BadInput for a rank that yields no image, and
    warns of one above break-even, HW / (H + W), whose images cost more than pixels and hold nothing more.
    """

    kind, version, inits = "lowrank", 1, ("noise", "svd")

    def __init__(
        self,
        data: Dataset,
        budget_ipc: int,
        *,
        rank: int,
        init: str = "noise",
        soft: float | None = None,
        step: float | None = None,
        step_rate: float | None = None,
        balance: bool | None = None,
        images_per_class: int | None = None,
        seed: int = 0,
    ):
        positive("LowRank", budget_ipc=budget_ipc, rank=rank, soft=soft)
        one_of("LowRank", self.inits, init=init)
        channels, height, width = data.shape
        per_class = self.most(data, budget_ipc, rank=rank, soft=soft)
        if per_class == 0:
            labels = 0 if soft is None else data.classes
            most = (budget_ipc * channels * height * width - labels) // (channels * (height + width))
            raise BadInput(
                f"LowRank: rank {rank} at budget_ipc={budget_ipc} stores no {height}x{width} image"
                f"{f' with its {labels} soft-label numbers' if labels else ''}; "
                + (
                    f"a rank of at most {most} does"
                    if most > 0
                    else "use a larger budget_ipc, or hard labels"
                )
            )
        break_even("LowRank", per_class, budget_ipc, rank, height, width)
        per_class = count("LowRank", images_per_class, per_class, budget_ipc)
        self.settings = self._start(
            data,
            per_class,
            budget_ipc,
            rank=rank,
            init=init,
            soft=soft,
            balance=balance or None,
            images_per_class=images_per_class,
            seed=seed,
            **steps(step, step_rate),
        )
        if init == "svd":
            data.need(per_class, f"LowRank with budget_ipc={budget_ipc}, rank={rank} and init 'svd'")
            real = data.batch(data.sample(per_class, stream(seed, "lowrank", "svd", device=data.device)))
            u, v = truncated_svd(real, rank)
        else:
            generator = stream(seed, "lowrank", "noise", device=data.device)
            u, v = (
                torch.randn(
                    len(self.labels),
                    channels,
                    *sides,
                    generator=generator,
                    device=data.device,
                    dtype=data.x_train.dtype,
                )
                for sides in ((height, rank), (rank, width))
            )
        self.tensors = {"u": u, "v": v}
        self._learn()

    @classmethod
    def most(cls, data: Dataset, budget_ipc: int, *, rank: int, soft: float | None = None) -> int:
        """The images a class that the budget holds."""
        channels, height, width = data.shape
        return images_per_class(
            budget_ipc, rank, height, width, channels=channels, labels=0 if soft is None else data.classes
        )

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        return self.tensors["u"][index] @ self.tensors["v"][index]

    @torch.no_grad()
    def project(self) -> None:
        if self.settings.get("balance"):
            u, v = self.tensors["u"], self.tensors["v"]
            scale = (
                (v.norm(dim=(-2, -1), keepdim=True) / u.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-12))
                .sqrt()
                .clamp(1e-3, 1e3)
            )
            u.mul_(scale)
            v.div_(scale)


def images_per_class(
    budget_ipc: int, rank: int, height: int, width: int, *, channels: int = 1, labels: int = 0
) -> int:
    """n' = floor(ipc * m) with m = HW / (r (H + W)), in integers; fewer where each image has `labels` soft-label numbers."""
    return budget_ipc * channels * height * width // (channels * rank * (height + width) + labels)


def break_even(kind: str, per_class: int, budget_ipc: int, rank: int, height: int, width: int) -> None:
    """Warn of a rank above HW / (H + W), at which an image costs more than its pixels."""
    if rank * (height + width) > height * width:
        warnings.warn(
            f"{kind}: an image of rank {rank} takes {rank * (height + width)} numbers a channel, its pixels {height * width}: "
            f"{per_class} images a class in place of {budget_ipc}; a rank of at most {height * width // (height + width)} costs "
            "no more than pixels",
            stacklevel=3,
        )


def truncated_svd(images: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(n, C, H, r) and (n, C, r, W) whose product is the best rank-r approximation of each channel of each image."""
    a, s, b = torch.linalg.svd(images, full_matrices=False)
    root = s[..., :rank].sqrt()
    u, v = a[..., :rank] * root[..., None, :], root[..., None] * b[..., :rank, :]
    short = rank - u.shape[-1]
    if short > 0:
        u, v = torch.nn.functional.pad(u, (0, short)), torch.nn.functional.pad(v, (0, 0, 0, short))
    return u, v

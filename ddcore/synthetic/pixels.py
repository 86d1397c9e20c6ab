"""Images stored as they are: the synthetic set of DC, DSA, DM and SRe2L."""

import math

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.random import stream
from ddcore.settings import one_of, positive
from ddcore.synthetic.base import Synthetic, count, steps


def beginnings(data: Dataset, per_class: int, seed: int) -> Tensor:
    """(classes * per_class,) the training images that `Pixels` with init 'real' begins with; the j-th of a class does not depend on how
    many there are."""
    return data.sample(per_class, stream(seed, "pixels", "real", device=data.device))


class Pixels(Synthetic):
    """`budget_ipc` images a class, fewer with soft labels; init 'real' (drawn from the training set, as DC and DM do) or 'noise'
    (N(0, 1)). `clip`: after each update the pixels are brought back to the range of real ones (SRe2L)."""

    kind, version, inits = "pixels", 1, ("real", "noise")

    def __init__(
        self,
        data: Dataset,
        budget_ipc: int,
        *,
        init: str = "real",
        soft: float | None = None,
        step: float | None = None,
        step_rate: float | None = None,
        clip: bool | None = None,
        images_per_class: int | None = None,
        seed: int = 0,
    ):
        positive("Pixels", budget_ipc=budget_ipc, soft=soft)
        one_of("Pixels", self.inits, init=init)
        if clip and data.whitening:
            raise BadInput(
                f"Pixels: clip has no meaning for {data.name}, whose whitened images have no common range; leave clip out"
            )
        most = self.most(data, budget_ipc, soft=soft)
        if most == 0:
            size = math.prod(data.shape)
            raise BadInput(
                f"Pixels: an image and its {data.classes} soft-label numbers take {size + data.classes} stored numbers, but "
                f"budget_ipc={budget_ipc} allows {budget_ipc * size} a class; use a larger budget_ipc, or hard labels"
            )
        per_class = count("Pixels", images_per_class, most, budget_ipc)
        self.settings = self._start(
            data,
            per_class,
            budget_ipc,
            init=init,
            soft=soft,
            clip=clip or None,
            images_per_class=images_per_class,
            seed=seed,
            **steps(step, step_rate),
        )
        if init == "real":
            data.need(per_class, f"Pixels with budget_ipc={budget_ipc} and init 'real'")
            pixels = data.batch(beginnings(data, per_class, seed))
        else:
            generator = stream(seed, "pixels", "noise", device=data.device)
            pixels = torch.randn(
                len(self.labels),
                *data.shape,
                generator=generator,
                device=data.device,
                dtype=data.x_train.dtype,
            )
        self.tensors = {"pixels": pixels}
        self._learn()

    @classmethod
    def most(cls, data: Dataset, budget_ipc: int, *, soft: float | None = None) -> int:
        """The images a class that the budget holds."""
        size = math.prod(data.shape)
        return budget_ipc if soft is None else budget_ipc * size // (size + data.classes)

    @classmethod
    def select(cls, data: Dataset, index: Tensor, *, init: str) -> "Pixels":
        """The training images of `index`, equally many a class, as a set: a coreset, named by `init`."""
        index = index.sort().values
        return cls.of(data, data.batch(index), data.y_train[index], init=init)

    @classmethod
    def of(cls, data: Dataset, images: Tensor, labels: Tensor, *, init: str) -> "Pixels":
        """A set of images (n, C, H, W) in the normalised space of `data`, their labels (n,) sorted and equally many a class, named by
        `init`."""
        self = cls.__new__(cls)
        per_class = len(images) // data.classes
        self.settings = self._start(data, per_class, per_class, init=init)
        if not torch.equal(self.labels, labels):
            raise BadInput(
                f"a selection of {len(images)} images needs equally many of each of {data.classes} classes"
            )
        self.tensors = {"pixels": images}
        self._learn()
        return self

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        return self.tensors["pixels"][index]

    @torch.no_grad()
    def project(self) -> None:
        if self.settings.get("clip"):
            pixels = self.tensors["pixels"]
            mean, std = (pixels.new_tensor(self.settings[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
            pixels.copy_(pixels.clamp(-mean / std, (1 - mean) / std))

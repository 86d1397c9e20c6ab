"""Synthetic sets: what is stored, how images come out of it, what it costs in stored numbers.

`Pixels` stores images. `LowRank` (LoDC, NeurIPS 2023) stores, for each image and channel, two factors U (H, r) and V (r, W)
with X = U V. Both are sorted by class and balanced. Labels are hard, fixed and not counted, or learned logits (`soft`), which
the budget pays for. Values live in the normalised space of the dataset.
"""

import abc
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ddcore.data import Dataset, Images, Whitening, numbered, to_pixels
from ddcore.errors import BadInput
from ddcore.files import whole
from ddcore.settings import positive


class Synthetic(abc.ABC):
    """tensors: what is learned and stored, by name; labels: (n,) int64, sorted; n = classes * per_class images.

    Every kind has as many images a class as `budget_ipc` holds, or `images_per_class`, if those are fewer (`budget` finds the smallest
    budget_ipc for them).

    `Pixels` and `LowRank` take `soft`, which starts learned label logits at soft * one_hot (DATM, Guo et al. 2024). Every kind takes
    `step`, which adds the size of a student's steps, learned as step * exp(step_rate * s) and so never negative (MTT; its published rate
    lr_lr is step_rate = sqrt(lr_lr / lr_img) / step). The step size is one number of the training, kept with the set, not counted.
    """

    kind: str
    version: int
    shared: tuple[str, ...] = ("step",)  # tensors whose rows are not images
    whitening: Whitening | None = None

    def __init__(self, tensors: dict[str, Tensor], labels: Tensor, settings: dict):
        self.tensors, self.labels, self.settings = tensors, labels, settings

    def _start(self, data: Dataset, per_class: int, budget_ipc: int, **settings) -> dict:
        settings = {name: value for name, value in settings.items() if value is not None}
        self.labels = torch.arange(data.classes, device=data.device).repeat_interleave(per_class)
        self.whitening = data.whitening
        if data.class_names != numbered(data.classes):
            settings["class_names"] = list(data.class_names)
        return {
            "kind": self.kind,
            "budget_ipc": budget_ipc,
            "shape": list(data.shape),
            "classes": data.classes,
            "dataset": data.name,
            "dataset_sha256": data.sha256,
            "mean": list(data.mean),
            "std": list(data.std),
            **settings,
        }

    @abc.abstractmethod
    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        """(n, C, H, W), or those of `index` only: the stored tensors are sliced first, so nothing else is formed."""

    def training_images(self) -> Tensor | Images:
        """(n, C, H, W) without a tape, for networks that are trained on batches `[index]` of them."""
        return self.images().detach()

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(self.settings["shape"])

    @property
    def classes(self) -> int:
        return self.settings["classes"]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the dataset, in the order of the labels."""
        return tuple(self.settings.get("class_names", numbered(self.classes)))

    @property
    def per_class(self) -> int:
        return len(self.labels) // self.classes

    @property
    def first(self) -> int:
        """The place within its class of the first image of each class: above 0 in a shard (`ddcore.methods.shards`)."""
        return self.settings.get("shard", (0,))[0]

    def parameters(self) -> list[Tensor]:
        return list(self.tensors.values())

    def targets(self, index: Tensor | slice = slice(None)) -> Tensor:
        """What a network is trained to say: (n,) labels, or (n, classes) probabilities, the softmax of the learned logits."""
        return self.tensors["soft"][index].softmax(1) if "soft" in self.tensors else self.labels[index]

    @property
    def step_size(self) -> Tensor | None:
        """The learned size of a student's steps, a scalar; None for a set without."""
        if "step" not in self.tensors:
            return None
        return self.settings["step"] * (self.settings["step_rate"] * self.tensors["step"]).exp()

    def project(self) -> None:  # noqa: B027 (most kinds allow every number)
        """Called after each update: bring the stored numbers back to where they are allowed to be."""

    @torch.no_grad()
    def label_by(self, network: torch.nn.Module) -> None:
        """Set the learned logits to those of `network` on the images (DATM's start: those of an expert)."""
        self.tensors["soft"].copy_(network(self.images()))

    @property
    def stored_numbers(self) -> int:
        return sum(tensor.numel() for name, tensor in self.tensors.items() if name != "step")

    @property
    def budget(self) -> int:
        """budget_ipc * classes * C * H * W, the numbers that `budget_ipc` images a class take."""
        return self.settings["budget_ipc"] * self.classes * math.prod(self.shape)

    def pictures(self) -> Tensor:
        """(n, C, H, W) in [0, 1], whitening and normalisation undone and clipped."""
        return to_pixels(self.images(), self.settings["mean"], self.settings["std"], self.whitening).cpu()

    def normalised_as(self, data: Dataset) -> bool:
        """Whether the numbers of this set and of `data` stand for the same pixels."""
        if (self.whitening is None) != (data.whitening is None):
            return False
        pairs = zip((*self.settings["mean"], *self.settings["std"]), (*data.mean, *data.std), strict=True)
        same = all(math.isclose(ours, theirs, rel_tol=1e-4, abs_tol=1e-6) for ours, theirs in pairs)
        return same and (self.whitening is None or self.whitening.like(data.whitening))

    def _learn(self) -> None:
        like = next(iter(self.tensors.values()))
        if "soft" in self.settings and "soft" not in self.tensors:
            self.tensors["soft"] = self.settings["soft"] * torch.nn.functional.one_hot(
                self.labels, self.classes
            ).to(like)
        if "step" in self.settings and "step" not in self.tensors:
            positive(self.kind, step=self.settings["step"], step_rate=self.settings["step_rate"])
            self.tensors["step"] = like.new_zeros(())
        for name, tensor in self.tensors.items():
            self.tensors[name] = tensor.detach().clone().contiguous().requires_grad_()
        if self.stored_numbers > self.budget:
            raise AssertionError(
                f"{self.kind}: {self.stored_numbers} stored numbers exceed the budget of {self.budget}"
            )

    def save(self, path: str | Path) -> Path:
        """Write the stored tensors (factors, not images), labels and settings as safetensors, whole or not at all.

        By name: `labels` (n,) int64, sorted, n = classes * images a class, and in float32, by kind: `pixels` (n, C, H, W); lowrank `u`
        (n, C, H, r) and `v` (n, C, r, W), an image being u @ v; tucker `left` (classes, C, H, p), `core` (n, C, p, p) and `right`
        (classes, C, p, W), an image left[y] @ core @ right[y]; adaptive `u` (K, H) and `v` (K, W), the triplets of all channels of all
        images in order, so many of each as the setting `ranks` (n * C numbers) says. `soft` (n, classes): learned logits. `step` (): the
        learned s of the step size step * exp(step_rate * s), `step` and `step_rate` being settings. Images are normalised: pixels in
        [0, 1] are images * std + mean. The metadata's `ddcore` holds the settings as JSON: kind, shape [C, H, W], classes, mean, std,
        dataset, and class_names where they are not 0, 1, .... Of a whitened dataset `whitening.mean` (P,) and `whitening.transform` (P, P)
        go with them: without these the set fits no image (`ddcore.data.zca`). `ddcore.synthetic.export` forms the images.
        """
        path = Path(path)
        whitening = (
            {f"whitening.{name}": tensor for name, tensor in vars(self.whitening).items()}
            if self.whitening
            else {}
        )
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in (self.tensors | whitening).items()
        }
        with whole(path) as part:
            save_file(
                tensors | {"labels": self.labels.cpu()},
                part,
                {"ddcore": json.dumps(self.settings, sort_keys=True)},
            )
        return path


def steps(step: float | None, step_rate: float | None) -> dict:
    """The settings of a learned step size, None for none. Raises BadInput for a rate without a step."""
    if step is None and step_rate is not None:
        raise BadInput(
            f"step_rate={step_rate} without a step does nothing; give the initial step size as `step`"
        )
    return {"step": step, "step_rate": None if step is None else 1e-3 if step_rate is None else step_rate}


def count(kind: str, asked: int | None, most: int, budget_ipc: int) -> int:
    """Images a class: `asked`, where so many are held, else the `most` that the budget holds. Raises BadInput for more."""
    positive(kind, images_per_class=asked)
    if asked is not None and asked > most:
        raise BadInput(
            f"{kind}: images_per_class={asked}, but budget_ipc={budget_ipc} holds {most}; use a larger budget_ipc"
        )
    return most if asked is None else asked

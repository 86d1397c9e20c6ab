"""Synthetic sets: what is stored, how images come out of it, what it costs in stored numbers.

`Pixels` stores images. `LowRank` (LoDC, NeurIPS 2023) stores, for each image and channel, two factors U (H, r) and V (r, W)
with X = U V. Both are sorted by class and balanced. Labels are hard, fixed and not counted, or learned logits (`soft`), which
the budget pays for. Values live in the normalised space of the dataset.
"""

import abc
import bisect
import functools
import json
import math
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from ddcore import compute
from ddcore.data import Dataset, Images, Whitening, numbered, to_pixels
from ddcore.errors import BadInput
from ddcore.files import whole
from ddcore.random import stream
from ddcore.settings import keywords, one_of, positive, typed, unknown


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
        return {"kind": self.kind, "budget_ipc": budget_ipc, "shape": list(data.shape), "classes": data.classes, "dataset": data.name,
                "dataset_sha256": data.sha256, "mean": list(data.mean), "std": list(data.std), **settings}

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
        """The place within its class of the first image of each class: above 0 in a shard (`ddcore.shards`)."""
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
            self.tensors["soft"] = self.settings["soft"] * torch.nn.functional.one_hot(self.labels, self.classes).to(like)
        if "step" in self.settings and "step" not in self.tensors:
            positive(self.kind, step=self.settings["step"], step_rate=self.settings["step_rate"])
            self.tensors["step"] = like.new_zeros(())
        for name, tensor in self.tensors.items():
            self.tensors[name] = tensor.detach().clone().contiguous().requires_grad_()
        if self.stored_numbers > self.budget:
            raise AssertionError(f"{self.kind}: {self.stored_numbers} stored numbers exceed the budget of {self.budget}")

    def save(self, path: str | Path) -> Path:
        """Write the stored tensors (factors, not images), labels and settings as safetensors, whole or not at all.

        By name: `labels` (n,) int64, sorted, n = classes * images a class, and in float32, by kind: `pixels` (n, C, H, W); lowrank `u`
        (n, C, H, r) and `v` (n, C, r, W), an image being u @ v; tucker `left` (classes, C, H, p), `core` (n, C, p, p) and `right`
        (classes, C, p, W), an image left[y] @ core @ right[y]; adaptive `u` (K, H) and `v` (K, W), the triplets of all channels of all
        images in order, so many of each as the setting `ranks` (n * C numbers) says. `soft` (n, classes): learned logits. `step` (): the
        learned s of the step size step * exp(step_rate * s), `step` and `step_rate` being settings. Images are normalised: pixels in
        [0, 1] are images * std + mean. The metadata's `ddcore` holds the settings as JSON: kind, shape [C, H, W], classes, mean, std,
        dataset, and class_names where they are not 0, 1, .... Of a whitened dataset `whitening.mean` (P,) and `whitening.transform` (P, P)
        go with them: without these the set fits no image (`ddcore.data.zca`). `ddcore.export` forms the images.
        """
        path = Path(path)
        whitening = {f"whitening.{name}": tensor for name, tensor in vars(self.whitening).items()} if self.whitening else {}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in (self.tensors | whitening).items()}
        with whole(path) as part:
            save_file(tensors | {"labels": self.labels.cpu()}, part, {"ddcore": json.dumps(self.settings, sort_keys=True)})
        return path


def beginnings(data: Dataset, per_class: int, seed: int) -> Tensor:
    """(classes * per_class,) the training images that `Pixels` with init 'real' begins with; the j-th of a class does not depend on how
    many there are."""
    return data.sample(per_class, stream(seed, "pixels", "real", device=data.device))


class Pixels(Synthetic):
    """`budget_ipc` images a class, fewer with soft labels; init 'real' (drawn from the training set, as DC and DM do) or 'noise'
    (N(0, 1)). `clip`: after each update the pixels are brought back to the range of real ones (SRe2L)."""

    kind, version, inits = "pixels", 1, ("real", "noise")

    def __init__(self, data: Dataset, budget_ipc: int, *, init: str = "real", soft: float | None = None, step: float | None = None,
                 step_rate: float | None = None, clip: bool | None = None, images_per_class: int | None = None, seed: int = 0):
        positive("Pixels", budget_ipc=budget_ipc, soft=soft)
        one_of("Pixels", self.inits, init=init)
        if clip and data.whitening:
            raise BadInput(f"Pixels: clip has no meaning for {data.name}, whose whitened images have no common range; leave clip out")
        most = self.most(data, budget_ipc, soft=soft)
        if most == 0:
            size = math.prod(data.shape)
            raise BadInput(f"Pixels: an image and its {data.classes} soft-label numbers take {size + data.classes} stored numbers, but "
                           f"budget_ipc={budget_ipc} allows {budget_ipc * size} a class; use a larger budget_ipc, or hard labels")
        per_class = count("Pixels", images_per_class, most, budget_ipc)
        self.settings = self._start(data, per_class, budget_ipc, init=init, soft=soft, clip=clip or None,
                                    images_per_class=images_per_class, seed=seed, **steps(step, step_rate))
        if init == "real":
            data.need(per_class, f"Pixels with budget_ipc={budget_ipc} and init 'real'")
            pixels = data.batch(beginnings(data, per_class, seed))
        else:
            generator = stream(seed, "pixels", "noise", device=data.device)
            pixels = torch.randn(len(self.labels), *data.shape, generator=generator, device=data.device, dtype=data.x_train.dtype)
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
            raise BadInput(f"a selection of {len(images)} images needs equally many of each of {data.classes} classes")
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


class LowRank(Synthetic):
    """LoDC's factors, as its published code has them: floor(budget_ipc * HW / (r (H + W))) images a class.

    init 'noise' draws both factors from N(0, 1) (published); 'svd' factors real images by truncated SVD, U = A sqrt(S),
    V = sqrt(S) B^T, the best approximation of that rank (Eckart-Young). `balance`: after each update the two factors of an image's
    channel are scaled to equal norms, their product left as it is. Raises BadInput for a rank that yields no image, and
    warns of one above break-even, HW / (H + W), whose images cost more than pixels and hold nothing more.
    """

    kind, version, inits = "lowrank", 1, ("noise", "svd")

    def __init__(self, data: Dataset, budget_ipc: int, *, rank: int, init: str = "noise", soft: float | None = None,
                 step: float | None = None, step_rate: float | None = None, balance: bool | None = None,
                 images_per_class: int | None = None, seed: int = 0):
        positive("LowRank", budget_ipc=budget_ipc, rank=rank, soft=soft)
        one_of("LowRank", self.inits, init=init)
        channels, height, width = data.shape
        per_class = self.most(data, budget_ipc, rank=rank, soft=soft)
        if per_class == 0:
            labels = 0 if soft is None else data.classes
            most = (budget_ipc * channels * height * width - labels) // (channels * (height + width))
            raise BadInput(f"LowRank: rank {rank} at budget_ipc={budget_ipc} stores no {height}x{width} image"
                           f"{f' with its {labels} soft-label numbers' if labels else ''}; "
                           + (f"a rank of at most {most} does" if most > 0 else "use a larger budget_ipc, or hard labels"))
        break_even("LowRank", per_class, budget_ipc, rank, height, width)
        per_class = count("LowRank", images_per_class, per_class, budget_ipc)
        self.settings = self._start(data, per_class, budget_ipc, rank=rank, init=init, soft=soft, balance=balance or None,
                                    images_per_class=images_per_class, seed=seed, **steps(step, step_rate))
        if init == "svd":
            data.need(per_class, f"LowRank with budget_ipc={budget_ipc}, rank={rank} and init 'svd'")
            real = data.batch(data.sample(per_class, stream(seed, "lowrank", "svd", device=data.device)))
            u, v = truncated_svd(real, rank)
        else:
            generator = stream(seed, "lowrank", "noise", device=data.device)
            u, v = (torch.randn(len(self.labels), channels, *sides, generator=generator, device=data.device, dtype=data.x_train.dtype)
                    for sides in ((height, rank), (rank, width)))
        self.tensors = {"u": u, "v": v}
        self._learn()

    @classmethod
    def most(cls, data: Dataset, budget_ipc: int, *, rank: int, soft: float | None = None) -> int:
        """The images a class that the budget holds."""
        channels, height, width = data.shape
        return images_per_class(budget_ipc, rank, height, width, channels=channels, labels=0 if soft is None else data.classes)

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        return self.tensors["u"][index] @ self.tensors["v"][index]

    @torch.no_grad()
    def project(self) -> None:
        if self.settings.get("balance"):
            u, v = self.tensors["u"], self.tensors["v"]
            scale = (v.norm(dim=(-2, -1), keepdim=True) / u.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-12)).sqrt().clamp(1e-3, 1e3)
            u.mul_(scale)
            v.div_(scale)


def steps(step: float | None, step_rate: float | None) -> dict:
    """The settings of a learned step size, None for none. Raises BadInput for a rate without a step."""
    if step is None and step_rate is not None:
        raise BadInput(f"step_rate={step_rate} without a step does nothing; give the initial step size as `step`")
    return {"step": step, "step_rate": None if step is None else 1e-3 if step_rate is None else step_rate}


KINDS = {"pixels": Pixels, "lowrank": LowRank}


def images_per_class(budget_ipc: int, rank: int, height: int, width: int, *, channels: int = 1, labels: int = 0) -> int:
    """n' = floor(ipc * m) with m = HW / (r (H + W)), in integers; fewer where each image has `labels` soft-label numbers."""
    return budget_ipc * channels * height * width // (channels * rank * (height + width) + labels)


def count(kind: str, asked: int | None, most: int, budget_ipc: int) -> int:
    """Images a class: `asked`, where so many are held, else the `most` that the budget holds. Raises BadInput for more."""
    positive(kind, images_per_class=asked)
    if asked is not None and asked > most:
        raise BadInput(f"{kind}: images_per_class={asked}, but budget_ipc={budget_ipc} holds {most}; use a larger budget_ipc")
    return most if asked is None else asked


def budget(data: Dataset, kind: str, images_per_class: int, **settings) -> int:
    """The smallest budget_ipc that holds so many images a class of that kind; `settings`: rank and soft, where the kind has them."""
    if kind not in KINDS:
        raise unknown("synthetic set", kind, KINDS)
    settings = keywords(KINDS[kind].most, settings, f"synthetic set {kind}")
    typed(f"synthetic set {kind}", [("images_per_class", int)], {"images_per_class": images_per_class})
    positive(kind, images_per_class=images_per_class, rank=settings.get("rank"))
    most = functools.partial(KINDS[kind].most, data, **settings)
    high = 1
    while most(high) < images_per_class:
        high *= 2
    return bisect.bisect_left(range(high + 1), images_per_class, key=most)


def break_even(kind: str, per_class: int, budget_ipc: int, rank: int, height: int, width: int) -> None:
    """Warn of a rank above HW / (H + W), at which an image costs more than its pixels."""
    if rank * (height + width) > height * width:
        warnings.warn(f"{kind}: an image of rank {rank} takes {rank * (height + width)} numbers a channel, its pixels {height * width}: "
                      f"{per_class} images a class in place of {budget_ipc}; a rank of at most {height * width // (height + width)} costs "
                      "no more than pixels", stacklevel=3)


def truncated_svd(images: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(n, C, H, r) and (n, C, r, W) whose product is the best rank-r approximation of each channel of each image."""
    a, s, b = torch.linalg.svd(images, full_matrices=False)
    root = s[..., :rank].sqrt()
    u, v = a[..., :rank] * root[..., None, :], root[..., None] * b[..., :rank, :]
    short = rank - u.shape[-1]
    if short > 0:
        u, v = torch.nn.functional.pad(u, (0, short)), torch.nn.functional.pad(v, (0, 0, 0, short))
    return u, v


def create(data: Dataset, kind: str, budget_ipc: int, *, seed: int, **settings) -> Synthetic:
    """A synthetic set by the name of its kind ('pixels', 'lowrank') and its settings."""
    if kind not in KINDS:
        raise unknown("synthetic set", kind, KINDS)
    return KINDS[kind](data, budget_ipc, **keywords(KINDS[kind], settings | {"seed": seed}, f"synthetic set {kind}"))


def load_synthetic(path: str | Path, device: torch.device | str = "cpu") -> Synthetic:
    """A set saved by `save`, equal to what was saved. Raises BadInput for a missing, foreign or corrupt file, and for NaN."""
    path, at = Path(path), compute.device(device)
    if not path.is_file():
        raise BadInput(f"{path}: no such file; a synthetic set saved by ddcore (.safetensors) is needed")
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {}).get("ddcore", "null"))
        tensors = load_file(path, str(at))
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path}: not a whole safetensors file ({error})") from error
    if not isinstance(settings, dict) or settings.get("kind") not in KINDS:
        raise BadInput(f"{path}: a safetensors file, but not a synthetic set saved by ddcore")
    found = KINDS[settings["kind"]].__new__(KINDS[settings["kind"]])
    try:
        if "whitening.mean" in tensors:
            found.whitening = Whitening(tensors.pop("whitening.mean"), tensors.pop("whitening.transform"))
        Synthetic.__init__(found, tensors, tensors.pop("labels"), settings)
        whole = found.images(slice(0, 1)).shape[1:] == found.shape
        whole = whole and all(len(found.labels) == len(tensors[name]) for name in tensors if name not in found.shared)
        whole = whole and len(found.labels) == found.classes * found.per_class and found.stored_numbers <= found.budget
    except (KeyError, TypeError, RuntimeError, IndexError):
        whole = False
    if not whole:
        raise BadInput(f"{path}: its tensors are not those that its settings name; distil it again")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise BadInput(f"{path}: '{name}' holds {int((~tensor.isfinite()).sum())} numbers that are not finite; distil it again")
    found._learn()
    return found

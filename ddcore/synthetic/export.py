"""Synthetic sets as others read them: arrays, tensors, images, and what the evaluators of ddranking 0.2.0 take.

Arrays and tensors keep the numbers that were learned, and are formed whole, as their files are written. Images are 8 bits, hold [0, 1]
alone, and are formed a few at a time; what share of a set's pixels lies outside is returned, to be said.
"""

import contextlib
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from ddcore.compute import slices
from ddcore.data import numbered, unnormalised
from ddcore.data.statistics import AT_ONCE
from ddcore.errors import BadInput
from ddcore.files import whole
from ddcore.synthetic import Synthetic

HALF_A_LEVEL = 0.5 / 255
# As ddranking 0.2.0 normalises its test images: those of CIFAR by the first, of every other dataset that it has by ImageNet's.
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def pixels(synthetic: Synthetic, index: slice = slice(None)) -> Tensor:
    """(n, C, H, W) on the CPU, or those of `index` only, whitening and normalisation undone and nothing clipped: real images lie in
    [0, 1]."""
    with torch.no_grad():
        images = synthetic.images(index)
        return unnormalised(
            images, synthetic.settings["mean"], synthetic.settings["std"], synthetic.whitening
        ).cpu()


def parts(synthetic: Synthetic, rows: slice = slice(None)) -> Iterator[Tensor]:
    """`pixels` of the images of `rows`, so many at a time as `AT_ONCE` numbers are: no more of them are ever formed."""
    first, last, _ = rows.indices(len(synthetic.labels))
    for part in slices(last - first, max(1, AT_ONCE // math.prod(synthetic.shape))):
        yield pixels(synthetic, slice(first + part.start, first + part.stop))


def clipped(synthetic: Synthetic) -> float:
    """The share of a set's pixels that 8 bits cut off: outside [0, 1] by more than half a level."""
    outside = sum(
        int(((part < -HALF_A_LEVEL) | (part > 1 + HALF_A_LEVEL)).sum()) for part in parts(synthetic)
    )
    return outside / (len(synthetic.labels) * math.prod(synthetic.shape))


def visible(synthetic: Synthetic) -> tuple[float, float, str]:
    """The values of pixels that are drawn black and white, and what is to be said of them ('' for nothing): 0 and 1, as
    `Synthetic.pictures` has them, but where most pixels would be clipped, the ends of the middle 98 % of them (of a part, where there
    are more than `AT_ONCE`)."""
    share = clipped(synthetic)
    if share <= 0.5:
        return 0.0, 1.0, f"{share:.0%} of the pixels are clipped to black or white" if share >= 0.005 else ""
    low, high = map(float, np.percentile(_some(synthetic), (1, 99)))
    return (
        low,
        high,
        (
            f"{share:.0%} of the pixels lie outside the range of real ones, so the pictures are scaled: "
            f"black is {low:.2f}, white {high:.2f}, where real pixels go from 0 to 1"
        ),
    )


def _some(synthetic: Synthetic) -> np.ndarray:
    """At most `AT_ONCE` of a set's pixels, at even distances that fall on no place of an image more than on another; all if they are
    fewer."""
    every, size = (
        1 + (len(synthetic.labels) * math.prod(synthetic.shape) - 1) // AT_ONCE,
        math.prod(synthetic.shape),
    )
    while math.gcd(every, size) > 1:
        every += 1
    found, before = [], 0
    for part in parts(synthetic):
        found.append(part.flatten()[-before % every :: every].numpy())
        before += part.numel()
    return np.concatenate(found)


def grid(synthetic: Synthetic, path: str | Path, *, columns: int = 10) -> str:
    """A PNG to look at, of one row a class and at most `columns` images of it, a white pixel apart, black and white as `visible` has them;
    returns what that says."""
    low, high, said = visible(synthetic)
    channels, height, width = synthetic.shape
    shown = min(synthetic.per_class, columns)
    picture = torch.full(
        (synthetic.classes * (height + 1) + 1, shown * (width + 1) + 1, channels), 255, dtype=torch.uint8
    )
    for label in range(synthetic.classes):
        top, first = label * (height + 1) + 1, label * synthetic.per_class
        for column, image in enumerate(
            image for part in parts(synthetic, slice(first, first + shown)) for image in part
        ):
            left = column * (width + 1) + 1
            picture[top : top + height, left : left + width] = _bytes((image - low) / (high - low))
    with whole(path) as part:
        _drawn(picture).save(part, format="png")
    return said


def _bytes(image: Tensor) -> Tensor:
    """(C, H, W) of [0, 1], clipped -> (H, W, C) uint8, the nearest level."""
    return (image * 255 + 0.5).clamp(0, 255).byte().permute(1, 2, 0)


def _drawn(picture: Tensor) -> PIL.Image.Image:
    """(H, W, C) uint8 of one or three channels in colour, which every reader of images takes."""
    return PIL.Image.fromarray(picture.expand(-1, -1, 3).numpy())


def contents(synthetic: Synthetic) -> dict[str, Tensor | list]:
    """images (n, C, H, W), normalised as the set was trained on; labels (n,) int64; class_names; mean and std a channel, with
    pixels = images * std + mean. `soft_labels` (n, classes), probabilities, and `step`, the size of a student's steps, where they were
    learned; `whitening_mean` (P,) and `whitening_transform` (P, P) of a whitened dataset, with
    images = (pixels - whitening_mean) @ whitening_transform on flattened pixels."""
    found: dict = {
        "images": synthetic.images().detach().cpu(),
        "labels": synthetic.labels.cpu(),
        "class_names": list(synthetic.class_names),
        "mean": list(synthetic.settings["mean"]),
        "std": list(synthetic.settings["std"]),
    }
    if "soft" in synthetic.tensors:
        found["soft_labels"] = synthetic.targets().detach().cpu()
    if synthetic.step_size is not None:
        found["step"] = synthetic.step_size.detach().cpu()
    if synthetic.whitening:
        found |= {f"whitening_{name}": tensor.cpu() for name, tensor in vars(synthetic.whitening).items()}
    return found


def npz(synthetic: Synthetic, path: str | Path) -> None:
    """`contents` as arrays, for np.load: no pickle in it."""
    with whole(path) as part, part.open("wb") as file:
        np.savez(file, **{name: np.asarray(value) for name, value in contents(synthetic).items()})


def pt(synthetic: Synthetic, path: str | Path) -> None:
    """`contents` as a dictionary, for torch.load(path, weights_only=True)."""
    with whole(path) as part:
        torch.save(contents(synthetic), part)


def pngs(synthetic: Synthetic, folder: str | Path) -> float:
    """<folder>/<label>_<class name>/<number>.png, an image each, which torchvision's ImageFolder reads in the order of the labels (a
    class without a name of its own is its label alone); returns the share of pixels that were clipped. Raises BadInput where the folder
    holds something."""
    with new_folder(folder) as part:
        return _images(synthetic, part)


def ddranking(synthetic: Synthetic, folder: str | Path, *, lr: float = 0.01) -> list[str]:
    """What the evaluators of ddranking 0.2.0 take; returns what is to be known of it, a sentence each.

    images.pt, labels.pt and lr.pt are their `image_tensor`, `hard_labels` and `syn_lr`, images.pt normalised as their test images are;
    lr.pt is the step size that the set learned, else `lr`. images/ is their `image_path`, which needs
    custom_train_trans=Compose([ToTensor(), Normalize(...)]), since they hand on PIL images without one. soft_labels.pt, where labels were
    learned, is what no evaluator of 0.2.0 trains on: LabelRobustScoreHard takes hard labels alone, and LabelRobustScoreSoft fails in the
    mode that reads given ones ('S'), and asks a teacher in the other. LabelRobustScoreHard trains every network and then returns no
    score: it lists each one twice, and the table of them raises 'All arrays must be of the same length'; the accuracies stand in what it
    prints.

    Raises BadInput for images that are not of three channels, which all its networks take, and where the folder holds something.
    """
    takes_coloured(synthetic)
    said = []
    if synthetic.whitening:
        images = synthetic.images().detach().cpu()
        said.append("images.pt is whitened: give the evaluator use_zca=True")
    else:
        by = CIFAR if "cifar" in synthetic.settings["dataset"] else IMAGENET
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in by)
        ours = (tuple(synthetic.settings["mean"]), tuple(synthetic.settings["std"]))
        same = torch.allclose(torch.tensor(ours), torch.tensor(by))
        images = synthetic.images().detach().cpu() if same else (pixels(synthetic) - mean) / std
        if not same:
            said.append(
                f"images.pt is normalised as ddranking does, by mean {by[0]} and standard deviation {by[1]}; the "
                f"set by {ours[0]} and {ours[1]}"
            )
    learned = None if synthetic.step_size is None else float(synthetic.step_size.detach())
    with new_folder(folder) as part:
        share = _images(synthetic, part / "images")
        torch.save(images, part / "images.pt")
        torch.save(synthetic.labels.cpu(), part / "labels.pt")
        torch.save(torch.tensor(lr if learned is None else learned), part / "lr.pt")
        if "soft" in synthetic.tensors:
            torch.save(synthetic.targets().detach().cpu(), part / "soft_labels.pt")
            said.append(
                "the labels that the set learned are in soft_labels.pt, but the evaluators of ddranking 0.2.0 train on hard ones"
            )
    if share >= 0.005:
        said.append(f"{share:.0%} of the pixels of images/ are clipped; images.pt keeps the numbers")
    return said


def takes_coloured(synthetic: Synthetic) -> None:
    """Raise BadInput for a set that no network of ddranking takes."""
    if synthetic.shape[0] != 3:
        raise BadInput(
            f"a set of {synthetic.settings['dataset']} has {synthetic.shape[0]} channel(s), and every network of ddranking "
            "takes 3; export it as --npz, --pt or --png"
        )


def empty(folder: str | Path) -> None:
    """Raise BadInput for a folder that holds something, or a file of its name: files of another set would be taken for this one's."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(
            f"{folder}: is there already and not an empty folder; name a new one, or remove it first"
        )


@contextlib.contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """`with new_folder(folder) as part:` fill the folder `part`, which becomes `folder` at the end, or is removed if that fails."""
    folder = Path(folder)
    empty(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        yield part
        if folder.is_dir():
            folder.rmdir()
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _images(synthetic: Synthetic, folder: Path) -> float:
    digits, named = len(str(synthetic.classes - 1)), synthetic.class_names != numbered(synthetic.classes)
    for label, name in enumerate(synthetic.class_names):
        plain = re.sub(r"[^\w.-]+", "_", name)
        place = folder / (f"{label:0{digits}d}_{plain}" if named else f"{label:0{digits}d}")
        place.mkdir(parents=True)
        rows = slice(label * synthetic.per_class, (label + 1) * synthetic.per_class)
        for number, image in enumerate(image for part in parts(synthetic, rows) for image in part):
            _drawn(_bytes(image)).save(place / f"{number:05d}.png")
    return clipped(synthetic)

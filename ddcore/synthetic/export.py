"""Synthetic sets as others read them: arrays, tensors, images, and what the evaluators of ddranking 0.2.0 take.

Arrays and tensors keep the numbers that were learned. Images are 8 bits and hold [0, 1] alone; what share of a set's pixels lies outside
is returned, to be said.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddcore.data import numbered, unnormalised
from ddcore.errors import BadInput
from ddcore.files import whole
from ddcore.synthetic import Synthetic

HALF_A_LEVEL = 0.5 / 255
# As ddranking 0.2.0 normalises its test images: those of CIFAR by the first, of every other dataset that it has by ImageNet's.
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def pixels(synthetic: Synthetic) -> Tensor:
    """(n, C, H, W) on the CPU, whitening and normalisation undone and nothing clipped: real images lie in [0, 1]."""
    return unnormalised(synthetic.images(), synthetic.settings["mean"], synthetic.settings["std"], synthetic.whitening).cpu()


def clipped(values: Tensor) -> float:
    """The share of pixels that 8 bits cut off: outside [0, 1] by more than half a level."""
    return float(((values < -HALF_A_LEVEL) | (values > 1 + HALF_A_LEVEL)).double().mean())


def visible(synthetic: Synthetic) -> tuple[Tensor, str]:
    """(n, C, H, W) in [0, 1] to look at, and what is to be said of them ('' for nothing): `Synthetic.pictures`, but where most pixels
    would be clipped, the range of the middle 98 % of them drawn from black to white."""
    values = pixels(synthetic)
    share = clipped(values)
    if share <= 0.5:
        return values.clamp(0, 1), f"{share:.0%} of the pixels are clipped to black or white" if share >= 0.005 else ""
    low, high = np.percentile(values.numpy(), (1, 99))
    return ((values - float(low)) / float(high - low)).clamp(0, 1), (
        f"{share:.0%} of the pixels lie outside the range of real ones, so the pictures are scaled: black is {low:.2f}, white {high:.2f}, "
        "where real pixels go from 0 to 1")


def grid(synthetic: Synthetic, path: str | Path, *, columns: int = 10) -> str:
    """A PNG to look at, of one row a class and at most `columns` images of it, as `visible` draws them; returns what that says."""
    from torchvision.utils import save_image

    pictures, said = visible(synthetic)
    shown = min(synthetic.per_class, columns)
    chosen = pictures.unflatten(0, (synthetic.classes, synthetic.per_class))[:, :shown].flatten(0, 1)
    with whole(path) as part:
        save_image(chosen, part, format="png", nrow=shown, padding=1, pad_value=1.0)
    return said


def contents(synthetic: Synthetic) -> dict[str, Tensor | list]:
    """images (n, C, H, W), normalised as the set was trained on; labels (n,) int64; class_names; mean and std a channel, with
    pixels = images * std + mean. `soft_labels` (n, classes), probabilities, and `step`, the size of a student's steps, where they were
    learned; `whitening_mean` (P,) and `whitening_transform` (P, P) of a whitened dataset, with
    images = (pixels - whitening_mean) @ whitening_transform on flattened pixels."""
    found: dict = {"images": synthetic.images().detach().cpu(), "labels": synthetic.labels.cpu(),
                   "class_names": list(synthetic.class_names), "mean": list(synthetic.settings["mean"]),
                   "std": list(synthetic.settings["std"])}
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
            said.append(f"images.pt is normalised as ddranking does, by mean {by[0]} and standard deviation {by[1]}; the "
                        f"set by {ours[0]} and {ours[1]}")
    learned = None if synthetic.step_size is None else float(synthetic.step_size.detach())
    with new_folder(folder) as part:
        share = _images(synthetic, part / "images")
        torch.save(images, part / "images.pt")
        torch.save(synthetic.labels.cpu(), part / "labels.pt")
        torch.save(torch.tensor(lr if learned is None else learned), part / "lr.pt")
        if "soft" in synthetic.tensors:
            torch.save(synthetic.targets().detach().cpu(), part / "soft_labels.pt")
            said.append("the labels that the set learned are in soft_labels.pt, but the evaluators of ddranking 0.2.0 train on hard ones")
    if share >= 0.005:
        said.append(f"{share:.0%} of the pixels of images/ are clipped; images.pt keeps the numbers")
    return said


def takes_coloured(synthetic: Synthetic) -> None:
    """Raise BadInput for a set that no network of ddranking takes."""
    if synthetic.shape[0] != 3:
        raise BadInput(f"a set of {synthetic.settings['dataset']} has {synthetic.shape[0]} channel(s), and every network of ddranking "
                       "takes 3; export it as --npz, --pt or --png")


def empty(folder: str | Path) -> None:
    """Raise BadInput for a folder that holds something, or a file of its name: files of another set would be taken for this one's."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder}: is there already and not an empty folder; name a new one, or remove it first")


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
    from torchvision.utils import save_image

    values, digits = pixels(synthetic), len(str(synthetic.classes - 1))
    labels, named = synthetic.labels.cpu(), synthetic.class_names != numbered(synthetic.classes)
    for label, name in enumerate(synthetic.class_names):
        plain = re.sub(r"[^\w.-]+", "_", name)
        place = folder / (f"{label:0{digits}d}_{plain}" if named else f"{label:0{digits}d}")
        place.mkdir(parents=True)
        for number, image in enumerate(values[labels == label].clamp(0, 1)):
            save_image(image, place / f"{number:05d}.png")
    return clipped(values)

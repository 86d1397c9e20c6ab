"""Sets that the published code of the field saved, as sets of ddcore.

DC, DSA and DM write `res_*.pt`, a mapping whose 'data' lists (images, labels) of each of their runs; MTT and what follows its code write
`images_best.pt`, a tensor, with `labels_best.pt` beside it. Their images are normalised by the statistics that ddcore has for the name of
the dataset (whitened, for MTT with ZCA: name '<dataset>-zca'). Nothing of a pickle but tensors and plain containers is ever formed.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.synthetic import Pixels

READ = "a result of DC, DSA or DM ({'data': [[images, labels], ...]}), or images_*.pt of MTT with labels_*.pt beside it"


class _LeftOut:
    """Stands for the numbers of NumPy (accuracies) in a result of DC, DSA or DM: they are not formed."""

    def __init__(self, *given):
        pass

    def __setstate__(self, state):
        pass


NUMPY = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.dtypes.Float64DType",
    "numpy.dtypes.Float32DType",
    "numpy.dtypes.Int64DType",
)


def import_published(path: str | Path, data: Dataset, *, run: int = 0) -> Pixels:
    """The set in `path` as one of `data`'s, sorted by class; `run` is which of the results of a file of DC, DSA or DM is meant.

    Raises BadInput for a file that is none of those, or whose images and labels are not of `data`'s shape and classes, equally many a
    class and finite.
    """
    path = Path(path)
    images, labels = _read(path, run)
    what = f"{path}: images {tuple(images.shape)} of {images.dtype}, labels {tuple(labels.shape)} of {labels.dtype}"
    if (
        images.ndim != 4
        or tuple(images.shape[1:]) != data.shape
        or not images.is_floating_point()
        or not len(images)
    ):
        raise BadInput(
            f"{what}; {data.name} needs images (n, {', '.join(map(str, data.shape))}) of floating point"
        )
    if (
        labels.shape != images.shape[:1]
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        raise BadInput(f"{what}; one class an image is needed: labels that are learned or soft are not read")
    counts = torch.bincount(labels.clamp(min=0).long(), minlength=data.classes)
    if int(labels.min()) < 0 or len(counts) > data.classes or counts.unique().numel() > 1:
        raise BadInput(
            f"{what}; labels from 0 to {data.classes - 1}, equally many of each, are needed for {data.name}"
        )
    if not images.isfinite().all():
        raise BadInput(f"{path}: {int((~images.isfinite()).sum())} numbers of the images are not finite")
    order = labels.long().argsort(stable=True)
    images = images.detach()[order].to(data.device, data.x_train.dtype)
    return Pixels.of(data, images, labels.long()[order].to(data.device), init="imported")


def _read(path: Path, run: int) -> tuple[Tensor, Tensor]:
    found = _load(path)
    if isinstance(found, Tensor) and path.name.startswith("images"):
        labels = path.with_name(path.name.replace("images", "labels", 1).replace("_zca", ""))
        found = {"data": [[found, _load(labels)]]}
    runs = found.get("data") if isinstance(found, dict) else None
    if not isinstance(runs, list) or not all(
        isinstance(pair, list | tuple) and [*map(type, pair)] == [Tensor] * 2 for pair in runs
    ):
        raise BadInput(f"{path}: holds {_said(found)}; {READ} is read")
    if not 0 <= run < len(runs):
        raise BadInput(f"{path}: run={run}, but it holds {len(runs)} result(s), numbered from 0")
    return tuple(runs[run])


def _load(path: Path):
    if not path.is_file():
        raise BadInput(f"{path}: no such file; {READ} is read")
    try:
        with torch.serialization.safe_globals([(_LeftOut, name) for name in NUMPY]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler refuses or stumbles over
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = (
            f"holds a {refused[1]}, which is formed by running what is pickled, and nothing is run"
            if refused
            else "not a whole file"
        )
        raise BadInput(f"{path}: {why}; {READ} is read") from error


def _said(found) -> str:
    if isinstance(found, dict):
        return f"a mapping of {', '.join(map(repr, list(found)[:6])) or 'nothing'}"
    return f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"

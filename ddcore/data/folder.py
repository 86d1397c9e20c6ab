"""A folder of images: `train/<class>/*.png` and `test/<class>/*.png`."""

from pathlib import Path

import numpy as np

from ddcore.errors import BadInput
from ddcore.settings import positive

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def read(folder: Path, size: int | None) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    from PIL import Image
    from torchvision.transforms import functional

    positive("load", size=size)
    arrays, names, shape = {}, None, None
    for split in ("train", "test"):
        found = tuple(sorted(path.name for path in (folder / split).glob("*") if path.is_dir()))
        if not found:
            raise BadInput(f"{folder / split}: no class folders found; train/<class>/*.png and test/<class>/*.png are needed")
        if names is not None and found != names:
            raise BadInput(f"{folder / split}: classes {', '.join(found)} differ from those of train: {', '.join(names)}")
        names, images, labels = found, [], []
        for label, name in enumerate(names):
            for path in sorted((folder / split / name).iterdir()):
                if path.suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                try:
                    with Image.open(path) as image:
                        image = image.convert("L" if image.mode in ("1", "L") else "RGB")
                except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError and more
                    raise BadInput(f"{path}: not a whole image ({error}); remove or replace it") from error
                if size:
                    image = functional.center_crop(functional.resize(image, size), size)
                pixels = np.asarray(image)
                pixels = pixels if pixels.ndim == 3 else pixels[..., None]
                if shape is None:
                    shape = pixels.shape
                elif pixels.shape[:2] != shape[:2]:
                    raise BadInput(f"{path}: is {pixels.shape[:2]}, but the images before it are {shape[:2]}; make them of one size, "
                                   "or give `size` to ddcore.load")
                images.append(pixels)
                labels.append(label)
            if label not in labels:
                raise BadInput(f"{folder / split / name}: no image found; {', '.join(sorted(IMAGE_SUFFIXES))} are read")
        arrays[f"x_{split}"], arrays[f"y_{split}"] = images, np.asarray(labels)
    channels = max(image.shape[2] for split in ("train", "test") for image in arrays[f"x_{split}"])
    for split in ("train", "test"):  # grey images among coloured ones, as in ImageNet, take three equal channels
        arrays[f"x_{split}"] = np.stack([np.broadcast_to(image, (*image.shape[:2], channels)) for image in arrays[f"x_{split}"]])
    return arrays, names

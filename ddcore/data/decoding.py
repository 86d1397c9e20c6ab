"""One image file as pixels of 8 bits: upright, grey or RGB. Pillow decodes it, threads in parallel.

Of each of Pillow's modes: 1, L and 16 bits of grey (scaled, 65535 to 255) become one channel; P, RGB, CMYK, YCbCr, LAB and HSV three; what
is transparent is laid on white. Numbers of 32 bits (I, F) say nothing of what is black and what is white and are refused, and so are files
of several images. (The decoders of torchvision give the same pixels, but are deprecated from 0.29 on.)
"""

import dataclasses
import io

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ddcore.errors import BadInput

SUFFIXES = frozenset(
    (
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".bmp",
        ".dib",
        ".webp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
    )
)
GREY = ("1", "L", "LA", "La")
COLOURED = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says before it is decoded: (height, width) as it stands upright; `turned`, `transparent` and `deep` (16 bits): what is
    done to it."""

    sides: tuple[int, int]
    grey: bool
    turned: bool
    transparent: bool
    deep: bool


def header(content: bytes, name: str) -> Header:
    """Raises BadInput naming the file for what is no image, or one that can't be read as 8 bits."""
    with _opened(content, name) as image:
        orientation = _orientation(image, content)
        lies = (
            orientation >= 5 and image.format != "TIFF"
        )  # Pillow says the size of a TIFF as it stands upright
        sides = image.size if lies else image.size[::-1]
        return Header(
            sides,
            _grey(image, name),
            orientation > 1,
            image.has_transparency_data,
            _depth(image, content) == 16,
        )


def pixels(content: bytes, name: str, size: int | None = None) -> np.ndarray:
    """(H, W, 1 or 3) uint8; with `size` scaled until the shorter side is that long, and cut to the central square.

    Raises BadInput naming the file for one that is not whole, and as `header` does.
    """
    with _opened(content, name) as image:
        grey, turned = _grey(image, name), _orientation(image, content) > 1
        try:
            image = _eight_bits(ImageOps.exif_transpose(image) if turned else image, grey)
        except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError and more
            raise _broken(name, error) from error
        if size:
            from torchvision.transforms import functional

            image = functional.center_crop(functional.resize(image, size), size)
        return np.array(image).reshape(*image.size[::-1], 1 if grey else 3)


def _opened(content: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content))
        frames = (
            1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        )  # an MPO is a photograph and its previews
    except Exception as error:
        raise _broken(name, error) from error
    if frames > 1:
        raise BadInput(
            f"{name}: holds {frames} images ({image.format}, mode {image.mode}), but a file of one is needed; save them apart"
        )
    return image


def _broken(name: str, error: Exception) -> BadInput:
    return BadInput(f"{name}: not a whole image ({' '.join(str(error).split())}); remove or replace it")


def _grey(image: Image.Image, name: str) -> bool:
    """Whether it has one channel. Raises BadInput for a mode that has no meaning in 8 bits."""
    if image.mode in GREY or image.mode in SIXTEEN_BITS or _sixteen_in_32(image):
        return True
    if image.mode in COLOURED:
        return False
    raise BadInput(
        f"{name}: has pixels of mode {image.mode}, whose numbers do not say what is black and what is white; save it as grey "
        "or RGB of 8 or 16 bits"
    )


def _sixteen_in_32(image: Image.Image) -> bool:
    """PNG and PGM know no more than 16 bits, but Pillow may hold them in 32."""
    return image.mode == "I" and image.format in ("PNG", "PPM")


def _depth(image: Image.Image, content: bytes) -> int:
    """Bits of a pixel's channel, as far as it matters."""
    if image.mode in SIXTEEN_BITS or _sixteen_in_32(image):
        return 16
    return content[24] if image.format == "PNG" else 8


def _orientation(image: Image.Image, content: bytes) -> int:
    """EXIF's number, 1 for upright. Pillow would decode a whole PNG to look for one."""
    if image.format == "PNG" and b"eXIf" not in content and b"rientation" not in content:
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the EXIF of some photographs is spoilt, their pixels are not
        return 1
    return found if found in range(1, 9) else 1


def _eight_bits(image: Image.Image, grey: bool) -> Image.Image:
    """Of mode L or RGB."""
    if image.mode in SIXTEEN_BITS or image.mode == "I":
        values = np.asarray(image).astype(np.float64)
        clear = values == image.info.get("transparency", -1)
        return Image.fromarray(np.where(clear, 255, np.rint(values / 257)).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("L" if grey else "RGB")
    *colours, alpha = image.convert("LA" if grey else "RGBA").split()
    mode = "L" if grey else "RGB"
    return Image.composite(Image.merge(mode, colours), Image.new(mode, image.size, "white"), alpha)

"""Every mode of Pillow: which pixels of 8 bits a file stands for, or that it is refused."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from ddcore.data import decoding

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (5, 6), np.uint8)
COLOUR = rng.integers(0, 256, (5, 6, 3), np.uint8)
ALPHA = rng.integers(0, 256, (5, 6), np.uint8)
DEEP = rng.integers(0, 65536, (5, 6), np.uint16)


def saved(image, kind, **settings):
    held = io.BytesIO()
    image.save(held, kind, **settings)
    return held.getvalue()


def over_white(colours, alpha):
    """Pixels laid on white, by the definition."""
    alpha = alpha[..., None] / 255
    return colours.reshape(*alpha.shape[:2], -1) * alpha + 255 * (1 - alpha)


def lab():
    lightness, *colours = (
        rng.integers(low, high, (5, 6), np.uint8) for low, high in ((60, 200), (118, 138), (118, 138))
    )
    return Image.merge("LAB", [Image.fromarray(plane) for plane in (lightness, *colours)])


def cases():
    """mode and kind of file -> content, expected pixels, how far they may be from them."""
    opaque = Image.fromarray(COLOUR).convert("RGBA")
    through = Image.fromarray(np.dstack([COLOUR, ALPHA]))
    grey_through = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    premultiplied = through.convert("RGBa").convert("RGBA")
    indexed = Image.fromarray(COLOUR // 64 * 64).quantize(16)
    index = np.asarray(indexed)
    colours = np.asarray(indexed.convert("RGB"))
    clear = bytes(0 if number == index[0, 0] else 255 for number in range(256))
    cut = np.where((index == index[0, 0])[..., None], 255, colours)
    key = np.where((GREY[0, 0] == GREY), 255, GREY)[..., None]
    wide = {
        "I;16 PNG": Image.fromarray(DEEP),
        "I;16 TIFF": Image.fromarray(DEEP),
        "I;16B TIFF": Image.fromarray(DEEP.astype(">u2")),
    }
    cmyk, paletted = Image.fromarray(COLOUR).convert("CMYK"), through.convert("LA").convert("PA")
    straight = np.asarray(paletted.convert("RGBA"))
    ycc, white = Image.fromarray(COLOUR).convert("YCbCr"), lab()
    to_rgb = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
    return {
        "1 PNG": (saved(Image.fromarray(GREY > 99), "PNG"), (GREY > 99)[..., None] * 255, 0),
        "L PNG": (saved(Image.fromarray(GREY), "PNG"), GREY[..., None], 0),
        "L TIFF": (saved(Image.fromarray(GREY), "TIFF"), GREY[..., None], 0),
        "L BMP": (saved(Image.fromarray(GREY), "BMP"), GREY[..., None], 0),
        "L PGM": (saved(Image.fromarray(GREY), "PPM"), GREY[..., None], 0),
        "L PNG, a grey clear": (saved(Image.fromarray(GREY), "PNG", transparency=int(GREY[0, 0])), key, 0),
        "LA PNG": (saved(grey_through, "PNG"), over_white(GREY, ALPHA), 1),
        "LA TIFF": (saved(grey_through, "TIFF"), over_white(GREY, ALPHA), 1),
        "P PNG": (saved(indexed, "PNG"), colours, 0),
        "P PNG, one clear": (saved(indexed, "PNG", transparency=clear), cut, 0),
        "P GIF, one clear": (saved(indexed, "GIF", transparency=int(index[0, 0])), cut, 0),
        "P GIF": (saved(indexed, "GIF"), colours, 0),
        "PA TIFF": (saved(paletted, "TIFF"), over_white(straight[..., :3], straight[..., 3]), 1),
        "RGB PNG": (saved(Image.fromarray(COLOUR), "PNG"), COLOUR, 0),
        "RGB PNG, a colour clear": (
            saved(Image.fromarray(COLOUR), "PNG", transparency=tuple(COLOUR[0, 0].tolist())),
            np.where((COLOUR[0, 0] == COLOUR).all(2, keepdims=True), 255, COLOUR),
            0,
        ),
        "RGB TIFF": (saved(Image.fromarray(COLOUR), "TIFF"), COLOUR, 0),
        "RGB WEBP": (saved(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR, 0),
        "RGBA PNG": (saved(through, "PNG"), over_white(COLOUR, ALPHA), 1),
        "RGBA PNG, opaque": (saved(opaque, "PNG"), COLOUR, 0),
        "RGBA WEBP": (saved(through, "WEBP", lossless=True, exact=True), over_white(COLOUR, ALPHA), 1),
        "RGBa TIFF": (saved(premultiplied, "TIFF"), over_white(np.asarray(premultiplied)[..., :3], ALPHA), 1),
        "CMYK JPEG": (saved(cmyk, "JPEG", quality=100, subsampling=0), COLOUR, 8),
        "CMYK TIFF": (saved(cmyk, "TIFF"), COLOUR, 0),
        "YCbCr TIFF": (saved(ycc, "TIFF"), np.asarray(ycc.convert("RGB")), 0),
        "LAB TIFF": (saved(white, "TIFF"), np.asarray(ImageCms.applyTransform(white, to_rgb)), 1),
        **{
            name: (saved(image, name.split()[1]), np.rint(DEEP / 257)[..., None], 0)
            for name, image in wide.items()
        },
        "16 bits PGM": (
            b"P5\n6 5\n65535\n" + DEEP.astype(">u2").tobytes(),
            np.rint(DEEP / 257)[..., None],
            0,
        ),
        "I;16 PNG, a grey clear": (
            saved(Image.fromarray(DEEP), "PNG", transparency=int(DEEP[0, 0])),
            np.where(DEEP[0, 0] == DEEP, 255, np.rint(DEEP / 257))[..., None],
            0,
        ),
    }


@pytest.mark.parametrize("case", cases())
def test_pixels_of_every_mode(case):
    content, expected, near = cases()[case]
    found, head = decoding.pixels(content, "a"), decoding.header(content, "a")
    assert found.dtype == np.uint8
    assert found.shape == (5, 6, 1 if head.grey else 3)
    assert head.sides == (5, 6)
    assert head.transparent == ("clear" in case or "A " in case or "RGBa" in case)
    assert head.deep == (case.startswith(("I;16", "16")))
    assert expected.shape == found.shape
    assert np.abs(found - expected.astype(np.float64)).max() <= near


@pytest.mark.parametrize("mode", ["HSV", "La", "RGBX", "I;16L", "I;16N"])
def test_modes_that_no_file_has_here_are_turned_into_8_bits_too(mode):
    image = (
        Image.new(mode, (6, 5), 25700)
        if mode.startswith("I")
        else Image.fromarray(COLOUR).convert("L" if mode == "La" else "RGB")
    )
    image = (
        image
        if mode.startswith("I")
        else image.convert("LA").convert("La")
        if mode == "La"
        else image.convert(mode)
    )
    grey = decoding._grey(image, "a")
    found = np.asarray(decoding._eight_bits(image, grey))
    assert found.shape == ((5, 6) if grey else (5, 6, 3))
    if mode.startswith("I"):
        assert (found == 100).all()
    if mode == "RGBX":
        assert np.array_equal(found, COLOUR)


@pytest.mark.parametrize(
    "make",
    [
        lambda: saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
        lambda: saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
    ],
    ids=["F", "I"],
)
def test_numbers_without_a_meaning_in_8_bits_are_refused(make, request, refuses):
    mode = request.node.callspec.id
    for read in (decoding.header, decoding.pixels):
        with refuses("a.tif", f"mode {mode}", "8 or 16 bits"):
            read(make(), "a.tif")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_a_file_of_several_images_is_refused(kind, refuses):
    first, second = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    with refuses("a.x", "holds 2 images", kind):
        decoding.header(saved(first, kind, save_all=True, append_images=[second]), "a.x")


def test_a_photograph_with_previews_is_one_image():
    content = saved(
        Image.fromarray(COLOUR),
        "MPO",
        save_all=True,
        append_images=[Image.fromarray(255 - COLOUR)],
        quality=100,
    )
    assert np.array_equal(
        decoding.pixels(content, "a"), np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    )


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_images_stand_upright(kind, orientation):
    """Each of EXIF's eight orientations, undone by hand; other numbers mean nothing."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    content = saved(Image.fromarray(COLOUR), kind, exif=exif, **settings)
    upright = {
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
        8: np.rot90,
    }.get(orientation, lambda x: x)
    expected = upright(COLOUR)
    found, head = decoding.pixels(content, "a"), decoding.header(content, "a")
    assert head.sides == found.shape[:2] == expected.shape[:2]
    assert head.turned == (2 <= orientation <= 8)
    assert np.abs(found - expected.astype(int)).max() <= (12 if kind == "JPEG" else 0)


@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF at all", b"Exif\0\0MM\0*`", b"Exif\0\0"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_spoilt_exif_leaves_the_image_as_it_is(kind, exif):
    content = saved(Image.fromarray(COLOUR), kind, exif=exif, **{"WEBP": {"lossless": True}}.get(kind, {}))
    assert decoding.header(content, "a").turned is False
    assert np.array_equal(
        decoding.pixels(content, "a"), np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    )


@pytest.mark.parametrize(
    ("height", "width", "size"), [(20, 40, 4), (40, 20, 4), (5, 6, 8), (7, 7, 7), (1, 9, 3)]
)
def test_size_scales_the_shorter_side_and_cuts_the_central_square(height, width, size):
    """As torchvision's Resize and CenterCrop do on Pillow's images."""
    from torchvision import transforms

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))
    expected = transforms.CenterCrop(size)(transforms.Resize(size)(image))
    assert np.array_equal(decoding.pixels(saved(image, "PNG"), "a", size), np.asarray(expected))
    turned = Image.Exif()
    turned[0x0112] = 6
    content = saved(image, "PNG", exif=turned)
    expected = transforms.CenterCrop(size)(
        transforms.Resize(size)(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    )
    assert np.array_equal(decoding.pixels(content, "a", size), np.asarray(expected))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("JPEG", {"quality": 90}), ("JPEG", {"quality": 75, "progressive": True}), ("PNG", {})],
)
def test_torchvision_decodes_to_the_same_pixels(kind, settings):
    """Its decoders are deprecated; data prepared with them are the same data."""
    from torchvision.io import decode_image

    for pixels in (COLOUR, GREY):
        content = saved(Image.fromarray(pixels).resize((60, 50), Image.Resampling.BILINEAR), kind, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            expected = (
                decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8)).permute(1, 2, 0).numpy()
            )
        assert np.array_equal(decoding.pixels(content, "a"), expected)


def test_global_state_of_pillow_and_torch_is_left_alone(untouched):
    decoding.pixels(saved(Image.fromarray(COLOUR), "PNG"), "a", 4)

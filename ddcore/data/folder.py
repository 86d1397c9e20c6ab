"""A folder of images as a dataset: what its files hold is found in one pass and remembered, and decoded when it is drawn."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from ddcore.data import decoding
from ddcore.data.dataset import held_out
from ddcore.data.files import THREADS, Files, Kept, opened, stamp
from ddcore.data.listing import NEEDED, Listing, listing
from ddcore.data.remembered import Remembered
from ddcore.data.source import PART_BYTES, Source
from ddcore.data.statistics import channel_statistics
from ddcore.errors import BadInput
from ddcore.random import stream
from ddcore.settings import positive

VERSION = 1  # of how files become pixels: it is part of the sha256
SAMPLE = 20_000  # training images that mean and standard deviation are found from


@dataclasses.dataclass(frozen=True)
class Content:
    """What one pass over all files finds: sha256 over classes, names and bytes; (height, width) of the first image, and the first one of
    other sides with its own; whether all are grey; how many images are turned, transparent, of 16 bits."""

    sha256: str
    sides: tuple[int, int]
    other: tuple[str, int, int] | None
    grey: bool
    turned: int
    transparent: int
    deep: int


def read(root: Path, size: int | None, test_fraction: float | None, split_seed: int) -> Source:
    """The folder as a source (`ddcore.data.listing` says which layouts). `size`: images are scaled to it by the shorter side and cut to the
    central square; `test_fraction` of each class is kept for testing where there is no test split, chosen by `split_seed`."""
    positive("load", size=size)
    listed = listing(root)
    classes = len(listed.class_names)
    groups = [*listed.train, *(listed.test or ())]
    names, labels = (
        [name for group in groups for name in group],
        np.repeat(np.arange(len(groups)) % classes, list(map(len, groups))),
    )
    for_testing, tag = _split(listed, labels, test_fraction, split_seed)
    stamps = np.array([stamp(root / name) for name in names], np.int64)
    remembered = Remembered(root, VERSION, names, stamps)
    content = remembered.recall("content", lambda: dataclasses.asdict(_content(root, names, labels)))
    content = Content(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    )
    if content.other and not size:
        name, *sides = content.other
        raise BadInput(
            f"{root / name}: is {tuple(sides)}, but the images before it are {content.sides}; make them of one size, or give "
            "`size` to ddcore.load (--size)"
        )
    kept, channels, sides = Kept(), 1 if content.grey else 3, (size, size) if size else content.sides
    splits = {}
    for split, chosen in (("train", ~for_testing), ("test", for_testing)):
        rows = np.flatnonzero(chosen)
        files = Files(root, [names[row] for row in rows], stamps[rows], sides, channels, size, kept)
        splits |= {f"x_{split}": files, f"y_{split}": labels[rows]}
    # Both are decoded now, at least in part, so that a file that is not whole is seen before anything is computed.
    statistics = remembered.recall(
        f"statistics {size} {tag}", lambda: channel_statistics(sample(splits["x_train"]))
    )
    statistics = tuple(map(tuple, statistics))
    remembered.recall(f"test images {size} {tag}", lambda: sum(map(len, sample(splits["x_test"]))))
    return Source(
        **splits,
        class_names=listed.class_names,
        sha256=_identity(content.sha256, size, tag),
        tag=tag,
        statistics=lambda: statistics,
        notes=(*listed.notes, *_notes(content, size, len(splits["y_train"]))),
    )


def _split(listed: Listing, labels: np.ndarray, fraction: float | None, seed: int) -> tuple[np.ndarray, str]:
    """(N,) bool, which images are for testing, and how that is said in the dataset's name."""
    trained = sum(map(len, listed.train))
    if listed.test is not None:
        if fraction is not None:
            raise BadInput(f"{listed.root}: has a test split of its own; leave test_fraction={fraction} out")
        return np.arange(len(labels)) >= trained, ""
    if fraction is None:
        raise BadInput(
            f"{listed.root / 'test'}: no class folders found; {NEEDED}, or give test_fraction (--test-fraction), the part of "
            "each class that is kept for testing"
        )
    if not 0 < fraction < 1:
        raise BadInput(f"load: test_fraction={fraction} must lie between 0 and 1")
    fewest = min(range(len(listed.train)), key=lambda label: len(listed.train[label]))
    if len(listed.train[fewest]) < 2:
        raise BadInput(
            f"{listed.root}: class {listed.class_names[fewest]} has one image, but test_fraction leaves one on either "
            "side; give it more, or leave it out"
        )
    held = held_out(torch.from_numpy(labels), len(listed.train), fraction, stream(seed, "test split"))
    return held.numpy(), f"test {fraction} {seed}"


def _content(root: Path, names: Sequence[str], labels: np.ndarray) -> Content:
    """Reads every file once, none of them kept."""
    digest, counts, first, other, grey = hashlib.sha256(), collections.Counter(), None, None, True

    def look(name: str) -> tuple[bytes, decoding.Header]:
        content, _ = opened(root / name)
        return hashlib.sha256(content).digest(), decoding.header(content, str(root / name))

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(names), 1024):
            for name, (bytes_digest, head) in zip(
                names[start : start + 1024], pool.map(look, names[start : start + 1024]), strict=True
            ):
                digest.update(name.encode() + b"\0" + bytes_digest)
                first = first or head.sides
                if head.sides != first and other is None:
                    other = (name, *head.sides)
                grey &= head.grey
                counts.update(kind for kind in ("turned", "transparent", "deep") if getattr(head, kind))
    digest.update(labels.astype(np.int64).tobytes())
    return Content(
        digest.hexdigest(), first, other, grey, counts["turned"], counts["transparent"], counts["deep"]
    )


def _identity(content: str, size: int | None, tag: str) -> str:
    """sha256 of the dataset: the files and all that decides what is drawn of them."""
    return hashlib.sha256(f"{content} folder {VERSION} size {size} {tag}".encode()).hexdigest()


def _notes(content: Content, size: int | None, trained: int) -> Iterator[str]:
    done = {
        "turned": "turned upright, as their EXIF orientation says",
        "transparent": "laid on white where they are transparent",
        "deep": "of 16 bits scaled to 8",
    }
    yield from (
        f"{getattr(content, kind)} image(s) {what}" for kind, what in done.items() if getattr(content, kind)
    )
    if size:
        yield f"images are scaled until the shorter side is {size} and cut to the central square"
    if trained > SAMPLE:
        yield f"mean and standard deviation are those of {SAMPLE:,} of {trained:,} training images, evenly spaced"


def sample(files: Files) -> Iterator[np.ndarray]:
    """All images, or `SAMPLE` of them, evenly spaced: (n, H, W, C) at a time."""
    rows = (
        torch.linspace(0, files.shape[0] - 1, min(SAMPLE, files.shape[0]), dtype=torch.float64).round().long()
    )
    at_once = max(1, PART_BYTES // int(np.prod(files.shape[1:])))
    return (files[part].numpy() for part in rows.split(at_once))

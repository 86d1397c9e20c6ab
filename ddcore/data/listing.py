"""Which files of a folder are images of which class, and which are left out: found by names alone.

Layouts: `train/<class>/` and `test/<class>/` or `val/<class>/` (ImageNet's), images in sub-folders of a class included;
Tiny-ImageNet's own, whose `val/images` are named by `val/val_annotations.txt`; and classes alone, in `train/` or in the folder itself, of
which a part is then kept for testing. Classes are in natural order: 2 comes before 10.
"""

import collections
import dataclasses
import os
import re
from pathlib import Path

from ddcore.data.decoding import SUFFIXES
from ddcore.errors import BadInput

NEEDED = "train/<class>/*.png and test/<class>/*.png (or val/) are needed"
ANNOTATIONS = "val_annotations.txt"


@dataclasses.dataclass(frozen=True)
class Listing:
    """train, test: for each class the names of its images, relative to `root`; test is None where there is no split. `notes`: what is
    left out, by reason."""

    root: Path
    class_names: tuple[str, ...]
    train: tuple[tuple[str, ...], ...]
    test: tuple[tuple[str, ...], ...] | None
    notes: tuple[str, ...]


def natural(name: str) -> tuple:
    """A key that sorts the numbers in names by their size."""
    return tuple(
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", name.casefold())
        if part
    ), name


def listing(root: Path) -> Listing:
    """Raises BadInput naming the folder in which classes or images are missing."""
    skipped: collections.Counter[str] = collections.Counter()
    inside = root / "train" if (root / "train").is_dir() else root
    classes = _classes(inside, skipped)
    if not classes or (inside == root and {*classes} <= {"test", "val"}):
        raise BadInput(
            f"{root / 'train'}: no class folders found; {NEEDED}, or a folder for each class and test_fraction"
        )
    train = tuple(_images(root, inside / name, skipped) for name in classes)
    _need(inside, classes, train)
    test = _test(root, classes, skipped) if inside != root else None
    notes = [f"{many} file(s) left out: {why}" for why, many in sorted(skipped.items()) if many]
    if list(classes) != sorted(classes):
        notes.append(
            f"classes are in natural order: {', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''}"
        )
    return Listing(root, _worded(root, classes), train, test, tuple(notes))


def _test(
    root: Path, classes: tuple[str, ...], skipped: collections.Counter[str]
) -> tuple[tuple[str, ...], ...] | None:
    """Of test/, or of val/ where there is no test/ or its labels are not public."""
    held = {
        split: _classes(root / split, collections.Counter())
        for split in ("test", "val")
        if (root / split).is_dir()
    }
    if (root / "val" / ANNOTATIONS).is_file():
        split, found = "val", _annotated(root, classes, skipped)
    elif not held:
        return None
    else:
        split = next((split for split, names in held.items() if names == classes), next(iter(held)))
        if held[split] and held[split] != classes:
            raise BadInput(
                f"{root / split}: classes {', '.join(held[split])} differ from those of train: {', '.join(classes)}"
            )
        if not held[split]:
            raise BadInput(f"{root / split}: no class folders found; {NEEDED}")
        _classes(root / split, skipped)
        found = tuple(_images(root, root / split / name, skipped) for name in classes)
    for other in held.keys() - {split}:
        skipped[f"{other}/, as {split}/ is for testing"] += sum(
            len(files) for _, _, files in os.walk(root / other)
        )
    _need(root / split, classes, found)
    return found


def _annotated(
    root: Path, classes: tuple[str, ...], skipped: collections.Counter[str]
) -> tuple[tuple[str, ...], ...]:
    """Tiny-ImageNet's val/: a line of its annotations gives a file's name and its class."""
    path = root / "val" / ANNOTATIONS
    labels = dict(
        line.split("\t")[:2] for line in path.read_text(encoding="utf-8").splitlines() if "\t" in line
    )
    if strange := sorted({*labels.values()} - {*classes}):
        raise BadInput(f"{path}: names class {strange[0]}, which train/ does not hold")
    by_class: dict[str, list[str]] = {name: [] for name in classes}
    for name in _images(root, root / "val" / "images", skipped):
        label = labels.pop(name.rpartition("/")[2], None)
        if label is None:
            skipped[f"without a line in val/{ANNOTATIONS}"] += 1
        else:
            by_class[label].append(name)
    if labels:
        raise BadInput(
            f"{path}: names {next(iter(labels))}, which is not in {root / 'val' / 'images'}; unpack the dataset again"
        )
    return tuple(tuple(by_class[name]) for name in classes)


def _worded(root: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """With what WordNet calls them, where `words.txt` says so: 'n01443537 goldfish'."""
    if not (root / "words.txt").is_file():
        return classes
    lines = (
        line.split("\t", 1)
        for line in (root / "words.txt").read_text(encoding="utf-8").splitlines()
        if "\t" in line
    )
    words = {name: text.split(",")[0].strip() for name, text in lines}
    return tuple(f"{name} {words[name]}" if name in words else name for name in classes)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _classes(folder: Path, skipped: collections.Counter[str]) -> tuple[str, ...]:
    names = []
    for entry in os.scandir(folder):
        if _hidden(entry.name):
            skipped["hidden"] += 1
        elif entry.is_dir():
            names.append(entry.name)
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            skipped["in no class folder"] += 1
    return tuple(sorted(names, key=natural))


def _images(root: Path, folder: Path, skipped: collections.Counter[str]) -> tuple[str, ...]:
    found = []
    for inside, folders, files in os.walk(folder, followlinks=True):
        skipped["hidden"] += sum(map(_hidden, [*folders, *files]))
        folders[:] = [name for name in folders if not _hidden(name)]
        for name in files:
            suffix = Path(name).suffix.lower()
            if _hidden(name):
                continue
            if suffix in SUFFIXES:
                found.append((Path(inside) / name).relative_to(root).as_posix())
            else:
                skipped[
                    f"'{suffix}' is not read as an image" if suffix else "no suffix, so no image by name"
                ] += 1
    return tuple(sorted(found))


def _need(folder: Path, classes: tuple[str, ...], found: tuple[tuple[str, ...], ...]) -> None:
    for name, images in zip(classes, found, strict=True):
        if not images:
            raise BadInput(f"{folder / name}: no image found; {', '.join(sorted(SUFFIXES))} are read")

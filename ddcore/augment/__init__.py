"""Augmentation: Siamese (DSA), random crops (teachers, recover, relabel), mixing of images."""

from ddcore.augment.siamese import (
    DSA,
    FAMILIES,
    TRANSFORMS,
    VERSION,
    WITHOUT_FLIP,
    Draw,
    apply,
    color,
    crop,
    cutout,
    draw,
    families,
    flip,
    join,
    rotate,
    scale,
)

__all__ = [
    "DSA",
    "FAMILIES",
    "TRANSFORMS",
    "VERSION",
    "WITHOUT_FLIP",
    "Draw",
    "apply",
    "color",
    "crop",
    "cutout",
    "draw",
    "families",
    "flip",
    "join",
    "rotate",
    "scale",
]

"""Synthetic sets: what is stored, how images come out of it, what it costs in stored numbers."""

from ddcore.synthetic.adaptive import Adaptive
from ddcore.synthetic.base import Synthetic
from ddcore.synthetic.kinds import KINDS, budget, create, load_synthetic
from ddcore.synthetic.lowrank import LowRank, images_per_class, truncated_svd
from ddcore.synthetic.pixels import Pixels, beginnings
from ddcore.synthetic.tucker import Tucker

__all__ = [
    "KINDS",
    "Adaptive",
    "LowRank",
    "Pixels",
    "Synthetic",
    "Tucker",
    "beginnings",
    "budget",
    "create",
    "images_per_class",
    "load_synthetic",
    "truncated_svd",
]

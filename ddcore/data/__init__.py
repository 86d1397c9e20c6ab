"""Datasets: read from a name, an .npz or a folder of images, stored in 8 bits, drawn as normalised numbers."""

from ddcore.data.dataset import Dataset, numbered, to_pixels, unnormalised
from ddcore.data.folders import cache_folder, data_folder
from ddcore.data.images import Images
from ddcore.data.loading import load
from ddcore.data.source import KEYS, KNOWN_SHA256
from ddcore.data.statistics import PUBLISHED_STATISTICS, mean_image, standard_deviation
from ddcore.data.torchvision import TORCHVISION
from ddcore.data.whitening import Whitening, whiten

__all__ = [
    "KEYS",
    "KNOWN_SHA256",
    "PUBLISHED_STATISTICS",
    "TORCHVISION",
    "Dataset",
    "Images",
    "Whitening",
    "cache_folder",
    "data_folder",
    "load",
    "mean_image",
    "numbered",
    "standard_deviation",
    "to_pixels",
    "unnormalised",
    "whiten",
]

"""Datasets: one reader a format, all giving the same labelled uint8 images in a fixed order."""

from __future__ import annotations

from advntk_dist.data.dataset import Dataset, fingerprint_images, one_hot, to_unit_range
from advntk_dist.data.registry import READERS, Reader, load_dataset
from advntk_dist.data.split import Split, split

__all__ = [
    "READERS",
    "Dataset",
    "Reader",
    "Split",
    "fingerprint_images",
    "load_dataset",
    "one_hot",
    "split",
    "to_unit_range",
]

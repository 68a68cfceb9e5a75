"""What a dataset holds, in numbers, for people and for machines."""

from __future__ import annotations

from typing import Any

import numpy as np

from advntk_dist.data.dataset import Dataset
from advntk_dist.data.duplicates import find_duplicates
from advntk_dist.grid import spans

_BLOCK = 4096
"""Images summed at a time."""


def summarise(data: Dataset) -> dict[str, Any]:
    """Count a dataset, as values that JSON knows.

    Returns
    -------
    dict
        ``name``, ``n``, ``shape`` (H, W, C), ``parts`` (numbers of rows: "train", "val" and "test" as the publisher
        divides them, or "all"), ``classes`` (a list of ``name`` and one count a part), ``fingerprint`` (sha256),
        ``mean`` and ``std`` of each channel in units of the pixels, 0..255, and ``duplicates``, see
        :meth:`Duplicates.as_dict`.
    """
    parts = {part: data.y[rows] for part, rows in data.parts.items()}
    counts = {part: np.bincount(y, minlength=data.n_classes) for part, y in parts.items()}
    mean, std = _moments(data.x)
    return {
        "name": data.name,
        "n": len(data),
        "shape": list(data.image_shape),
        "parts": {part: len(y) for part, y in parts.items()},
        "classes": [
            {"name": name, **{part: int(count[label]) for part, count in counts.items()}}
            for label, name in enumerate(data.classes)
        ],
        "fingerprint": data.fingerprint,
        "mean": mean.tolist(),
        "std": std.tolist(),
        "duplicates": find_duplicates(data, data.parts).as_dict(),
    }


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, exact in integers up to the division."""
    total = np.zeros(x.shape[3], np.int64)
    squares = np.zeros(x.shape[3], np.int64)
    for rows in spans(len(x), _BLOCK):
        block = x[rows].astype(np.int64)
        total += block.sum((0, 1, 2))
        squares += (block * block).sum((0, 1, 2))
    count = x.size // x.shape[3]
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))

"""Refusing images and tiles that are not finite, and finding the images that spoil a tile."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.data.dataset import to_unit_range
from advntk_dist.errors import GramBuildError
from advntk_dist.grid import Tile

_COLUMN = 1 << 48
"""Added to the numbers of column images that are not the row images."""


def require_finite(kind: str, tile: Tile, values: NDArray[Any], *, symmetric: bool) -> None:
    """Raise GramBuildError naming tile and images unless all values of a tile are finite."""
    finite = np.isfinite(values)
    if not finite.all():
        raise GramBuildError(
            f"tile ({tile.i}, {tile.j}) of {kind}: the kernel is not finite for "
            f"{_some(_culprits(finite, tile, symmetric))}; mend or drop it, or use float64"
        )


def _culprits(finite: NDArray[np.bool_], tile: Tile, symmetric: bool) -> list[str]:
    """The image with the most bad values, then the one with the most of the rest, and so on; lone pairs as pairs."""
    rows, cols = np.nonzero(~finite)
    rows, cols = rows + tile.row_start, cols + tile.col_start + (0 if symmetric else _COLUMN)
    found: list[str] = []
    while len(rows):
        images, counts = np.unique(np.concatenate([rows, cols]), return_counts=True)
        if counts.max() == 1:
            return found + [f"{_name(int(r))} with {_name(int(c))}" for r, c in zip(rows, cols, strict=True)]
        worst = images[counts.argmax()]
        found.append(_name(int(worst)))
        rest = (rows != worst) & (cols != worst)
        rows, cols = rows[rest], cols[rest]
    return found


def _name(image: int) -> str:
    return f"image {image}" if image < _COLUMN else f"column image {image - _COLUMN}"


def _some(items: list[str], limit: int = 8) -> str:
    """The first few of a list, and how many more there are."""
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")


def compute_images(images: NDArray[Any], tile: int, dtype: str) -> NDArray[Any]:
    """Images as floats in [-0.5, 0.5] of the dtype that kernels are computed in; uint8 is scaled in that dtype.

    Raises
    ------
    GramBuildError
        If an image holds values that are not finite; the message names images and tiles.
    DatasetError
        If the images are of another dtype or out of range.
    """
    if np.issubdtype(images.dtype, np.floating):
        bad = [k for k, image in enumerate(images) if not np.isfinite(image).all()]
        if bad:
            tiles = sorted({k // tile for k in bad})
            raise GramBuildError(
                f"image {_some([str(k) for k in bad])}: not finite, which would spoil the tiles of row and column "
                f"{_some([str(t) for t in tiles])}; mend or drop it"
            )
    elif images.dtype == np.uint8 and dtype == "float64":
        return images.astype(np.float64) / 255.0 - 0.5
    return to_unit_range(images).astype(dtype, copy=False)

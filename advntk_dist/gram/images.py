"""Images as the floats that kernels are computed from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.data.dataset import to_unit_range
from advntk_dist.errors import GramBuildError
from advntk_dist.gram.finite import some


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
                f"image {some([str(k) for k in bad])}: not finite, which would spoil the tiles of row and column "
                f"{some([str(t) for t in tiles])}; mend or drop it"
            )
    elif images.dtype == np.uint8 and dtype == "float64":
        return images.astype(np.float64) / 255.0 - 0.5
    return to_unit_range(images).astype(dtype, copy=False)

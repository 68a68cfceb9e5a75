"""From the arrays that scikit-learn's users have to images with pixels in [-0.5, 0.5]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.errors import RequestError
from advntk_dist.spec import parse_name


@dataclass(frozen=True)
class Pixels:
    """How the rows of a feature matrix become images; made on the training data.

    Attributes
    ----------
    shape
        (H, W, C) of an image.
    low, high
        Values that become -0.5 and 0.5; what lies outside is clipped.
    """

    shape: tuple[int, int, int]
    low: float
    high: float

    def images(self, rows: NDArray[Any]) -> NDArray[Any]:
        """(m, H, W, C) in [-0.5, 0.5], float32 for uint8 and float32 rows (m, features), else float64."""
        dtype = np.float64 if rows.dtype == np.float64 else np.float32
        scaled: NDArray[Any] = rows.astype(dtype)
        scaled -= self.low
        scaled /= self.high - self.low
        scaled -= 0.5
        return np.clip(scaled, -0.5, 0.5, out=scaled).reshape(len(rows), *self.shape)


def fit_pixels(
    rows: NDArray[Any],
    given_shape: tuple[int, ...] | None,
    image_shape: tuple[int, int, int] | None,
    pixel_range: tuple[float, float] | None,
    network: str,
) -> Pixels:
    """Decide shape and range.

    Parameters
    ----------
    rows
        Training data (n, features), finite.
    given_shape
        Shape of one row as the user gave it, before it was flattened; None for plain rows.
    image_shape, pixel_range
        What the user wants; None to decide here. The range of uint8 is (0, 255), that of other values (-0.5, 0.5) or
        (0, 1) where they lie within, and otherwise their smallest and largest.
    network
        Name of the network: convolutional ones need to know the shape.

    Raises
    ------
    RequestError
        If they do not fit the data.
    """
    features = rows.shape[1]
    shape = image_shape or given_shape
    if shape is None:
        known = parse_name(network)
        if known is None or known[0] != "mlp":
            raise RequestError(
                f"image_shape: {network} needs images; give X as (n, H, W, C), or image_shape=(H, W, C) for rows of "
                f"{features} features"
            )
        shape = (1, 1, features)
    if len(shape) != 3 or int(np.prod(shape)) != features:
        raise RequestError(f"image_shape: {tuple(shape)} is not an (H, W, C) with {features} features in all")
    low, high = _range(rows) if pixel_range is None else pixel_range
    if not (np.isfinite([low, high]).all() and low < high):
        raise RequestError(f"pixel_range: must be two finite numbers, the smaller first; got {pixel_range}")
    height, width, channels = (int(s) for s in shape)
    return Pixels((height, width, channels), float(low), float(high))


def _range(rows: NDArray[Any]) -> tuple[float, float]:
    if rows.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(rows.min()), float(rows.max())
    for known in ((-0.5, 0.5), (0.0, 1.0)):
        if known[0] <= low and high <= known[1]:
            return known
    return (low, high) if low < high else (low - 0.5, high + 0.5)

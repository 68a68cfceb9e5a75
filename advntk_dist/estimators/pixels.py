"""From the arrays that scikit-learn's users have to images with pixels in [-0.5, 0.5]."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.data.dataset import channels_first
from advntk_dist.errors import DatasetError, RequestError
from advntk_dist.spec import parse_name

WHITE = 255.0
_UNIT = ((0.0, 1.0), (-0.5, 0.5))
"""Scales of images of floats that are recognised, in the order in which they are tried."""
_BRIGHT = 100.0
"""Largest value from which floats within 0 to 255 are taken for images on that scale."""
_OUTLIERS = 0.01
"""Share of values outside of the range of the training data that is clipped without a word."""
_SLACK = 0.01
"""How far outside a value must be to count, as a part of the range."""


@dataclass(frozen=True)
class Pixels:
    """How the rows of a feature matrix become images; made on the training data.

    Attributes
    ----------
    shape
        (H, W, C) of an image.
    low, high
        Values that become -0.5 and 0.5; what lies outside is clipped.
    given
        Whether the user gave the range, and so says what the numbers mean; else it was found in the training data.
    bytes_wide
        Whether the training data are on the scale of 0 to 255.
    """

    shape: tuple[int, int, int]
    low: float
    high: float
    given: bool
    bytes_wide: bool

    def require_same_shape(self, given: tuple[int, ...] | None) -> None:
        """Raise DatasetError for images of another shape (H, W, C) than the training data; rows (None) have none.

        Training data that were rows without a shape have none either.
        """
        if given is None or given == self.shape or self.shape[:2] == (1, 1):
            return
        height, width, channels = self.shape
        mended = "; give X.transpose(0, 2, 3, 1)" if given == (channels, height, width) else ""
        raise DatasetError(f"X has images of shape {given}, but the classifier was fitted on {self.shape}{mended}")

    def require_same_scale(self, rows: NDArray[Any]) -> None:
        """Raise DatasetError for rows (m, features) on another scale of pixels than the training data.

        Nothing is checked where the user gave the range. Rows of which more than one value in a hundred lies outside
        of a range that was found, and will be clipped, are warned of.
        """
        if self.given or not rows.size:
            return
        low, high = float(rows.min()), float(rows.max())
        about = f"X has values from {low:.4g} to {high:.4g}, but the classifier was fitted on "
        remedy = (
            "; give X on the scale of the training data, or say by pixel_range=(low, high), before fit, that both are "
            "meant as they are"
        )
        if self.bytes_wide:
            fractions = low >= -1 and high <= 1 and not _whole(rows)
            if fractions or (self.high == WHITE and (low < 0 or high > WHITE)):
                raise DatasetError(f"{about}values from {self.low:.4g} to {self.high:.4g}{remedy}")
        elif self.high <= 1 < high <= WHITE and low >= 0 and _whole(rows):
            raise DatasetError(f"{about}floats from {self.low:.4g} to {self.high:.4g}{remedy}")
        slack = _SLACK * (self.high - self.low)
        outside = float(((rows < self.low - slack) | (rows > self.high + slack)).mean())
        if outside > _OUTLIERS:
            warnings.warn(
                f"{outside:.1%} of the values of X lie outside of {self.low:.4g} to {self.high:.4g}, the range of the "
                f"training data, and are clipped{remedy}",
                stacklevel=4,
            )

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
        What the user wants; None to decide here. The range of uint8 is (0, 255), that of other values (0, 1) or
        (-0.5, 0.5) where they lie within, and otherwise their smallest and largest.
    network
        Name of the network: convolutional ones need to know the shape.

    Raises
    ------
    RequestError
        If they do not fit the data, or the channels of images for a convolutional network come first.
    """
    features = rows.shape[1]
    shape = image_shape or given_shape
    known = parse_name(network)
    is_mlp = known is not None and known[0] == "mlp"
    if shape is None:
        if not is_mlp:
            raise RequestError(
                f"image_shape: {network} needs images; give X as (n, H, W, C), or image_shape=(H, W, C) for rows of "
                f"{features} features"
            )
        shape = (1, 1, features)
    given = "X" if image_shape is None else f"X.reshape(-1, {', '.join(map(str, image_shape))})"
    if not is_mlp and (wrong := channels_first((len(rows), *shape), given)) is not None:
        raise DatasetError(wrong + ("" if image_shape is None else ", without image_shape"))
    if len(shape) != 3 or int(np.prod(shape)) != features:
        raise RequestError(f"image_shape: {tuple(shape)} is not an (H, W, C) with {features} features in all")
    low, high = _range(rows) if pixel_range is None else pixel_range
    if not (np.isfinite([low, high]).all() and low < high):
        raise RequestError(f"pixel_range: must be two finite numbers, the smaller first; got {pixel_range}")
    height, width, channels = (int(s) for s in shape)
    wide = rows.dtype == np.uint8 or (low >= 0 and 1 < high <= WHITE and (high > _BRIGHT or _whole(rows)))
    return Pixels((height, width, channels), float(low), float(high), pixel_range is not None, bool(wide))


def _range(rows: NDArray[Any]) -> tuple[float, float]:
    if rows.dtype == np.uint8:
        return 0.0, WHITE
    low, high = float(rows.min()), float(rows.max())
    for known in _UNIT:
        if known[0] <= low and high <= known[1]:
            return known
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _whole(rows: NDArray[Any]) -> bool:
    """Whether all values are whole numbers."""
    return rows.dtype.kind != "f" or bool(np.equal(rows, np.rint(rows)).all())

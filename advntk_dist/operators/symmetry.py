"""Refusing arrays that are no Gram matrices."""

from __future__ import annotations

from typing import Any

from advntk_dist.errors import RequestError

SYMMETRIC_TO = 1e-3
"""Largest difference of mirrored entries that is taken for rounding, relative to the largest entry: float32 kernels of
nearly equal images differ by that much between processors."""


def not_a_matrix(theta: Any) -> RequestError:
    """The error that names an array's shape and dtype."""
    return RequestError(f"a Gram matrix is a square array of floats, got shape {theta.shape} and dtype {theta.dtype}")


def require_symmetric(gap: float, scale: float) -> None:
    """Raise RequestError if mirrored entries differ by up to ``gap``, more than rounding of the largest, ``scale``."""
    if gap > SYMMETRIC_TO * scale:
        raise RequestError(
            f"a Gram matrix is symmetric; mirrored entries of this one differ by up to {gap:.3g} (largest entry "
            f"{scale:.3g}); give the kernel of the training images with themselves"
        )

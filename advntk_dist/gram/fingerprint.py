"""What a Gram store was made of: images and their order, network, numbers, tiles. Two that differ never mix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.data.dataset import fingerprint_images
from advntk_dist.errors import RequestError, StoreMismatchError

if TYPE_CHECKING:
    from advntk_dist.networks import Network

FORMAT = 2
"""Version of the store's layout."""

SIZES = ("n", "images", "n_columns", "columns", "gram.tile")
"""Fields that change as a store grows."""

DTYPES = ("float32", "float64")
KINDS = ("ntk", "nngp")

Fingerprint = dict[str, Any]
"""Plain JSON values; keys with a dot are those of the configuration."""


def make_fingerprint(
    net: Network,
    x: NDArray[Any],
    *,
    tile: int,
    dtype: str = "float32",
    kinds: tuple[str, ...] = ("ntk",),
    columns: NDArray[Any] | None = None,
) -> Fingerprint:
    """Fingerprint of the Gram matrix of images x (n, H, W, C), or of the rectangular kernel k(x, columns).

    Raises
    ------
    RequestError
        If tile, dtype or kinds are not possible, or the images of rows and columns differ in shape.
    """
    # Imported here, where the network has loaded them: a process that only opens a store starts a second sooner.
    from advntk_dist.kernels.scope import MATMUL_PRECISION
    from advntk_dist.neural_tangents_adapter import VERSION

    check_request(tile, dtype, kinds)
    if x.ndim != 4 or len(x) == 0:
        raise RequestError(f"images have shape {x.shape}; a Gram matrix needs (n, H, W, C) with n at least 1")
    if columns is not None and (columns.shape[1:] != x.shape[1:] or len(columns) == 0):
        raise RequestError(f"column images have shape {columns.shape}, row images {x.shape}; give the same H, W, C")
    n_columns = len(x) if columns is None else len(columns)
    return {
        "format": FORMAT,
        "kinds": [k for k in KINDS if k in kinds],
        "network.name": net.spec.name,
        "network.W_std": net.spec.W_std,
        "network.b_std": net.spec.b_std,
        "network.activation": net.spec.activation,
        "backend": net.backend.name,
        "neural_tangents": VERSION,
        "matmul_precision": MATMUL_PRECISION,
        "gram.dtype": dtype,
        "gram.tile": min(tile, max(len(x), n_columns)),
        "image_shape": list(x.shape[1:]),
        "n": len(x),
        "images": fingerprint_images(x),
        "n_columns": n_columns,
        "columns": None if columns is None else fingerprint_images(columns),
    }


def check_request(tile: int, dtype: str, kinds: tuple[str, ...]) -> None:
    """Raise RequestError unless tile >= 1, dtype and kinds are among DTYPES and KINDS."""
    if isinstance(tile, bool) or not isinstance(tile, int | np.integer) or tile < 1:
        raise RequestError(f"gram.tile is {tile!r}; it must be a whole number of at least 1")
    if dtype not in DTYPES:
        raise RequestError(f"gram.dtype is {dtype!r}; there are {', '.join(DTYPES)}")
    if not kinds or len(set(kinds)) != len(kinds) or not set(kinds) <= set(KINDS):
        raise RequestError(f"kinds are {tuple(kinds)!r}; give one or both of {', '.join(KINDS)}, each once")


def require_same(where: str, stored: Fingerprint, requested: Fingerprint) -> None:
    """Raise StoreMismatchError naming the first field in which two fingerprints differ."""
    for field, value in requested.items():
        if field not in stored or not _same(stored[field], value):
            raise StoreMismatchError(where, field, stored.get(field), value)


def _same(a: object, b: object) -> bool:
    # JSON keeps every float64 exactly, NaN never occurs in a valid spec; 1 and 1.0 are the same standard deviation.
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))

"""The ARK of any neural-tangents network, from central differences of its NNGP kernel.

For each input coordinate, E[(f(x + h e) - f(x - h e))^2] / (2 h)^2 = (k(+, +) - 2 k(+, -) + k(-, -)) / (2 h)^2 tends to
E[(d f / d x_e)^2]. It needs no derivative of the kernel, which is not a number at equal images for ReLU. Three steps
h, h/2, h/4 and Richardson extrapolation remove the terms in h (there with ReLU) and h^2; the extrapolation from two of
them says how far to trust the result.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from advntk_dist.errors import NetworkError
from advntk_dist.grid import spans
from advntk_dist.kernels.scope import kernel_scope

STEP = 2.0**-9
TOLERANCE = 1e-3
"""Relative difference of two extrapolations above which the ARK is refused."""
_DIRECTIONS = 256


def ark_from_differences(name: str, kernel_fn: Any, x: NDArray[Any]) -> NDArray[np.float64]:
    """Theta_x(x, x) (n,) float64 at images x (n, H, W, C), one image at a time.

    Where the network is not differentiable (ReLU without biases at an all-zero image) the limit of central differences.

    Raises
    ------
    NetworkError
        If the differences do not converge, or are not finite.
    """
    out = np.empty(len(x))
    with kernel_scope():
        for i, image in enumerate(np.asarray(x, dtype=np.float64)):
            sums = [_sum_of_squares(kernel_fn, image, STEP / 2**level) for level in range(3)]
            first = [2 * fine - coarse for coarse, fine in pairwise(sums)]
            value = (4 * first[1] - first[0]) / 3
            if not np.isfinite(value) or abs(value - first[1]) > TOLERANCE * abs(value):
                raise NetworkError(
                    f"network.name: the input gradient of {name!r} has no finite variance at image {i} (differences of "
                    f"its kernel give {first[1]:.6g}, then {value:.6g}); use a network whose outputs are differentiable"
                )
            out[i] = value
    return out


@partial(jax.jit, static_argnums=0)
def _differences(kernel_fn: Any, image: jax.Array, directions: jax.Array) -> jax.Array:
    def of_one(direction: jax.Array) -> jax.Array:
        plus, minus = (image + direction)[None], (image - direction)[None]
        both = jnp.concatenate([plus, minus])
        k = kernel_fn(both, both, "nngp")
        return k[0, 0] - k[0, 1] - k[1, 0] + k[1, 1]

    return jax.vmap(of_one)(directions)


def _sum_of_squares(kernel_fn: Any, image: NDArray[np.float64], step: float) -> float:
    total = 0.0
    for span in spans(image.size, _DIRECTIONS):
        rows = step * np.eye(span.stop - span.start, image.size, k=span.start)
        total += float(_differences(kernel_fn, image, rows.reshape(-1, *image.shape)).sum())
    return total / (2 * step) ** 2

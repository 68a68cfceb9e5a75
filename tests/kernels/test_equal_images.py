"""Equal and nearly equal images, whatever a processor's matrix product rounds to.

What other processors do is played here: inner products are off by a given number of units of rounding.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.kernels.xla import XlaBackend, dense
from advntk_dist.kernels.xla.dense import keys
from tests.kernels import unoptimised

Array = NDArray[Any]

DEPTH, W_STD, B_STD, SHAPE = 3, 1.76, 0.18, (6, 5, 3)
LEFT, RIGHT = 24, 36
SIZE = SHAPE[0] * SHAPE[1] * SHAPE[2]
UNITS = 500
"""More units of rounding than any product of this size is off by."""
WORST = SIZE / 2 + 16
"""Units of rounding that an inner product of so many numbers can be off by."""
_jit: Any = partial(jax.jit, compiler_options=unoptimised.options())


def images(seed: int, n: int) -> Array:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n, *SHAPE)).astype(np.float32)


def closed_form(x: Array) -> Array:
    """NTK of each image with itself: both arc-cosine kernels are 1."""
    w, b = W_STD**2, B_STD**2
    nngp = w * (x.astype(np.float64) ** 2).mean(axis=(1, 2, 3)) + b
    ntk = nngp
    for _ in range(DEPTH - 1):
        nngp = w / 2 * nngp + b
        ntk = nngp + w / 2 * ntk
    return np.asarray(ntk)


def off_by(monkeypatch: pytest.MonkeyPatch, units: float, dtype: Any = np.float32) -> None:
    """Inner products that are too large by so many units in one row, too small in the next."""
    exact, size = dense.inner_products, units * float(np.finfo(dtype).eps)

    def rounded(one: jax.Array, other: jax.Array) -> jax.Array:
        signs = (-1.0) ** jnp.arange(one.shape[0])[:, None]
        of_norms = jnp.sqrt(jnp.square(one).sum(axis=1)[:, None] * jnp.square(other).sum(axis=1))
        return (exact(one, other) + size * signs * of_norms).astype(one.dtype)

    monkeypatch.setattr(dense, "inner_products", rounded)


class Answers:
    """All that a backend computes for two sets of images; coefficients are the identity, so that all is of the tile."""

    def __init__(self, a: Array, b: Array) -> None:
        backend, weight = (
            XlaBackend("mlp", DEPTH, W_STD, B_STD),
            np.random.default_rng(9).standard_normal((LEFT, RIGHT)),
        )

        def every(x: jax.Array, z: jax.Array, c: jax.Array, u: jax.Array) -> Any:
            prepared = backend.prepare(z)
            combined, residual = backend.combine(x, prepared, c)
            slopes = [backend.combine_vjp(x, prepared, c, u, left) for left in (residual, None)]
            tile, slope = backend.tile_vjp(x, prepared, u.astype(x.dtype))
            return (backend.tile(x, prepared, "ntk"), tile, combined), (slope, *slopes)

        with kernel_scope():
            tiles, slopes = _jit(every)(jnp.asarray(a), jnp.asarray(b), jnp.eye(RIGHT, dtype=jnp.float64), weight)
        self.tiles = {name: np.asarray(t) for name, t in zip(("tile", "tile_vjp", "combine"), tiles, strict=True)}
        self.slopes = {name: np.asarray(t) for name, t in zip(("tile_vjp", "combine_vjp", "anew"), slopes, strict=True)}


def test_equal_images_have_their_closed_form_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = images(0, LEFT), images(1, RIGHT)
    a[7] = a[6]
    a[8] = 0.0
    a[9] = 0.5  # equal terms: rounding has a direction
    b[3 : 3 + LEFT] = a
    b[30:33] = a[5]
    b[34] = -0.0
    exact = Answers(a.astype(np.float64), b.astype(np.float64))
    off_by(monkeypatch, UNITS)
    found = Answers(a, b)
    equal = (a.reshape(LEFT, 1, -1) == b.reshape(1, RIGHT, -1)).all(axis=2)
    assert equal.sum() == LEFT + 2 + 3 + 1
    expected = np.broadcast_to(closed_form(a)[:, None], equal.shape)[equal]
    for name, tile in found.tiles.items():
        np.testing.assert_allclose(tile[equal], expected, rtol=1e-6, err_msg=name)
    for name, gradient in found.slopes.items():
        reference = exact.slopes[name]
        assert np.linalg.norm(gradient - reference) <= 6e-4 * np.linalg.norm(reference), name


@pytest.mark.parametrize(("b_std", "sign"), [(B_STD, 1), (0.0, -1)])
def test_nearly_equal_images_keep_to_the_bound(monkeypatch: pytest.MonkeyPatch, b_std: float, sign: int) -> None:
    """The bound of the module ``chain``, at its worst: products are off by all that their sum can be off by."""
    b = images(2, RIGHT)
    a = b[:LEFT].copy()
    a[:8, 0, 0, 0] = np.nextafter(a[:8, 0, 0, 0], np.float32(1))
    a[8:16] = np.nextafter(a[8:16], np.float32(0))
    a[16:] += 10.0 ** -np.arange(2, 10)[:, None, None, None] * images(3, 8)
    a *= sign
    backend = XlaBackend("mlp", DEPTH, W_STD, b_std)

    def tile(x: Array, z: Array, dtype: Any) -> Array:
        with kernel_scope():
            f = _jit(lambda x, z: backend.tile(x, backend.prepare(z), "ntk"))
            return np.asarray(f(jnp.asarray(x, dtype), jnp.asarray(z, dtype)))

    exact = tile(a, b, np.float64)
    norms = np.sqrt(np.diagonal(tile(b, b, np.float64)))  # those of a differ by little
    bound = (DEPTH - 1) * np.arccos(1 - (SIZE / 2 + 32) * float(np.finfo(np.float32).eps)) / np.pi
    off_by(monkeypatch, WORST)
    error = np.abs(tile(a, b, np.float32) - exact) / np.outer(norms[:LEFT], norms)
    assert error.max() <= bound
    # Opposite images are so in the first layer alone, where the NTK is small.
    assert error.max() > bound / (4 if sign == 1 else 200)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keys_tell_images_apart(dtype: Any) -> None:
    """Images of two values, the hardest for a sum, and of which many are a few pixels apart."""
    n, d = 20_000, 50
    x = np.where(np.random.default_rng(4).random((n, d)) < 0.5, -0.5, 0.5).astype(dtype)
    x[: n // 2] = x[n // 2 :]
    flipped = np.random.default_rng(5).random((n // 2, d)) < 0.05
    x[: n // 2][flipped] *= -1
    different = len(np.unique(x, axis=0))
    assert different < n, "no flip in some: equal rows"
    with kernel_scope():
        found = np.asarray(jax.jit(keys)(jnp.asarray(x)))
        alone = np.asarray(jax.jit(keys)(jnp.asarray(x[7:8])))
        zeros = np.asarray(keys(jnp.asarray([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]], dtype)))
    assert found.dtype == np.uint32
    assert len(np.unique(found)) == different
    assert alone[0] == found[7]
    assert zeros[0] == zeros[1] != zeros[2]

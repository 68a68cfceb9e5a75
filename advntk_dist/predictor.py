"""The kernel predictor f(x) = Theta(x, X) c: values and exact input gradients, tile by tile."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.data.dataset import to_unit_range
from advntk_dist.grid import spans
from advntk_dist.kernels.compiled import pad_rows, stack_blocks
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.networks import Network

_BLOCK_LIMIT = 2048
"""Training images that meet a batch of attacked ones at once, at most."""


class KernelPredictor:
    """A predictor that attacks can differentiate.

    Training images are prepared once and stay on the device; batches and training blocks are padded to fixed
    shapes, so that each function compiles once. Kernels are computed in the dtype of the training images,
    and meet the coefficients in float64.

    Parameters
    ----------
    net
        The network.
    x_train
        Training images (n, H, W, C): uint8, or floats in [-0.5, 0.5].
    coefficients
        c, (n, k), from :meth:`ATDynamics.coefficients`.
    batch
        Images that go through at once.

    Raises
    ------
    ValueError
        If the coefficients do not have one finite row per training image.
    """

    def __init__(self, net: Network, x_train: ArrayLike, coefficients: ArrayLike, *, batch: int = 128) -> None:
        x = to_unit_range(np.asarray(x_train))
        self.net, self.n, self.batch = net, len(x), batch
        self.image_shape, self.dtype = x.shape[1:], x.dtype
        square = net.compiled.block_edge(self.image_shape, x.itemsize)
        limit = min(_BLOCK_LIMIT, max(8, square * square // batch))
        blocks = -(-self.n // limit)
        self._block = -(-self.n // (8 * blocks)) * 8
        self._prepared = net.compiled.prepare(x, self._block)
        self._set(coefficients)

    def with_coefficients(self, coefficients: ArrayLike) -> KernelPredictor:
        """The same predictor with other coefficients; the prepared training images are shared."""
        other = object.__new__(KernelPredictor)
        other.__dict__.update(self.__dict__)
        other._set(coefficients)
        return other

    def _set(self, coefficients: ArrayLike) -> None:
        c = np.asarray(coefficients, dtype=np.float64)
        if c.ndim != 2 or len(c) != self.n or not np.isfinite(c).all():
            raise ValueError(f"coefficients must be {self.n} finite rows, got shape {c.shape}")
        self.outputs = c.shape[1]
        padded = stack_blocks(c, self._block)
        padded.reshape(-1, self.outputs)[self.n :] = 0.0
        with kernel_scope():
            self._coefficients = jnp.asarray(padded)

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        """f(x), (m, k) float64, for images x (m, H, W, C)."""
        images = self._images(x)
        out = np.empty((len(images), self.outputs))
        for s in spans(len(images), self.batch):
            batch = pad_rows(images[s], self.batch)
            out[s] = self.net.compiled.predict(batch, self._prepared, self._coefficients)[: s.stop - s.start]
        return out

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> NDArray[Any]:
        """d sum(cotangent * f(x)) / d x, shaped as x, for a cotangent (m, k)."""
        images = self._images(x)
        u = np.asarray(cotangent, dtype=np.float64)
        if u.shape != (len(images), self.outputs):
            raise ValueError(f"cotangent has shape {u.shape}, f(x) {(len(images), self.outputs)}")
        out = np.empty_like(images)
        for s in spans(len(images), self.batch):
            batch, weight = pad_rows(images[s], self.batch), np.zeros((self.batch, self.outputs))
            weight[: s.stop - s.start] = u[s]
            grad = self.net.compiled.pull_back(batch, self._prepared, self._coefficients, weight)
            out[s] = grad[: s.stop - s.start]
        return out

    def _images(self, x: ArrayLike) -> NDArray[Any]:
        images = to_unit_range(np.asarray(x)).astype(self.dtype, copy=False)
        if images.shape[1:] != self.image_shape:
            raise ValueError(f"images have shape {images.shape[1:]}, the training images {self.image_shape}")
        return images

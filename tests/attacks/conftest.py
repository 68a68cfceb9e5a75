"""Toy predictors with gradients that can be written down."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import DifferentiablePredictor

Array = NDArray[np.float64]


class Quadratic(DifferentiablePredictor):
    """f_k(x) = w_k . x + 1/2 x^T A_k x on flattened images; counts its gradient calls."""

    def __init__(self, shape: tuple[int, ...], outputs: int, seed: int, curvature: float) -> None:
        rng = np.random.default_rng(seed)
        size = int(np.prod(shape))
        self.linear = rng.standard_normal((outputs, size))
        a = rng.standard_normal((outputs, size, size)) * curvature / size**0.5
        self.quadratic = (a + a.transpose(0, 2, 1)) / 2
        self.gradient_calls = 0

    def predict(self, x: ArrayLike) -> Array:
        flat = np.asarray(x, np.float64).reshape(len(np.asarray(x)), -1)
        return np.asarray(flat @ self.linear.T + 0.5 * ((flat @ self.quadratic) * flat).sum(axis=-1).T)

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> NDArray[np.float64]:
        self.gradient_calls += 1
        images = np.asarray(x)
        flat = images.reshape(len(images), -1).astype(np.float64)
        slopes = self.linear[:, None] + flat @ self.quadratic  # (k, m, pixels)
        return np.asarray(
            np.einsum("mk,kmi->mi", np.asarray(cotangent), slopes).reshape(images.shape).astype(images.dtype)
        )


@pytest.fixture
def quadratic() -> Callable[..., Quadratic]:
    def make(shape: tuple[int, ...] = (4, 4, 1), outputs: int = 3, seed: int = 0, curvature: float = 1.0) -> Quadratic:
        return Quadratic(shape, outputs, seed, curvature)

    return make

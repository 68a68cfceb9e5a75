"""Digits with a predictor on them, and predictors that hide behind gradients of their own making."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.config import AttackConfig
from advntk_dist.data import load_dataset
from advntk_dist.evaluation.examined_predictor import ExaminedPredictor
from advntk_dist.networks import network
from advntk_dist.predictor import KernelPredictor

N, M = 200, 40  # as in the small run of tests/pipeline, with which compiled functions are shared
Array = NDArray[Any]


class Masked(DifferentiablePredictor):
    """A predictor of the same outputs with gradients of its own making."""

    outputs = 10

    def __init__(self, inner: KernelPredictor, gradient: Callable[[Array, Array], Array]) -> None:
        self.inner, self.gradient = inner, gradient

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        return self.inner.predict(x)

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> Array:
        return self.gradient(np.asarray(x), self.inner.vjp(x, cotangent))


class Bright(DifferentiablePredictor):
    """Says class 1 for bright pixels."""

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        bright = np.asarray(x, np.float64).ravel()
        return np.stack([-bright, bright], axis=1)

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> Array:
        u = np.asarray(cotangent)
        return np.asarray((u[:, 1] - u[:, 0]).reshape(np.shape(x)))


def none(_: Array, g: Array) -> Array:
    """No gradient."""
    return np.zeros_like(g)


class Problem:
    """Digits, and predictors on 200 of them, in float32 and float64."""

    def __init__(self) -> None:
        data = load_dataset("digits")
        self.net, self.attack = network("mlp-2"), AttackConfig(radius=0.15)
        x = data.x.astype(np.float64) / 255 - 0.5
        self.x_train, self.x, self.y = x[:N], x[N : N + M].astype(np.float32), data.y[N : N + M]
        self.more, self.y_more = x[N : N + M + 15].astype(np.float32), data.y[N : N + M + 15]
        theta = np.asarray(self.net.ntk(self.x_train, self.x_train), np.float64)
        self.c = np.linalg.solve(theta + 0.3 * np.eye(N), np.eye(10)[data.y[:N]])
        self.predictor = KernelPredictor(self.net, self.x_train.astype(np.float32), self.c, batch=M)
        self.exact = KernelPredictor(self.net, self.x_train, self.c, batch=8)

    def masked(self, gradient: Callable[[Array, Array], Array]) -> ExaminedPredictor:
        """The predictor under examination with gradients gradient(x, true gradient)."""
        return ExaminedPredictor(Masked(self.predictor, gradient), self.x, self.y, self.attack)


@pytest.fixture(scope="session")
def problem() -> Problem:
    return Problem()


@pytest.fixture(scope="module")
def honest(problem: Problem) -> ExaminedPredictor:
    return ExaminedPredictor(problem.predictor, problem.x, problem.y, problem.attack)

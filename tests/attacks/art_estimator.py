"""A predictor as the Adversarial Robustness Toolbox sees it, and our random starts in place of the library's."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Slope = Callable[[Any, Any], Any]
"""Called with outputs (m, k) and one-hot labels (m, k): the slope (m, k) of a loss in the outputs."""


def toolbox() -> Any:
    """The library's attacks; skips the test where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says which frameworks it did not find
        pytest.importorskip("art", reason="needs adversarial-robustness-toolbox")
        return importlib.import_module("art.attacks.evasion")


def squared_error(f: Any, y: Any) -> Any:
    """Slope of 1/2 || f - y ||^2."""
    return f - y


def best_wrong(f: Any, y: Any) -> Any:
    """Slope of max_{j != y} f_j - f_y."""
    wrong = np.where(y > 0, -np.inf, f).argmax(axis=1)
    return np.eye(f.shape[1])[wrong] - y


def estimator(predictor: Any, shape: tuple[int, ...], classes: int, slope: Slope = squared_error) -> Any:
    """The predictor on images of a shape (H, W, C), with the gradient of a loss; ``asked`` has the points of all."""
    p = importlib.import_module("art.estimators.estimator")
    c = importlib.import_module("art.estimators.classification.classifier")

    class Estimator(p.NeuralNetworkMixin, p.BaseEstimator, p.LossGradientsMixin, c.ClassifierMixin):  # type: ignore[misc,name-defined]
        nb_classes = classes

        def __init__(self) -> None:
            super().__init__(model=None, clip_values=(-0.5, 0.5), channels_first=False)
            self.asked: list[NDArray[np.float32]] = []

        @property
        def input_shape(self) -> tuple[int, ...]:
            return shape

        def predict(self, x: Any, **_: Any) -> Any:
            return predictor.predict(x)

        def loss_gradient(self, x: Any, y: Any, **_: Any) -> Any:
            self.asked.append(np.array(x))
            return predictor.vjp(x, slope(predictor.predict(x), y))

        def compute_loss(self, x: Any, y: Any, **_: Any) -> Any:
            return 0.5 * ((predictor.predict(x) - y) ** 2).sum(axis=1)

        def fit(self, *_: Any, **__: Any) -> None:
            raise AssertionError("nothing is trained")

        def get_activations(self, *_: Any) -> None:
            raise AssertionError("no layers")

    return Estimator()


def start_at(monkeypatch: pytest.MonkeyPatch, module: str, step: Any) -> None:
    """Let the random perturbation of a module of the library be ours, (m, H, W, C)."""
    flat = step.reshape(len(step), -1)
    monkeypatch.setattr(
        importlib.import_module(f"art.attacks.evasion.{module}"), "random_sphere", lambda n, *_: flat[:n]
    )


def exact_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library project onto the l1 ball exactly, as it can, and not shrink what is outside, as it does."""
    module = importlib.import_module("art.attacks.evasion.fast_gradient")
    monkeypatch.setattr(module, "projection", partial(module.projection, suboptimal=False))

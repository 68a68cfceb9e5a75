"""PGD and Auto-PGD against those of the Adversarial Robustness Toolbox, on a toy predictor from the same starts."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.attacks import apgd, pgd
from advntk_dist.attacks.climb import checkpoints
from advntk_dist.attacks.geometry import random_start

Make = Callable[..., Any]
M, SHAPE, K = 12, (4, 4, 1), 4
X = np.random.default_rng(4).uniform(-0.45, 0.45, (M, *SHAPE)).astype(np.float32)
DARK = X / 5
"""Far from the edges of the pixel range: in l2 the library cuts to the range before the ball, we after it."""
NORMS = [("linf", np.inf, 0.1), ("l2", 2, 0.15)]


@pytest.fixture(scope="module")
def art() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says which frameworks it did not find
        return pytest.importorskip("art", reason="needs adversarial-robustness-toolbox")


def _estimator(predictor: Any) -> Any:
    """The predictor as the library sees it, with the squared error as its loss."""
    parts = importlib.import_module("art.estimators.estimator")
    classifier = importlib.import_module("art.estimators.classification.classifier")

    class Estimator(parts.BaseEstimator, parts.LossGradientsMixin, classifier.ClassifierMixin):  # type: ignore[misc,name-defined]
        nb_classes = K

        def __init__(self) -> None:
            super().__init__(model=None, clip_values=(-0.5, 0.5))
            self.asked: list[NDArray[np.float32]] = []

        @property
        def input_shape(self) -> tuple[int, ...]:
            return SHAPE

        def predict(self, x: Any, **_: Any) -> Any:
            return predictor.predict(x)

        def loss_gradient(self, x: Any, y: Any, **_: Any) -> Any:
            self.asked.append(np.array(x))
            return predictor.vjp(x, predictor.predict(x) - y)

        def compute_loss(self, x: Any, y: Any, **_: Any) -> Any:
            return 0.5 * ((predictor.predict(x) - y) ** 2).sum(axis=1)

        def fit(self, *_: Any, **__: Any) -> None:
            raise AssertionError("nothing is trained")

        def get_activations(self, *_: Any) -> None:
            raise AssertionError("no layers")

    return Estimator()


def _start_at(monkeypatch: pytest.MonkeyPatch, module: str, step: Any) -> None:
    """Let the library's random perturbation be ours."""
    monkeypatch.setattr(importlib.import_module(module), "random_sphere", lambda n, *_: step.reshape(M, -1)[:n])


@pytest.mark.parametrize(("norm", "theirs", "radius"), NORMS)
@pytest.mark.parametrize("seed", range(4))
def test_pgd_equals_the_library(
    art: Any, quadratic: Make, monkeypatch: pytest.MonkeyPatch, norm: Any, theirs: Any, radius: float, seed: int
) -> None:
    predictor = quadratic(SHAPE, K, seed, 3.0)
    x = X if norm == "linf" else DARK
    y = np.random.default_rng(seed).integers(0, K, M)
    _start_at(monkeypatch, "art.attacks.evasion.fast_gradient", random_start(x, radius, norm, seed, None) - x)
    library = importlib.import_module("art.attacks.evasion").ProjectedGradientDescentNumpy
    attack = library(
        _estimator(predictor),
        norm=theirs,
        eps=radius,
        eps_step=radius / 5,
        max_iter=20,
        num_random_init=1,
        verbose=False,
    )
    expected = attack.generate(x, np.eye(K)[y])
    assert np.abs(expected - x).max() > 0.5 * radius / (1 if norm == "linf" else 4)
    ours = pgd(predictor, x, y, radius=radius, steps=20, norm=norm, seed=seed)
    np.testing.assert_allclose(ours, expected, atol=2e-6)


class Recorder:
    """Which points an attack takes gradients at."""

    def __init__(self, predictor: Any) -> None:
        self.predict, self._vjp = predictor.predict, predictor.vjp
        self.asked: list[Any] = []

    def vjp(self, x: Any, cotangent: Any) -> Any:
        self.asked.append(np.array(x))
        return self._vjp(x, cotangent)


@pytest.mark.parametrize(("norm", "theirs", "radius"), NORMS)
@pytest.mark.parametrize("seed", range(3))
def test_apgd_takes_the_steps_of_the_library(
    art: Any, quadratic: Make, monkeypatch: pytest.MonkeyPatch, norm: Any, theirs: Any, radius: float, seed: int
) -> None:
    """Up to the first checkpoint: from there on the library counts new best points, the paper points that rise."""
    predictor = quadratic(SHAPE, K, seed, 3.0)
    predictor.linear[0] *= 0.01
    x = X if norm == "linf" else DARK
    steps, y = 50, np.zeros(M, np.int64)
    inner = predictor.predict
    predictor.predict = lambda x: inner(x) + 1e3 * np.eye(K)[0]  # no image is misclassified, so that all take all steps
    start = random_start(x, radius, norm, seed, None) - x
    _start_at(monkeypatch, "art.attacks.evasion.auto_projected_gradient_descent", start)
    library = importlib.import_module("art.attacks.evasion").AutoProjectedGradientDescent
    estimator, ours = _estimator(predictor), Recorder(predictor)
    attack = library(
        estimator, norm=theirs, eps=radius, eps_step=2 * radius, max_iter=steps, nb_random_init=1, verbose=False
    )
    attack.generate(x, np.eye(K)[y])
    apgd(ours, x, y, radius=radius, steps=steps, norm=norm, seed=seed, loss="squared-error")
    first = checkpoints(steps)[0]
    assert first == 11
    for step, (ours_at, theirs_at) in enumerate(
        zip(ours.asked[: first + 1], estimator.asked[: first + 1], strict=True)
    ):
        np.testing.assert_allclose(ours_at, theirs_at, atol=5e-6, err_msg=f"step {step}")
    assert np.abs(ours.asked[first] - ours.asked[0]).max() > 1e-2


@pytest.mark.parametrize(("norm", "theirs", "radius"), NORMS)
def test_apgd_is_not_weaker_than_the_library(
    art: Any, quadratic: Make, monkeypatch: pytest.MonkeyPatch, norm: Any, theirs: Any, radius: float
) -> None:
    """From the same starts, with the same loss, over several predictors together."""
    size, wrong = radius / 3, []
    library = importlib.import_module("art.attacks.evasion").AutoProjectedGradientDescent
    for seed in range(8):
        predictor = quadratic(SHAPE, K, seed, 6.0)
        y = predictor.predict(X).argmax(axis=1)
        start = random_start(X, size, norm, seed, None)
        _start_at(monkeypatch, "art.attacks.evasion.auto_projected_gradient_descent", start - X)
        options = {"norm": theirs, "eps": size, "eps_step": 2 * size, "max_iter": 40, "nb_random_init": 1}
        expected = library(_estimator(predictor), verbose=False, **options).generate(X, np.eye(K)[y])
        ours = apgd(predictor, X, y, radius=size, steps=40, norm=norm, seed=seed, loss="squared-error")
        wrong.append([(predictor.predict(a).argmax(axis=1) != y).sum() for a in (ours, expected)])
    ours_wrong, their_wrong = np.sum(wrong, axis=0)
    assert 0 < their_wrong < 8 * M
    assert ours_wrong >= their_wrong

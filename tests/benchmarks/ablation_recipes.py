"""Recipes that exist for the ablation alone: cross-fit and the paper's with one thing changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import optax
from numpy.typing import NDArray

from advntk_dist.attacks.geometry import Images
from advntk_dist.dynamics import ATDynamics
from advntk_dist.predictor import KernelPredictor
from advntk_dist.training import CrossFitRecipe, PaperRecipe, StepRecord
from advntk_dist.training.cross_fit import MEMORY, SoftError, soft_error
from advntk_dist.training.optimiser import Optimiser

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Error = Callable[[Array, Labels], SoftError]
Projection = Callable[[Array], Array]

SMALLEST = 1e-12
"""Of |a|, where its logarithm is taken."""


class Varied(CrossFitRecipe):
    """Cross-fit with another loss, with shared parameters, drawn towards one uniform time, or with steps of one length.

    Parameters
    ----------
    *arguments, **keywords
        Those of :class:`CrossFitRecipe`.
    error
        The loss.
    projection
        Orthogonal projection of gradients (n,) on what parameters can change: steps of orthonormal parameters.
    pull
        Weight p of p/2 x the mean of (a - mean a)^2 in the loss.
    constant
        Whether steps keep their first length.
    """

    def __init__(
        self,
        *arguments: Any,
        error: Error = soft_error,
        projection: Projection = np.asarray,
        pull: float = 0.0,
        constant: bool = False,
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        self._error, self._projection, self._pull, self._constant = error, projection, pull, constant

    @cached_property
    def optimiser(self) -> Optimiser:
        """Cross-fit's, or the same without a schedule."""
        if not self._constant:
            return super().optimiser
        n = len(self._x)
        normalised = optax.normalize_by_update_norm(scale_factor=1.0, eps=1e-30)
        running = optax.ema(MEMORY, debias=False)
        return Optimiser(optax.chain(running, normalised, optax.scale(-self._lr * np.sqrt(n))), n)

    def error(self, outputs: Array, labels: Labels) -> SoftError:
        """The variant's loss."""
        return self._error(outputs, labels)

    def examine(
        self, step: int, a: Array, dynamics: ATDynamics, predictor: KernelPredictor
    ) -> tuple[StepRecord, Array]:
        """The step of cross-fit, its gradient changed."""
        record, gradient = super().examine(step, a, dynamics, predictor)
        return record, self._projection(gradient + self._pull * (a - a.mean()) / len(a))


class Absolute(Varied):
    """varpi = |a|, from a = the uniform time; ``lr`` is the root mean square of the first change of a."""

    def start(self) -> Array:
        """The uniform time, (n,)."""
        return np.full(len(self._x), self._time())

    def varpi(self, a: Array) -> Array:
        """|a|, (n,)."""
        return np.abs(a)

    def examine(
        self, step: int, a: Array, dynamics: ATDynamics, predictor: KernelPredictor
    ) -> tuple[StepRecord, Array]:
        """d/da = (d / d log |a|) / a."""
        a = np.where(a < 0, -1.0, 1.0) * np.maximum(np.abs(a), SMALLEST)
        record, gradient = super().examine(step, np.log(np.abs(a)), dynamics, predictor)
        return record, gradient / a


class OnValidation(Varied):
    """No cross-fitting: nothing is left out, and each step attacks validation images, as many as a fold has."""

    def held_out(self, step: int) -> tuple[NDArray[np.bool_], Images, Labels, Labels]:
        """What every second step of cross-fit sees where it has validation images."""
        return super().held_out(2 * step)


class Compensated(Varied):
    """While a fold is left out, the others' times are longer by folds / (folds - 1): the same learning from fewer."""

    def examine(
        self, step: int, a: Array, dynamics: ATDynamics, predictor: KernelPredictor
    ) -> tuple[StepRecord, Array]:
        """The step of cross-fit at longer times."""
        return super().examine(step, a + np.log(self._folds / (self._folds - 1)), dynamics, predictor)


class PaperFrom(PaperRecipe):
    """The paper's recipe from one uniform time."""

    def __init__(self, *arguments: Any, time: float, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._start = time

    def start(self) -> Array:
        """That time, (n,)."""
        return np.full(len(self._x_train), self._start)


def squared_error(outputs: Array, labels: Labels, mean: float = 0.0) -> SoftError:
    """1/(2m) || f - (Y - mean) ||^2, the paper's loss."""
    residual = outputs - (np.eye(outputs.shape[1])[labels] - mean)
    right = float((outputs.argmax(axis=1) == labels).mean())
    return SoftError(0.5 * float((residual**2).sum()) / len(labels), residual / len(labels), right)


def cross_entropy(outputs: Array, labels: Labels, sharpness: float) -> SoftError:
    """Cross-entropy of logits sharpness x f / size; size, and what the gradient leaves out, as in the soft error."""
    f = outputs - outputs.mean(axis=1, keepdims=True)
    m, rows = len(f), np.arange(len(f))
    wrong = f.copy()
    wrong[rows, labels] = -np.inf
    margin = wrong.max(axis=1) - f[rows, labels]
    scale = sharpness / float(np.median(np.abs(margin)))
    z = scale * f
    z -= z.max(axis=1, keepdims=True)
    total = np.exp(z).sum(axis=1, keepdims=True)
    gradient = np.exp(z) / total
    gradient[rows, labels] -= 1
    gradient *= scale / m
    gradient -= f * (gradient * f).sum() / (f * f).sum()
    value = float((np.log(total[:, 0]) - z[rows, labels]).mean())
    return SoftError(value, gradient, float((margin < 0).mean()))


def mean_of_groups(group: Labels) -> Projection:
    """Gradients become their means over groups (n,): one parameter a group."""
    sizes = np.maximum(np.bincount(group), 1)
    return lambda g: (np.bincount(group, weights=g) / sizes)[group]


def span_of(columns: Array) -> Projection:
    """Gradients are projected on the span of orthonormal columns (n, m)."""
    return lambda g: columns @ (columns.T @ g)

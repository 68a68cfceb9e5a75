"""A recipe in which every training image also serves as a validation image, of a network that has not seen it.

Adv-NTK's validation batches are few images for n parameters, and are overfitted. Here a step sets varpi to 0 on one
fold of the training images, which is to leave them out of training, and measures the loss on the fold. Every second
step may attack validation images instead, under the network that is trained on all folds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import BoundAttack
from advntk_dist.attacks.geometry import Images, step_seed
from advntk_dist.dynamics import ATDynamics
from advntk_dist.predictor import KernelPredictor
from advntk_dist.training.loop import StepRecord, batch_of_epochs
from advntk_dist.training.optimiser import Optimiser, momentum

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

MEMORY = 0.8
"""Of the running mean of gradients. Coordinates are not rescaled one by one, as Adam would: that made noise of them."""


def gradient_tolerance(tolerance: float) -> float:
    """Tolerance of the solves of a training whose coefficients are to be known to ``tolerance``.

    Steps follow the direction of a running mean of gradients of a few attacked images. With solves to 1e-3 whole
    trainings end where those with solves to 1e-6 do, and with 1e-2 they do not (``tests/benchmarks/solver.py``, part
    "tolerance").
    """
    return max(tolerance, min(1e3 * tolerance, 1e-3))


class CrossFitRecipe:
    """varpi = exp(a) from one uniform time, by steps of decaying length along a running mean of gradients.

    The loss is the soft error of the fold's attacked images, plus ``clean_weight`` times that of the images themselves,
    under the network that is trained on the other folds (:func:`advntk_dist.training.cross_fit.soft_error`). A network
    of all folds is further in its training than one that lacks a fold: steps on validation images (the 1st, 3rd, ...)
    see the former.

    Parameters
    ----------
    x_train, y_train
        Training images (n, H, W, C) and their labels (n,).
    attack
        Called as attack(predictor, x, y, seed=..., indices=...).
    time
        Gives the uniform time > 0 to start from; asked before the first step only.
    steps, lr
        Steps, and the root mean square of the change of log varpi in the first; later ones fall to 0 as a cosine.
    batch
        Images a step, at most; a step on validation images takes no more than a fold has.
    folds
        Parts that the training images are drawn into, >= 2.
    clean_weight
        Weight of the error on clean images, >= 0.
    seed
        Of folds, batches and random starts.
    tolerance
        Of the solves.
    validation
        Validation images (m, H, W, C) and their labels (m,), for every second step; None for folds alone.
    """

    def __init__(
        self,
        x_train: Images,
        y_train: Labels,
        attack: BoundAttack,
        time: Callable[[], float],
        *,
        steps: int,
        lr: float,
        batch: int,
        folds: int,
        clean_weight: float,
        seed: int,
        tolerance: float,
        validation: tuple[Images, Labels] | None = None,
    ) -> None:
        self.seed = seed
        self._x, self._y, self._attack, self._time = x_train, y_train, attack, time
        self._steps, self._lr, self._batch, self._tolerance = steps, lr, batch, tolerance
        self._folds = min(folds, len(x_train))
        self._clean_weight, self._validation = clean_weight, validation

    @cached_property
    def optimiser(self) -> Optimiser:
        """Normalised running mean of gradients, times a length that decays as a cosine."""
        n = len(self._x)
        return Optimiser(momentum(self._lr * np.sqrt(n), self._steps, MEMORY), n)

    @cached_property
    def fold(self) -> Labels:
        """The fold of each training image (n,); sizes differ by one at most."""
        n = len(self._x)
        return np.random.default_rng([self.seed, 3]).permutation(n) % self._folds

    def start(self) -> Array:
        """The logarithm of the uniform time, (n,)."""
        return np.full(len(self._x), np.log(self._time()))

    def varpi(self, a: Array) -> Array:
        """exp(a), (n,)."""
        return np.exp(a)

    def held_out(self, step: int) -> tuple[NDArray[np.bool_], Images, Labels, Labels]:
        """The training images (n,) that a step leaves out, and its batch: images, labels, indices of random streams."""
        if self._validation is not None:
            step, on_fold = divmod(step, 2)
            if not on_fold:
                n, (x, y) = len(self._x), self._validation
                chosen = batch_of_epochs(len(x), min(self._batch, n // self._folds), step, self.seed)
                return np.zeros(n, bool), x[chosen], y[chosen], chosen
        visit, fold = divmod(step, self._folds)
        left_out = self.fold == fold
        members = np.flatnonzero(left_out)
        chosen = members[batch_of_epochs(len(members), self._batch, visit, self.seed, fold)]
        return left_out, self._x[chosen], self._y[chosen], chosen

    def error(self, outputs: Array, labels: Labels) -> SoftError:
        """What a step lowers, of outputs (m, k) and labels (m,)."""
        return soft_error(outputs, labels)

    def examine(
        self, step: int, a: Array, dynamics: ATDynamics, predictor: KernelPredictor
    ) -> tuple[StepRecord, Array]:
        """Leave the step's fold out, attack a batch of it: the loss there, and its gradient in a (n,)."""
        before = dynamics.operator.passes
        left_out, x, y, indices = self.held_out(step)
        varpi = np.where(left_out, 0.0, np.exp(a))
        current = predictor.with_coefficients(dynamics.coefficients(varpi, tol=self._tolerance).value)
        adversarial = self._attack(current, x, y, seed=step_seed(self.seed, step), indices=indices)
        k_adversarial = current.kernel(adversarial)
        k_clean = current.kernel(x) if self._clean_weight else None
        robust = 0.0

        def loss(c: Array) -> tuple[float, Array]:
            nonlocal robust
            attacked = self.error(k_adversarial @ c, y)
            robust = attacked.accuracy
            value, slope = attacked.value, k_adversarial.T @ attacked.gradient
            if k_clean is not None:
                clean = self.error(k_clean @ c, y)
                value += self._clean_weight * clean.value
                slope = slope + self._clean_weight * (k_clean.T @ clean.gradient)
            return value, slope

        value, gradient = dynamics.value_and_gradient(varpi, loss, self._tolerance)
        record = StepRecord.of(value, gradient, robust, np.exp(a), dynamics.operator.passes - before)
        return record, gradient * varpi  # in log varpi; of the fold that is left out, 0


SHARPNESS = 6.0
"""Margins of the median size count as sigmoid(+-6): 0.25% from 0 or 1. Blunter ones lost robust accuracy (measured)."""


@dataclass(frozen=True, eq=False)
class SoftError:
    """The value in (0, 1), its gradient (m, k) in the outputs, and the part of images that is classified correctly."""

    value: float
    gradient: Array
    accuracy: float


def soft_error(outputs: ArrayLike, labels: NDArray[np.int64], sharpness: float = SHARPNESS) -> SoftError:
    """Mean of sigmoid(sharpness x margin / size) over images.

    The margin of an image is its largest wrong output minus its right one, positive for an error; the size is the norm
    of all outputs, centred over classes, times a constant that makes it the median of absolute margins.

    Parameters
    ----------
    outputs
        Of a predictor, (m, k), k >= 2.
    labels
        Right classes (m,).
    sharpness
        How far a margin of the median size counts.

    Returns
    -------
    SoftError
        The gradient is exact for that constant held fixed, and orthogonal to the centred outputs.
    """
    f = np.asarray(outputs, dtype=np.float64)
    f = f - f.mean(axis=1, keepdims=True)
    m, rows = len(f), np.arange(len(f))
    wrong = f.copy()
    wrong[rows, labels] = -np.inf
    rival = wrong.argmax(axis=1)
    margin = f[rows, rival] - f[rows, labels]
    size = float(np.median(np.abs(margin)))
    if size == 0.0:  # as before any training: nothing to tell apart
        return SoftError(0.5, np.zeros_like(f), float((margin < 0).mean()))
    error = 1 / (1 + np.exp(-np.clip(sharpness * margin / size, -700.0, 700.0)))
    slope = sharpness / size * error * (1 - error) / m
    gradient = np.zeros_like(f)
    gradient[rows, rival] += slope
    gradient[rows, labels] -= slope
    gradient -= f * (gradient * f).sum() / (f * f).sum()
    return SoftError(float(error.mean()), gradient, float((margin < 0).mean()))

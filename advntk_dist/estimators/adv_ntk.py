"""Adv-NTK as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from advntk_dist.attacks.base import BoundAttack
from advntk_dist.attacks.geometry import Images
from advntk_dist.attacks.pgd import pgd
from advntk_dist.config import TrainConfig
from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import RequestError
from advntk_dist.estimators.base import KernelClassifier
from advntk_dist.evaluation.evaluator import is_right
from advntk_dist.predictor import KernelPredictor
from advntk_dist.spec import Norm
from advntk_dist.training import StepRecord, train_adv_ntk
from advntk_dist.training.recipes import recipe_of

SPAN = np.logspace(-1, 5, 13)
"""Default times, in units of 1 / the Gram matrix's quotient at the constant vector, which is near its largest
eigenvalue: from where hardly anything is learned to where nearly everything is, at any number and scale of images."""


@dataclass(frozen=True, eq=False)
class _Part:
    """Images (m, H, W, C) in [-0.5, 0.5] and their labels (m,)."""

    x: Images
    y: NDArray[np.int64]


class AdvNTKClassifier(KernelClassifier):
    """An infinitely wide network with one learned training time per sample, robust against small perturbations.

    Adv-NTK of Fu & Wang (2024, algorithm 1), by the recipe ``cross-fit``, which starts at the best uniform time and
    lowers a soft count of errors on training images that are left out in turn, or by the ``paper``'s, which descends
    the squared error on perturbed validation images from 0. A part of the data is set aside for validation: cross-fit
    chooses its uniform time there, the paper's recipe learns from it.

    Parameters
    ----------
    network, W_std, b_std, activation
        The network, as in :func:`advntk_dist.network`.
    radius
        Size of the perturbations, in units of the pixel range (8/255 means 8/255).
    norm
        "linf", "l2" or "l1".
    attack_steps, step_size
        Of PGD, on margins for cross-fit and on the squared error for the paper's recipe; the step size is by default a
        fifth of the radius.
    recipe
        "cross-fit" or "paper".
    steps, lr, batch
        Steps of training, their length, and images in each; by default the recipe's own, those of
        ``train.steps``, ``train.lr`` and ``train.batch``.
    times
        Uniform times > 0 among which cross-fit chooses; by default 13 over six decades, scaled by the Gram matrix.
    validation_fraction
        Part of the data that is set aside, in the proportions of the classes where each has enough.
    random_state
        Of the split, the batches and the random starts.
    ridge, tol, image_shape, pixel_range, memory, store
        As in :class:`NTKClassifier`.

    Attributes
    ----------
    varpi_
        Effective training times (samples that were trained on,).
    t_
        Of cross-fit, the uniform time that it started from.
    history_
        One :class:`advntk_dist.training.StepRecord` a step.
    classes_, dual_coef_, predictor_, pixel_range_, n_features_in_
        As in :class:`NTKClassifier`.
    """

    def __init__(
        self,
        network: str = "mlp-3",
        *,
        W_std: float = 1.76,
        b_std: float = 0.18,
        activation: str = "relu",
        radius: float = 8 / 255,
        norm: Norm = "linf",
        attack_steps: int = 10,
        step_size: float | None = None,
        recipe: Literal["cross-fit", "paper"] = "cross-fit",
        steps: int | None = None,
        lr: float | None = None,
        batch: int | None = None,
        times: Sequence[float] | None = None,
        validation_fraction: float = 1 / 6,
        random_state: int | np.random.RandomState | None = None,
        ridge: float = 0.0,
        tol: float = 1e-6,
        image_shape: tuple[int, int, int] | None = None,
        pixel_range: tuple[float, float] | None = None,
        memory: int = 2 * 2**30,
        store: str | Path | None = None,
    ) -> None:
        self.network = network
        self.W_std = W_std
        self.b_std = b_std
        self.activation = activation
        self.radius = radius
        self.norm = norm
        self.attack_steps = attack_steps
        self.step_size = step_size
        self.recipe = recipe
        self.steps = steps
        self.lr = lr
        self.batch = batch
        self.times = times
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.ridge = ridge
        self.tol = tol
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.memory = memory
        self.store = store

    def _learn(self, x: NDArray[Any], labels: NDArray[np.int64]) -> None:
        self._check()
        seed = int(check_random_state(self.random_state).randint(2**31))
        rows, others = self._split(labels, seed)
        train, val = _Part(x[rows], labels[rows]), _Part(x[others], labels[others])
        given = {k: v for k in ("steps", "lr", "batch") if (v := getattr(self, k)) is not None}
        numbers = TrainConfig.model_validate({"recipe": self.recipe, "seed": seed} | given)
        attack = partial(
            pgd,
            radius=self.radius,
            steps=self.attack_steps,
            step_size=self.step_size,
            norm=self.norm,
            loss="squared-error" if self.recipe == "paper" else "margin",
        )
        with self._dynamics(train.x, train.y) as dynamics:
            blank = KernelPredictor(self._net, train.x, np.zeros((len(rows), len(self.classes_))))

            def time() -> float:
                self.t_ = self._uniform_time(dynamics, blank, val, attack, seed)
                return self.t_

            trained = train_adv_ntk(
                recipe_of(numbers, train, val, attack, time, self.tol),
                lambda: dynamics,
                lambda: blank,
                len(rows),
                group=zarr.create_group(zarr.storage.MemoryStore(), zarr_format=3),
                steps=numbers.steps,
            )
            self.varpi_ = trained.varpi
            self.history_: list[StepRecord] = trained.history
            self._set(train.x, dynamics.coefficients(trained.varpi, tol=self.tol).value)

    def _uniform_time(
        self, dynamics: ATDynamics, blank: KernelPredictor, val: _Part, attack: BoundAttack, seed: int
    ) -> float:
        """The time with the largest robust accuracy on validation images; of equal ones the smallest."""
        if self.times is None:
            ones = np.ones((dynamics.operator.n, 1))
            times = list(SPAN * len(ones) / (ones.T @ dynamics.operator.matmat(ones)).item())
        else:
            times = sorted(map(float, self.times))
        indices, right = np.arange(len(val.y)), []
        for solution in dynamics.trajectory(1.0, times, self.tol):
            stopped = blank.with_coefficients(solution.value)
            attacked = attack(stopped, val.x, val.y, seed=seed, indices=indices)
            both = is_right(stopped, val.x, val.y) * is_right(stopped, attacked, val.y)
            right.append(both.sum())
        return float(times[int(np.argmax(right))])

    def _check(self) -> None:
        if self.recipe not in ("cross-fit", "paper"):
            raise RequestError(f'recipe: must be "cross-fit" or "paper", got {self.recipe!r}')
        for name, least in (("steps", 1), ("batch", 1), ("attack_steps", 0)):
            value = getattr(self, name)
            if not (value is None or (isinstance(value, int | np.integer) and value >= least)):
                raise RequestError(f"{name}: must be a whole number >= {least}, got {value!r}")
        if not (self.lr is None or self.lr > 0):
            raise RequestError(f"lr: must be > 0, got {self.lr!r}")
        if self.times is not None and not (len(self.times) and all(0 < t < np.inf for t in self.times)):
            raise RequestError(f"times: must be finite times > 0, at least one, got {self.times!r}")
        if not 0 < self.validation_fraction < 1:
            raise RequestError(f"validation_fraction: must lie between 0 and 1, got {self.validation_fraction!r}")

    def _split(self, labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to train on and rows to validate on; in proportion to the classes where that is possible."""
        n, classes = len(labels), len(self.classes_)
        n_val = max(1, round(self.validation_fraction * n))
        possible = np.bincount(labels).min() >= 2 and min(n_val, n - n_val) >= classes
        train, val = train_test_split(
            np.arange(n), test_size=n_val, random_state=seed, stratify=labels if possible else None
        )
        return np.sort(train), np.sort(val)

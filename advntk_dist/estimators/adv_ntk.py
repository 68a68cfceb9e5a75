"""Adv-NTK as a scikit-learn classifier."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from advntk_dist.attacks import pgd
from advntk_dist.attacks.base import Norm
from advntk_dist.errors import RequestError
from advntk_dist.estimators.base import KernelClassifier
from advntk_dist.predictor import KernelPredictor
from advntk_dist.training import PaperRecipe, StepRecord, train_adv_ntk


class AdvNTKClassifier(KernelClassifier):
    """An infinitely wide network with one learned training time per sample, robust against small perturbations.

    Adv-NTK of Fu & Wang (2024, algorithm 1): a part of the data is set aside for validation, and varpi >= 0 descends
    the squared loss on validation images that PGD has perturbed.

    Parameters
    ----------
    network, W_std, b_std, activation
        The network, as in :func:`advntk_dist.network`.
    radius
        Size of the perturbations, in units of the pixel range (8/255 means 8/255).
    norm
        "linf" or "l2".
    attack_steps, step_size
        Of PGD; the step size is by default a fifth of the radius.
    steps, lr, batch
        Steps of training, their length, and validation images in each.
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
        steps: int = 50,
        lr: float = 0.1,
        batch: int = 128,
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
        self.steps = steps
        self.lr = lr
        self.batch = batch
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
        train, val = self._split(labels, seed)
        with self._dynamics(x[train], labels[train]) as dynamics:
            blank = KernelPredictor(self._net, x[train], np.zeros((len(train), len(self.classes_))))
            recipe = PaperRecipe(
                x[train],
                x[val],
                labels[val],
                partial(pgd, radius=self.radius, steps=self.attack_steps, step_size=self.step_size, norm=self.norm),
                lr=self.lr,
                batch=self.batch,
                seed=seed,
                tolerance=self.tol,
            )
            trained = train_adv_ntk(
                recipe,
                lambda: dynamics,
                lambda: blank,
                len(train),
                group=zarr.create_group(zarr.storage.MemoryStore(), zarr_format=3),
                steps=self.steps,
            )
            self.varpi_ = trained.varpi
            self.history_: list[StepRecord] = trained.history
            self._set(x[train], dynamics.coefficients(trained.varpi, tol=self.tol).value)

    def _check(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("attack_steps", 0)):
            value = getattr(self, name)
            if not (isinstance(value, int | np.integer) and value >= least):
                raise RequestError(f"{name}: must be a whole number >= {least}, got {value!r}")
        if not self.lr > 0:
            raise RequestError(f"lr: must be > 0, got {self.lr!r}")
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

"""What the classifiers share: data in, Gram matrix, decision function."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import RequestError
from advntk_dist.estimators.pixels import fit_pixels
from advntk_dist.networks import Network, network
from advntk_dist.predictor import KernelPredictor
from advntk_dist.storage.paths import location

Array = NDArray[np.float64]

IN_PROCESS = 0.25
"""Share of the memory up to which the Gram matrix is computed in this process; a larger one goes through Ray to disk,
as it also needs a copy of itself here for its transpose."""

_DTYPES = ("float64", "float32", "uint8")


class KernelClassifier(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """One-hot regression with the NTK of an infinitely wide network; subclasses say how the coefficients come about."""

    network: str
    W_std: float
    b_std: float
    activation: str
    image_shape: tuple[int, int, int] | None
    pixel_range: tuple[float, float] | None
    ridge: float
    tol: float
    memory: int
    store: str | Path | None

    def fit(self, X: ArrayLike, y: ArrayLike) -> KernelClassifier:
        """Train on X (n, features) or (n, H, W, C) and labels y (n,).

        Raises
        ------
        ValueError
            If X, y or a parameter is impossible.
        SolverError
            If a solve misses its tolerance.
        """
        flat, shape = _flat(X)
        rows, labels = validate_data(self, flat, y, dtype=_DTYPES)
        check_classification_targets(labels)
        self.classes_, encoded = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise RequestError(f"y: a classifier needs at least 2 classes, and there is 1 class: {self.classes_[0]!r}")
        if self.memory <= 0:
            raise RequestError(f"memory: must be a positive number of bytes, got {self.memory}")
        self._pixels = fit_pixels(rows, shape, self.image_shape, self.pixel_range, self.network)
        self.pixel_range_ = (self._pixels.low, self._pixels.high)
        self._learn(self._pixels.images(rows), encoded.astype(np.int64))
        return self

    @property
    def _net(self) -> Network:
        return network(
            self.network, W_std=self.W_std, b_std=self.b_std, activation=self.activation, classes=len(self.classes_)
        )

    def decision_function(self, X: ArrayLike) -> Array:
        """Outputs of the network: (m, classes), or (m,) for two classes, positive for the second one.

        Raises
        ------
        ValueError
            If X has other features than the training data, or its images have another shape or another scale of pixels
            (DatasetError).
        """
        check_is_fitted(self)
        outputs = self.predictor_.predict(self._images(X))
        return outputs[:, 1] - outputs[:, 0] if len(self.classes_) == 2 else outputs

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (m,); errors as :meth:`decision_function`."""
        scores = self.decision_function(X)
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes_[best])

    def images(self, X: ArrayLike) -> NDArray[Any]:
        """X as the images (m, H, W, C) in [-0.5, 0.5] that :attr:`predictor_` and attacks on it work with.

        Raises
        ------
        ValueError
            As :meth:`decision_function`.
        """
        check_is_fitted(self)
        return self._images(X)

    def _images(self, X: ArrayLike) -> NDArray[Any]:
        flat, shape = _flat(X)
        rows = validate_data(self, flat, reset=False, dtype=_DTYPES)
        self._pixels.require_same_shape(shape)
        self._pixels.require_same_scale(rows)
        return self._pixels.images(rows)

    @abstractmethod
    def _learn(self, x: NDArray[Any], labels: NDArray[np.int64]) -> None:
        """Set the coefficients, and what belongs to the subclass."""

    def _set(self, x: NDArray[Any], coefficients: Array) -> None:
        self.predictor_ = KernelPredictor(self._net, x, coefficients)
        self.dual_coef_ = self.predictor_.coefficients

    @contextmanager
    def _dynamics(self, x: NDArray[Any], labels: NDArray[np.int64]) -> Iterator[ATDynamics]:
        """The AT dynamics on images; a matrix that is large for the memory is built by Ray and stays on disk."""
        targets = np.eye(len(self.classes_))[labels]
        with ExitStack() as cleanup:
            if self.store is None and len(x) ** 2 * x.itemsize <= IN_PROCESS * self.memory:
                theta: Any = self._net.ntk(x, x)
                theta = (theta + theta.T) / 2
            else:
                from advntk_dist.gram import build_gram
                from advntk_dist.operators import operator_for_store

                folder = cleanup.enter_context(tempfile.TemporaryDirectory()) if self.store is None else None
                path = Path(folder) / "gram.zarr" if folder is not None else location(self.store or "")
                built = build_gram(self._net, x, store=path, dtype=str(x.dtype))
                theta = cleanup.enter_context(operator_for_store(built, memory=self.memory))
            yield ATDynamics(theta, targets, ridge=self.ridge, memory=self.memory)


def _flat(X: Any) -> tuple[Any, tuple[int, ...] | None]:
    """Rows of features, and the shape of an image where X is a stack of images."""
    if getattr(X, "ndim", 2) == 4:
        images = np.asarray(X)
        return images.reshape(len(images), -1), images.shape[1:]
    return X, None

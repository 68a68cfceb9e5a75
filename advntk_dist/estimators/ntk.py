"""The plain NTK regressor, trained for any time, as a scikit-learn classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.errors import RequestError
from advntk_dist.estimators.base import KernelClassifier


class NTKClassifier(KernelClassifier):
    """An infinitely wide network trained by gradient flow on the squared loss for time t.

    Standard training, without an adversary: f_t(x) = Theta(x, X) Theta^-1 (I - exp(-t Theta)) Y (Fu & Wang 2024,
    theorem 2 with Xi(t) = t I). A finite t is early stopping, which already makes the predictor far more robust.

    Parameters
    ----------
    network, W_std, b_std, activation
        The network, as in :func:`advntk_dist.network`.
    t
        Training time > 0; infinity for the NTK regressor.
    ridge
        Added to the diagonal at t = infinity, relative to its mean. With 0, images that occur twice with different
        labels are fitted to the mean of their labels, as the least-squares limit has it.
    tol
        Wanted bound on the relative error of the coefficients.
    image_shape
        (H, W, C) of the rows of X; by default X's own shape, or no shape for fully connected networks.
    pixel_range
        Values that become -0.5 and 0.5, whatever X holds (values outside are clipped); by default (0, 255) for uint8,
        (0, 1) or (-0.5, 0.5) where all of X lies within, else the smallest and the largest value of X in ``fit``. By
        default X on another scale than that of ``fit`` is refused where it is recognised, and warned of where more
        than one value in a hundred is clipped.
    memory
        Memory of the solver in bytes. A Gram matrix of up to a quarter of it is computed in this process, without Ray.
    store
        Folder that keeps the Gram matrix between fits of the same images; by default nothing is kept.

    Attributes
    ----------
    classes_
        Labels, sorted.
    dual_coef_
        Coefficients (n, classes).
    predictor_
        The :class:`advntk_dist.KernelPredictor`, for attacks on images from :meth:`images`.
    pixel_range_
        The range that is used.
    n_features_in_
        Features of a row.
    """

    def __init__(
        self,
        network: str = "mlp-3",
        *,
        W_std: float = 1.76,
        b_std: float = 0.18,
        activation: str = "relu",
        t: float = float("inf"),
        ridge: float = 1e-6,
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
        self.t = t
        self.ridge = ridge
        self.tol = tol
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.memory = memory
        self.store = store

    def _learn(self, x: NDArray[Any], labels: NDArray[np.int64]) -> None:
        if not self.t > 0:
            raise RequestError(f"t: must be > 0 (infinity for the NTK regressor), got {self.t}")
        with self._dynamics(x, labels) as dynamics:
            self._set(x, dynamics.coefficients(1.0, self.t, self.tol).value)

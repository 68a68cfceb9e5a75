"""AT dynamics of the linearised network, solved exactly (Fu & Wang 2024, section 4).

Linear in theta and in x, both around their start, the network has constant kernels. The inner flow multiplies the
residual of image i by exp(eta S A_i), A_i = d_x f_0 d_x f_0^T; the outer flow then is
d/dt (F - Y) = -Theta_0 E (F - Y) with E = diag_i exp(eta S A_i), which E^1/2 Theta_0 E^1/2 diagonalises.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advntk_dist.errors import SolverError
from advntk_dist.solve.phi import phi_1

Array = NDArray[np.float64]


class LinearisedFlow:
    """The solution for all times.

    Parameters
    ----------
    theta
        NTK at the start between training images, (n k, n k).
    ark
        Gram matrices of input gradients at the start, (n, k, k).
    strength
        eta S, the rate of the inner flow times its length.
    residual
        f_0(X) - Y, (n, k).

    Raises
    ------
    SolverError
        If the inner flow is so strong that its exponential exceeds float64.
    """

    def __init__(self, theta: Array, ark: Array, strength: float, residual: Array) -> None:
        n, k = residual.shape
        root = np.zeros((n, k, n, k))
        for i, block in enumerate(ark):
            values, vectors = np.linalg.eigh(block)
            with np.errstate(over="ignore"):  # what is not finite is refused below
                root[i, :, i, :] = (vectors * np.exp(0.5 * strength * values)) @ vectors.T
        self._root = root.reshape(n * k, n * k)
        with np.errstate(over="ignore", invalid="ignore"):
            whole = self._root @ theta @ self._root
        if not np.isfinite(whole).all():
            raise SolverError(
                f"finite: the inner flow multiplies residuals by more than float64 holds (strength {strength:g}, "
                f"ARK up to {np.abs(ark).max():.3g}); take a smaller flow.inner_time or flow.eta"
            )
        self._values, self._vectors = np.linalg.eigh(whole)
        self._start = self._vectors.T @ (self._root @ residual.ravel())

    @property
    def rate(self) -> float:
        """Largest rate at which a residual decays, the largest eigenvalue of Theta_0 E."""
        return float(self._values[-1])

    def change(self, kernel: Array, times: Array) -> Array:
        """f_t^lin - f_0 at points whose NTK with the training images is ``kernel`` (m k, n k); (times, m k)."""
        t = np.asarray(times, dtype=np.float64)[:, None]
        integrated = t * phi_1(-t * np.maximum(self._values, 0.0)) * self._start
        return np.asarray(-(integrated @ self._vectors.T) @ self._root @ kernel.T)

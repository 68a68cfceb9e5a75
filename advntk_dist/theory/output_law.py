"""The law of the outputs of the infinite ensemble at time t: Gaussian, with Xi(t) in place of t I.

f_t(x) = f_0(x) - Theta(x, X) P (f_0(X) - Y) with P = Theta^-1 (I - exp(-Theta Xi)), Fu & Wang (2024), theorem 2; f_0 is
Gaussian with mean 0 and the NNGP kernel K as covariance, independent over outputs. So with Z = P Theta(X, x) (n, m),

    mean = Z^T Y,    covariance = K(x, x) - Z^T K(X, x) - (Z^T K(X, x))^T + Z^T K(X, X) Z,

as in the gradient-descent ensembles of neural-tangents, where Xi = t I. P = D^1/2 phi D^1/2 is symmetric, so Z is what
the block solver gives for the targets Theta(X, x): no inverse and no dense exponential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.dynamics import DEFAULT_TOLERANCE, ATDynamics
from advntk_dist.errors import RequestError
from advntk_dist.grid import spans
from advntk_dist.operators import as_operator

Array = NDArray[np.float64]

COLUMNS = 64
"""Test points to a block solve."""


@dataclass(frozen=True)
class OutputLaw:
    """Mean and covariance of f_t at m points.

    Attributes
    ----------
    mean
        (m, k).
    covariance
        (m, m), the same for every output; outputs are independent.
    passes
        Passes over the NTK Gram matrix.
    error
        Largest estimated relative error of the solves.
    """

    mean: Array
    covariance: Array
    passes: int
    error: float

    @property
    def std(self) -> Array:
        """Standard deviation of each output at each point, (m,)."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0))


def output_law(
    theta: Any,
    y: ArrayLike,
    *,
    ntk_test: ArrayLike,
    nngp_train: Any,
    nngp_cross: ArrayLike,
    nngp_test: ArrayLike,
    varpi: ArrayLike = 1.0,
    t: float = 1.0,
    tol: float = DEFAULT_TOLERANCE,
    **options: Any,
) -> OutputLaw:
    """Mean and covariance of the outputs at m points after training for Xi(t) = t Diag(varpi).

    Parameters
    ----------
    theta
        NTK Gram matrix (n, n) of the training images, as :class:`ATDynamics` takes it.
    y
        Targets (n, k).
    ntk_test
        NTK (m, n) between the points and the training images.
    nngp_train
        NNGP Gram matrix (n, n): array or operator.
    nngp_cross, nngp_test
        NNGP (m, n) between points and training images, and (m, m) among the points.
    varpi, t
        Effective training times (n,) >= 0, e.g. a row of :func:`advntk_dist.xi`, or one number; and a common factor,
        numpy.inf allowed.
    tol
        Tolerance of the solves.
    options
        Further arguments of :class:`ATDynamics`.

    Raises
    ------
    RequestError
        If shapes do not fit.
    SolverError
        If a solve misses its tolerance.
    """
    operator, prior = as_operator(theta), as_operator(nngp_train)
    targets = np.asarray(y, dtype=np.float64)
    k_test, cross, test = (np.asarray(a, dtype=np.float64) for a in (ntk_test, nngp_cross, nngp_test))
    n, m = operator.n, len(k_test)
    expected = {"y": (n, targets.shape[-1]), "ntk_test": (m, n), "nngp_cross": (m, n), "nngp_test": (m, m)}
    for (name, shape), found in zip(expected.items(), (targets, k_test, cross, test), strict=True):
        if found.shape != shape:
            raise RequestError(f"output_law: {name} has shape {found.shape}, not {shape}")
    if prior.n != n:
        raise RequestError(f"output_law: nngp_train is ({prior.n}, {prior.n}), not ({n}, {n})")
    z = np.empty((n, m))
    products = np.empty((n, m))
    passes, error = 0, 0.0
    for span in spans(m, COLUMNS):
        solution = ATDynamics(operator, k_test[span].T, **options).coefficients(varpi, t, tol)
        z[:, span] = solution.value
        products[:, span] = prior.matmat(solution.value)
        passes, error = passes + solution.passes, max(error, solution.error)
    mixed = z.T @ cross.T
    covariance = test - mixed - mixed.T + z.T @ products
    return OutputLaw(z.T @ targets, 0.5 * (covariance + covariance.T), passes, error)

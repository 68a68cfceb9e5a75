"""The gradient of an objective in the effective training times, from the Krylov bases of targets and objective."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advntk_dist.grid import spans
from advntk_dist.solve.krylov import KrylovBasis
from advntk_dist.solve.phi import phi_2, phi_2_difference

Array = NDArray[np.float64]


def time_integral(forward: KrylovBasis, y: Array, backward: KrylovBasis, v: Array, rows: int) -> Array:
    """Integral over tau in [0, 1] of sum_c lambda_ic(tau) r_ic(tau), for each sample i.

    Here r(tau) = exp(-tau Theta D) Y and lambda(tau) = exp(-(1 - tau) Theta D) v. Both are known in the eigenbasis of a
    Krylov basis, so that the integral is exact in divided differences.

    Parameters
    ----------
    forward, backward
        Bases grown from D^1/2 Y and from D^1/2 v.
    y, v
        Targets (n, k), and the gradient (n, k) of the objective in the coefficients.
    rows
        Samples at once, which bounds the memory.

    Returns
    -------
    numpy.ndarray
        The gradient in varpi, (n,).
    """
    a, b = forward.ritz, backward.ritz
    past = phi_2(-a)[:, None] * forward.start
    future = phi_2(-b)[:, None] * backward.start
    middle = (forward.start @ backward.start.T) * phi_2_difference(-a[:, None], -b[None, :])
    total = (v * y).sum(axis=1)
    for span in spans(len(total), rows):
        # In the eigenbases, not the bases: where the gradient is small against its terms, these cancel mode by mode.
        left, right = backward.image.rows(span) @ backward.vectors, forward.image.rows(span) @ forward.vectors
        total[span] -= (v[span] * (right @ past)).sum(axis=1)
        total[span] -= (y[span] * (left @ future)).sum(axis=1)
        total[span] += ((right @ middle) * left).sum(axis=1)
    return total

"""AT dynamics where Xi'(t) at different times do not commute: exact on pieces, and the distance to the closed form.

The outer flow is r' = -Theta Xi'(t) r for the residual r = Y - f_t(X), so on a piece over which Xi' has a fixed
direction, r(t + dt) = exp(-Theta Diag(dXi)) r(t), where dXi is the increment of Xi(t). The solution is the product of
the exponentials in the order of time; the coefficients gain Theta^-1 (I - exp(-Theta Diag(dXi))) r in each. The closed
form of Fu & Wang is one such factor. For a smooth schedule more pieces converge to the exact flow, at second order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.dynamics import DEFAULT_TOLERANCE, ATDynamics
from advntk_dist.errors import RequestError
from advntk_dist.operators import GramOperator, as_operator
from advntk_dist.solve.solution import Solution, Status
from advntk_dist.theory.schedules import Schedule, as_schedule
from advntk_dist.theory.xi import Eta, xi

Array = NDArray[np.float64]


def piecewise_trajectory(
    theta: Any, y: ArrayLike, increments: ArrayLike, *, tol: float = DEFAULT_TOLERANCE, **options: Any
) -> list[Solution]:
    """Coefficients (n, k) at the end of each piece, exact for Xi' of a fixed direction on each.

    Parameters
    ----------
    theta
        Gram matrix (n, n), as :class:`ATDynamics` takes it.
    y
        Targets (n, k).
    increments
        Increments of Xi over the pieces (pieces, n), >= 0, in the order of time.
    tol
        Tolerance of each solve, relative to its own part of the coefficients.
    options
        Further arguments of :class:`ATDynamics`.

    Returns
    -------
    list of Solution
        ``passes`` counts all passes up to there. ``error`` adds the solves' own estimates relative to the coefficients;
        what an error of one piece does to later ones is not in it (the flow damps it: all factors are contractions).

    Raises
    ------
    RequestError
        If the increments are not (pieces, n) finite numbers >= 0.
    SolverError
        If a solve misses its tolerance.
    """
    operator = as_operator(theta)
    rows = np.asarray(increments, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != operator.n or not (np.isfinite(rows).all() and (rows >= 0).all()):
        raise RequestError(f"increments must be (pieces, {operator.n}) finite numbers >= 0, got shape {rows.shape}")
    residual = np.array(y, dtype=np.float64)
    value, passes, error = np.zeros_like(residual), 0, 0.0
    solutions = []
    for j, row in enumerate(rows):
        step = ATDynamics(operator, residual, **options).coefficients(row, tol=tol)
        value = value + step.value
        passes, error = passes + step.passes, error + step.error * float(np.linalg.norm(step.value))
        scale = float(np.linalg.norm(value))
        solutions.append(Solution(value, Status.CONVERGED, passes, error / scale if scale else 0.0, step.smallest_ritz))
        if j + 1 < len(rows):
            residual = residual - operator.matmat(step.value)
            passes += 1
    return solutions


def increments_of(theta_x: ArrayLike, eta: Eta, *, inner_time: float, edges: Sequence[float]) -> Array:
    """Increments of Xi between the times ``edges`` (pieces + 1,): (pieces, n), without cancellation."""
    times = np.asarray(edges, dtype=np.float64)
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) > 0).all() or not np.isfinite(times).all():
        raise RequestError("edges must be at least two finite times in increasing order")
    rows = xi(theta_x, eta, inner_time=inner_time, times=list(times))
    return np.asarray(np.maximum(np.diff(rows, axis=0), 0.0))


def solved_in_pieces(
    dynamics: ATDynamics,
    theta_x: ArrayLike,
    eta: Schedule,
    *,
    inner_time: float,
    marks: ArrayLike,
    pieces: int,
    tol: float,
) -> list[Solution]:
    """Solutions at the times ``marks[1:]``, from ``pieces`` equal pieces between each two marks, and cuts at all kinks.

    Exact where Xi' is piecewise constant, as the jumps of the schedule are cuts.
    """
    ends = np.asarray(marks, dtype=np.float64)
    cuts = [np.linspace(a, b, pieces + 1) for a, b in pairwise(ends)]
    edges = np.unique(np.concatenate([*cuts, eta.kinks(float(ends[-1]))]))
    rows = increments_of(theta_x, eta, inner_time=inner_time, edges=list(edges))
    options = {"max_passes": dynamics.max_passes, "memory": dynamics.memory}
    solutions = piecewise_trajectory(dynamics.operator, dynamics.y, rows, tol=tol, **options)
    return [solutions[int(np.searchsorted(edges, t)) - 1] for t in ends[1:]]


def distances(operator: GramOperator, closed: Array, fine: Array, coarse: Array) -> tuple[float, float]:
    """Relative distances on X of coefficients (n, k): closed form to fine pieces, and coarse pieces to fine ones."""
    a, b, c = np.split(operator.matmat(np.hstack([closed, fine, coarse])), 3, axis=1)
    return relative(a, b), relative(c, b)


@dataclass(frozen=True)
class ScheduleDistance:
    """How far the closed form is from the flow that it approximates, relative, in the Frobenius norm.

    Attributes
    ----------
    train, test
        || f_closed - f_exact || / || f_exact || on X and, where a kernel was given, on the test points.
    refinement
        The same distance on X between the flow with the requested pieces and with half as many.
    closed, exact
        The two solutions.
    """

    train: float
    test: float | None
    refinement: float
    closed: Solution
    exact: Solution


def schedule_distance(
    theta: Any,
    y: ArrayLike,
    theta_x: ArrayLike,
    eta: Eta,
    *,
    inner_time: float,
    t: float,
    pieces: int = 32,
    k_test: ArrayLike | None = None,
    tol: float = DEFAULT_TOLERANCE,
) -> ScheduleDistance:
    """Distance at time t between the closed form with Xi(t) and the flow cut into pieces.

    The pieces are equally long; the jumps of a schedule are added to them, so that the result is exact where Xi' is
    piecewise constant.

    Parameters
    ----------
    theta
        Gram matrix (n, n), as :class:`ATDynamics` takes it.
    y
        Targets (n, k).
    theta_x
        Adversarial regularization kernel of the samples, (n,), >= 0.
    eta
        Rate of the inner flow: a number, one per sample (n,), or a schedule.
    inner_time
        Duration of the inner flow, >= 0.
    t
        Finite time > 0.
    pieces
        Even number of equal pieces.
    k_test
        Kernel (m, n) between test points and training images.

    Raises
    ------
    RequestError
        If ``pieces`` is not even and positive, or t is not positive and finite.
    """
    if pieces < 2 or pieces % 2 or not (np.isfinite(t) and t > 0):
        raise RequestError(f"need an even number of pieces and a finite t > 0, got {pieces} and {t}")
    dynamics, schedule = ATDynamics(theta, y), as_schedule(eta)
    closed = dynamics.coefficients(xi(theta_x, eta, inner_time=inner_time, times=[t])[0], tol=tol)
    (coarse,), (exact,) = (
        solved_in_pieces(dynamics, theta_x, schedule, inner_time=inner_time, marks=[0.0, t], pieces=number, tol=tol)
        for number in (pieces // 2, pieces)
    )
    train, refinement = distances(dynamics.operator, closed.value, exact.value, coarse.value)
    test = None
    if k_test is not None:
        kernel = np.asarray(k_test)
        test = relative(kernel @ closed.value, kernel @ exact.value)
    return ScheduleDistance(train, test, refinement, closed, exact)


def relative(a: Array, b: Array) -> float:
    """|| a - b || / || b ||, 0 where both vanish."""
    scale = float(np.linalg.norm(b))
    distance = float(np.linalg.norm(a - b))
    return distance / scale if scale else (0.0 if distance == 0 else float("inf"))

"""Whatever the matrix, varpi and targets: the reported error bounds the true one, and a miss is never silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import SolverError
from advntk_dist.solve.limit import rank_cutoff
from advntk_dist.solve.solution import Status

Array = NDArray[np.float64]
Wide = NDArray[Any]

N, K = 48, 6
OFTEN = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True, repr=False)
class Case:
    """A Gram matrix, effective times, targets, and what is asked of the solver."""

    theta: Array
    varpi: Array
    y: Array
    tolerance: float
    what: str

    def __repr__(self) -> str:
        return self.what


@st.composite
def spectra(draw: st.DrawFn, most_decades: float) -> tuple[str, Array]:
    kind = draw(st.sampled_from(["decaying", "rank deficient", "clustered", "float32 noise"]))
    decades = draw(st.floats(0.0, most_decades))
    values = 10.0 ** -np.linspace(0.0, decades, N)
    if kind == "rank deficient":
        values[draw(st.integers(1, N - 1)) :] = 0.0
    elif kind == "clustered":
        values = np.repeat(10.0 ** -np.linspace(0.0, decades, 6), N // 6)
    return f"{kind}, {decades:.1f} decades", values


@st.composite
def cases(draw: st.DrawFn, most_decades: float = 12.0, *, zeros: bool = True) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    kind, values = draw(spectra(most_decades))
    scale = 10.0 ** draw(st.floats(-2.0, 6.0))
    q = np.linalg.qr(rng.standard_normal((N, N)))[0]
    theta = (q * values) @ q.T
    theta = (theta + theta.T) / 2
    if kind.startswith("float32"):
        noise = rng.standard_normal((N, N)) * 1e-7
        theta = (theta + (noise + noise.T) / 2).astype(np.float32).astype(np.float64)
    spread = draw(st.sampled_from([0.0, 2.0, 8.0]))
    varpi = 10.0 ** -rng.uniform(0.0, spread, N)
    if zeros and draw(st.booleans()):
        varpi[rng.random(N) < 0.4] = 0.0
    labels = rng.integers(0, draw(st.sampled_from([1, 3, K])), N)  # absent classes
    y = np.eye(K)[labels]
    targets = draw(st.sampled_from(["one-hot", "centred", "a column twice", "tiny and large columns"]))
    if targets == "centred":
        y = y - y.mean(axis=0)
    elif targets == "a column twice":
        y[:, 1] = y[:, 0]
    elif targets == "tiny and large columns":
        y = rng.standard_normal((N, K)) * 10.0 ** np.linspace(-8, 2, K)
    tolerance = 10.0 ** -draw(st.floats(2.0, 10.0))
    what = f"{kind}, scale {scale:.1e}, varpi over {spread:g} decades, {targets}, tolerance {tolerance:.1e}"
    return Case(theta * scale, varpi, y, tolerance, what)


def exact(case: Case) -> Wide:
    """c(1), by scaling and squaring of exp([[-S, b], [0, 0]]) in extended precision."""
    sqrt_d = np.sqrt(case.varpi.astype(np.longdouble))
    s = sqrt_d[:, None] * case.theta * sqrt_d
    a = np.zeros((N + K, N + K), np.longdouble)
    a[:N, :N], a[:N, N:] = -s, sqrt_d[:, None] * case.y
    halvings = max(0, int(np.ceil(np.log2(max(float(np.abs(s).sum(axis=0).max()), 1e-30)))) + 2)
    a[:N, :N] /= np.longdouble(2) ** halvings
    a[:N, N:] /= np.longdouble(2) ** halvings
    term: Wide = np.eye(N + K, dtype=np.longdouble)
    total: Wide = term.copy()
    for power in range(1, 18):
        term = term @ a / power
        total = total + term
    for _ in range(halvings):
        total = total @ total
    return sqrt_d[:, None] * total[:N, N:]


def _relative(value: Wide, reference: Wide) -> float:
    return float(np.linalg.norm((value - reference).astype(np.float64)) / np.linalg.norm(reference.astype(np.float64)))


@OFTEN
@given(case=cases())
def test_the_reported_error_bounds_the_true_one(case: Case) -> None:
    dynamics = ATDynamics(case.theta, case.y, max_passes=60)
    solution = dynamics.coefficients(case.varpi, tol=case.tolerance, throw=False)
    reference = exact(case)
    if not reference.any():
        np.testing.assert_array_equal(solution.value, 0.0)
        return
    error = _relative(solution.value, reference)
    assert error <= solution.error + 1e-15, f"{error:.2e} > {solution.error:.2e}: {case}"
    assert solution.ok == (solution.error <= case.tolerance), case.what
    if not solution.ok:
        with pytest.raises(SolverError, match=r"solver\.|max_passes"):
            dynamics.coefficients(case.varpi, tol=case.tolerance)


def least_squares(theta: Array, varpi: Array, y: Array) -> tuple[Array, float]:
    """The weighted least-squares limit in the range of theta, and how far off rounding may have taken it."""
    values, vectors = np.linalg.eigh(theta)
    kept = values > rank_cutoff(len(y), float(np.diagonal(theta).mean()), theta.dtype)
    u, d = vectors[:, kept], varpi[:, None]
    inner = u.T @ (d * u)
    fitted = np.linalg.solve(inner, u.T @ (d * y))
    value = d * (u @ np.linalg.solve(inner, fitted / values[kept, None]))
    return value, 1e-14 * float(values[-1] / values[kept][0] * np.linalg.cond(inner))


@OFTEN
@given(case=cases(most_decades=9.0))
def test_the_reported_error_bounds_the_true_one_at_infinity(case: Case) -> None:
    dynamics = ATDynamics(case.theta, case.y, max_passes=300)
    solution = dynamics.coefficients(case.varpi, np.inf, tol=case.tolerance, throw=False)
    support = case.varpi > 0
    if not case.y[support].any():
        np.testing.assert_array_equal(solution.value, 0.0)
        return
    assert solution.ok == (solution.error <= case.tolerance), case.what
    np.testing.assert_array_equal(solution.value[~support], 0.0)
    if not solution.ok:
        assert solution.status is not Status.CONVERGED
        with pytest.raises(SolverError, match=r"solver\.|max_passes"):
            dynamics.coefficients(case.varpi, np.inf, tol=case.tolerance)
        return
    matrix = case.theta[np.ix_(support, support)].astype(np.longdouble)
    values = np.linalg.eigvalsh(matrix.astype(np.float64))
    assert values[0] > 0 or "rank" in case.what, f"{case.what}: converged on a matrix that is not positive"
    if "rank" in case.what:
        reference, slack = least_squares(case.theta[np.ix_(support, support)], case.varpi[support], case.y[support])
        assert _relative(solution.value[support], reference) <= solution.error + slack, case.what
        return
    reference = solution.value[support].astype(np.longdouble)
    inverse = np.linalg.pinv(matrix.astype(np.float64), rcond=1e-14, hermitian=True)
    for _ in range(6):  # iterative refinement in extended precision
        reference = reference + inverse @ (case.y[support] - matrix @ reference).astype(np.float64)
    assert _relative(solution.value[support], reference) <= solution.error + 1e-14, case.what

"""Closed-form AT dynamics: limits, trajectories, gradients, and answers that are never stale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import expm

from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import RequestError, SolverError
from advntk_dist.operators import InMemoryOperator
from advntk_dist.solve.solution import Status
from tests.solve.dense_reference import dense_coefficients, dense_gradient

Array = NDArray[np.float64]
Spectral = Callable[..., Array]

N, M, K = 60, 12, 4
_dask: Any = da.from_array
_RNG = np.random.default_rng(11)
Y = np.eye(K)[_RNG.integers(0, K, N)]
Y_VAL = np.eye(K)[_RNG.integers(0, K, M)]
ENOUGH = 240_000
"""Bytes that just suffice for a solve with N samples and K classes."""
VARPI = _RNG.uniform(0.1, 2.0, N)


@pytest.fixture(scope="module")
def theta(spectral: Spectral) -> Array:
    """A kernel-like Gram matrix of norm 10."""
    return spectral(10.0 / np.arange(1, N + 1) ** 1.5 + 0.02)


@pytest.fixture(scope="module")
def decaying(spectral: Spectral) -> Array:
    """A Gram matrix some of whose directions are still learning when the norm of S is 1e6."""
    return spectral(10.0 * 0.75 ** np.arange(N))


@pytest.fixture(scope="module")
def k_val(theta: Array) -> Array:
    return np.asarray(np.random.default_rng(12).standard_normal((M, N)) @ theta / N)


@pytest.fixture(scope="module")
def k_decaying(decaying: Array) -> Array:
    return np.asarray(np.random.default_rng(12).standard_normal((M, N)) @ decaying / N)


def _loss(theta: Array, varpi: Array, k_val: Array) -> float:
    residual = k_val @ dense_coefficients(theta, Y, varpi, 1.0) - Y_VAL
    return float(0.5 * (residual**2).sum() / M)


def test_formula_of_the_theorem(theta: Array) -> None:
    for t in (1e-3, 1.0, 20.0):
        expected = np.linalg.solve(theta, (np.eye(N) - expm(-t * theta * VARPI)) @ Y)
        np.testing.assert_allclose(ATDynamics(theta, Y).coefficients(VARPI, t, 1e-11).value, expected, atol=1e-9)


def test_time_zero_and_varpi_zero_give_zero_at_no_cost(theta: Array) -> None:
    dynamics = ATDynamics(theta, Y)
    for varpi, t in ((VARPI, 0.0), (0.0, 1.0), (np.zeros(N), np.inf), (0.0, 0.0)):
        solution = dynamics.coefficients(varpi, t)
        assert (solution.ok, solution.error, solution.passes) == (True, 0.0, 0)
        np.testing.assert_array_equal(solution.value, np.zeros((N, K)))
    assert dynamics.operator.passes == 0


def test_infinite_time_is_the_regressor_on_the_support(theta: Array) -> None:
    varpi = VARPI * (np.arange(N) % 4 != 0)
    support = varpi > 0
    solution = ATDynamics(theta, Y).coefficients(varpi, np.inf, 1e-9)
    expected = np.zeros((N, K))
    expected[support] = np.linalg.solve(theta[np.ix_(support, support)], Y[support])
    np.testing.assert_allclose(solution.value, expected, atol=1e-7)
    np.testing.assert_array_equal(solution.value[~support], 0.0)
    np.testing.assert_allclose(solution.value, dense_coefficients(theta, Y, varpi, np.inf), atol=1e-7)


def test_infinite_time_is_the_limit_of_large_times(theta: Array) -> None:
    dynamics = ATDynamics(theta, Y)
    limit = dynamics.coefficients(VARPI, np.inf, 1e-9).value
    distances = [float(np.linalg.norm(dynamics.coefficients(VARPI, t, 1e-9).value - limit)) for t in (1e2, 1e3, 1e4)]
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-6 * np.linalg.norm(limit)


def test_ridge_is_relative_to_the_diagonal_and_only_at_infinity(theta: Array) -> None:
    with_it, without = ATDynamics(theta, Y, ridge=0.5), ATDynamics(theta, Y)
    expected = np.linalg.solve(theta + 0.5 * np.diagonal(theta).mean() * np.eye(N), Y)
    np.testing.assert_allclose(with_it.coefficients(1.0, np.inf, 1e-10).value, expected, atol=1e-8)
    np.testing.assert_array_equal(with_it.coefficients(1.0, 3.0).value, without.coefficients(1.0, 3.0).value)


@pytest.mark.parametrize("order", [1, -1])
def test_trajectory_equals_coefficients_one_by_one(theta: Array, order: int) -> None:
    times = [0.0, 1e-6, 1e-3, 0.5, 1.0, 40.0, np.inf][::order]
    dynamics = ATDynamics(theta, Y)
    solutions = dynamics.trajectory(VARPI, times, 1e-9)
    largest_alone = ATDynamics(theta, Y).coefficients(VARPI, 40.0, 1e-9)
    limit_alone = ATDynamics(theta, Y).coefficients(VARPI, np.inf, 1e-9)
    assert dynamics.operator.passes == largest_alone.passes + limit_alone.passes, "one basis serves all times"
    for t, solution in zip(times, solutions, strict=True):
        alone = ATDynamics(theta, Y).coefficients(VARPI, t, 1e-9)
        reference = dense_coefficients(theta, Y, VARPI, t)
        assert solution.ok
        assert np.linalg.norm(solution.value - alone.value) <= 2e-9 * np.linalg.norm(alone.value) + 1e-300
        assert np.linalg.norm(solution.value - reference) <= (solution.error + 1e-12) * np.linalg.norm(reference)


def test_uniform_number_means_all_samples(theta: Array) -> None:
    dynamics = ATDynamics(theta, Y)
    np.testing.assert_array_equal(
        dynamics.coefficients(0.3).value, ATDynamics(theta, Y).coefficients(np.full(N, 0.3)).value
    )


@pytest.mark.parametrize("norm", [1e-2, 1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("zeros", [False, True])
def test_gradient_against_finite_differences(decaying: Array, k_decaying: Array, norm: float, zeros: bool) -> None:
    theta, k_val, tol = decaying, k_decaying, 1e-8 if norm < 1e6 else 1e-6
    varpi = VARPI * (np.arange(N) % 3 != 0) if zeros else VARPI
    varpi = varpi * norm / np.linalg.norm(np.sqrt(varpi)[:, None] * theta * np.sqrt(varpi), 2)
    loss, gradient = ATDynamics(theta, Y).loss_and_gradient(varpi, k_val, Y_VAL, tol=tol)
    np.testing.assert_allclose(loss, _loss(theta, varpi, k_val), rtol=1e-9)
    largest = varpi.max()
    for i in [0, 1, 2, 3, 30, 58]:
        # A central difference; one-sided of second order where varpi_i = 0.
        h = 1e-3 * varpi[i] if varpi[i] > 0 else 1e-2 * largest / max(1.0, norm)
        e = np.eye(N)[i] * h
        if varpi[i] > 0:
            slope = (_loss(theta, varpi + e, k_val) - _loss(theta, varpi - e, k_val)) / (2 * h)
        else:
            here, near, far = (_loss(theta, varpi + s * e, k_val) for s in (0, 1, 2))
            slope = (4 * near - far - 3 * here) / (2 * h)
        noise = 1e-15 * max(1.0, norm / 1e3) * loss / h  # what rounding in the dense reference makes of a difference
        np.testing.assert_allclose(gradient[i], slope, rtol=2e-4, atol=noise + 1e-7 * np.abs(gradient).max())


@pytest.mark.parametrize("norm", [1e-2, 1.0, 1e2, 1e4, 1e6])
def test_gradient_against_the_dense_reference(decaying: Array, k_decaying: Array, norm: float) -> None:
    theta, k_val, varpi = decaying, k_decaying, VARPI * norm / 10
    v = k_val.T @ (k_val @ dense_coefficients(theta, Y, varpi, 1.0) - Y_VAL) / M
    _, gradient = ATDynamics(theta, Y).loss_and_gradient(varpi, k_val, Y_VAL, tol=1e-10 if norm < 1e5 else 1e-7)
    reference = dense_gradient(theta, Y, varpi, v)
    assert np.abs(reference).max() > 0
    np.testing.assert_allclose(gradient, reference, rtol=1e-7, atol=1e-9 * np.abs(reference).max())


def test_gradient_at_the_start_of_training(theta: Array, k_val: Array) -> None:
    loss, gradient = ATDynamics(theta, Y).loss_and_gradient(0.0, k_val, Y_VAL)
    v = -k_val.T @ Y_VAL / M
    np.testing.assert_allclose(gradient, (v * Y).sum(axis=1), rtol=1e-13)
    assert loss == pytest.approx(0.5 * (Y_VAL**2).sum() / M)


def test_gradient_where_the_validation_set_is_fitted(theta: Array, k_val: Array) -> None:
    fitted = k_val @ ATDynamics(theta, Y).coefficients(VARPI, tol=1e-10).value
    loss, gradient = ATDynamics(theta, Y).loss_and_gradient(VARPI, k_val, fitted, tol=1e-10)
    assert loss < 1e-20
    np.testing.assert_allclose(gradient, 0.0, atol=1e-9)


def test_targets_that_lose_rank(theta: Array, k_val: Array) -> None:
    y = np.c_[Y - Y.mean(axis=0), np.zeros(N)]
    solution = ATDynamics(theta, y).coefficients(VARPI, tol=1e-10)
    np.testing.assert_allclose(solution.value, dense_coefficients(theta, y, VARPI, 1.0), atol=1e-9)
    np.testing.assert_array_equal(solution.value[:, K], 0.0)


def test_basis_is_shared_by_attack_and_gradient(theta: Array, k_val: Array) -> None:
    dynamics = ATDynamics(theta, Y)
    forward = dynamics.coefficients(VARPI, tol=1e-8).passes
    assert dynamics.coefficients(VARPI, 0.5, tol=1e-6).ok
    assert dynamics.operator.passes == forward, "a smaller time and a larger tolerance are served already"
    dynamics.loss_and_gradient(VARPI, k_val, Y_VAL, tol=1e-8)
    assert forward < dynamics.operator.passes < 3 * forward


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((VARPI, 1.0, 1e-8), (VARPI * (1 + 1e-12), 1.0, 1e-8)),
        ((VARPI, 1.0, 1e-8), (VARPI[::-1].copy(), 1.0, 1e-8)),
        ((VARPI, 1.0, 1e-2), (VARPI, 1.0, 1e-11)),
        ((VARPI, 1e-3, 1e-8), (VARPI, 100.0, 1e-8)),
        ((VARPI, 100.0, 1e-8), (VARPI, 1e-3, 1e-8)),
    ],
    ids=["slightly other varpi", "other order", "tighter tolerance", "larger time", "smaller time"],
)
def test_cached_basis_is_never_stale(theta: Array, first: Any, second: Any) -> None:
    dynamics = ATDynamics(theta, Y)
    dynamics.coefficients(*first)
    again = dynamics.coefficients(*second)
    reference = dense_coefficients(theta, Y, second[0], second[1])
    assert np.linalg.norm(again.value - reference) <= max(second[2], 1e-13) * np.linalg.norm(reference)
    assert again.error <= second[2]


def test_varpi_changed_in_place_is_seen(theta: Array) -> None:
    dynamics, varpi = ATDynamics(theta, Y), VARPI.copy()
    dynamics.coefficients(varpi)
    varpi *= 3.0
    np.testing.assert_allclose(
        dynamics.coefficients(varpi).value, dense_coefficients(theta, Y, VARPI * 3, 1.0), atol=1e-7
    )


def test_targets_changed_by_the_caller_do_not_matter(theta: Array) -> None:
    y = Y.copy()
    dynamics = ATDynamics(theta, y)
    y[:] = 0.0
    np.testing.assert_allclose(dynamics.coefficients(VARPI).value, dense_coefficients(theta, Y, VARPI, 1.0), atol=1e-7)


def test_failed_basis_is_not_kept(spectral: Spectral) -> None:
    noisy = spectral(np.r_[np.linspace(1, 10, N - 1), -1e-6])
    dynamics = ATDynamics(noisy, Y)
    with pytest.raises(SolverError):
        dynamics.coefficients(1.0, 1e4, 1e-6)
    assert dynamics.coefficients(1.0, 1e-2, 1e-6).ok
    early, late = dynamics.trajectory(1.0, [1e-2, 1e4], 1e-6, throw=False)
    assert early.ok
    assert late.status is Status.NOT_POSITIVE
    assert late.error > 1e-6


@pytest.mark.parametrize(
    ("keywords", "t", "status", "advice"),
    [
        ({"max_passes": 2}, 1.0, Status.MAX_PASSES, "max_passes"),
        ({"memory": ENOUGH}, 1.0, Status.BASIS_FULL, "solver.memory"),
        ({"max_passes": 3}, np.inf, Status.MAX_PASSES, "max_passes"),
    ],
)
def test_missed_tolerance_raises_with_advice(
    theta: Array, keywords: dict[str, Any], t: float, status: Status, advice: str
) -> None:
    dynamics = ATDynamics(theta * 100, Y, **keywords)
    with pytest.raises(SolverError, match=advice) as caught:
        dynamics.coefficients(VARPI, t, 1e-8)
    assert "\n" not in str(caught.value)
    assert "1.0e-08" in str(caught.value)
    solution = dynamics.coefficients(VARPI, t, 1e-8, throw=False)
    assert solution.status is status
    assert not solution.ok
    reference = dense_coefficients(theta * 100, Y, VARPI, t)
    assert np.linalg.norm(solution.value - reference) <= solution.error * np.linalg.norm(reference)


@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e30])
def test_matrix_that_is_not_positive_is_named(spectral: Spectral, unit: float) -> None:
    dynamics = ATDynamics(spectral(np.r_[np.ones(N - 5), -np.ones(5)]) * unit, Y)
    for t in (1 / unit, 100 / unit, np.inf):
        with pytest.raises(SolverError, match=r"not positive semi-definite.*of -[1-9]\.\de[-+]0[01] times the largest"):
            dynamics.coefficients(1.0, t)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_units_of_the_matrix_do_not_matter(theta: Array, dtype: Any, unit: float) -> None:
    scaled: NDArray[Any] = (theta * unit).astype(dtype)
    for t in (1e-3 / unit, 1 / unit, np.inf):
        solution = ATDynamics(scaled, Y).coefficients(VARPI, t, 1e-9)
        reference = dense_coefficients(scaled.astype(np.float64), Y, VARPI, t)
        error = np.linalg.norm((solution.value - reference) * unit) / np.linalg.norm(reference * unit)
        assert error <= solution.error + 1e-12


@pytest.mark.parametrize("make", [np.asarray, np.asfortranarray, lambda a: _dask(a, chunks=((25, 35), (40, 20)))])
def test_of_a_matrix_symmetric_to_rounding_the_upper_half_counts(theta: Array, make: Callable[[Array], Any]) -> None:
    noise = 1 + 1e-7 * np.random.default_rng(3).standard_normal((N, N))
    given: NDArray[Any] = (theta * noise).astype(np.float32)
    matrix = np.triu(given.astype(np.float64))
    matrix = matrix + np.triu(matrix, 1).T
    for t in (1.0, 20.0, np.inf):
        solution = ATDynamics(make(given), Y).coefficients(1.0, t, 1e-10)
        reference = dense_coefficients(matrix, Y, np.ones(N), t)
        assert np.linalg.norm(solution.value - reference) <= (solution.error + 1e-13) * np.linalg.norm(reference)


@pytest.mark.parametrize("make", [np.asarray, lambda a: _dask(a, chunks=25)])
@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e30])
def test_a_matrix_that_is_not_symmetric_is_refused(theta: Array, make: Callable[[Array], Any], unit: float) -> None:
    skew = theta * unit
    skew[3, 40] += 0.01 * skew.max()
    with pytest.raises(RequestError, match="a Gram matrix is symmetric") as caught:
        ATDynamics(make(skew), Y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tol", [0.0, -1e-8, 1.0, 2.0, np.nan, np.inf])
def test_a_tolerance_that_is_none_is_refused(theta: Array, k_val: Array, tol: float) -> None:
    dynamics = ATDynamics(theta, Y)
    for ask in (
        lambda: dynamics.coefficients(VARPI, tol=tol),
        lambda: dynamics.coefficients(VARPI, np.inf, tol=tol),
        lambda: dynamics.leading_eigenvalues(VARPI, tol=tol),
        lambda: dynamics.loss_and_gradient(VARPI, k_val, Y_VAL, tol=tol),
    ):
        with pytest.raises(RequestError, match=r"tol: must be > 0 and < 1"):
            ask()
    assert dynamics.operator.passes == 0


def test_gradient_fails_loudly(theta: Array, k_val: Array) -> None:
    with pytest.raises(SolverError, match="coefficients at t = 1"):
        ATDynamics(theta, Y, max_passes=1).loss_and_gradient(VARPI, k_val, Y_VAL)


@pytest.mark.parametrize("make", [np.asarray, lambda a: _dask(a, chunks=25), InMemoryOperator])
def test_any_form_of_the_matrix(theta: Array, make: Callable[[Array], Any]) -> None:
    solution = ATDynamics(make(theta), Y.astype(np.float32)).coefficients(VARPI)
    np.testing.assert_allclose(solution.value, dense_coefficients(theta, Y, VARPI, 1.0), atol=1e-7)


@pytest.mark.parametrize(
    ("varpi", "times"),
    [
        (-VARPI, [1.0]),
        (VARPI[:-1], [1.0]),
        (np.r_[VARPI[:-1], np.nan], [1.0]),
        (np.r_[VARPI[:-1], np.inf], [1.0]),
        (VARPI[:, None], [1.0]),
        (-1.0, [1.0]),
        (VARPI, [-1.0]),
        (VARPI, [1.0, np.nan]),
    ],
    ids=["negative", "short", "nan", "inf", "column", "negative number", "negative time", "nan time"],
)
def test_impossible_arguments(theta: Array, varpi: Any, times: list[float]) -> None:
    with pytest.raises(ValueError, match=r"varpi must be|times must be"):
        ATDynamics(theta, Y).trajectory(varpi, times)


@pytest.mark.parametrize("y", [Y[:-1], Y[:, 0], np.where(Y == 1, np.nan, Y)])
def test_impossible_targets(theta: Array, y: Array) -> None:
    with pytest.raises(ValueError, match="targets must be finite"):
        ATDynamics(theta, y)


def test_impossible_validation_set(theta: Array, k_val: Array) -> None:
    for k, y in ((k_val.T, Y_VAL), (k_val, Y_VAL[:-1]), (k_val[0], Y_VAL[0]), (k_val, Y_VAL[:, :2])):
        with pytest.raises(ValueError, match="k_val must be"):
            ATDynamics(theta, Y).loss_and_gradient(VARPI, k, y)


def test_empty_trajectory(theta: Array) -> None:
    assert ATDynamics(theta, Y).trajectory(VARPI, []) == []


def test_leading_eigenvalues_are_eigenvalues_within_their_errors(spectral: Any) -> None:
    values = np.geomspace(1e3, 1e-3, 150)
    theta = spectral(values)
    dynamics = ATDynamics(theta, np.random.default_rng(0).standard_normal((150, 3)))
    dynamics.trajectory(1.0, [0.01, 0.5], 1e-6)
    before = dynamics.operator.passes
    found, errors = dynamics.leading_eigenvalues(1.0, 0.5, 1e-6)
    assert dynamics.operator.passes == before
    assert len(found) >= 20
    assert (np.diff(found) <= 0).all()
    distance = np.abs(found[:, None] - values).min(axis=1)
    assert (distance <= errors + 1e-9).all()
    np.testing.assert_allclose(found[:10], values[:10], rtol=1e-6)


def test_fewer_samples_than_classes() -> None:
    rng = np.random.default_rng(0)
    half = rng.standard_normal((3, 3))
    theta, y = half @ half.T, rng.standard_normal((3, 5))
    found = ATDynamics(theta, y).coefficients(0.7, tol=1e-10).value
    np.testing.assert_allclose(found, dense_coefficients(theta, y, np.full(3, 0.7), 1.0), atol=1e-9)

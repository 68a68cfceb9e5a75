"""The limit t = infinity of singular matrices: a pseudo-inverse, with an error bound that holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import SolverError
from advntk_dist.solve.limit import rank_cutoff
from advntk_dist.solve.solution import Status

Array = NDArray[np.float64]
Spectral = Callable[..., Array]

N, K = 120, 5
_RNG = np.random.default_rng(5)
Y = np.eye(K)[_RNG.integers(0, K, N)]
WEIGHTS = {"uniform": np.full(N, 0.3), "weighted": _RNG.uniform(0.1, 2.0, N)}
SPECTRA = {
    "rank 30": np.r_[np.logspace(1, -1, 30), np.zeros(N - 30)],
    "one is 0": np.r_[np.logspace(1, -1, N - 1), 0.0],
    "ones and zeros": np.r_[np.ones(50), np.zeros(70)],
    "like a kernel": np.r_[1e2 / np.arange(1, N - 3) ** 1.5 + 0.05, np.zeros(4)],
}


def rounded(theta: Array, dtype: Any) -> NDArray[Any]:
    """The matrix in a dtype, symmetric to the last bit."""
    upper = np.triu(theta.astype(dtype))
    return np.asarray(upper + np.triu(upper, 1).T)


def pseudo_inverse(theta: NDArray[Any], y: Array, varpi: Array) -> tuple[Array, float]:
    """c(infinity), and the part of the targets that is left out, densely in float64."""
    s = np.sqrt(varpi / varpi.max())[:, None]
    values, vectors = np.linalg.eigh(s * theta.astype(np.float64) * s.T)
    kept = values > rank_cutoff(len(y), float(np.diagonal(theta).mean()), theta.dtype)
    assert 0 < kept.sum() < len(y)
    inside = vectors.T @ (s * y)
    left = np.linalg.norm(inside[~kept]) / np.linalg.norm(s * y)
    return s * (vectors[:, kept] @ (inside[kept] / values[kept, None])), float(left)


def relative(value: NDArray[Any], reference: NDArray[Any]) -> float:
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_the_limit_is_the_pseudo_inverse(spectral: Spectral, spectrum: str, weights: str, dtype: Any) -> None:
    theta, varpi = rounded(spectral(SPECTRA[spectrum]), dtype), WEIGHTS[weights]
    for tolerance in (1e-3, 1e-7):
        dynamics = ATDynamics(theta, Y)
        solution = dynamics.coefficients(varpi, np.inf, tolerance)
        expected, left_out = pseudo_inverse(theta, Y, varpi)
        assert relative(solution.value, expected) <= solution.error + 1e-11 <= tolerance + 1e-11
        assert solution.left_out == pytest.approx(left_out, rel=1e-3)
        assert dynamics.operator.passes == solution.passes


@pytest.mark.parametrize("n", [12, 39, 60])
def test_small_systems_with_and_without_a_preconditioner(spectral: Spectral, n: int) -> None:
    theta = spectral(np.r_[np.logspace(0, -2, n - 2), 0, 0])
    solution = ATDynamics(theta, Y[:n]).coefficients(1.0, np.inf, 1e-9)
    assert relative(solution.value, pseudo_inverse(theta, Y[:n], np.ones(n))[0]) <= solution.error + 1e-13


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_equal_images_with_different_labels_get_their_weighted_mean(
    spectral: Spectral, weights: str, dtype: Any
) -> None:
    twice, varpi = np.r_[np.arange(N - 3), 0, 1, 1], WEIGHTS[weights]
    theta = rounded(spectral(1e2 / np.arange(1, N + 1) ** 1.5 + 0.05)[np.ix_(twice, twice)], dtype)
    assert (theta[0] == theta[N - 3]).all()
    y = Y.copy()
    y[[0, N - 3]] = np.eye(K)[:2]
    dynamics = ATDynamics(theta, y)
    finite, limit = dynamics.trajectory(varpi, [1e4, np.inf], 1e-6)
    assert limit.ok
    assert relative(limit.value, pseudo_inverse(theta, y, varpi)[0]) <= limit.error
    fitted = theta.astype(np.float64) @ limit.value
    for group in ([0, N - 3], [1, N - 2, N - 1]):
        mean = varpi[group] @ y[group] / varpi[group].sum()
        np.testing.assert_allclose(fitted[group], np.broadcast_to(mean, (len(group), K)), atol=1e-4)
    others = np.arange(2, N - 3)
    np.testing.assert_allclose(fitted[others], y[others], atol=1e-4)
    np.testing.assert_allclose(theta.astype(np.float64) @ finite.value, fitted, atol=1e-3)
    alone = ATDynamics(theta, y).coefficients(varpi, 1e4, 1e-6)
    np.testing.assert_array_equal(alone.value, finite.value)


def test_samples_with_varpi_0_take_no_part(spectral: Spectral) -> None:
    theta = spectral(SPECTRA["rank 30"])
    varpi = np.where(np.arange(N) % 3 == 0, 0.0, 1.0)
    there = varpi > 0
    solution = ATDynamics(theta, Y).coefficients(varpi, np.inf, 1e-7)
    np.testing.assert_array_equal(solution.value[~there], 0.0)
    expected, _ = pseudo_inverse(theta[np.ix_(there, there)], Y[there], varpi[there])
    assert relative(solution.value[there], expected) <= solution.error


@pytest.mark.parametrize("unit", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_units_do_not_matter(spectral: Spectral, unit: float, dtype: Any) -> None:
    theta = rounded(spectral(SPECTRA["rank 30"]) * unit, dtype)
    solution = ATDynamics(theta, Y).coefficients(1.0, np.inf, 1e-6)
    assert relative(solution.value * unit, pseudo_inverse(theta, Y, np.ones(N))[0] * unit) <= solution.error + 1e-11


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
@pytest.mark.parametrize("left_out", [0, 3])
def test_equal_times_go_on_with_the_basis_of_finite_ones(spectral: Spectral, left_out: int, ridge: float) -> None:
    theta, varpi = spectral(1e2 / np.arange(1, N + 1) ** 1.5 + 0.05), np.full(N, 0.3)
    varpi[:left_out] = 0.0
    there = varpi > 0
    dynamics = ATDynamics(theta, Y, ridge=ridge)
    finite = dynamics.coefficients(varpi, 1.0, 1e-6)
    spectrum = dynamics.leading_eigenvalues(varpi, 1.0, 1e-6)
    k_val = theta[:7]
    loss, gradient = dynamics.loss_and_gradient(varpi, k_val, Y[:7], 1e-6)
    before = dynamics.operator.passes
    limit = dynamics.coefficients(varpi, np.inf, 1e-8)
    assert dynamics.operator.passes - before == limit.passes - finite.passes, "only what was missing"
    inside = theta[np.ix_(there, there)]
    inside = inside + ridge * float(np.diagonal(theta).mean()) * np.eye(len(inside))
    assert relative(limit.value[there], np.linalg.solve(inside, Y[there])) <= limit.error <= 1e-8
    np.testing.assert_array_equal(limit.value[~there], 0.0)
    assert dynamics.coefficients(varpi, np.inf, 1e-6).passes == limit.passes
    # What was known of finite times stays as it was.
    np.testing.assert_array_equal(dynamics.coefficients(varpi, 1.0, 1e-6).value, finite.value)
    for kept, known in zip(dynamics.leading_eigenvalues(varpi, 1.0, 1e-6), spectrum, strict=True):
        np.testing.assert_array_equal(kept, known)
    after = dynamics.loss_and_gradient(varpi, k_val, Y[:7], 1e-6)
    assert after[0] == loss
    np.testing.assert_array_equal(after[1], gradient)


def test_a_basis_that_is_full_leaves_the_limit_to_conjugate_gradients(spectral: Spectral) -> None:
    theta = spectral(np.logspace(1, -1, N))
    dynamics = ATDynamics(theta, Y)
    dynamics.plan = replace(dynamics.plan, max_columns=3 * K)
    solution = dynamics.coefficients(1.0, np.inf, 1e-8)
    assert relative(solution.value, np.linalg.solve(theta, Y)) <= solution.error <= 1e-8
    assert dynamics.operator.passes == solution.passes > 3


def test_a_matrix_that_is_not_singular_has_the_numbers_of_conjugate_gradients(spectral: Spectral) -> None:
    theta = spectral(np.logspace(2, -2, N))
    solution = ATDynamics(theta, Y).coefficients(WEIGHTS["weighted"], np.inf, 1e-8)
    assert solution.left_out == 0
    assert relative(solution.value, np.linalg.solve(theta, Y)) <= solution.error


def test_zeros_alone_leave_everything_out() -> None:
    solution = ATDynamics(np.zeros((N, N)), Y).coefficients(1.0, np.inf)
    assert (solution.ok, solution.error) == (True, 0.0)
    assert solution.left_out == pytest.approx(1.0)
    np.testing.assert_array_equal(solution.value, 0.0)


@pytest.mark.parametrize("lowest", [-0.5, -1e-3, -1e-6])
def test_negative_eigenvalues_are_no_null_space(spectral: Spectral, lowest: float) -> None:
    dynamics = ATDynamics(spectral(np.r_[np.linspace(1, 2, N - 1), lowest]), Y)
    solution = dynamics.coefficients(1.0, np.inf, throw=False)
    assert solution.status is Status.NOT_POSITIVE
    assert lowest / 2 * 1.1 <= solution.smallest_ritz < lowest / 20, "what was met of it when it was seen"
    with pytest.raises(SolverError, match=r"not positive semi-definite.*times the largest.*solver\.ridge"):
        dynamics.coefficients(1.0, np.inf)


def test_a_spectrum_without_a_gap_has_no_limit_that_could_be_known(spectral: Spectral) -> None:
    theta = rounded(spectral(np.logspace(0, -12, N)), np.float32)
    solution = ATDynamics(theta, Y).coefficients(1.0, np.inf, 1e-3, throw=False)
    assert not solution.ok
    assert solution.error > 1e-3


@pytest.mark.parametrize("max_passes", [4, 8, 12])
def test_limit_on_passes(spectral: Spectral, max_passes: int) -> None:
    theta = spectral(SPECTRA["one is 0"])
    dynamics = ATDynamics(theta, Y, max_passes=max_passes)
    solution = dynamics.coefficients(1.0, np.inf, 1e-8, throw=False)
    assert not solution.ok
    assert dynamics.operator.passes == solution.passes <= max_passes
    expected, _ = pseudo_inverse(theta, Y, np.ones(N))
    assert 1e-8 < relative(solution.value, expected) <= solution.error

"""Preconditioned conjugate gradients: the limit t = infinity, with an error bound that holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.solve.cg import nystrom_preconditioner, solve_infinite_time
from advntk_dist.solve.solution import Status
from tests.solve.dense_reference import Counted, relative

Array = NDArray[np.float64]
Spectral = Callable[..., Array]

N = 120
Y = np.eye(5)[np.random.default_rng(2).integers(0, 5, N)]
SPECTRA = {
    "identity": np.full(N, 3.0),
    "condition 1e2": np.logspace(1, -1, N),
    "condition 1e5": np.logspace(3, -2, N),
    "like a kernel": 1e3 / np.arange(1, N + 1) ** 2.5 + 0.02,
    "outliers": np.r_[1e6, 1e5, 1e4, np.linspace(1, 2, N - 3)],
    "tiny units": np.logspace(-9, -12, N),
}


def _exact(theta: Array, y: Array, ridge: float = 0.0) -> Array:
    return np.asarray(np.linalg.solve(theta + ridge * np.eye(len(theta)), y))


@pytest.mark.parametrize(("tolerance", "seed"), [(1e-3, 0), (1e-6, 1), (1e-8, 2)])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_bound_holds(spectral: Spectral, spectrum: str, tolerance: float, seed: int) -> None:
    matmat = Counted(spectral(SPECTRA[spectrum], seed))
    solution = solve_infinite_time(matmat, Y, tolerance=tolerance)
    error = relative(solution.value, _exact(matmat.theta, Y))
    assert solution.status is Status.CONVERGED
    assert error <= solution.error + 1e-13
    assert solution.error <= tolerance
    assert solution.passes == matmat.passes


def test_bound_holds_where_the_passes_do_not_suffice(spectral: Spectral) -> None:
    for values in (np.logspace(3, -4, N), np.logspace(0, -12, N)):
        theta = spectral(values)
        vectors = np.linalg.eigh(theta)[1][:, ::-1]
        solution = solve_infinite_time(Counted(theta), Y, tolerance=1e-6, max_passes=120)
        assert solution.status is Status.MAX_PASSES
        assert 1e-6 < relative(solution.value, (vectors / values) @ (vectors.T @ Y)) <= solution.error


@pytest.mark.parametrize("n", [3, 20, 39, 40, 41])
def test_small_systems_with_and_without_a_preconditioner(spectral: Spectral, n: int) -> None:
    matmat = Counted(spectral(np.logspace(0, -2, n)))
    solution = solve_infinite_time(matmat, Y[:n], tolerance=1e-9)
    assert solution.ok
    assert relative(solution.value, _exact(matmat.theta, Y[:n])) <= solution.error + 1e-14
    assert solution.passes == matmat.passes


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_ridge(spectral: Spectral, ridge: float) -> None:
    theta = spectral(np.r_[np.logspace(2, -2, N - 40), np.zeros(40)])
    solution = solve_infinite_time(Counted(theta), Y, tolerance=1e-7, ridge=ridge)
    assert solution.ok
    assert relative(solution.value, _exact(theta, Y, ridge)) <= solution.error


def test_ridge_makes_a_matrix_with_float32_noise_solvable(spectral: Spectral) -> None:
    noise = np.random.default_rng(0).standard_normal((N, N)) * 1e-6
    theta = spectral(np.logspace(0, -12, N)) + (noise + noise.T) / 2
    assert np.linalg.eigvalsh(theta)[0] < 0
    assert not solve_infinite_time(Counted(theta), Y, tolerance=1e-6).ok
    solution = solve_infinite_time(Counted(theta), Y, tolerance=1e-6, ridge=1e-3)
    assert solution.ok
    assert relative(solution.value, _exact(theta, Y, 1e-3)) <= solution.error


@pytest.mark.parametrize("rank", [5, 29, 30, 31, 60, 119])
def test_semidefinite_and_consistent_gives_the_minimum_norm_solution(spectral: Spectral, rank: int) -> None:
    theta = spectral(np.r_[np.logspace(1, -1, rank), np.zeros(N - rank)])
    y = theta @ np.random.default_rng(3).standard_normal((N, 4))
    solution = solve_infinite_time(Counted(theta), y, tolerance=1e-6)
    assert solution.ok
    reference = np.linalg.pinv(theta, rcond=1e-10, hermitian=True) @ y
    assert relative(solution.value, reference) <= solution.error + 1e-12


def test_images_that_occur_twice(spectral: Spectral) -> None:
    theta = spectral(1e3 / np.arange(1, 101) ** 2.0 + 0.05)
    twice = np.r_[np.arange(100), np.arange(20)]
    gram = theta[np.ix_(twice, twice)]
    solution = solve_infinite_time(Counted(gram), Y[:100][twice], tolerance=1e-6)
    assert solution.ok
    reference = np.linalg.pinv(gram, rcond=1e-10, hermitian=True) @ Y[:100][twice]
    assert relative(solution.value, reference) <= solution.error
    contradicting = solve_infinite_time(Counted(gram), np.r_[Y[:100], 1 - Y[:20]], tolerance=1e-6, max_passes=300)
    assert not contradicting.ok
    assert contradicting.error > 1e-6


def test_semidefinite_and_inconsistent_fails(spectral: Spectral) -> None:
    solution = solve_infinite_time(Counted(spectral(np.r_[np.ones(30), np.zeros(N - 30)])), Y, tolerance=1e-6)
    assert not solution.ok
    assert solution.error > 1e-6


def test_indefinite_matrix_is_not_positive(spectral: Spectral) -> None:
    solution = solve_infinite_time(Counted(spectral(np.r_[np.linspace(1, 2, N - 5), -np.ones(5)])), Y, tolerance=1e-6)
    assert solution.status is Status.NOT_POSITIVE
    assert solution.error == np.inf


@pytest.mark.parametrize("max_passes", [1, 2, 3, 4, 6, 12])
def test_limit_on_passes(spectral: Spectral, max_passes: int) -> None:
    matmat = Counted(spectral(np.logspace(0, -4, N)))
    solution = solve_infinite_time(matmat, Y, tolerance=1e-8, max_passes=max_passes)
    assert solution.status is Status.MAX_PASSES
    assert solution.passes == matmat.passes <= max_passes
    assert solution.error > 1e-8
    assert np.isfinite(solution.error) == (max_passes > 2), "without a step there is no bound"


def test_zero_targets_cost_nothing() -> None:
    matmat = Counted(np.eye(N))
    solution = solve_infinite_time(matmat, np.zeros((N, 2)), tolerance=1e-8)
    assert (solution.ok, solution.passes, matmat.passes, solution.error) == (True, 0, 0, 0.0)


def test_absent_class_has_zero_coefficients(spectral: Spectral) -> None:
    y = np.c_[Y[:, :2], np.zeros(N)]
    solution = solve_infinite_time(Counted(spectral(np.logspace(0, -2, N))), y, tolerance=1e-8)
    assert solution.ok
    np.testing.assert_array_equal(solution.value[:, 2], 0.0)


def test_preconditioner_never_stretches(spectral: Spectral) -> None:
    for values in (np.logspace(3, -6, N), np.r_[np.ones(10), np.zeros(N - 10)], np.logspace(0, -20, N)):
        theta = spectral(values)
        applied = nystrom_preconditioner(Counted(theta), N, 30, ridge=1e-4).apply(np.eye(N))
        eigenvalues = np.linalg.eigvalsh((applied + applied.T) / 2)
        assert eigenvalues.max() <= 1 + 1e-10
        assert eigenvalues.min() > 0


def test_preconditioner_survives_negative_eigenvalues(spectral: Spectral) -> None:
    noise = np.random.default_rng(0).standard_normal((N, N)) * 1e-6
    matmat = Counted(spectral(np.r_[np.ones(5), np.zeros(N - 5)]) + (noise + noise.T) / 2)
    preconditioner = nystrom_preconditioner(matmat, N, 30, ridge=0.0)
    assert matmat.passes == 1
    assert np.linalg.norm(preconditioner.apply(np.eye(N)), 2) <= 1 + 1e-10


def test_preconditioner_saves_passes(spectral: Spectral) -> None:
    theta = spectral(1e4 / np.arange(1, N + 1) ** 2 + 1.0)
    with_it = solve_infinite_time(Counted(theta), Y, tolerance=1e-8)
    without = solve_infinite_time(Counted(theta), Y, tolerance=1e-8, rank=0)
    assert with_it.ok
    assert without.ok
    assert with_it.passes < 0.6 * without.passes

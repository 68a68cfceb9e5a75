"""Block Lanczos on matrices of prescribed spectrum: the reported bound bounds the true error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.solve.krylov import KrylovBasis
from advntk_dist.solve.lanczos import krylov_basis
from advntk_dist.solve.phi import phi_1
from advntk_dist.solve.solution import Status
from tests.solve.dense_reference import Counted, dense_coefficients, relative

Array = NDArray[np.float64]
Spectral = Callable[..., Array]

N = 80
SPECTRA = {
    "condition 1e3": np.logspace(0, -3, N),
    "condition 1e12": np.logspace(0, -12, N),
    "rank 20": np.r_[np.logspace(0, -2, 20), np.zeros(N - 20)],
    "rank 4": np.r_[np.ones(2), 0.1, 1e-5, np.zeros(N - 4)],
    "clusters": np.repeat([1.0, 0.1, 1e-2, 1e-5, 1e-7], N // 5),
    "identity": np.ones(N),
}
_RNG = np.random.default_rng(7)
VARPI = {
    "uniform": np.ones(N),
    "zeros and decades": 10.0 ** _RNG.uniform(-6, 0, N) * (_RNG.random(N) > 0.3),
    "one sample": np.eye(N)[3],
}
_LABELS = _RNG.integers(0, 7, N)  # classes 7, 8 and 9 are absent
ONE_HOT = np.eye(10)[_LABELS]
TARGETS = {"one-hot, absent classes": ONE_HOT, "minus the mean": ONE_HOT - ONE_HOT.mean(axis=0)}


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("varpi", VARPI)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_bound_holds_at_every_scale(spectral: Spectral, spectrum: str, varpi: str, targets: str) -> None:
    for scale in (1e-2, 1e2, 1e6):
        theta, d, y = spectral(SPECTRA[spectrum]) * scale, VARPI[varpi], TARGETS[targets]
        matmat = Counted(theta)
        basis = krylov_basis(matmat, d, y, t=1.0, tolerance=1e-6)
        reference = dense_coefficients(theta, y, d, 1.0)
        error = relative(basis.coefficients(1.0), reference)
        where = f"||S|| up to {scale:g}: error {error:.1e}, bound {basis.error(1.0):.1e}"
        # The reference itself is exact to rounding only.
        assert error <= basis.error(1.0) + 1e-13, where
        # At this size rounding alone passes the tolerance where the bound must allow for six decades of varpi.
        if scale < 1e6 or varpi != "zeros and decades":
            assert basis.status is Status.CONVERGED, where
            assert basis.error(1.0) <= 1e-6, where
        else:
            assert basis.status in (Status.CONVERGED, Status.STAGNATED), where
            assert error <= 1e-6, where
        assert basis.passes == matmat.passes, where


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_smaller_times_of_one_basis_are_known_as_well(spectral: Spectral, spectrum: str) -> None:
    theta, d, y = spectral(SPECTRA[spectrum]) * 300, VARPI["zeros and decades"], TARGETS["minus the mean"]
    basis = krylov_basis(Counted(theta), d, y, t=50.0, tolerance=1e-6)
    for t in (1e-6, 1e-3, 0.1, 1.0, 7.0, 49.0, 50.0):
        error = relative(basis.coefficients(t), dense_coefficients(theta, y, d, t))
        assert error <= basis.error(t) + 1e-13 <= 1.1e-6, t


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-9])
def test_bound_is_not_wildly_pessimistic(spectral: Spectral, tolerance: float) -> None:
    theta = spectral(np.logspace(2, -1, N))
    basis = krylov_basis(Counted(theta), np.ones(N), ONE_HOT, t=1.0, tolerance=tolerance)
    error = relative(basis.coefficients(1.0), dense_coefficients(theta, ONE_HOT, np.ones(N), 1.0))
    assert error <= basis.error(1.0) <= 1000 * error


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e3, 1e5])
@pytest.mark.parametrize("spectrum", ["condition 1e12", "rank 20", "clusters"])
def test_rounding_in_the_tiles_is_part_of_the_bound(spectral: Spectral, spectrum: str, scale: float) -> None:
    noise = np.random.default_rng(1).standard_normal((N, N)) * 1e-7
    theta = (spectral(SPECTRA[spectrum]) + (noise + noise.T) / 2).astype(np.float32).astype(np.float64) * scale
    values, vectors = np.linalg.eigh(theta)
    assert values[0] < -1e-8 * scale
    y = TARGETS["minus the mean"]
    basis = krylov_basis(Counted(theta), np.ones(N), y, t=1.0, tolerance=1e-6)
    # What the matrix, as it is given, asks for; and what it asks for with its negative eigenvalues clamped.
    given = vectors @ (phi_1(-values)[:, None] * (vectors.T @ y))
    error = relative(basis.coefficients(1.0), given)
    assert error <= basis.error(1.0)
    assert (basis.status is Status.CONVERGED) == (basis.error(1.0) <= 1e-6)
    clamped = relative(basis.coefficients(1.0), dense_coefficients(theta, y, np.ones(N), 1.0))
    assert clamped <= basis.error(1.0) + relative(dense_coefficients(theta, y, np.ones(N), 1.0), given) * 1.01
    assert basis.smallest_ritz <= 0


def test_negative_ritz_values_are_reported_and_clamped(spectral: Spectral) -> None:
    theta = spectral(np.r_[np.linspace(1.0, 2.0, N - 1), -0.5])
    basis = krylov_basis(Counted(theta), np.ones(N), ONE_HOT, t=1.0, tolerance=1e-8)
    assert basis.ritz.min() >= 0
    assert basis.smallest_ritz < -0.05
    assert basis.status is Status.NOT_POSITIVE
    assert basis.error(1.0) > 1e-8
    assert basis.passes < 20, "a miss that no pass can mend is seen early"


def test_units_do_not_matter(spectral: Spectral) -> None:
    theta, y = spectral(SPECTRA["condition 1e3"]), TARGETS["minus the mean"]
    plain = krylov_basis(Counted(theta), np.full(N, 50.0), y, t=1.0, tolerance=1e-11)
    for unit in (1e-12, 1e-6, 1e6, 1e12):
        scaled = krylov_basis(Counted(theta * unit), np.full(N, 50.0 / unit), y * 1e9, t=1.0, tolerance=1e-11)
        assert scaled.status is Status.CONVERGED, unit
        assert scaled.passes == plain.passes, unit
        np.testing.assert_allclose(scaled.error(1.0), plain.error(1.0), rtol=0.1)
        np.testing.assert_allclose(scaled.coefficients(1.0) * unit / 1e9, plain.coefficients(1.0), atol=1e-9)


def test_rank_of_the_start_block_is_found(spectral: Spectral) -> None:
    basis = krylov_basis(
        Counted(spectral(SPECTRA["condition 1e3"])), np.ones(N), TARGETS["minus the mean"], t=1.0, tolerance=1e-8
    )
    present = len(np.unique(_LABELS))
    assert basis.q.shape[1] % (present - 1) == 0, "absent classes and the sum over classes are deflated"


def test_basis_is_orthonormal_and_keeps_its_image(spectral: Spectral) -> None:
    theta, d = spectral(SPECTRA["clusters"]) * 1e6, VARPI["zeros and decades"]
    basis = krylov_basis(Counted(theta), d, ONE_HOT, t=1.0, tolerance=1e-9)
    width = basis.q.shape[1]
    q = basis.q.dense()
    np.testing.assert_allclose(q.T @ q, np.eye(width), atol=1e-13)
    np.testing.assert_allclose(basis.image.dense(), theta @ (np.sqrt(d)[:, None] * q), atol=1e-9)


@pytest.mark.parametrize(
    ("limit", "status"), [({"max_passes": 2}, Status.MAX_PASSES), ({"max_columns": 25}, Status.BASIS_FULL)]
)
def test_limits_end_the_growth_with_an_honest_bound(spectral: Spectral, limit: dict[str, Any], status: Status) -> None:
    theta = spectral(np.logspace(4, 0, N))
    matmat = Counted(theta)
    basis = krylov_basis(matmat, np.ones(N), ONE_HOT, t=1.0, tolerance=1e-8, **limit)
    assert basis.status is status
    assert basis.passes == matmat.passes
    assert basis.passes <= limit.get("max_passes", 99)
    assert basis.q.shape[1] <= limit.get("max_columns", 20)
    error = relative(basis.coefficients(1.0), dense_coefficients(theta, ONE_HOT, np.ones(N), 1.0))
    assert 1e-8 < error <= basis.error(1.0)


def test_full_basis_is_exact_to_rounding(spectral: Spectral) -> None:
    theta = spectral(np.logspace(6, 3, N))
    basis = krylov_basis(Counted(theta), np.ones(N), ONE_HOT, t=1.0, tolerance=1e-16)
    assert basis.status is Status.STAGNATED
    error = relative(basis.coefficients(1.0), dense_coefficients(theta, ONE_HOT, np.ones(N), 1.0))
    assert 0 < error <= basis.error(1.0) < 1e-7


@pytest.mark.parametrize(("d", "y"), [(np.zeros(N), ONE_HOT), (np.ones(N), np.zeros((N, 3)))])
def test_nothing_to_solve_costs_no_pass(spectral: Spectral, d: Array, y: Array) -> None:
    matmat = Counted(np.eye(N))
    basis: KrylovBasis = krylov_basis(matmat, d, y, t=1.0, tolerance=1e-8)
    assert (basis.passes, matmat.passes, basis.error(1.0)) == (0, 0, 0.0)
    assert basis.status is Status.CONVERGED
    np.testing.assert_array_equal(basis.coefficients(1.0), np.zeros_like(y))


def test_time_zero_is_zero(spectral: Spectral) -> None:
    basis = krylov_basis(Counted(spectral(SPECTRA["identity"])), np.ones(N), ONE_HOT, t=1.0, tolerance=1e-8)
    assert basis.error(0.0) == 0.0
    np.testing.assert_array_equal(basis.coefficients(0.0), np.zeros_like(ONE_HOT))

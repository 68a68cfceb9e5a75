"""The exact piecewise answer against dense references, its convergence, and its distance to the closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import advntk_dist as advntk
from advntk_dist.errors import RequestError
from advntk_dist.theory.piecewise import increments_of, piecewise_trajectory, schedule_distance
from advntk_dist.theory.schedules import Cyclic, LinearRamp, PerSample, Piecewise

N, K = 24, 3
RNG = np.random.default_rng(3)
Y = RNG.standard_normal((N, K))
ARK = RNG.uniform(0.5, 1.5, N)
K_TEST = RNG.standard_normal((5, N))


@pytest.fixture(scope="module")
def theta(spectral: Callable[..., NDArray[np.float64]]) -> NDArray[np.float64]:
    return spectral(np.geomspace(1e-3, 3.0, N))


def test_pieces_equal_the_product_of_dense_exponentials(theta: NDArray[np.float64]) -> None:
    rows = RNG.uniform(0, 2, (4, N))
    rows[1, :5] = 0.0
    residual = Y.copy()
    solutions = piecewise_trajectory(theta, Y, rows, tol=1e-11)
    for row, solution in zip(rows, solutions, strict=True):
        residual = expm(-theta * row) @ residual  # Theta Diag(row)
        np.testing.assert_allclose(theta @ solution.value, Y - residual, atol=1e-9)
    assert solutions[-1].passes > solutions[0].passes
    assert solutions[-1].error < 1e-10


def test_pieces_equal_the_differential_equation(theta: NDArray[np.float64]) -> None:
    eta = Piecewise([0.0, 0.7, 1.1], RNG.uniform(0, 2, (3, N)))
    rows = increments_of(ARK, eta, inner_time=1.0, edges=[0.0, 0.7, 1.1, 2.0])
    found = piecewise_trajectory(theta, Y[:, :1], rows, tol=1e-11)[-1]

    def flow(t: float, c: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.exp(ARK * eta(t)) * (Y[:, 0] - theta @ c))

    c = np.zeros(N)
    for a, b in ((0.0, 0.7), (0.7, 1.1), (1.1, 2.0)):
        c = solve_ivp(flow, (a, b - 1e-12), c, rtol=1e-10, atol=1e-12, method="DOP853").y[:, -1]
    np.testing.assert_allclose(found.value[:, 0], c, rtol=1e-6, atol=1e-7)


def test_smooth_schedules_converge_at_second_order(theta: NDArray[np.float64]) -> None:
    eta = PerSample(RNG.uniform(0, 3, N), LinearRamp(0.0, 1.0, 2.0))
    values = {}
    for pieces in (4, 8, 16, 128):
        rows = increments_of(ARK, eta, inner_time=1.0, edges=list(np.linspace(0, 2, pieces + 1)))
        values[pieces] = piecewise_trajectory(theta, Y, rows, tol=1e-11)[-1].value
    errors = [np.linalg.norm(theta @ (values[p] - values[128])) for p in (4, 8, 16)]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(rates - 2) < 0.3).all(), rates


def test_commuting_schedules_have_no_distance(theta: NDArray[np.float64]) -> None:
    common = Cyclic(0.0, 2.0, 1.0)
    same_ark = np.full(N, 1.2)  # e.g. any ReLU network: one profile of time for all samples
    for ark, eta in ((ARK, RNG.uniform(0, 2, N)), (same_ark, common)):
        d = schedule_distance(theta, Y, ark, eta, inner_time=1.0, t=2.0, pieces=8, k_test=K_TEST, tol=1e-10)
        assert d.train < 1e-8
        assert d.test is not None
        assert d.test < 1e-7


def test_distance_of_a_schedule_that_does_not_commute(theta: NDArray[np.float64]) -> None:
    rates = np.zeros((2, N))
    rates[0, : N // 2], rates[1, N // 2 :] = 3.0, 3.0  # first one half of the samples is attacked, then the other
    eta = Piecewise([0.0, 1.0], rates)
    d = schedule_distance(theta, Y, ARK, eta, inner_time=1.0, t=2.0, pieces=2, k_test=K_TEST, tol=1e-10)
    factors = np.exp(ARK * rates)
    exact = expm(-theta * factors[1]) @ expm(-theta * factors[0]) @ Y
    closed = expm(-theta * factors.sum(axis=0)) @ Y
    assert d.train == pytest.approx(np.linalg.norm(closed - exact) / np.linalg.norm(Y - exact), rel=1e-6)
    assert d.train > 1e-3
    assert d.refinement < 1e-8  # constant pieces: cutting them changes nothing
    assert d.test is not None
    assert d.test > 1e-3


def test_one_basis_serves_all_times_of_a_constant_rate(theta: NDArray[np.float64]) -> None:
    times = [0.0, 0.1, 1.0, 10.0, np.inf]
    slope = advntk.xi(ARK, 2.0, inner_time=0.5, times=[1.0])[0]
    dynamics = advntk.ATDynamics(theta, Y)
    for t, solution in zip(times, dynamics.trajectory(slope, times), strict=True):
        expected = Y - (expm(-theta * (t * slope)) @ Y if np.isfinite(t) else 0.0)
        np.testing.assert_allclose(theta @ solution.value, expected, atol=1e-6)


def test_impossible_requests(theta: NDArray[np.float64]) -> None:
    with pytest.raises(RequestError, match="increments must be"):
        piecewise_trajectory(theta, Y, -np.ones((1, N)))
    with pytest.raises(RequestError, match="even number of pieces"):
        schedule_distance(theta, Y, ARK, 1.0, inner_time=1.0, t=1.0, pieces=3)
    with pytest.raises(RequestError, match="increasing order"):
        increments_of(ARK, 1.0, inner_time=1.0, edges=[0.0, 0.0])
    with pytest.raises(RequestError, match="beyond float64"):
        increments_of(1e4 * ARK, 1.0, inner_time=1.0, edges=[0.0, 1.0])

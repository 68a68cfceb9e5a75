"""phi functions against exact decimal arithmetic and against the integrals that define them."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.integrate import quad

from advntk_dist.solve.phi import phi_1, phi_2, phi_2_derivative, phi_2_difference

ARGUMENTS = [
    0.0,
    -1e-300,
    -1e-12,
    -1e-6,
    -0.05,
    -0.5,
    -0.999999,
    -1.0,
    -1.000001,
    -3.0,
    -36.0,
    -700.0,
    -1e4,
    -1e8,
    -1e15,
]
NEGATIVE = st.floats(-1e9, 0.0) | st.floats(-3.0, 0.0) | st.floats(-12.0, 0.0).map(lambda e: -(10.0**e))


TINY = 1e-8
"""Below this the first terms of the series are the exact answer to 24 digits; the quotients would need many more."""


def _phi2(z: float) -> Decimal:
    x = Decimal(z)
    if abs(z) < TINY:
        return Decimal(1) / 2 + x / 6 + x * x / 24
    return (x.exp() - 1 - x) / x**2


def _exact(order: int, z: float) -> float:
    """phi_1, phi_2, or (order 3) the derivative of phi_2."""
    with localcontext(Context(prec=100)):
        x = Decimal(z)
        if abs(z) < TINY:
            return float((1 + x / 2 + x * x / 6, _phi2(z), Decimal(1) / 6 + x / 12 + x * x / 40)[order - 1])
        growth = (x.exp() - 1) / x
        return float((growth, _phi2(z), (growth - 2 * _phi2(z)) / x)[order - 1])


def _exact_difference(x: float, y: float) -> float:
    if x == y:
        return _exact(3, x)
    with localcontext(Context(prec=100)):
        if max(abs(x), abs(y)) < TINY:
            return float(Decimal(1) / 6 + (Decimal(x) + Decimal(y)) / 24)
        return float((_phi2(x) - _phi2(y)) / (Decimal(x) - Decimal(y)))


@pytest.mark.parametrize("z", ARGUMENTS)
def test_phi_functions_at_extreme_arguments(z: float) -> None:
    for order, function in enumerate((phi_1, phi_2, phi_2_derivative), start=1):
        np.testing.assert_allclose(function(np.array([z])), _exact(order, z), rtol=2e-14, err_msg=function.__name__)


@given(NEGATIVE)
def test_phi_functions_anywhere(z: float) -> None:
    for order, function in enumerate((phi_1, phi_2, phi_2_derivative), start=1):
        np.testing.assert_allclose(function(np.array([z])), _exact(order, z), rtol=2e-14, err_msg=function.__name__)


def test_phi_1_of_small_positive_arguments_left_by_rounding() -> None:
    np.testing.assert_allclose(phi_1(np.array([1e-9, 1e-3])), [_exact(1, 1e-9), _exact(1, 1e-3)], rtol=1e-14)


@given(NEGATIVE, NEGATIVE)
@example(0.0, 0.0)
@example(-1e8, -1e8)
@example(-1e8, 0.0)
@example(-1.0, -1.0 - 1e-14)
@example(-0.99, -1.01)
@example(-1e-12, 0.0)
@example(-30.0, -33.2)
@example(-1e5, -1.1e5 - 0.2)
def test_difference_of_phi_2(x: float, y: float) -> None:
    expected = _exact_difference(x, y)
    np.testing.assert_allclose(phi_2_difference(np.array([x]), np.array([y])), expected, rtol=5e-13)
    np.testing.assert_allclose(phi_2_difference(np.array([y]), np.array([x])), expected, rtol=5e-13)


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (-2.0, -2.0), (-0.3, -5.0), (-40.0, -41.0), (-25.0, 0.0)])
def test_difference_of_phi_2_is_the_integral_of_the_gradient(x: float, y: float) -> None:
    def integrand(tau: float) -> float:
        return float(tau * phi_1(np.array(tau * x)) * (1 - tau) * phi_1(np.array((1 - tau) * y)))

    expected, _ = quad(integrand, 0.0, 1.0, epsabs=0.0, epsrel=1e-12)
    np.testing.assert_allclose(phi_2_difference(np.array([x]), np.array([y])), expected, rtol=1e-11)


def test_phi_2_is_the_integral_of_tau_phi_1() -> None:
    expected, _ = quad(lambda tau: float(tau * phi_1(np.array(-7.0 * tau))), 0.0, 1.0, epsrel=1e-12)
    np.testing.assert_allclose(phi_2(np.array([-7.0])), expected, rtol=1e-12)


def test_difference_broadcasts_over_a_grid_of_eigenvalues() -> None:
    a, b = -np.array([0.0, 1e-3, 2.0, 900.0]), -np.array([0.0, 2.05, 1e6])
    grid = phi_2_difference(a[:, None], b[None, :])
    expected = np.array([[_exact_difference(x, y) for y in b] for x in a])
    np.testing.assert_allclose(grid, expected, rtol=5e-13)
    assert phi_2_difference(np.zeros((0, 1)), b[None, :]).shape == (0, 3)

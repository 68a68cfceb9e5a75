"""Xi(t): closed forms, limits, quadrature, and overflow."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

import advntk_dist as advntk
from advntk_dist.errors import RequestError, SolverError
from advntk_dist.theory.schedules import (
    NAMES,
    Constant,
    Cosine,
    Cyclic,
    Function,
    LinearRamp,
    PerSample,
    Piecewise,
    Schedule,
    named,
)
from advntk_dist.theory.xi import log_xi

ARK = np.array([0.0, 0.5, 2.0, 3.5])
TIMES = [0.0, 0.3, 1.0, 4.0]


def test_no_attack_is_time_itself() -> None:
    for eta in (0.0, np.zeros(4), Constant(0.0), lambda t: 0.0):
        found = advntk.xi(ARK, eta, inner_time=2.0, times=TIMES)
        np.testing.assert_allclose(found, np.array(TIMES)[:, None] * np.ones(4), rtol=1e-12)
    np.testing.assert_allclose(advntk.xi(ARK, 3.0, inner_time=0.0, times=[2.0])[0], 2.0)


def test_constant_rates_have_the_closed_form_and_limits() -> None:
    rates = np.array([1.0, 0.0, 0.7, 2.0])
    found = advntk.xi(ARK, rates, inner_time=1.5, times=[*TIMES, np.inf])
    np.testing.assert_allclose(found[:4], np.array(TIMES)[:, None] * np.exp(ARK * rates * 1.5), rtol=1e-14)
    assert (found[0] == 0).all()
    assert np.isinf(found[4]).all()


SCHEDULES: dict[str, Schedule] = {
    "ramp": LinearRamp(0.2, 2.0, 1.7),
    "cosine": Cosine(2.0, 0.1, 2.5),
    "cyclic": Cyclic(0.1, 1.9, 0.9),
    "piecewise": Piecewise([0.0, 0.5, 2.0], np.array([[1, 2, 0, 1], [0, 0, 1, 1], [0.5, 0.1, 0.2, 0.3]])),
    "per sample": PerSample(np.array([1.0, 0.5, 2.0, 0.1]), Cyclic(0.0, 1.0, 1.1)),
    "function": Function(lambda t: 1 + np.sin(3 * t) * np.array([0.1, 0.2, 0.3, 0.9])),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_against_quadrature_of_each_sample(name: str) -> None:
    schedule = SCHEDULES[name]
    found = advntk.xi(ARK, schedule, inner_time=1.3, times=TIMES)
    for i, ark in enumerate(ARK):

        def integrand(t: float, ark: float = ark, i: int = i) -> float:
            return float(np.exp(ark * 1.3 * np.broadcast_to(schedule(t), 4)[i]))

        for t, row in zip(TIMES[1:], found[1:], strict=True):
            points = [*schedule.kinks(t)] or None
            expected = quad(integrand, 0, t, points=points, epsabs=0, epsrel=1e-11, limit=400)[0]
            assert row[i] == pytest.approx(expected, rel=1e-9)


def test_times_come_in_any_order_and_more_than_once() -> None:
    a = advntk.xi(ARK, SCHEDULES["ramp"], inner_time=1.0, times=[4.0, 0.3, 4.0, np.inf, 0.0])
    b = advntk.xi(ARK, SCHEDULES["ramp"], inner_time=1.0, times=[0.3, 4.0])
    np.testing.assert_allclose(a[[1, 0]], b, rtol=1e-9)
    np.testing.assert_array_equal(a[0], a[2])
    assert np.isinf(a[3]).all()
    assert (a[4] == 0).all()


def test_exponents_in_the_thousands_stay_finite_as_logarithms() -> None:
    huge = np.array([1e3, 5e3])
    np.testing.assert_allclose(log_xi(huge, 2.0, inner_time=1.0, times=[0.5])[0], 2 * huge + np.log(0.5), rtol=1e-14)
    # Of a ramp, the integral of exp(a t / T) is T (e^a - 1) / a.
    ramp = log_xi(huge, LinearRamp(0.0, 1.0, 3.0), inner_time=1.0, times=[3.0])[0]
    np.testing.assert_allclose(ramp, np.log(3.0 / huge) + huge, rtol=1e-12)
    mixed = log_xi(np.array([0.0, 5e3]), LinearRamp(0.0, 1.0, 3.0), inner_time=1.0, times=[3.0])[0]
    np.testing.assert_allclose(mixed, [np.log(3.0), ramp[1]], rtol=1e-12)
    with pytest.raises(RequestError, match=r"t = 0.5.*exp\(9999\).*log_xi"):
        advntk.xi(huge, 2.0, inner_time=1.0, times=[0.5])


def test_named_profiles_lie_between_0_and_1() -> None:
    for name in NAMES:
        values = [float(named(name, 6.0)(t)) for t in np.linspace(0, 20, 101)]
        assert 0 <= min(values) <= max(values) <= 1
    with pytest.raises(RequestError, match="'sawtooth'; there are constant"):
        named("sawtooth", 1.0)


def test_impossible_requests() -> None:
    def ask(eta: object = 1.0, ark: object = ARK, inner_time: float = 1.0, times: tuple[float, ...] = (1.0,)) -> None:
        advntk.xi(ark, eta, inner_time=inner_time, times=times)  # type: ignore[arg-type]

    for match, keywords in {
        "theta_x": {"ark": -ARK},
        "inner_time": {"inner_time": -1.0},
        "times must": {"times": (-1.0,)},
        "eta at t": {"eta": -1.0},
        "one or 4": {"eta": np.ones(3)},
        "a number, one per sample": {"eta": np.ones((2, 4))},
    }.items():
        with pytest.raises(RequestError, match=match):
            ask(**keywords)  # type: ignore[arg-type]
    for match, make in {
        "start at 0": lambda: Piecewise([1.0], [1.0]),
        "as many rates": lambda: Piecewise([0.0, 1.0], [1.0]),
        "duration": lambda: LinearRamp(0, 1, 0.0),
        "period": lambda: Cyclic(0, 1, np.inf),
    }.items():
        with pytest.raises(RequestError, match=match):
            make()
    with pytest.raises(RequestError, match="pieces"):
        ask(Cyclic(0, 1, 1e-9))
    with pytest.raises(SolverError, match="say where the schedule jumps"):
        ask(lambda t: float(np.sin(1e7 * t) > 0))


def test_the_inner_flow_multiplies_the_residual_by_the_factor_in_xi() -> None:
    """x' = eta Theta-flow on a linear network: r grows as exp(|w|^2 eta s) along the ascent of r^2 / 2."""
    w, eta, inner = np.array([0.6, -1.1, 0.4]), 0.8, 1.5
    start = 0.7
    flow = solve_ivp(lambda s, x: eta * (w @ x - start) * w, (0, inner), np.zeros(3), rtol=1e-11, atol=1e-12)
    grown = (w @ flow.y[:, -1] - start) / (-start)
    factor = advntk.xi(np.array([w @ w]), eta, inner_time=inner, times=[1.0])[0, 0]
    assert grown == pytest.approx(factor, rel=1e-8)

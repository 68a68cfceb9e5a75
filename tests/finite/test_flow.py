"""The theorem's setting: exactness of the pieces, the limits, and gaps that shrink with width."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import advntk_dist as advntk
from advntk_dist.config.finite_width import FlowConfig
from advntk_dist.errors import NetworkError, SolverError
from advntk_dist.finite import flow
from advntk_dist.finite.flow import FlowTrial, LinearisedFlow, flow_times, inner_flow, outer_flow, run_flow
from advntk_dist.finite.networks import FiniteNetwork, empirical_ark, empirical_ntk
from advntk_dist.finite.summary import compare_with_closed_form, fit_slope
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.training.optimiser import flatten, unflatten

N, M, K = 4, 3, 2
CONFIG = FlowConfig(n_train=N, n_test=M, points=4, inner_steps=3, end=0.2, inner_time=0.1)
RNG = np.random.default_rng(0)
X, X_TEST = RNG.uniform(-0.5, 0.5, (N, 2, 2, 1)), RNG.uniform(-0.5, 0.5, (M, 2, 2, 1))
Y = np.eye(K)[[0, 1, 1, 0]]


def net(width: int = 8, name: str = "mlp-2", activation: str = "erf") -> FiniteNetwork:
    return FiniteNetwork(name, width, K, 1.76, 0.18, activation)  # type: ignore[arg-type]


@lru_cache(maxsize=16)
def trial(width: int, seed: int, eta: float = 1.0) -> FlowTrial:
    return run_flow(net(width), seed, X, Y, X_TEST, CONFIG.model_copy(update={"eta": eta}))


def test_empirical_kernels_are_products_of_jacobians() -> None:
    with kernel_scope():
        params = net().init(0, X.shape[1:], "float64")
        jacobian = jax.jacobian(lambda p: net().apply(p, jnp.asarray(X)))(params)
        j = np.concatenate([np.asarray(leaf).reshape(N * K, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
        np.testing.assert_allclose(empirical_ntk(net(), params, jnp.asarray(X), jnp.asarray(X)), j @ j.T, rtol=1e-12)
        slopes = np.asarray(jax.jacobian(lambda x: net().apply(params, x).sum(axis=0))(jnp.asarray(X)))
        slopes = slopes.transpose(1, 0, 2, 3, 4).reshape(N, K, -1)
        found = empirical_ark(net(), params, jnp.asarray(X))
        np.testing.assert_allclose(found, slopes @ slopes.transpose(0, 2, 1), rtol=1e-12)


def test_linearised_flow_solves_its_equation() -> None:
    with kernel_scope():
        params = net().init(1, X.shape[1:], "float64")
        both = np.asarray(empirical_ntk(net(), params, jnp.concatenate([X, X_TEST]), jnp.asarray(X)))
        ark = np.asarray(empirical_ark(net(), params, jnp.asarray(X)))
        start = np.asarray(net().apply(params, jnp.concatenate([X, X_TEST])))
    strength, theta = 0.3, both[: N * K]
    expanded = np.zeros((N * K, N * K))
    for i, block in enumerate(ark):
        values, vectors = np.linalg.eigh(block)
        place = slice(i * K, (i + 1) * K)
        expanded[place, place] = (vectors * np.exp(strength * values)) @ vectors.T

    def slope(_: float, f: np.ndarray) -> np.ndarray:
        return np.asarray(-both @ expanded @ (f[: N * K] - Y.ravel()))

    times = np.array([0.0, 0.05, 0.4, 2.0])
    wanted = solve_ivp(slope, (0, 2), start.ravel(), t_eval=times, rtol=1e-10, atol=1e-12).y.T - start.ravel()
    found = LinearisedFlow(theta, ark, strength, start[:N] - Y).change(both, times)
    np.testing.assert_allclose(found, wanted, atol=1e-8)


def test_an_inner_flow_beyond_float64_is_refused() -> None:
    theta, ark = np.eye(N * K), np.broadcast_to(np.eye(K), (N, K, K))
    LinearisedFlow(theta, ark, 700.0, Y)
    with pytest.raises(SolverError, match=r"strength 800, ARK up to 1\); take a smaller flow\.inner_time or flow\.eta"):
        LinearisedFlow(theta, ark, 800.0, Y)


def test_inner_flow_follows_its_equation_to_fourth_order() -> None:
    with kernel_scope():
        params, targets = net().init(0, X.shape[1:], "float64"), jnp.asarray(Y)
        gradient = jax.jit(jax.grad(lambda z: 0.5 * jnp.sum((net().apply(params, z) - targets) ** 2)))

        def slope(_: float, flat: np.ndarray) -> np.ndarray:
            return np.asarray(0.7 * gradient(jnp.asarray(flat.reshape(X.shape)))).ravel()

        wanted = solve_ivp(slope, (0, 0.1), X.ravel(), rtol=1e-11, atol=1e-13).y[:, -1].reshape(X.shape)
        errors = []
        for steps in (4, 16):
            found = inner_flow(net(), params, jnp.asarray(X), targets, 0.7, 0.1, steps)
            errors.append(float(np.abs(np.asarray(found) - wanted).max()))
    assert errors[1] < errors[0] / 100  # a quarter of the step: 256 times less
    assert errors[1] < 1e-6


def test_without_inner_flow_it_is_standard_training() -> None:
    """eta = 0: the images stay, and the gradient of many small Euler steps is that of plain training."""
    with kernel_scope():
        params = net().init(2, X.shape[1:], "float64")
        config = CONFIG.model_copy(update={"eta": 0.0})
        found = outer_flow(net(), params, jnp.asarray(X), jnp.asarray(Y), 0.01, 10, config)
        descend = jax.jit(jax.grad(lambda p: 0.5 * jnp.sum((net().apply(p, jnp.asarray(X)) - jnp.asarray(Y)) ** 2)))
        wanted = params
        for _ in range(2000):
            wanted = jax.tree.map(lambda p, g: p - 5e-5 * g, wanted, descend(wanted))
    np.testing.assert_allclose(flatten(found), flatten(wanted), atol=2e-4)
    assert np.abs(flatten(found) - flatten(params)).max() > 0.02


def test_no_time_inside_is_no_rate() -> None:
    still = run_flow(net(), 0, X, Y, X_TEST, CONFIG.model_copy(update={"inner_time": 0.0}))
    np.testing.assert_array_equal(still.outputs, trial(8, 0, eta=0.0).outputs)


def test_at_time_0_nothing_has_moved() -> None:
    found = trial(8, 0)
    np.testing.assert_array_equal(found.outputs[0], found.linear[0])
    assert flow_times(CONFIG)[0] == 0
    assert found.gap_train > 0


def test_adversarial_flow_is_faster_than_standard_training() -> None:
    """The inner flow multiplies residuals by exp(Theta_x eta S) > 1: the same residual is met earlier."""
    left = [float(np.linalg.norm(trial(256, 0, eta).outputs[-1, :N] - Y)) for eta in (0.0, 1.0)]
    assert left[1] < left[0]


def test_gap_and_change_of_the_ntk_shrink_with_width() -> None:
    """In standard training, where the width alone decides, 32 times the width is worth much more than half."""
    narrow, wide = ([trial(width, seed, 0.0) for seed in range(4)] for width in (8, 256))
    for field in ("gap_train", "gap_test", "ntk_change"):
        small, large = (np.mean([getattr(found, field) for found in part]) for part in (wide, narrow))
        assert small < large / 2, field


def test_ark_settles_with_the_number_of_pixels() -> None:
    """Input gradients are sums over pixels: at any width ARK of small images moves with the function."""
    changes, gaps = [], []
    for edge in (2, 16):
        rng = np.random.default_rng(edge)
        x, x_test = rng.uniform(-0.5, 0.5, (N, edge, edge, 1)), rng.uniform(-0.5, 0.5, (M, edge, edge, 1))
        found = [run_flow(net(256), seed, x, Y, x_test, CONFIG) for seed in range(3)]
        changes.append(np.mean([one.ark_change for one in found]))
        gaps.append(np.mean([one.gap_train for one in found]))
    assert changes[1] < changes[0] / 2
    assert gaps[1] < gaps[0] / 2


def test_mean_of_wide_networks_is_the_closed_form() -> None:
    infinite = advntk.network("mlp-2", activation="erf", classes=K)
    varpi = np.exp(infinite.ark(X) * CONFIG.inner_time)
    dynamics = advntk.ATDynamics(infinite.ntk(X, X), Y)
    final = infinite.ntk(X_TEST, X) @ dynamics.coefficients(varpi, t=CONFIG.end).value
    ensemble = np.stack([trial(256, seed).outputs[-1, N:] for seed in range(12)])
    error = ensemble.std(axis=0, ddof=1) / np.sqrt(len(ensemble))
    assert (np.abs(ensemble.mean(axis=0) - final) < 4 * error).all()


def test_an_outcome_that_never_settles_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    impossible = CONFIG.model_copy(update={"tolerance": 1e-12})
    monkeypatch.setattr(flow, "_HALVINGS", 1)
    with pytest.raises(SolverError, match=r"flow\.step"):
        run_flow(net(), 0, X, Y, X_TEST, impossible)


def test_rates_beyond_reason_are_an_error_at_once() -> None:
    config = CONFIG.model_copy(update={"inner_time": 3.0, "end": 1.0})
    with pytest.raises(SolverError, match=r"flow\.inner_time"):
        run_flow(net(), 0, X, Y, X_TEST, config)


def test_a_network_without_widths_is_refused() -> None:
    with pytest.raises(NetworkError, match="no widths"):
        _ = net(name="package.module:function").triple


@pytest.mark.parametrize("name", ["cnn-2", "resnet-18"])
def test_width_and_parametrisation_reach_every_family(name: str) -> None:
    with kernel_scope():
        standard = FiniteNetwork(name, 4, K, 1.76, 0.18, "relu", "standard").init(0, (4, 4, 1), "float32")
        scaled = FiniteNetwork(name, 4, K, 1.76, 0.18, "relu", "ntk").init(0, (4, 4, 1), "float32")
        first, other = (next(leaf for leaf in jax.tree.leaves(tree) if leaf.ndim == 4) for tree in (standard, scaled))
        assert first.shape == (3, 3, 1, 4)
        np.testing.assert_allclose(first, other * 1.76 / 3, rtol=1e-5)  # sigma_w over the root of 9 x 1 inputs
        rebuilt = unflatten(flatten(standard), standard)
        assert all((a == b).all() for a, b in zip(jax.tree.leaves(standard), jax.tree.leaves(rebuilt), strict=True))


WIDTHS = np.repeat([16, 64, 256, 1024], 5)


def test_a_power_law_is_found_exactly() -> None:
    line = fit_slope(WIDTHS, 3.0 * WIDTHS**-0.5)
    assert line.slope == pytest.approx(-0.5)
    assert np.exp(line.intercept) == pytest.approx(3.0)
    assert line.low <= line.slope <= line.high
    assert line.high - line.low < 1e-6


def test_the_interval_holds_the_truth_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        line = fit_slope(WIDTHS, WIDTHS**-0.5 * np.exp(0.3 * rng.standard_normal(len(WIDTHS))))
        inside += line.low <= -0.5 <= line.high
    assert 0.91 < inside / 400 < 0.985


@pytest.mark.parametrize(
    ("widths", "values"), [([8, 16], [1.0, 0.5]), ([8, 8, 8], [1.0, 1.0, 1.0]), ([8, 16, 32], [1.0, 0.0, 1.0])]
)
def test_what_is_no_power_law_is_refused(widths: list[int], values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"slope|power"):
        fit_slope(widths, values)


def test_an_ensemble_around_the_truth_agrees_with_it() -> None:
    rng = np.random.default_rng(1)
    truth = rng.standard_normal((3, 40, 10))
    found = compare_with_closed_form(truth + 0.2 * rng.standard_normal((8, *truth.shape)), truth)
    np.testing.assert_allclose(found["distance"], 0.2 / np.sqrt(8), rtol=0.2)
    np.testing.assert_allclose(found["standard_error"], 0.2 / np.sqrt(8), rtol=0.2)
    assert (np.abs(np.array(found["within"]) - 0.95) < 0.04).all()
    off = compare_with_closed_form(truth + 1.0 + 0.2 * rng.standard_normal((8, *truth.shape)), truth)
    assert (np.array(off["within"]) < 0.1).all()
    with pytest.raises(ValueError, match="two seeds"):
        compare_with_closed_form(truth[None], truth)

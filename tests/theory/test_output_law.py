"""Mean and covariance of the ensemble: against neural-tangents, dense formulas, and finite networks."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import expm

from advntk_dist import architectures, output_law
from advntk_dist.errors import RequestError
from advntk_dist.networks import network
from advntk_dist.theory.output_law import OutputLaw
from tests.golden.make_kernels import LAW_TIMES, golden

Array = NDArray[np.float64]

N, M, K = 12, 6, 3
RNG = np.random.default_rng(5)
X, X_TEST, Y = (golden("law")[name] for name in ("x", "x_test", "y"))
SETTINGS: dict[str, Any] = {"W_std": 1.3, "b_std": 0.4}


@lru_cache(maxsize=1)
def kernels() -> dict[str, Array]:
    net = network("mlp-2", **SETTINGS)
    return {
        "theta": net.ntk(X, X),
        "ntk_test": net.ntk(X_TEST, X),
        "nngp_train": net.nngp(X, X),
        "nngp_cross": net.nngp(X_TEST, X),
        "nngp_test": net.nngp(X_TEST, X_TEST),
    }


def law(**keywords: Any) -> OutputLaw:
    parts = dict(kernels())
    return output_law(parts.pop("theta"), Y, **{**parts, "tol": 1e-11, **keywords})


@pytest.mark.parametrize("i", range(len(LAW_TIMES)))
def test_common_time_equals_neural_tangents(i: int) -> None:
    """Whose ensemble is in tests/golden/kernels.npz."""
    found = law(t=LAW_TIMES[i])
    np.testing.assert_allclose(found.mean, golden("law")[f"mean {i}"], atol=2e-7)
    np.testing.assert_allclose(found.covariance, golden("law")[f"covariance {i}"], atol=2e-7)


def test_different_times_equal_the_dense_formula() -> None:
    k, xi = kernels(), RNG.uniform(0, 3, N)
    xi[:2] = 0.0
    p = np.linalg.solve(k["theta"], np.eye(N) - expm(-k["theta"] * xi))
    np.testing.assert_allclose(p, p.T, atol=1e-10)  # what output_law rests on
    lift = k["ntk_test"] @ p
    expected = (
        k["nngp_test"] - lift @ k["nngp_cross"].T - (lift @ k["nngp_cross"].T).T + lift @ k["nngp_train"] @ lift.T
    )
    found = law(varpi=xi)
    np.testing.assert_allclose(found.mean, lift @ Y, atol=1e-9)
    np.testing.assert_allclose(found.covariance, expected, atol=1e-9)
    assert found.passes > 0
    assert found.error <= 1e-11


def test_covariance_is_positive_and_starts_at_the_nngp() -> None:
    for t in (0.0, 0.01, 1.0, 100.0, np.inf):
        found = law(varpi=RNG.uniform(0.1, 2, N), t=t)
        values = np.linalg.eigvalsh(found.covariance)
        assert values[0] > -1e-9 * values[-1]
        assert (found.std >= 0).all()
    start = law(t=0.0)
    np.testing.assert_array_equal(start.mean, 0.0)
    np.testing.assert_allclose(start.covariance, kernels()["nngp_test"])


def test_training_points_are_learnt_for_certain_at_infinity() -> None:
    k = kernels()
    own = {"ntk_test": k["theta"], "nngp_cross": k["nngp_train"], "nngp_test": k["nngp_train"]}
    found = law(**own, t=np.inf)
    np.testing.assert_allclose(found.mean, Y, atol=1e-6)
    np.testing.assert_allclose(found.covariance, 0.0, atol=1e-6)


def _trained(width: int, seeds: int, xi: Array) -> Array:
    """Outputs (seeds, M, K) of finite networks under the true gradient flow with weights Xi' = xi over time 1."""
    net = architectures.build("mlp", 2, classes=K, activation="relu", width=width, **SETTINGS)
    x, x_test, y = (jnp.asarray(a, jnp.float32) for a in (X, X_TEST, Y))
    weights = jnp.asarray(xi, jnp.float32)[:, None]
    steps = 60

    def loss(params: Any) -> jax.Array:
        return 0.5 * (weights * (net.apply_fn(params, x) - y) ** 2).sum()

    def slope(params: Any) -> Any:
        return jax.tree.map(jnp.negative, jax.grad(loss)(params))

    def moved(params: Any, direction: Any, by: float) -> Any:
        return jax.tree.map(lambda p, d: p + by * d, params, direction)

    def step(params: Any, _: Any) -> tuple[Any, None]:  # Runge-Kutta of order 2
        middle = moved(params, slope(params), 0.5 / steps)
        return moved(params, slope(middle), 1 / steps), None

    def one(key: jax.Array) -> jax.Array:
        _, params = net.init_fn(key, (-1, *X.shape[1:]))
        params, _ = jax.lax.scan(step, params, None, length=steps)
        return net.apply_fn(params, x_test)  # type: ignore[no-any-return]

    keys = jax.random.split(jax.random.key(7), seeds)
    return np.asarray(jax.jit(lambda k: jax.lax.map(one, k, batch_size=20))(keys), np.float64)


def test_an_ensemble_of_finite_networks_follows_the_law() -> None:
    seeds, width = 200, 512
    xi = RNG.uniform(0.2, 1.5, N)
    expected = law(varpi=xi)
    outputs = _trained(width, seeds, xi)
    error = outputs.std(axis=0, ddof=1) / np.sqrt(seeds)
    deviation = np.abs(outputs.mean(axis=0) - expected.mean)
    print(f"mean: largest standard error {error.max():.3f}, largest deviation {deviation.max():.3f}")
    np.testing.assert_array_less(deviation, 4.5 * error + 0.02)
    # Outputs are independent with one covariance: all of them estimate it.
    centred = outputs - expected.mean
    products = np.einsum("smk,slk->sml", centred, centred) / K
    spread = products.std(axis=0, ddof=1) / np.sqrt(seeds)
    scale = expected.covariance.max()
    print(f"covariance: largest standard error {spread.max() / scale:.3f} of its largest entry")
    assert spread.max() < 0.15 * scale
    np.testing.assert_array_less(np.abs(products.mean(axis=0) - expected.covariance), 4.5 * spread + 0.05 * scale)


def test_shapes_are_checked() -> None:
    with pytest.raises(RequestError, match="nngp_cross has shape"):
        law(nngp_cross=np.zeros((M, N + 1)))
    with pytest.raises(RequestError, match="nngp_train is"):
        law(nngp_train=np.eye(N + 1))

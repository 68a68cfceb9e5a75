"""Networks by name and by import path; kernels against neural-tangents itself and against finite networks."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist import architectures
from advntk_dist.errors import DatasetError, GramBuildError, NetworkError
from advntk_dist.networks import Network, network
from advntk_dist.neural_tangents_adapter import VERSION, stax
from advntk_dist.spec import NetworkSpec, parse_name
from tests.golden.make_kernels import NETWORKS, golden
from tests.kernels.unoptimised import options

pytestmark = pytest.mark.filterwarnings("ignore:.FanIn. layers assume independent inputs:UserWarning")

_RNG = np.random.default_rng(0)
X1, X2 = golden("networks")["x1"], golden("networks")["x2"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlp-2", ("mlp", 2)),
        ("mlp-10", ("mlp", 10)),
        ("cnn-1", ("cnn", 1)),
        ("cnn-3", ("cnn", 3)),
        ("resnet-18", ("resnet", 18)),
        ("resnet-34", ("resnet", 34)),
        ("package.module:function", None),
        ("module:function", None),
    ],
)
def test_good_names(name: str, expected: tuple[str, int] | None) -> None:
    assert parse_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("", "mlp", "mlp-", "mlp-1", "mlp-0", "mlp--3", "mlp-x", "mlp-3 ", "MLP-3", "mlp_3", "mlp-3\n"),
        *("cnn-0", "cnn-1000", "resnet-50", "vgg-16", ":f", "m:", ".m:f", "m:f:g", "m/n:f"),
    ],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(NetworkError, match=r"network\.name: no network") as caught:
        network(name)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"activation": "tanh"}, "relu, gelu, erf, sigmoid"),
        ({"backend": "torch"}, "neural-tangents"),
        ({"backend": "pallas"}, "no 'pallas'; there are auto, neural-tangents, xla"),
        ({"W_std": 0.0}, "W_std must be > 0"),
        ({"W_std": np.nan}, "W_std must be > 0"),
        ({"b_std": -1.0}, "b_std >= 0"),
        ({"b_std": np.inf}, "b_std >= 0"),
        ({"classes": 0}, "at least 1"),
    ],
)
def test_bad_parameters(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(NetworkError, match=words):
        network("mlp-3", **keywords)


def test_equal_specs_share_what_is_compiled() -> None:
    assert network("mlp-3") is network("mlp-3", W_std=1.76)
    assert network("mlp-3") is not network("mlp-3", W_std=1.5)
    assert network("mlp-3", b_std=0.0).spec == NetworkSpec("mlp-3", b_std=0.0)
    assert "mlp-3" in repr(network("mlp-3"))


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "networks_of_a_user"
    (tmp_path / f"{name}.py").write_text(
        "from advntk_dist.neural_tangents_adapter import stax\n"
        "def mine():\n"
        "    return stax.serial(stax.Flatten(), stax.Dense(8, W_std=1.2, b_std=0.3), stax.Erf(), stax.Dense(1))\n"
        "def wrong():\n    return 5\n"
        "def short():\n    return (mine, mine)\n"
        "constant = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_user_network(user_module: str) -> None:
    net = network(f"{user_module}:mine")
    assert net.family is None
    kernel = stax.serial(stax.Flatten(), stax.Dense(1, W_std=1.2, b_std=0.3), stax.Erf(), stax.Dense(1))[2]
    _assert_equal(net.ntk(X1, X2), kernel, "ntk")
    params = net.init_fn(jax.random.key(0), (1, 4, 4, 2))[1]
    assert net.apply_fn(params, X1.astype(np.float32)).shape == (5, 1)


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("wrong", "gives int"),
        ("short", "gives tuple"),
        ("constant", "gives int"),
        ("missing", "cannot import.*missing"),
    ],
)
def test_user_networks_that_are_none(user_module: str, attribute: str, words: str) -> None:
    with pytest.raises(NetworkError, match=rf"network\.name: .*{words}"):
        network(f"{user_module}:{attribute}")


def test_user_module_that_is_not_there() -> None:
    with pytest.raises(NetworkError, match="cannot import 'no_such_module:f'"):
        network("no_such_module:f")


def _assert_equal(values: NDArray[Any], kernel_fn: Any, kind: str, x1: Any = X1, x2: Any = X2) -> None:
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        expected = np.asarray(jax.jit(kernel_fn, static_argnums=2)(x1, x2, kind))
    np.testing.assert_allclose(values, expected, rtol=1e-11)


@pytest.mark.parametrize(("name", "activation"), NETWORKS)
def test_kernels_equal_neural_tangents(name: str, activation: str) -> None:
    """Whose values for the same layers, written out, are in tests/golden/kernels.npz."""
    net = network(name, activation=activation)
    for kind, values in (("ntk", net.ntk(X1, X2)), ("nngp", net.nngp(X1, X2))):
        assert values.shape == (5, 7)
        np.testing.assert_allclose(values, golden(f"networks/{name}/{activation}")[kind], rtol=1e-11)


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("mlp-3", "relu"),
        pytest.param("mlp-3", "gelu", marks=pytest.mark.slow),
        ("mlp-3", "erf"),
        pytest.param("mlp-3", "sigmoid", marks=pytest.mark.slow),
        pytest.param("cnn-2", "relu", marks=pytest.mark.slow),
    ],
)
def test_dtypes_are_kept(name: str, activation: str) -> None:
    net = network(name, activation=activation)
    low = [x.astype(np.float32) for x in (X1, X2)]
    for method in (net.ntk, net.nngp):
        assert method(*low).dtype == np.float32
        assert method(X1, X2).dtype == np.float64
    np.testing.assert_allclose(net.ntk(*low), net.ntk(X1, X2), rtol=2e-4)
    kernel, gradient = net.ntk_vjp(low[0], low[1], np.ones((5, 7)))
    assert kernel.dtype == gradient.dtype == np.float32
    assert net.ntk_vjp(X1, X2, np.ones((5, 7), np.float32))[1].dtype == np.float64
    assert net.ntk(low[0], X2).dtype == np.float64


def test_deep_network_in_float32() -> None:
    net = network("resnet-18")
    low = net.ntk(X1.astype(np.float32), X2.astype(np.float32))
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, net.ntk(X1, X2), rtol=1e-4)


def test_uint8_images_are_scaled() -> None:
    raw = _RNG.integers(0, 256, (4, 3, 3, 1)).astype(np.uint8)
    net = network("mlp-3")
    values = net.ntk(raw, raw)
    assert values.dtype == np.float32
    scaled = raw.astype(np.float32) / np.float32(255) - np.float32(0.5)
    np.testing.assert_array_equal(values, net.ntk(scaled, scaled))


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("mlp-3", "relu"),
        ("mlp-3", "gelu"),
        ("mlp-3", "erf"),
        pytest.param("mlp-3", "sigmoid", marks=pytest.mark.slow),
        ("cnn-2", "relu"),
        pytest.param("cnn-2", "gelu", marks=pytest.mark.slow),
    ],
)
def test_input_gradient_against_finite_differences(name: str, activation: str) -> None:
    net = network(name, activation=activation)
    weight = _RNG.standard_normal((5, 7))
    x1 = 0.9 * X1
    kernel, gradient = net.ntk_vjp(x1, X2, weight)
    np.testing.assert_allclose(kernel, net.ntk(x1, X2), rtol=1e-12)
    assert gradient.shape == X1.shape
    for seed in range(3):
        direction = np.random.default_rng(seed).standard_normal(X1.shape)
        h = 1e-6
        change = (net.ntk(x1 + h * direction, X2) - net.ntk(x1 - h * direction, X2)) / (2 * h)
        np.testing.assert_allclose(
            (weight * change).sum(axis=1), (gradient * direction).sum(axis=(1, 2, 3)), rtol=1e-6, atol=1e-7
        )


def test_input_gradient_where_images_coincide_is_finite() -> None:
    for x in (X1, X1.astype(np.float32)):
        assert np.isfinite(network("mlp-3").ntk_vjp(x, x, np.ones((5, 5)))[1]).all()


def test_impossible_inputs() -> None:
    net: Network = network("mlp-3")
    with pytest.raises(ValueError, match="images differ in shape"):
        net.ntk(X1, X2[:, :3])
    with pytest.raises(ValueError, match="weight has shape"):
        net.ntk_vjp(X1, X2, np.ones((7, 5)))
    with pytest.raises(DatasetError, match="4 axes"):
        net.ntk(X1[0], X2)
    with pytest.raises(DatasetError, match="values from"):
        net.ntk(X1 + 1, X2)
    with pytest.raises(DatasetError, match="not finite"):
        net.ntk(np.where(X1 > 0.4, np.nan, X1), X2)


def test_values_that_are_not_finite_are_refused_as_by_a_build() -> None:
    net, x = network("mlp-3", W_std=1e10), X1.astype(np.float32)
    asked: list[Any] = [net.ntk, lambda a, b: net.ntk_vjp(a, b, np.ones((len(a), len(b))))]
    for ask in asked:
        with pytest.raises(
            GramBuildError, match=r"the kernel is not finite for column image 0, .*use float64"
        ) as caught:
            ask(x, x[:2])
        assert "\n" not in str(caught.value)
    assert np.isfinite(net.ntk(X1, X1)).all(), "in float64 they are"


OUTPUTS, DRAWS = 32, 32


@pytest.mark.parametrize(
    ("kind", "name", "activation", "width"),
    [
        pytest.param("nngp", "mlp-3", "relu", 64, marks=pytest.mark.slow),
        pytest.param("nngp", "mlp-3", "relu", 256, marks=pytest.mark.slow),
        pytest.param("nngp", "mlp-3", "gelu", 64, marks=pytest.mark.slow),
        ("nngp", "mlp-3", "erf", 64),
        pytest.param("nngp", "mlp-3", "sigmoid", 64, marks=pytest.mark.slow),
        pytest.param("nngp", "cnn-2", "relu", 32, marks=pytest.mark.slow),
        pytest.param("nngp", "resnet-18", "relu", 32, marks=pytest.mark.slow),
        ("ntk", "mlp-3", "relu", 256),
        ("ntk", "cnn-1", "relu", 32),
        pytest.param("ntk", "cnn-2", "relu", 32, marks=pytest.mark.slow),
    ],
)
def test_kernels_are_what_finite_networks_converge_to(kind: str, name: str, activation: Any, width: int) -> None:
    """The mean over draws lies within 4.5 standard errors and the known bias of a finite width."""
    family, depth = parse_name(name) or ("mlp", 2)
    classes = OUTPUTS if kind == "nngp" else 1
    init_fn, apply_fn, _ = architectures.build(
        family, depth, classes=classes, W_std=1.3, b_std=0.4, activation=activation, width=width
    )
    x = jnp.asarray(X1[:3], jnp.float32)

    def covariance(key: jax.Array) -> Any:
        f = apply_fn(init_fn(key, x.shape)[1], x)
        return f @ f.T / OUTPUTS

    def tangent(key: jax.Array) -> Any:
        jacobian = jax.jacobian(lambda p: apply_fn(p, x)[:, 0])(init_fn(key, x.shape)[1])
        return sum(j.reshape(3, -1) @ j.reshape(3, -1).T for j in jax.tree.leaves(jacobian))

    one, seed = (covariance, 1) if kind == "nngp" else (tangent, 2)
    keys = jax.random.split(jax.random.key(seed), DRAWS)
    draws = np.asarray(jax.jit(partial(jax.lax.map, one), compiler_options=options())(keys), np.float64)
    expected = getattr(network(name, W_std=1.3, b_std=0.4, activation=activation), kind)(X1[:3], X1[:3])
    error = draws.std(axis=0, ddof=1) / DRAWS**0.5
    excess = np.abs(draws.mean(axis=0) - expected) / (4.5 * error + 2 / width * np.abs(expected).max())
    assert excess.max() < 1, f"{excess.max():.2f} times the allowance; statistical error {error.max():.1e}"
    assert error.max() < 0.1 * np.abs(expected).max(), "too few draws to tell anything"


def test_version_of_neural_tangents_is_known() -> None:
    assert VERSION == "0.6.5"


def test_missing_parts_of_neural_tangents_explain_themselves() -> None:
    import neural_tangents

    with pytest.raises(ImportError, match="does not work with current JAX"):
        neural_tangents.empirical_ntk_fn(lambda p, x: x)


def test_networks_that_differ_in_their_outputs_alone_compile_once() -> None:
    assert network("mlp-3", classes=2).compiled is network("mlp-3", classes=7).compiled
    assert network("mlp-3").compiled is not network("mlp-3", b_std=0.5).compiled
    erf = [network("mlp-3", activation="erf", classes=classes) for classes in (2, 7)]
    assert erf[0].compiled is not erf[1].compiled, "neural-tangents' functions are their networks' own"

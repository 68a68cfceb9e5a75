"""The ARK against Monte-Carlo estimates, quadrature, the kernel of neural-tangents, and exact values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy.special import erf, ndtr

from advntk_dist import architectures
from advntk_dist.errors import NetworkError
from advntk_dist.kernels import ark as theory
from advntk_dist.kernels.ark import ark_from_differences
from advntk_dist.kernels.moments import MOMENTS, SIGMOID_SCALE
from advntk_dist.networks import network
from advntk_dist.spec import ACTIVATIONS, NetworkSpec, parse_name
from tests.kernels.unoptimised import options

X = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 5, 4, 2))
SMALL = X[:2, :4, :3, :1]
NAMES = ("mlp-2", "mlp-4", "cnn-1", "cnn-3", "resnet-18")


@pytest.mark.parametrize("depth", [2, 3, 5, 10])
def test_relu_mlp_has_the_exact_constant(depth: int) -> None:
    w = 1.76
    values = network(f"mlp-{depth}", W_std=w).ark(X)
    np.testing.assert_allclose(values, w**2 * (w**2 / 2) ** (depth - 1), rtol=1e-14)


def test_relu_convolution_counts_the_valid_positions_of_the_filter() -> None:
    # On 5x4 pixels the filter covers 13 of 15 x 10 of 12 positions in all; the second layer sums those sums.
    w2 = 1.3**2
    one = network("cnn-1", W_std=1.3).ark(X)
    np.testing.assert_allclose(one, w2 * (w2 / 9) * 0.5 * 13 * 10 / 20, rtol=1e-14)
    rows, columns = (np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1) for n in (5, 4))
    two = network("cnn-2", W_std=1.3).ark(X)
    np.testing.assert_allclose(two, w2 * (w2 / 18) ** 2 * (rows @ rows).sum() * (columns @ columns).sum() / 20)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_moments_equal_quadrature(activation: Any) -> None:
    nodes, weights = hermegauss(200)
    weights = weights / np.sqrt(2 * np.pi)
    pdf = lambda u: np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)  # noqa: E731
    functions: dict[str, tuple[Any, Any]] = {
        "relu": (lambda u: np.maximum(u, 0), lambda u: np.where(u == 0, 0.5, u > 0)),
        "gelu": (lambda u: u * ndtr(u), lambda u: ndtr(u) + u * pdf(u)),
        "erf": (erf, lambda u: 2 / np.sqrt(np.pi) * np.exp(-(u**2))),
        "sigmoid": (
            lambda u: 0.5 * erf(u / SIGMOID_SCALE) + 0.5,
            lambda u: np.exp(-((u / SIGMOID_SCALE) ** 2)) / (SIGMOID_SCALE * np.sqrt(np.pi)),
        ),
    }
    value, slope = functions[activation]
    m, h = MOMENTS[activation], 1e-5
    for k in (0.01, 0.3, 1.0, 2.5):
        u, a = np.sqrt(k) * nodes, np.array(k)
        np.testing.assert_allclose(m.second(a), (weights * value(u) ** 2).sum(), rtol=1e-7)
        np.testing.assert_allclose(m.slope(a), (weights * slope(u) ** 2).sum(), rtol=1e-7)
        for f, df in ((m.second, m.second_slope), (m.slope, m.slope_slope)):
            np.testing.assert_allclose(df(a), (f(a + h) - f(a - h)) / (2 * h), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("mlp-3", "gelu"),
        ("mlp-3", "sigmoid"),
        ("cnn-2", "erf"),
        pytest.param("mlp-3", "erf", marks=pytest.mark.slow),
        pytest.param("cnn-2", "gelu", marks=pytest.mark.slow),
        pytest.param("cnn-2", "sigmoid", marks=pytest.mark.slow),
    ],
)
def test_recursion_equals_the_mixed_derivative_of_the_kernel(name: str, activation: str) -> None:
    """For smooth activations Theta_x = trace of d^2 NNGP / (d x d x') at x' = x, which JAX can differentiate."""
    net = network(name, activation=activation)
    with jax.enable_x64(True):

        def kernel(a: jax.Array, b: jax.Array) -> jax.Array:
            return net.kernel_fn(a[None], b[None], "nngp")[0, 0]  # type: ignore[no-any-return]

        image = jnp.asarray(SMALL[0])
        mixed = jax.jit(jax.jacfwd(jax.grad(kernel, 0), 1), compiler_options=options())(image, image).reshape(
            image.size, image.size
        )
        expected = float(jnp.trace(mixed))
    np.testing.assert_allclose(net.ark(SMALL[:1])[0], expected, rtol=1e-9)


@pytest.mark.parametrize(("name", "activation"), [("mlp-4", "relu"), ("cnn-2", "relu"), ("cnn-1", "erf")])
def test_differences_of_the_kernel_give_the_same(name: str, activation: str) -> None:
    net = network(name, activation=activation)
    np.testing.assert_allclose(ark_from_differences(name, net.kernel_fn, SMALL[:1]), net.ark(SMALL[:1]), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:`FanIn` layers assume independent:UserWarning")
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_residual_blocks(activation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of block, with a convolution and with the identity as shortcut, in a net of one stage."""
    for module in (architectures, theory):
        monkeypatch.setattr(module, "RESNET_STAGES", {18: (2,)})
    settings: dict[str, Any] = {"W_std": 1.3, "b_std": 0.4, "activation": activation}
    net = architectures.build("resnet", 18, classes=1, **settings)
    expected = ark_from_differences("two blocks", net.kernel_fn, SMALL[:1])
    found = theory.ark(NetworkSpec("resnet-18", **settings), "resnet", 18, SMALL[:1])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def _draws(name: str, activation: str, width: int, seeds: int) -> NDArray[np.float64]:
    """|| d f / d x ||^2 of finite networks, averaged over four outputs, (seeds, images)."""
    known = parse_name(name)
    assert known is not None
    net = architectures.build(
        *known,
        classes=4,
        W_std=1.3,
        b_std=0.4,
        activation=activation,  # type: ignore[arg-type]
        width=width,
    )
    x = jnp.asarray(SMALL, jnp.float32)

    def one(key: jax.Array) -> jax.Array:
        _, params = net.init_fn(key, (-1, *SMALL.shape[1:]))
        outputs, pull_back = jax.vjp(lambda a: net.apply_fn(params, a), x)
        # An output of one image depends on that image alone: one pull-back serves all images.
        rows = jnp.broadcast_to(jnp.eye(4)[:, None, :], (4, *outputs.shape))
        gradients = jax.vmap(lambda u: pull_back(u)[0])(rows)
        return (gradients**2).sum(axis=(2, 3, 4)).mean(axis=0)

    keys = jax.random.split(jax.random.key(1), seeds)
    return np.asarray(
        jax.jit(lambda k: jax.lax.map(one, k, batch_size=25), compiler_options=options())(keys),
        dtype=np.float64,
    )


@pytest.mark.parametrize(
    ("name", "activation", "widths", "seeds"),
    [
        ("mlp-3", "relu", (32,), 400),
        pytest.param("mlp-3", "relu", (128,), 400, marks=pytest.mark.slow),
        pytest.param("mlp-2", "gelu", (64, 256), 300, marks=pytest.mark.slow),
        ("mlp-2", "erf", (256,), 300),
        pytest.param("mlp-2", "erf", (64,), 300, marks=pytest.mark.slow),
        pytest.param("mlp-2", "sigmoid", (64, 256), 300, marks=pytest.mark.slow),
        pytest.param("cnn-2", "relu", (8, 16), 200, marks=pytest.mark.slow),
        pytest.param("cnn-1", "erf", (16, 32), 200, marks=pytest.mark.slow),
        pytest.param("resnet-18", "relu", (4, 8), 150, marks=pytest.mark.slow),
    ],
)
def test_monte_carlo_of_finite_networks(name: str, activation: str, widths: tuple[int, ...], seeds: int) -> None:
    """ReLU has no bias at any width (the recursion holds for finite layers); others one that falls with the width."""
    expected = network(name, activation=activation, W_std=1.3, b_std=0.4).ark(SMALL)
    for width in widths:
        draws = _draws(name, activation, width, seeds)
        mean, error = draws.mean(axis=0), draws.std(axis=0, ddof=1) / np.sqrt(seeds)
        bias = 0.0 if activation == "relu" else 2.0 * expected / width
        print(f"{name} {activation} width {width}: ARK {expected}, Monte Carlo {mean} +- {error}")
        assert (error < 0.12 * expected).all(), "the test would see nothing"
        np.testing.assert_array_less(np.abs(mean - expected), 4 * error + bias)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", [*NAMES, "resnet-34"])
def test_finite_everywhere_and_of_the_dtype_of_the_images(name: str, activation: str) -> None:
    x = np.stack([np.zeros((4, 4, 1)), np.full((4, 4, 1), 0.5), np.full((4, 4, 1), 0.5), np.full((4, 4, 1), -0.5)])
    for b_std in (0.0, 0.18):
        net = network(name, activation=activation, b_std=b_std)
        double = net.ark(x)
        assert double.dtype == np.float64
        assert np.isfinite(double).all()
        assert (double > 0).all()
        assert double[1] == double[2]
        single = net.ark(x.astype(np.float32))
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, rtol=2e-5)
        assert net.ark((255 * (x + 0.5)).astype(np.uint8)).dtype == np.float32


def test_smooth_activations_depend_on_the_image() -> None:
    values = network("cnn-2", activation="erf").ark(X)
    assert np.ptp(values) > 1e-3 * values.mean()
    assert np.ptp(network("cnn-2").ark(X)) == 0


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "networks_of_a_theorist"
    (tmp_path / f"{name}.py").write_text(
        "from neural_tangents import stax\n"
        "def leaky():\n"
        "    act = stax.LeakyRelu(0.2)\n"
        "    return stax.serial(stax.Flatten(), stax.Dense(8, 1.5, 0.1), act, stax.Dense(1, 1.5, 0.1))\n"
        "def jumps():\n"
        "    return stax.serial(stax.Flatten(), stax.Dense(8, 1.5, 0.1), stax.Sign(), stax.Dense(1, 1.5, 0.1))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_user_networks(user_module: str) -> None:
    values = network(f"{user_module}:leaky").ark(SMALL)
    np.testing.assert_allclose(values, 1.5**4 * (1 + 0.2**2) / 2, rtol=1e-5)
    with pytest.raises(NetworkError, match=r"jumps.*image 0"):
        network(f"{user_module}:jumps").ark(SMALL[:1])

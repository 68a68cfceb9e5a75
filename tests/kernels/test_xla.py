"""The xla backend equals neural-tangents and finite differences, and is exact and finite on degenerate images.

By default neural-tangents' values are those of tests/golden/kernels.npz: its graphs take long to compile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from advntk_dist import architectures
from advntk_dist.errors import NetworkError
from advntk_dist.kernels.backend import NeuralTangentsBackend
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.kernels.xla import XlaBackend, convolutional
from advntk_dist.kernels.xla.convolutional import _over_pixels
from advntk_dist.networks import network
from tests.golden.make_kernels import CASES, LEFT, LEVELS, MLPS, PARALLEL, RIGHT, Case, golden
from tests.kernels import unoptimised

pytestmark = pytest.mark.filterwarnings("ignore:.FanIn. layers assume independent inputs:UserWarning")

Array = NDArray[Any]
VALUES = {np.float64: 1e-12, np.float32: 2e-6}
GRADIENTS = {np.float64: 1e-9, np.float32: 1e-4}


convolutions = pytest.mark.parametrize("case", CASES[2:], ids=lambda c: f"{c.family}-{c.depth}")
every_case = pytest.mark.parametrize("case", [*CASES, *MLPS], ids=lambda c: f"{c.family}-{c.depth}-b{c.b_std}")
dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])
few = settings(max_examples=3, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


class Functions(NamedTuple):
    """Jitted once a case: value(x1, x2, kind), and tile and gradient (x1, x2, weight)."""

    value: Callable[..., Array]
    vjp: Callable[..., tuple[Array, Array]]


def _jitted(backend: Any) -> Functions:
    jit: Any = partial(jax.jit, compiler_options=unoptimised.options())
    value = jit(lambda a, b, kind: backend.tile(a, backend.prepare(b), kind), static_argnums=2)
    vjp = jit(lambda a, b, w: backend.tile_vjp(a, backend.prepare(b), w))

    def scoped(f: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with kernel_scope():
                return jax.tree.map(np.asarray, f(*arguments))

        return call

    return Functions(scoped(value), scoped(vjp))


@cache
def ours(case: Case) -> Functions:
    """The backend's functions, compiled without optimisation; of MLPS as users compile them."""
    if case in MLPS:
        net = network(f"mlp-{case.depth}", W_std=case.W_std, b_std=case.b_std, backend="xla")
        return Functions(lambda a, b, kind: getattr(net, kind)(a, b), net.ntk_vjp)
    return _jitted(XlaBackend(case.family, case.depth, case.W_std, case.b_std))


@cache
def theirs(case: Case) -> Functions:
    f, d, W_std, b_std, _ = case
    return _jitted(
        NeuralTangentsBackend(
            architectures.build(f, d, classes=1, W_std=W_std, b_std=b_std, activation="relu").kernel_fn
        )
    )


def images(seed: int, n: int, case: Case, dtype: Any = np.float64) -> Array:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n, *case.shape)).astype(dtype)


def weights(seed: int, dtype: Any = np.float64) -> Array:
    return np.random.default_rng(seed).standard_normal((LEFT, RIGHT)).astype(dtype)


def close(got: Array, expected: Array, tolerance: float) -> None:
    """Relative, but an entry that is a difference of larger ones can be as exact as those only."""
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def _pair(case: Case, dtype: Any, *more: Any, slow: bool) -> Any:
    name = "-".join([case.family, str(case.depth), f"b{case.b_std}", dtype.__name__, *more])
    return pytest.param(case, dtype, *more, id=name, marks=[pytest.mark.slow] if slow else [])


OF_CASES = [_pair(c, d, slow=c is CASES[2] and d is np.float32) for c in CASES for d in VALUES]
OF_MLPS = [
    _pair(c, d, slow=(c, d) not in ((MLPS[0], np.float32), (MLPS[1], np.float64), (MLPS[3], np.float32)))
    for c in MLPS
    for d in VALUES
]
KINDS_OF_CASES = [
    _pair(c, d, kind, slow=d is np.float32 and (c is CASES[2] or (kind == "nngp" and c not in CASES[:2])))
    for c in CASES
    for d in VALUES
    for kind in ("ntk", "nngp")
]
"""By default the NNGP, a part of the NTK, in float32 of two networks only; each variant is compiled for itself."""
KINDS_OF_MLPS = [
    pytest.param(*p.values, kind, id=f"{p.id}-{kind}", marks=p.marks) for p in OF_MLPS for kind in ("ntk", "nngp")
]


def drawn(case: Case, group: str, dtype: Any) -> tuple[dict[str, Array], list[Array]]:
    """Golden values, and the images and weights (a, b, w) that they belong to."""
    stored = golden(f"{case.name}/{group}")
    return stored, [stored[k].astype(dtype) for k in "abw"]


@pytest.mark.parametrize(("case", "dtype", "kind"), KINDS_OF_CASES + KINDS_OF_MLPS)
def test_values_equal_those_of_neural_tangents(case: Case, dtype: Any, kind: str) -> None:
    expected, (a, b, _) = drawn(case, "drawn", dtype)
    value = ours(case).value(a, b, kind)
    assert value.dtype == dtype
    close(value, expected[kind], VALUES[dtype])


@pytest.mark.parametrize(("case", "dtype"), OF_CASES + OF_MLPS)
def test_gradients_equal_those_of_neural_tangents(case: Case, dtype: Any) -> None:
    expected, (a, b, w) = drawn(case, "drawn", dtype)
    tile, gradient = ours(case).vjp(a, b, w)
    assert tile.dtype == gradient.dtype == dtype
    assert gradient.shape == a.shape
    close(tile, expected["ntk"], VALUES[dtype])
    assert np.linalg.norm(gradient - expected["gradient"]) <= GRADIENTS[dtype] * np.linalg.norm(expected["gradient"])


@pytest.mark.slow
@every_case
@dtypes
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@few
@given(seeds)
def test_values_equal_those_of_neural_tangents_anywhere(case: Case, dtype: Any, kind: str, seed: int) -> None:
    a, b = images(seed, LEFT, case, dtype), images(seed + 1, RIGHT, case, dtype)
    value = ours(case).value(a, b, kind)
    assert value.dtype == dtype
    close(value, theirs(case).value(a.astype(np.float64), b.astype(np.float64), kind), VALUES[dtype])


@pytest.mark.slow
@every_case
@dtypes
@few
@given(seeds)
def test_gradients_equal_those_of_neural_tangents_anywhere(case: Case, dtype: Any, seed: int) -> None:
    a, b, w = images(seed, LEFT, case, dtype), images(seed + 1, RIGHT, case, dtype), weights(seed, dtype)
    tile, gradient = ours(case).vjp(a, b, w)
    expected = theirs(case).vjp(*(v.astype(np.float64) for v in (a, b, w)))
    assert tile.dtype == gradient.dtype == dtype
    assert gradient.shape == a.shape
    close(tile, expected[0], VALUES[dtype])
    assert np.linalg.norm(gradient - expected[1]) <= GRADIENTS[dtype] * np.linalg.norm(expected[1])


@pytest.mark.slow
def test_resnet_34_equals_neural_tangents() -> None:
    """The longest network, on one draw: its reference takes long to compile."""
    case = Case("resnet", 34, 1.41, 0.1, (3, 2, 1))
    a, b, w = images(20, LEFT, case), images(21, RIGHT, case), weights(22)
    exact = theirs(case).vjp(a, b, w)
    for dtype in (np.float64, np.float32):
        x, z = a.astype(dtype), b.astype(dtype)
        reference = exact if dtype == np.float64 else theirs(case).vjp(*(v.astype(np.float64) for v in (x, z, w)))
        tile, gradient = ours(case).vjp(x, z, w.astype(dtype))
        assert tile.dtype == gradient.dtype == dtype
        close(tile, reference[0], VALUES[dtype])
        close(ours(case).value(x, z, "ntk"), reference[0], VALUES[dtype])
        assert np.linalg.norm(gradient - reference[1]) <= GRADIENTS[dtype] * np.linalg.norm(reference[1])


@pytest.mark.parametrize("case", [*CASES, MLPS[1]], ids=lambda c: f"{c.family}-{c.depth}-b{c.b_std}")
def test_gradients_equal_finite_differences(case: Case) -> None:
    a, b, w = images(7, LEFT, case), images(8, RIGHT, case), weights(9)
    gradient = ours(case).vjp(a, b, w)[1]
    for seed in range(3):
        direction, step = images(seed, LEFT, case), 1e-5
        up, down = (ours(case).value(a + sign * step * direction, b, "ntk") for sign in (1, -1))
        slope = (w * (up - down)).sum() / (2 * step)
        assert (gradient * direction).sum() == pytest.approx(
            slope, rel=1e-7, abs=1e-8 * float(np.linalg.norm(gradient))
        )


@pytest.mark.parametrize(("case", "dtype", "kind"), KINDS_OF_CASES)
def test_values_at_degenerate_images(case: Case, dtype: Any, kind: str) -> None:
    stored, (a, b, _) = drawn(case, "degenerate", dtype)
    # At coincident directions neural-tangents keeps half the digits of float64.
    close(ours(case).value(a, b, kind), stored[kind], max(VALUES[dtype], 1e-7))


@pytest.mark.parametrize(("case", "dtype"), OF_CASES)
def test_gradients_at_degenerate_images(case: Case, dtype: Any) -> None:
    stored, (a, b, w) = drawn(case, "degenerate", dtype)
    tile, gradient = ours(case).vjp(a, b, w)
    np.testing.assert_array_equal(np.isfinite(tile), True)
    np.testing.assert_array_equal(np.isfinite(gradient), True)
    expected = stored["gradient"]
    known = np.isfinite(expected)
    assert np.linalg.norm((gradient - expected)[known]) <= max(GRADIENTS[dtype], 1e-6) * np.linalg.norm(expected[known])


@pytest.mark.parametrize(("case", "dtype"), [_pair(c, d, slow=False) for c in (MLPS[1], *CASES[1:4]) for d in VALUES])
def test_images_with_themselves_have_their_closed_form(case: Case, dtype: Any) -> None:
    """Without angles both arc-cosine kernels are 1 and the NTK is a sum over layers."""

    def mean(q: Array) -> Array:
        """Over the nine places of the filter, zeros outside the image among them; of an MLP the number itself."""
        if case.family == "mlp":
            return q
        p = np.pad(q, ((0, 0), (1, 1), (1, 1)))
        return np.asarray(sum(p[:, i : i + q.shape[1], j : j + q.shape[2]] for i in range(3) for j in range(3)) / 9)

    x = images(4, RIGHT, case, dtype)
    x[1] = 0.25
    w, b = case.W_std**2, case.b_std**2
    layers, axes, pixels = (
        (case.depth - 1, (1, 2, 3), (1, 1)) if case.family == "mlp" else (case.depth, 3, case.shape[:2])
    )
    nngp = w * mean((x.astype(np.float64) ** 2).mean(axis=axes).reshape(RIGHT, *pixels)) + b
    ntk = nngp
    for _ in range(layers - 1):
        nngp = w / 2 * mean(nngp) + b
        ntk = nngp + w / 2 * mean(ntk)
    expected = w / 2 * (nngp + ntk).mean(axis=(1, 2)) + b
    value = ours(case).value(x[:LEFT], x, "ntk")
    np.testing.assert_allclose(np.diagonal(value), expected[:LEFT], rtol=VALUES[dtype])


def test_a_sum_over_many_equal_pixels_keeps_its_digits() -> None:
    """The kernels of constant images; in one sum of a thousand terms, rounding would have a direction."""
    for value in (0.1, 0.3, 0.7):
        with kernel_scope():
            total = np.asarray(_over_pixels(jnp.full((32, 32, 5), value, jnp.float32)))
        np.testing.assert_allclose(total, 1024 * float(np.float32(value)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("b_std", [0.0, pytest.param(0.18, marks=pytest.mark.slow)])
def test_degenerate_images_of_mlps_give_finite_kernels_and_gradients(dtype: type, b_std: float) -> None:
    net, case = network("mlp-5", b_std=b_std, backend="xla"), Case("mlp", 5, 1.76, b_std, (4, 4, 3))
    a, b = images(0, 8, case, dtype), images(1, 8, case, dtype)
    b[:3] = a[:3]  # identical
    a[3] = a[4]  # duplicated
    a[5], b[5] = 0.0, 0.0  # all zero
    a[6], b[6] = 0.3, 0.3  # constant
    b[7] = -a[7]  # opposite
    value, gradient = net.ntk_vjp(a, b, np.ones((8, 8), dtype))
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    if b_std == 0:
        assert (value[5] == 0).all()


@convolutions
def test_nearly_identical_images_keep_their_digits_in_float32(case: Case) -> None:
    """The kink of the NTK at coincident images is resolved down to distances far below float32's cosines."""
    b = images(5, RIGHT, case, np.float32)
    distances = 10.0 ** -np.arange(2, 2 + LEFT)
    a = (b[:LEFT] + distances[:, None, None, None] * images(6, LEFT, case)).astype(np.float32)
    value = ours(case).value(a, b, "ntk")
    exact = ours(case).value(a.astype(np.float64), b.astype(np.float64), "ntk")
    np.testing.assert_allclose(value, exact, rtol=2e-6)


@pytest.mark.parametrize("case", [CASES[0], MLPS[1], CASES[3]], ids=["mlp", "mlp as users compile it", "cnn"])
def test_the_gradient_at_a_coincident_pair_is_the_symmetric_limit(case: Case) -> None:
    a = images(4, LEFT, case)
    b = np.concatenate([a, a[:1]])
    w = np.eye(LEFT, RIGHT)
    gradient = ours(case).vjp(a, b, w)[1]
    direction, step = images(5, LEFT, case), 1e-5
    up, down = (ours(case).value(a + sign * step * direction, b, "ntk") for sign in (1, -1))
    assert (gradient * direction).sum() == pytest.approx((w * (up - down)).sum() / (2 * step), rel=1e-3)


def test_constant_images_without_bias_are_parallel_in_float32() -> None:
    """Parallel patches of different norms: rounding must not open an angle."""
    x = np.broadcast_to(LEVELS[:, None, None, None], (RIGHT, *PARALLEL.shape)).astype(np.float32)
    value = ours(PARALLEL).value(x[:LEFT], x, "ntk")
    same, opposite = golden("parallel")["ntk"] / 0.25
    products = LEVELS[:LEFT, None] * LEVELS
    # neural-tangents keeps half the digits of float64 at parallel directions
    close(value, np.where(products > 0, same, -opposite) * products, 2e-6)


def test_blocks_of_left_images_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("cnn", 1, 1.76, 0.18, (3, 3, 1))
    a, b = images(0, 37, case), images(1, 3, case)
    w = np.random.default_rng(2).standard_normal((37, 3))
    whole = _jitted(XlaBackend(*case[:4])).vjp(a, b, w)
    # Blocks of 16: 37 images are filled up to 39.
    monkeypatch.setattr(convolutional, "BLOCK_BYTES", {jax.default_backend(): 1})
    parts = _jitted(XlaBackend(*case[:4])).vjp(a, b, w)
    for got, expected in zip(parts, whole, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


def test_prepared_images_stack_along_the_image_axis() -> None:
    for family, depth in (("mlp", 3), ("cnn", 2), ("resnet", 18)):
        backend = XlaBackend(family, depth, 1.76, 0.18)  # type: ignore[arg-type]
        with kernel_scope():
            prepared = jax.eval_shape(backend.prepare, jax.ShapeDtypeStruct((7, 3, 3, 2), np.float32))
        leaves = jax.tree.leaves(prepared)
        assert all(leaf.shape[0] == 7 and leaf.dtype in (np.float32, np.uint32) for leaf in leaves)


def test_backends_are_values() -> None:
    first, second = XlaBackend("cnn", 3, 1.76, 0.18), XlaBackend("cnn", 3, 1.76, 0.18)
    assert first == second
    assert hash(first) == hash(second)
    assert first.name == "xla"


@pytest.mark.gpu
@dtypes
@pytest.mark.parametrize(
    "case", [Case("mlp", 5, 1.76, 0.18, (32, 32, 3)), Case("cnn", 3, 0.8, 0.4, (28, 28, 1))], ids=lambda c: c.family
)
def test_on_a_gpu(case: Case, dtype: Any) -> None:
    """At the size of real images, whatever the GPU's products and roots round to."""
    assert jax.default_backend() == "gpu"
    a, b, w = images(11, LEFT, case, dtype), images(12, RIGHT, case, dtype), weights(11, dtype)
    tile, gradient = ours(case).vjp(a, b, w)
    expected = theirs(case).vjp(*(v.astype(np.float64) for v in (a, b, w)))
    close(tile, expected[0], VALUES[dtype])
    close(ours(case).value(a, b, "ntk"), expected[0], VALUES[dtype])
    assert np.linalg.norm(gradient - expected[1]) <= GRADIENTS[dtype] * np.linalg.norm(expected[1])


@pytest.mark.parametrize(
    ("family", "depth", "W_std", "b_std", "words"),
    [
        ("mlp", 1, 1.0, 0.0, "no network mlp-1"),
        ("cnn", 0, 1.0, 0.0, "no network cnn-0"),
        ("resnet", 50, 1.0, 0.0, "no network resnet-50"),
        ("vgg", 16, 1.0, 0.0, "no network vgg-16"),
        ("cnn", 1, 0.0, 0.0, "W_std must be > 0"),
        ("cnn", 1, 1.0, -0.1, "b_std >= 0"),
    ],
)
def test_networks_that_are_none(family: Any, depth: int, W_std: float, b_std: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        XlaBackend(family, depth, W_std, b_std)


def test_backends_are_chosen_and_refused() -> None:
    assert network("mlp-3").backend.name == "xla"
    assert network("mlp-3", activation="erf").backend.name == "neural-tangents"
    assert network("cnn-1").backend.name == "xla"
    with pytest.raises(NetworkError, match="xla"):
        network("cnn-1", backend="xla", activation="gelu")

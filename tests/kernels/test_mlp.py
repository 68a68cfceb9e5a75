"""Kernels of ReLU MLPs equal those of neural-tangents, and are finite where those are not.

By default neural-tangents' values are those of tests/golden/kernels.npz: its graphs take long to compile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from advntk_dist.errors import NetworkError
from advntk_dist.networks import Network, network
from tests.golden.make_kernels import MLPS, Case, golden

Array = NDArray[Any]

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=5, deadline=None)
cases = pytest.mark.parametrize("case", MLPS, ids=lambda c: f"mlp-{c.depth}")


def images(seed: int, n: int, shape: tuple[int, ...], dtype: type = np.float64) -> Array:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n, *shape)).astype(dtype)


def net_of(case: Case, backend: str = "xla") -> Network:
    return network(f"mlp-{case.depth}", W_std=case.W_std, b_std=case.b_std, backend=backend)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        (MLPS[0], np.float32),
        (MLPS[1], np.float64),
        (MLPS[3], np.float32),
        pytest.param(MLPS[3], np.float64, marks=pytest.mark.slow),
        pytest.param(MLPS[0], np.float64, marks=pytest.mark.slow),
        pytest.param(MLPS[1], np.float32, marks=pytest.mark.slow),
        pytest.param(MLPS[2], np.float32, marks=pytest.mark.slow),
        pytest.param(MLPS[2], np.float64, marks=pytest.mark.slow),
    ],
    ids=lambda v: f"mlp-{v.depth}" if isinstance(v, Case) else v.__name__,
)
def test_kernels_and_gradients_equal_those_of_neural_tangents(case: Case, dtype: Any) -> None:
    rtol, tolerance = (1e-12, 1e-9) if dtype is np.float64 else (2e-6, 1e-4)
    net, expected = net_of(case), golden(f"{case.name}/drawn")
    a, b, w = (expected[k].astype(dtype) for k in "abw")
    for kind in ("ntk", "nngp"):
        value = getattr(net, kind)(a, b)
        assert value.dtype == dtype
        np.testing.assert_allclose(value, expected[kind], rtol=rtol, atol=rtol * np.abs(expected[kind]).max())
    gradient, exact = net.ntk_vjp(a, b, w)[1], expected["gradient"]
    assert gradient.dtype == dtype
    assert np.linalg.norm(gradient - exact) <= tolerance * np.linalg.norm(exact)


@pytest.mark.slow
@cases
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 2e-6)])
@few
@given(seeds)
def test_values_equal_those_of_neural_tangents_anywhere(dtype: type, rtol: float, case: Case, seed: int) -> None:
    ours, theirs = net_of(case), net_of(case, "neural-tangents")
    a, b = images(seed, 5, case.shape, dtype), images(seed + 1, 7, case.shape, dtype)
    for kind in ("ntk", "nngp"):
        value, exact = getattr(ours, kind)(a, b), getattr(theirs, kind)(a.astype(np.float64), b.astype(np.float64))
        assert value.dtype == dtype
        # entries near 0 (opposite images) are differences of numbers of the size of the largest entry
        np.testing.assert_allclose(value, exact, rtol=rtol, atol=rtol * np.abs(exact).max())


@pytest.mark.slow
@cases
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-4)])
@few
@given(seeds)
def test_gradients_equal_those_of_neural_tangents_anywhere(
    dtype: type, tolerance: float, case: Case, seed: int
) -> None:
    ours, theirs = net_of(case), net_of(case, "neural-tangents")
    a, b = images(seed, 4, case.shape, dtype), images(seed + 1, 6, case.shape, dtype)
    weight: Array = np.random.default_rng(seed).standard_normal((4, 6)).astype(dtype)
    gradient = ours.ntk_vjp(a, b, weight)[1]
    exact = theirs.ntk_vjp(*(v.astype(np.float64) for v in (a, b, weight)))[1]
    assert gradient.dtype == dtype
    assert np.linalg.norm(gradient - exact) <= tolerance * np.linalg.norm(exact)


@pytest.mark.slow
def test_gradient_matches_finite_differences() -> None:
    net = network("mlp-4", backend="xla")
    a, b = images(0, 3, (3, 3, 2)), images(1, 4, (3, 3, 2))
    weight = np.random.default_rng(2).standard_normal((3, 4))
    gradient, step = net.ntk_vjp(a, b, weight)[1], 1e-5
    for place in [(0, 0, 0, 0), (1, 2, 1, 1), (2, 1, 2, 0)]:
        up, down = a.copy(), a.copy()
        up[place] += step
        down[place] -= step
        slope = (weight * (net.ntk(up, b) - net.ntk(down, b))).sum() / (2 * step)
        assert gradient[place] == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("b_std", [0.0, pytest.param(0.18, marks=pytest.mark.slow)])
def test_degenerate_images_give_finite_kernels_and_gradients(dtype: type, b_std: float) -> None:
    net = network("mlp-5", b_std=b_std, backend="xla")
    a, b = images(0, 8, (4, 4, 3), dtype), images(1, 8, (4, 4, 3), dtype)
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_kernel_of_an_image_with_itself_is_its_closed_form(dtype: type) -> None:
    """At coincident images both arc-cosine kernels are 1, so the NTK is a sum: no angle, no rounding of one."""
    depth, w, b = 5, 1.76**2, 0.18**2
    x = images(3, 40, (8, 8, 3), dtype)
    nngp = w * (x.astype(np.float64) ** 2).mean(axis=(1, 2, 3)) + b
    ntk = nngp
    for _ in range(depth - 1):
        nngp = w / 2 * nngp + b
        ntk = nngp + w / 2 * ntk
    tolerance = 1e-6 if dtype is np.float32 else 1e-13
    net = network("mlp-5", backend="xla")
    np.testing.assert_allclose(np.diagonal(net.ntk(x, x)), ntk, rtol=tolerance)


def test_the_symmetric_limit_stands_at_a_coincident_pair() -> None:
    """The NTK has a kink where the images meet; the gradient there is the mean of the slopes on both sides."""
    net = network("mlp-3", backend="xla")
    a = images(4, 1, (3, 3, 1))
    gradient = net.ntk_vjp(a, a, np.ones((1, 1)))[1]
    direction, step = images(5, 1, (3, 3, 1)), 1e-5
    slope = (net.ntk(a + step * direction, a) - net.ntk(a - step * direction, a))[0, 0] / (2 * step)
    assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-4)


def test_backends_are_chosen_and_refused() -> None:
    assert network("mlp-3").backend.name == "xla"
    assert network("mlp-3", activation="erf").backend.name == "neural-tangents"
    assert network("cnn-1").backend.name == "xla"
    with pytest.raises(NetworkError, match="xla"):
        network("cnn-1", backend="xla", activation="gelu")

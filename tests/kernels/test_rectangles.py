"""Kernels and gradients of m x n images, whatever m and n, equal the same part of a square; few shapes compile."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from advntk_dist.kernels import compiled
from advntk_dist.kernels.backend import NeuralTangentsBackend
from advntk_dist.kernels.compiled import CompiledKernel, block_shape
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.kernels.xla import convolutional
from advntk_dist.networks import network
from tests.kernels.unoptimised import options, unoptimised

Array = NDArray[Any]
N = 40
VALUES = {np.float64: 1e-11, np.float32: 3e-6}
GRADIENTS = {np.float64: 1e-9, np.float32: 1e-4}
SIZES = st.integers(1, N)

_RNG = np.random.default_rng(5)
A, B = (_RNG.uniform(-0.5, 0.5, (N, 4, 4, 1)) for _ in range(2))
WEIGHT = _RNG.standard_normal((N, N))


@pytest.fixture(scope="module", autouse=True)
def few_optimisations() -> Iterator[None]:
    with unoptimised():
        yield


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 64 pairs, and of 16 images of a convolution: all requests have several, most of them ragged."""
    monkeypatch.setattr(compiled, "BLOCK_BYTES", 1)
    monkeypatch.setattr(convolutional, "BLOCK_BYTES", {"cpu": 1})


@cache
def naive(name: str, activation: str) -> Any:
    """NTK of all images, and d sum(weight * NTK) / d A for a weight, by neural-tangents in float64, in one piece."""
    theirs = NeuralTangentsBackend(network(name, activation=activation).kernel_fn)
    with kernel_scope():
        vjp = jax.jit(theirs.tile_vjp, compiler_options=options()).lower(A, B, WEIGHT).compile()

    def call(weight: Array) -> list[Array]:
        with kernel_scope():
            return [np.asarray(v) for v in vjp(A, B, weight)]

    return call


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("name", "activation"), [("mlp-3", "relu"), ("cnn-2", "relu"), ("mlp-2", "erf")])
@pytest.mark.parametrize("dtype", VALUES)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(m=SIZES, n=SIZES)
@example(m=1, n=37)
@example(m=33, n=2)
def test_a_rectangle_is_a_part_of_the_square(name: str, activation: str, dtype: Any, m: int, n: int) -> None:
    net, weight = network(name, activation=activation), np.zeros_like(WEIGHT)
    weight[:m, :n] = WEIGHT[:m, :n]
    values, gradient = (v[:m] for v in naive(name, activation)(weight))
    a, b = A[:m].astype(dtype), B[:n].astype(dtype)
    got, slope = net.ntk_vjp(a, b, weight[:m, :n])
    assert got.dtype == slope.dtype == dtype
    for ntk in (got, net.ntk(a, b)):
        np.testing.assert_allclose(ntk, values[:, :n], rtol=VALUES[dtype], atol=VALUES[dtype] * np.abs(values).max())
    assert np.linalg.norm(slope - gradient) <= GRADIENTS[dtype] * np.linalg.norm(gradient)


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.sampled_from([(1024, 1), (64, 1024), (256, 64), (8, 16)]))
@settings(max_examples=300, deadline=None)
def test_blocks_waste_little(m: int, n: int, kind: tuple[int, int]) -> None:
    limit, pixels = kind
    height, width = block_shape(m, n, limit, pixels)
    assert height * width <= limit**2
    assert max(height, width) <= 1024
    for edge in (height, width):
        odd = edge // (edge & -edge)
        assert odd < 32, "five significant bits"
        assert edge <= limit or edge % limit == 0
    padded = -(-m // height) * height * -(-n // width) * width
    if min(m, n) >= 16 and m * n >= 1e5 and limit > 8:
        assert padded <= 1.2 * m * n


def test_blocks_of_usual_requests() -> None:
    assert block_shape(1024, 1024, 1024) == (1024, 1024)
    assert block_shape(48_000, 48_000, 1024) == (1024, 1024)
    assert block_shape(128, 8192, 1024) == (128, 1024)
    assert block_shape(8192, 128, 1024) == (1024, 128)
    assert block_shape(1, 64, 64, 1024) == (1, 64)
    assert block_shape(16, 128, 64, 1024) == (16, 128)
    assert block_shape(1000, 1000, 1024, square=True) == (1024, 1024)


def test_requests_compile_few_shapes() -> None:
    """Of a thousand sizes of batches against one training set, some sixty; and each request has one."""
    shapes = {block_shape(m, 10_000, 1024) for m in range(1, 1001)}
    assert len(shapes) <= 64
    kernel: Any = CompiledKernel(network("mlp-2").backend, per_pixel=False)
    for m, n in ((3, 40), (3, 37), (3, 33)):
        kernel.matrix(A[:m], B[:n], "ntk")
        kernel.matrix_vjp(A[:m], B[:n], WEIGHT[:m, :n])
    assert kernel._block._cache_size() <= 2
    assert kernel._tile_vjp._cache_size() <= 2

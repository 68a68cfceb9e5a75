"""Blocks of any size give one matrix, to the last bit symmetric where it should be, and compile once."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from advntk_dist.kernels import compiled
from advntk_dist.kernels.compiled import CompiledKernel, pad_rows, stack_blocks
from advntk_dist.kernels.reference import NeuralTangentsBackend
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.networks import Network, network

_RNG = np.random.default_rng(3)
X = _RNG.uniform(-0.5, 0.5, (29, 4, 4, 1))
Z = _RNG.uniform(-0.5, 0.5, (13, 4, 4, 1))


@pytest.fixture(params=["mlp-3", "cnn-1"])
def net(request: pytest.FixtureRequest) -> Network:
    return network(request.param)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Force blocks of 8 images, the smallest."""
    monkeypatch.setattr(compiled, "BLOCK_BYTES", 1)


@pytest.mark.usefixtures("small_blocks")
def test_ragged_blocks_give_the_same_matrix(net: Network) -> None:
    assert net.compiled.block_edge((4, 4, 1), 8) == 8
    for kind in ("ntk", "nngp"):
        blocked = net.compiled.matrix(X, Z, kind)
        with kernel_scope():
            whole = np.asarray(jax.jit(net.kernel_fn, static_argnums=2)(X, Z, kind))
        np.testing.assert_allclose(blocked, whole, rtol=1e-11)


@pytest.mark.usefixtures("small_blocks")
def test_gradient_adds_up_over_blocks(net: Network) -> None:
    weight = _RNG.standard_normal((len(X), len(Z)))
    blocked, gradient = net.compiled.matrix_vjp(X, Z, weight)

    with kernel_scope():
        expected, pull_back = jax.vjp(jax.jit(lambda x: net.kernel_fn(x, Z, "ntk")), X)
        expected_gradient = np.asarray(pull_back(jax.numpy.asarray(weight))[0])
    np.testing.assert_allclose(blocked, np.asarray(expected), rtol=1e-11)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bytes_", [1, compiled.BLOCK_BYTES])
def test_symmetric_to_the_last_bit(net: Network, dtype: Any, bytes_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BLOCK_BYTES", bytes_)
    x = X.astype(dtype)
    gram = net.compiled.matrix(x, x, "ntk", symmetric=True)
    assert gram.dtype == dtype
    np.testing.assert_array_equal(gram, gram.T)
    np.testing.assert_allclose(gram, net.ntk(x, x), rtol=2e-6 if dtype == np.float32 else 1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_symmetric_skips_blocks_below_the_diagonal(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = network("mlp-2").compiled
    calls: list[int] = []
    tile = kernel._tile

    def counting(*args: Any) -> Any:
        calls.append(1)
        return tile(*args)

    monkeypatch.setattr(kernel, "_tile", counting)
    kernel.matrix(X, X, "ntk", symmetric=True)
    assert len(calls) == 4 * 5 // 2


@pytest.mark.usefixtures("small_blocks")
def test_nothing_compiles_again_for_ragged_sizes() -> None:
    backend = NeuralTangentsBackend(network("mlp-2").kernel_fn)
    kernel = CompiledKernel(backend, per_pixel=False)
    for m, n in ((5, 8), (8, 8), (13, 29), (29, 7), (21, 10)):
        kernel.matrix(X[:m], X[:n], "ntk")
        kernel.matrix_vjp(X[:m], X[:n], np.ones((m, n)))
    counted: Any = kernel
    assert counted._tile._cache_size() == 1
    assert counted._tile_vjp._cache_size() == 1
    kernel.matrix(X, X, "nngp")
    assert counted._tile._cache_size() == 2


def test_sizes_within_one_block_share_a_power_of_two() -> None:
    kernel: Any = CompiledKernel(NeuralTangentsBackend(network("mlp-2").kernel_fn), per_pixel=False)
    for n in range(17, 30, 3):
        kernel.matrix(X[:n], X[:n], "ntk")
    assert kernel._tile._cache_size() == 1


def test_block_edge_follows_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = CompiledKernel(network("mlp-2").backend, per_pixel=False)
    cnn = CompiledKernel(network("cnn-1").backend, per_pixel=True)
    edges = [cnn.block_edge((32, 32, 3), itemsize) for itemsize in (4, 8)]
    assert mlp.block_edge((32, 32, 3), 4) == 1024
    assert edges[0] >= edges[1]
    for edge in edges:
        assert 8 <= edge <= 1024
        assert edge & (edge - 1) == 0
    assert edges[0] ** 2 * 1024 * 4 * 8 <= compiled.BLOCK_BYTES
    monkeypatch.setattr(compiled, "BLOCK_BYTES", 1)
    assert cnn.block_edge((32, 32, 3), 4) == 8


def test_padding_repeats_a_real_image() -> None:
    padded = pad_rows(X[:3], 5)
    np.testing.assert_array_equal(padded[:3], X[:3])
    np.testing.assert_array_equal(padded[3:], X[[0, 0]])
    assert pad_rows(X, len(X)) is X
    blocks = stack_blocks(X, 8)
    assert blocks.shape == (4, 8, 4, 4, 1)
    np.testing.assert_array_equal(blocks.reshape(-1, 4, 4, 1)[: len(X)], X)


@pytest.mark.usefixtures("small_blocks")
def test_padding_never_leaks(net: Network) -> None:
    """One row and five columns, filled up to a block of 8 by 8; and rows of which one is alone in its block."""
    one = net.compiled.matrix(X[:1], Z[:5], "ntk")
    many = net.compiled.matrix(X[:9], Z[:9], "ntk")
    np.testing.assert_allclose(one[0], many[0, :5], rtol=1e-13)
    gradient = net.compiled.matrix_vjp(X[:1], Z[:5], np.ones((1, 5)))[1]
    np.testing.assert_allclose(gradient[0], net.compiled.matrix_vjp(X[:9], Z[:5], np.ones((9, 5)))[1][0], rtol=1e-11)


def test_callers_settings_are_left_alone() -> None:
    config: Any = jax.config
    before = config.jax_enable_x64, config.jax_default_matmul_precision
    network("mlp-3").ntk(X, Z)
    assert (config.jax_enable_x64, config.jax_default_matmul_precision) == before
    assert jax.numpy.ones(1, float).dtype == np.float32

"""Blocks of any size give one matrix, to the last bit symmetric where it should be, and compile once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from advntk_dist.kernels import compiled
from advntk_dist.kernels.backend import KernelKind, NeuralTangentsBackend
from advntk_dist.kernels.compiled import CompiledKernel, block_edge, pad_rows, stack_blocks
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
    block = kernel._block

    def counting(*args: Any) -> Any:
        calls.append(1)
        return block(*args)

    monkeypatch.setattr(kernel, "_block", counting)
    kernel.matrix(X, X, "ntk", symmetric=True)
    assert len(calls) == 4 * 5 // 2


@pytest.mark.usefixtures("small_blocks")
def test_nothing_compiles_again_for_ragged_sizes() -> None:
    backend = NeuralTangentsBackend(network("mlp-2").kernel_fn)
    kernel = CompiledKernel(backend, per_pixel=False)
    counted: Any = kernel
    sizes = ((5, 8), (8, 8), (13, 29), (29, 7), (21, 10))
    for _ in range(2):
        for m, n in sizes:
            kernel.matrix(X[:m], X[:n], "ntk")
            kernel.matrix_vjp(X[:m], X[:n], np.ones((m, n)))
        assert counted._block._cache_size() == counted._tile_vjp._cache_size() == 2
    kernel.matrix(X, X, "nngp")
    assert counted._block._cache_size() == 3


def test_small_sizes_share_a_power_of_two() -> None:
    kernel: Any = CompiledKernel(NeuralTangentsBackend(network("mlp-2").kernel_fn), per_pixel=False)
    for n in range(17, 30, 3):
        kernel.matrix(X[:n], X[:n], "ntk")
    assert kernel._block._cache_size() == 1


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


@pytest.mark.parametrize(("tile", "limit", "edge"), [(2048, 1024, 1024), (1500, 1024, 750), (7, 1024, 7), (9, 4, 3)])
def test_the_blocks_of_a_tile_are_equal_parts(tile: int, limit: int, edge: int) -> None:
    assert block_edge(tile, limit) == edge


@pytest.mark.parametrize("kinds", [("ntk",), ("nngp",), ("ntk", "nngp")])
@pytest.mark.usefixtures("small_blocks")
def test_whole_ragged_and_symmetric_tiles_compile_once(kinds: tuple[KernelKind, ...]) -> None:
    net = network("mlp-2")
    kernel: Any = CompiledKernel(net.backend, per_pixel=False, repeatable=True)
    assert kernel.warm_up(X, X, kinds, tile=10) > 0
    for rows, cols in ((X[:10], X[10:20]), (X[:10], X[20:]), (X[20:], X[:3])):
        for kind, values in kernel.matrices(rows, cols, kinds, tile=10).items():
            expected = net.ntk(rows, cols) if kind == "ntk" else net.nngp(rows, cols)
            np.testing.assert_allclose(values, expected, rtol=1e-7)
    for values in kernel.matrices(X[20:], X[20:], kinds, symmetric=True, tile=10).values():
        np.testing.assert_array_equal(values, values.T)
    assert kernel._block._cache_size() == 1


def digests() -> list[str]:
    """Of tiles at whose sizes XLA takes small matrix products another way in one thread than in several."""
    found = []
    for name, edge in (("mlp-2", 8), ("mlp-2", 32), ("mlp-5", 32)):
        x = np.random.default_rng(edge).uniform(-0.5, 0.5, (2 * edge, 4, 4, 1)).astype(np.float32)
        values = network(name).tile_kernel.matrices(x[:edge], x[edge:], ("ntk",), tile=edge)["ntk"]
        found.append(hashlib.sha256(values.tobytes()).hexdigest())
    return found


def test_bytes_of_tiles_do_not_depend_on_the_process_that_computes_them() -> None:
    other = os.environ | {"NPROC": "1", "OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    done = subprocess.run(
        [sys.executable, __file__], env=other, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == digests()


if __name__ == "__main__":
    print(*digests())

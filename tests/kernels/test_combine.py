"""Kernel predictions over blocks of training images: the sums of whole tiles, with and without residuals."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advntk_dist.kernels.combine import gradient, values, values_and_jacobian
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.kernels.xla import XlaBackend, dense
from advntk_dist.networks import network
from tests.kernels import unoptimised

B, K, SHAPE = 4, 3, (3, 3, 2)
BACKENDS: dict[str, Any] = {
    "mlp-2": XlaBackend("mlp", 2, 1.76, 0.18),
    "mlp-3": XlaBackend("mlp", 3, 1.3, 0.0),
    "cnn-1": XlaBackend("cnn", 1, 1.76, 0.18),
    "erf": network("mlp-3", activation="erf").backend,
}


def _problem(name: str, blocks: int, block: int, dtype: Any = np.float64, seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    x, z = (rng.uniform(-0.5, 0.5, (m, *SHAPE)).astype(dtype) for m in (B, blocks * block))
    c, u = rng.standard_normal((blocks * block, K)), rng.standard_normal((B, K))
    with kernel_scope():
        rows = _functions(name)[2](z)
        prepared = jax.tree.map(lambda a: a.reshape(blocks, block, *a.shape[1:]), rows)
        return jnp.asarray(x), jnp.asarray(z), prepared, jnp.asarray(c.reshape(blocks, block, K)), jnp.asarray(u)


@cache
def _functions(name: str) -> tuple[Any, Any, Any]:
    backend, jit = BACKENDS[name], partial(jax.jit, compiler_options=unoptimised.options())

    @partial(jit, static_argnames="budget")
    def by_blocks(x: Any, prepared: Any, c: Any, u: Any, budget: int) -> Any:
        f, residuals = values(backend, x, prepared, c, budget=budget)
        return f, gradient(backend, x, prepared, c, u, residuals)

    @jit
    def whole(x: Any, z: Any, c: Any, u: Any) -> Any:
        flat = c.reshape(-1, K)
        tile, slope = backend.tile_vjp(x, backend.prepare(z), u @ flat.T)
        return tile @ flat, slope

    return by_blocks, whole, jit(backend.prepare)


@pytest.mark.parametrize(
    ("name", "blocks", "block"),
    [
        ("mlp-2", 1, 5),
        ("mlp-3", 3, 4),
        ("cnn-1", 2, 3),
        ("erf", 2, 5),
        pytest.param("mlp-3", 1, 7, marks=pytest.mark.slow),
    ],
)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_sums_over_blocks_equal_whole_tiles(name: str, blocks: int, block: int, seed: int) -> None:
    by_blocks, whole, _ = _functions(name)
    x, z, prepared, c, u = _problem(name, blocks, block, seed=seed)
    with kernel_scope():
        expected = whole(x, z, c, u)
        for budget in (0, 2**20) if name == "mlp-3" else (2**20,):
            f, slope = by_blocks(x, prepared, c, u, budget=budget)
            np.testing.assert_allclose(f, expected[0], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(slope, expected[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "blocks", "block"), [("mlp-2", 1, 6), ("mlp-3", 2, 4), ("cnn-1", 2, 12), ("erf", 1, 5)]
)
def test_a_jacobian_is_the_gradient_of_every_output(name: str, blocks: int, block: int) -> None:
    x, _, prepared, c, _ = _problem(name, blocks, block)
    by_blocks, backend = _functions(name)[0], BACKENDS[name]
    jit = partial(jax.jit, compiler_options=unoptimised.options())
    with kernel_scope():
        f, slopes = jit(partial(values_and_jacobian, backend))(x, prepared, c)
        assert slopes.shape == (B, K, *SHAPE)
        for output in range(K):
            cotangent = jnp.zeros((B, K)).at[:, output].set(1.0)
            expected = by_blocks(x, prepared, c, cotangent, budget=0)
            np.testing.assert_allclose(f, expected[0], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(slopes[:, output], expected[1], rtol=1e-10, atol=1e-12)


def test_residuals_are_kept_within_the_budget_only() -> None:
    x, _, prepared, c, _ = _problem("mlp-3", 2, 5)
    needed = 2 * 5 * B * 8
    with kernel_scope():
        for budget, shape in ((needed - 1, None), (needed, (2, 5, B))):
            _, left = jax.eval_shape(partial(values, BACKENDS["mlp-3"], budget=budget), x, prepared, c)
            assert getattr(left, "shape", None) == shape
        x, _, prepared, c, _ = _problem("cnn-1", 2, 3)
        assert jax.eval_shape(partial(values, BACKENDS["cnn-1"], budget=2**30), x, prepared, c)[1] is None


def test_a_gradient_with_residuals_takes_no_product_over_the_pixels_again() -> None:
    backend = BACKENDS["mlp-3"]
    x, _, prepared, c, u = _problem("mlp-3", 1, 8)

    def step(keep: bool) -> int:
        def f(x: jax.Array) -> jax.Array:
            value, residuals = values(backend, x, prepared, c, budget=2**20)
            return gradient(backend, x, prepared, c, value - u, residuals if keep else None)

        text = jax.jit(f).lower(x).as_text()
        pixels = SHAPE[0] * SHAPE[1] * SHAPE[2]
        return sum("dot_general" in line and f"x{pixels}x" in line for line in text.splitlines())

    with kernel_scope():
        assert step(keep=True) == 2
        assert step(keep=False) == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parts_do_not_show(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _, prepared, c, u = _problem("mlp-2", 1, 24, dtype)

    def both() -> tuple[Any, Any]:
        backend, jit = BACKENDS["mlp-2"], partial(jax.jit, compiler_options=unoptimised.options())
        return jit(lambda *a: (values(backend, *a[:3])[0], gradient(backend, *a)))(x, prepared, c, u)

    with kernel_scope():
        whole = both()
        monkeypatch.setattr(dense, "PART_PAIRS", {jax.default_backend(): 8 * B})
        assert dense.parts(24, B) == 3
        split = both()
    assert split[0].dtype == np.float64
    assert split[1].dtype == dtype
    for got, expected in zip(split, whole, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5 if dtype == np.float32 else 1e-12, atol=1e-6)


def test_parts_are_equal_and_as_few_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "PART_PAIRS", {jax.default_backend(): 1000})
    monkeypatch.setattr(dense, "PART_PAIRS_ELSEWHERE", 1000)
    assert dense.parts(101, 10) == 1, "a prime number of rows has no equal parts"
    assert dense.parts(640, 10) == 8, "7 parts would do, but do not divide the rows"
    assert dense.parts(6400, 10) == 64
    assert dense.parts(100, 10) == (2 if jax.default_backend() == "cpu" else 1)
    assert dense.parts(1, 10) == 1

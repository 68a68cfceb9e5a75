"""One behaviour of all operators: products in float64, counted passes, loud failure on absent data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.grid import TileGrid
from advntk_dist.operators import DaskArrayOperator, GramOperator, InMemoryOperator, TiledOperator, as_operator

Array = NDArray[np.float64]

N, TILE = 70, 16
_RNG = np.random.default_rng(5)
_FACTOR = _RNG.standard_normal((N, N))
_dask: Any = da.from_array
THETA = ((_FACTOR @ _FACTOR.T) / N).astype(np.float32)
"""Symmetric, and the same numbers in float32 and float64."""


@dataclass
class Tiles:
    """Tiles of a matrix on and above the diagonal, like a Gram store; remembers what was read."""

    theta: NDArray[Any]
    tile: int

    def __post_init__(self) -> None:
        self.reads: list[tuple[str, int, int]] = []

    @property
    def grid(self) -> TileGrid:
        return TileGrid.square(len(self.theta), self.tile)

    def read_tile(self, kind: str, i: int, j: int) -> NDArray[Any]:
        assert i <= j
        self.reads.append((kind, i, j))
        t = self.grid.at(i, j)
        return self.theta[t.rows, t.cols]


MAKERS: dict[str, Callable[[NDArray[Any]], GramOperator]] = {
    "in memory float32": InMemoryOperator,
    "in memory float64": lambda theta: InMemoryOperator(theta.astype(np.float64)),
    "in memory, Fortran order": lambda theta: InMemoryOperator(np.asfortranarray(theta)),
    "dask float32": lambda theta: DaskArrayOperator(_dask(theta, chunks=TILE)),
    "dask float64, uneven chunks": lambda theta: DaskArrayOperator(
        _dask(theta.astype(np.float64), chunks=((40, 30), (11, 59)))
    ),
    "tiled": lambda theta: TiledOperator(Tiles(theta, TILE)),
    "tiled, one thread": lambda theta: TiledOperator(Tiles(theta, TILE), threads=1),
    "tiled float64": lambda theta: TiledOperator(Tiles(theta.astype(np.float64), 32)),
    "one tile": lambda theta: TiledOperator(Tiles(theta, 1000)),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[NDArray[Any]], GramOperator]:
    return MAKERS[request.param]


@pytest.mark.parametrize("columns", [1, 10])
def test_products_are_those_of_float64(make: Callable[[NDArray[Any]], GramOperator], columns: int) -> None:
    operator, v = make(THETA), _RNG.standard_normal((N, columns))
    for k in range(1, 3):
        product = operator.matmat(v)
        assert product.dtype == np.float64
        assert product.shape == (N, columns)
        np.testing.assert_allclose(product, THETA.astype(np.float64) @ v, rtol=1e-13, atol=1e-13)
        assert operator.passes == k
    np.testing.assert_array_equal(operator.matmat(v), product)


def test_blocks_in_any_memory_layout(make: Callable[[NDArray[Any]], GramOperator]) -> None:
    v = _RNG.standard_normal((5, 2 * N)).T[::2]
    np.testing.assert_allclose(make(THETA).matmat(v), THETA.astype(np.float64) @ v, rtol=1e-13, atol=1e-13)


def test_input_is_left_alone(make: Callable[[NDArray[Any]], GramOperator]) -> None:
    v = _RNG.standard_normal((N, 3))
    v.setflags(write=False)
    make(THETA).matmat(v)


def test_absent_entries_raise(make: Callable[[NDArray[Any]], GramOperator]) -> None:
    holes = THETA.copy()
    holes[:TILE, TILE : 2 * TILE] = holes[TILE : 2 * TILE, :TILE] = np.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        make(holes).matmat(np.ones((N, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_raise(make: Callable[[NDArray[Any]], GramOperator], bad: float) -> None:
    v = np.ones((N, 2))
    v[3, 1] = bad
    with pytest.raises(FloatingPointError, match="not finite"), np.errstate(invalid="ignore"):
        make(THETA).matmat(v)


@pytest.mark.parametrize("shape", [(N - 1, 2), (N,), (2, N), (N, 2, 2)])
def test_wrong_shapes_raise_and_do_not_count(
    make: Callable[[NDArray[Any]], GramOperator], shape: tuple[int, ...]
) -> None:
    operator = make(THETA)
    with pytest.raises(ValueError, match=f"{N} rows"):
        operator.matmat(np.ones(shape))
    assert operator.passes == 0


def test_diagonal_mean(make: Callable[[NDArray[Any]], GramOperator]) -> None:
    np.testing.assert_allclose(make(THETA).diagonal_mean(), np.diagonal(THETA).astype(np.float64).mean(), rtol=1e-12)


def test_description_is_one_line_that_gives_the_size(make: Callable[[NDArray[Any]], GramOperator]) -> None:
    text = make(THETA).description
    assert "\n" not in text
    assert f"{N} x {N}" in text


def test_accumulation_is_float64_for_float32_tiles(make: Callable[[NDArray[Any]], GramOperator]) -> None:
    theta = np.full((N, N), 1e-4, np.float32)
    theta[:, 0] = theta[0, :] = 1e4
    product = make(theta).matmat(np.ones((N, 1)))
    np.testing.assert_allclose(product[1:, 0], 1e4 + (N - 1) * float(np.float32(1e-4)), rtol=1e-14)


def test_each_stored_tile_is_read_once_a_pass() -> None:
    source = Tiles(THETA, TILE)
    TiledOperator(source, kind="nngp").matmat(np.ones((N, 1)))
    assert sorted(source.reads) == [("nngp", t.i, t.j) for t in source.grid]


def test_a_failing_read_reaches_the_caller() -> None:
    class Broken(Tiles):
        def read_tile(self, kind: str, i: int, j: int) -> NDArray[Any]:
            raise OSError(f"{kind} tile {i},{j} is damaged")

    with pytest.raises(OSError, match="is damaged"):
        TiledOperator(Broken(THETA, TILE)).matmat(np.ones((N, 1)))


def test_tiles_taller_than_a_strip() -> None:
    n = 600
    half = _RNG.standard_normal((n, n)).astype(np.float32)
    theta = (half + half.T) / 2
    v = _RNG.standard_normal((n, 2))
    expected = theta.astype(np.float64) @ v
    np.testing.assert_allclose(TiledOperator(Tiles(theta, 500)).matmat(v), expected, rtol=1e-11, atol=1e-11)


def test_in_memory_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advntk_dist.operators.memory._STRIP_BYTES", 8 * N * 9)
    v = _RNG.standard_normal((N, 2))
    np.testing.assert_allclose(InMemoryOperator(THETA).matmat(v), THETA.astype(np.float64) @ v, rtol=1e-13, atol=1e-13)


def test_as_operator_chooses_by_type() -> None:
    assert isinstance(as_operator(THETA), InMemoryOperator)
    assert isinstance(as_operator(_dask(THETA, chunks=TILE)), DaskArrayOperator)
    tiled = TiledOperator(Tiles(THETA, TILE))
    assert as_operator(tiled) is tiled
    with pytest.raises(TypeError, match="got list"):
        as_operator(THETA.tolist())


@pytest.mark.parametrize("theta", [THETA[:, :-1], THETA[0], THETA.astype(np.int64), THETA.astype(complex)])
def test_matrices_that_are_none(theta: NDArray[Any]) -> None:
    for given in (theta, _dask(theta, chunks=-1)):
        with pytest.raises(ValueError, match="square array of floats"):
            as_operator(given)

"""One behaviour of all operators: products in float64, counted passes, loud failure on absent data."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.gram.store import GramStore
from advntk_dist.gram.view import dask_view
from advntk_dist.grid import Tile, TileGrid, spans
from advntk_dist.operators import (
    DaskArrayOperator,
    GramOperator,
    InMemoryOperator,
    TiledOperator,
    as_operator,
    operator_for_store,
)
from advntk_dist.operators.dask_on_ray import DaskOnRayOperator
from advntk_dist.operators.resident import ResidentOperator
from advntk_dist.operators.tiled import run_product

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
        self.reads: list[tuple[int, int]] = []
        self.expected: set[tuple[int, int]] = set()

    def expect(self, t: Tile) -> None:
        self.expected.add((t.i, t.j))

    @property
    def grid(self) -> TileGrid:
        return TileGrid.square(len(self.theta), self.tile)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.theta.dtype)

    def panels(self, t: Tile, rows: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        assert t.i <= t.j
        self.reads.append((t.i, t.j))
        values = self.theta[t.rows, t.cols]
        for panel in spans(t.shape[0], rows):
            yield panel, values[panel].copy()


Make = Callable[[NDArray[Any]], GramOperator]

FROM_ARRAYS: dict[str, Make] = {
    "in memory float32": InMemoryOperator,
    "in memory float64": lambda theta: InMemoryOperator(theta.astype(np.float64)),
    "in memory, Fortran order": lambda theta: InMemoryOperator(np.asfortranarray(theta)),
    "in memory, strided": lambda theta: InMemoryOperator(np.repeat(np.repeat(theta, 2, 0), 2, 1)[::2, ::2]),
    "dask float32": lambda theta: DaskArrayOperator(_dask(theta, chunks=TILE)),
    "dask float64, uneven chunks": lambda theta: DaskArrayOperator(
        _dask(theta.astype(np.float64), chunks=((40, 30), (11, 59)))
    ),
    "tiled": lambda theta: TiledOperator(Tiles(theta, TILE)),
    "tiled, one thread": lambda theta: TiledOperator(Tiles(theta, TILE), threads=1),
    "tiled float64": lambda theta: TiledOperator(Tiles(theta.astype(np.float64), 32)),
    "one tile": lambda theta: TiledOperator(Tiles(theta, 1000)),
}

FROM_STORES: dict[str, Callable[[GramStore], GramOperator]] = {
    "store, threads": lambda store: TiledOperator(store, threads=2),
    "store, one thread": lambda store: TiledOperator(store, threads=1),
    "store, dask view": lambda store: DaskArrayOperator(dask_view(store)),
    "store, memory": lambda store: operator_for_store(store, memory=10**9),
}

ON_RAY: dict[str, Callable[[GramStore], GramOperator]] = {
    "dask on ray": DaskOnRayOperator,
    "resident": lambda store: ResidentOperator(store, holders=1),
    "resident, two holders": lambda store: ResidentOperator(store, holders=2),
}

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(params=FROM_ARRAYS)
def make(request: pytest.FixtureRequest) -> Make:
    """Operators of any matrix, even of one that no store would take."""
    return FROM_ARRAYS[request.param]


_ONE_HOLDER = pytest.param("resident", marks=pytest.mark.slow)  # two do all that one does


@pytest.fixture(
    scope="module", params=[*FROM_ARRAYS, *FROM_STORES, *(_ONE_HOLDER if k == "resident" else k for k in ON_RAY)]
)
def operator(request: pytest.FixtureRequest, stored: Callable[..., GramStore]) -> Iterator[GramOperator]:
    """Every operator, over the same matrix."""
    name = request.param
    if name in ON_RAY:
        request.getfixturevalue("ray_cluster")
        if name == "dask on ray":
            pytest.importorskip("pandas", reason="ray.util.dask needs pandas and pyarrow")
    stores = FROM_STORES | ON_RAY
    with stores[name](stored(THETA, TILE)) if name in stores else FROM_ARRAYS[name](THETA) as made:
        yield made


@pytest.mark.parametrize("columns", [1, 10, 150])
def test_products_are_those_of_float64(operator: GramOperator, columns: int) -> None:
    v, before = _RNG.standard_normal((N, columns)), operator.passes
    for k in range(1, 3):
        product = operator.matmat(v)
        assert product.dtype == np.float64
        assert product.shape == (N, columns)
        np.testing.assert_allclose(product, THETA.astype(np.float64) @ v, rtol=1e-13, atol=1e-13)
        assert operator.passes == before + k
    np.testing.assert_array_equal(operator.matmat(v), product)


def test_blocks_in_any_memory_layout(operator: GramOperator) -> None:
    v = _RNG.standard_normal((5, 2 * N)).T[::2]
    np.testing.assert_allclose(operator.matmat(v), THETA.astype(np.float64) @ v, rtol=1e-13, atol=1e-13)


def test_input_is_left_alone(operator: GramOperator) -> None:
    v = _RNG.standard_normal((N, 3))
    v.setflags(write=False)
    operator.matmat(v)


def test_absent_entries_raise(make: Make) -> None:
    holes = THETA.copy()
    holes[:TILE, TILE : 2 * TILE] = holes[TILE : 2 * TILE, :TILE] = np.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        make(holes).matmat(np.ones((N, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_raise(operator: GramOperator, bad: float) -> None:
    v = np.ones((N, 2))
    v[3, 1] = bad
    with pytest.raises(FloatingPointError, match="not finite"), np.errstate(invalid="ignore"):
        operator.matmat(v)


@pytest.mark.parametrize("shape", [(N - 1, 2), (N,), (2, N), (N, 2, 2)])
def test_wrong_shapes_raise_and_do_not_count(operator: GramOperator, shape: tuple[int, ...]) -> None:
    before = operator.passes
    with pytest.raises(ValueError, match=f"{N} rows"):
        operator.matmat(np.ones(shape))
    assert operator.passes == before


def test_diagonal_mean(operator: GramOperator) -> None:
    np.testing.assert_allclose(operator.diagonal_mean(), np.diagonal(THETA).astype(np.float64).mean(), rtol=1e-12)


def test_description_is_one_line_that_gives_the_size(operator: GramOperator) -> None:
    text = operator.description
    assert "\n" not in text
    assert f"{N} x {N}" in text


def test_accumulation_is_float64_for_float32_tiles(make: Make) -> None:
    theta = np.full((N, N), 1e-4, np.float32)
    theta[:, 0] = theta[0, :] = 1e4
    product = make(theta).matmat(np.ones((N, 1)))
    np.testing.assert_allclose(product[1:, 0], 1e4 + (N - 1) * float(np.float32(1e-4)), rtol=1e-14)


def test_each_stored_tile_is_read_once_a_pass() -> None:
    source = Tiles(THETA, TILE)
    TiledOperator(source).matmat(np.ones((N, 1)))
    assert sorted(source.reads) == [(t.i, t.j) for t in source.grid]
    assert set(source.reads) - source.expected == {(0, 0), (1, 1)}, "all but the first of each thread are read ahead"


def test_products_do_not_depend_on_the_number_of_threads() -> None:
    v = _RNG.standard_normal((N, 10))
    products = [TiledOperator(Tiles(THETA, 4), threads=threads).matmat(v) for threads in (1, 2, 5)]
    for product in products[1:]:
        np.testing.assert_array_equal(product, products[0])


def test_few_parts_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = set(), []

    def counted(*arguments: Any) -> Any:
        part = run_product(*arguments)
        alive.add(id(part))
        weakref.finalize(part, alive.discard, id(part))
        most.append(len(alive))
        return part

    monkeypatch.setattr("advntk_dist.operators.tiled.run_product", counted)
    TiledOperator(Tiles(THETA, 1), threads=2).matmat(np.ones((N, 3)))
    assert len(most) > 300
    assert max(most) <= 6


def test_a_failing_read_reaches_the_caller() -> None:
    class Broken(Tiles):
        def panels(self, t: Tile, rows: int) -> Iterator[tuple[slice, NDArray[Any]]]:
            raise OSError(f"{rows} rows of tile {t.i},{t.j} are damaged")

    with pytest.raises(OSError, match="are damaged"):
        TiledOperator(Broken(THETA, TILE)).matmat(np.ones((N, 1)))


def test_tiles_larger_than_a_block_and_rows_longer_than_a_run() -> None:
    n = 1300
    half = _RNG.standard_normal((n, n)).astype(np.float32)
    theta = (half + half.T) / 2
    v = _RNG.standard_normal((n, 2))
    expected = theta.astype(np.float64) @ v
    for tile in (100, 600, 1300):
        np.testing.assert_allclose(TiledOperator(Tiles(theta, tile)).matmat(v), expected, rtol=1e-11, atol=1e-11)


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


def test_a_matrix_that_is_not_symmetric() -> None:
    theta = THETA.copy()
    theta[3, 60] += 1.0
    with pytest.raises(ValueError, match="symmetric"):
        InMemoryOperator(theta)

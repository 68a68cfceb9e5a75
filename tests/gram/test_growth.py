from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import advntk_dist.gram.build as growth_module
from advntk_dist.errors import StoreMismatchError
from advntk_dist.gram.build import build_gram, open_for_build
from advntk_dist.gram.fingerprint import make_fingerprint
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.view import dask_view
from advntk_dist.gram.worker import WorkerPool
from advntk_dist.networks import Network
from tests.filled import fill_store


def _open(path: Path, net: Network, x: NDArray[Any], tile: int = 8, columns: NDArray[Any] | None = None) -> GramStore:
    fingerprint = make_fingerprint(net, x, tile=tile, columns=columns)
    return open_for_build(path, fingerprint, net.spec.as_dict(), x, columns)


def _complete(store: GramStore, net: Network, x: NDArray[Any], columns: NDArray[Any] | None = None) -> int:
    """Compute what is missing in this process; how many tiles that was."""
    return len(list(fill_store(store, net, x, columns)))


@pytest.mark.parametrize(("before", "computed"), [(16, 7), (19, 7), (24, 4), (8, 9)])
def test_only_new_and_ragged_tiles_are_computed(
    net: Network, images: NDArray[np.uint8], tmp_path: Path, before: int, computed: int
) -> None:
    path = tmp_path / "gram.zarr"
    _complete(_open(path, net, images[:before]), net, images[:before])
    grown = _open(path, net, images)
    assert _complete(grown, net, images) == computed
    whole = _open(tmp_path / "whole.zarr", net, images)
    _complete(whole, net, images)
    for t in whole.grid:
        assert grown.chunk_path("ntk", t.i, t.j).read_bytes() == whole.chunk_path("ntk", t.i, t.j).read_bytes()
    assert (grown.path / "zarr.json").read_bytes() != b""
    assert grown.fingerprint == whole.fingerprint
    array = zarr.open_group(path, mode="r")["ntk"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(np.asarray(array[:8, 16:]), dask_view(grown)[:8, 16:])
    GramStore.open(path).require_complete()


def test_store_of_one_reduced_tile_starts_over(net: Network, images: NDArray[np.uint8], tmp_path: Path) -> None:
    path = tmp_path / "gram.zarr"
    small = _open(path, net, images[:5])
    assert small.tile == 5
    _complete(small, net, images[:5])
    grown = _open(path, net, images)
    assert grown.tile == 8
    assert _complete(grown, net, images) == 10
    _open(path, net, images)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gram.zarr"]


def test_other_images_do_not_grow(net: Network, images: NDArray[np.uint8], tmp_path: Path) -> None:
    path = tmp_path / "gram.zarr"
    _complete(_open(path, net, images[:16]), net, images[:16])
    for x, field in ((images[::-1], "images"), (images[:12], "n")):
        with pytest.raises(StoreMismatchError) as caught:
            _open(path, net, np.ascontiguousarray(x))
        assert caught.value.field == field
    with pytest.raises(StoreMismatchError, match=r"gram\.tile"):
        _open(path, net, images, tile=9)
    with pytest.raises(StoreMismatchError, match="columns"):
        _open(path, net, images, columns=images)
    GramStore.open(path).require_complete()


def test_growth_survives_death_between_its_steps(
    net: Network, images: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gram.zarr"
    _complete(_open(path, net, images[:19]), net, images[:19])

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    for step in ("durable.write_durable", "GramStore.create_or_open"):
        with monkeypatch.context() as patch:
            patch.setattr(f"{growth_module.__name__}.{step}", die)
            with pytest.raises(KeyboardInterrupt):
                _open(path, net, images)
    assert _complete(_open(path, net, images), net, images) == 7
    np.testing.assert_allclose(np.asarray(dask_view(GramStore.open(path))), net.ntk(images, images), rtol=5e-4)


def test_rectangular_store_grows_along_both_axes(net: Network, images: NDArray[np.uint8], tmp_path: Path) -> None:
    path = tmp_path / "cross.zarr"
    rows, cols = images[:12], images[4:]
    small = _open(path, net, rows[:8], columns=cols[:16])
    assert _complete(small, net, rows[:8], cols[:16]) == 2
    grown = _open(path, net, rows, columns=cols)
    assert _complete(grown, net, rows, cols) == 4
    np.testing.assert_allclose(np.asarray(dask_view(grown)), net.ntk(rows, cols), rtol=5e-4)


def test_growth_and_rectangles_through_ray(
    pool: WorkerPool, net: Network, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    path, receipts = tmp_path / "cross.zarr", []
    _complete(_open(path, net, images[:8], columns=images[8:]), net, images[:8], images[8:])
    store = build_gram(
        net, images[:16], columns=images[8:], store=path, tile=8, workers=1, pool=pool,
        on_progress=lambda done, total, receipt: receipts.append(receipt),
    )  # fmt: skip
    assert sorted((r.i, r.j) for r in receipts if r is not None) == [(1, 0), (1, 1), (1, 2)]
    np.testing.assert_allclose(np.asarray(dask_view(store)), net.ntk(images[:16], images[8:]), rtol=5e-4)

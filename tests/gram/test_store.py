from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from advntk_dist.errors import (
    GramBuildError,
    RequestError,
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreIncompleteError,
    StoreMismatchError,
)
from advntk_dist.gram.build import open_for_build
from advntk_dist.gram.fingerprint import make_fingerprint
from advntk_dist.gram.layout import checksum
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.verify import verify_gram
from advntk_dist.gram.view import open_gram
from advntk_dist.grid import TileGrid
from advntk_dist.kernels.nonfinite import require_finite
from advntk_dist.networks import Network, network
from advntk_dist.storage import durable
from advntk_dist.storage.locks import builder_lock
from tests.waiting import held_elsewhere


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_plain_zarr_reads_the_store(fill: Any, net: Network, images: NDArray[np.uint8]) -> None:
    store = fill()
    group = zarr.open_group(store.path, mode="r")
    array = group["ntk"]
    assert isinstance(array, zarr.Array)
    assert array.shape == (27, 27)
    assert array.chunks == (8, 8)
    assert np.isnan(array.fill_value)
    upper = np.kron(np.triu(np.ones((4, 4), bool)), np.ones((8, 8), bool))[:27, :27]
    stored = np.asarray(array[:])
    np.testing.assert_allclose(stored[upper], net.ntk(images, images)[upper], rtol=5e-4)
    assert np.isnan(stored[~upper]).all(), "tiles below the diagonal are never written"
    records = group["commits/ntk"]
    assert isinstance(records, zarr.Array)
    values = np.asarray(records[:])
    assert values.shape == (4, 4, len(records.attrs["fields"]))  # type: ignore[arg-type]
    assert ((values[..., 0] >= 0) == np.triu(np.ones((4, 4), bool))).all()


@pytest.mark.parametrize("kinds", [("ntk",), ("nngp",), ("ntk", "nngp")])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dask_view_is_the_kernel(
    fill: Any, net: Network, images: NDArray[np.uint8], kinds: tuple[str, ...], dtype: str
) -> None:
    store = fill(kinds=kinds, dtype=dtype)
    x = images if dtype == "float32" else images / 255.0 - 0.5
    for kind in kinds:
        view = open_gram(store.path, kind)
        assert view.dtype == dtype
        assert view.chunks == ((8, 8, 8, 3),) * 2
        full = np.asarray(view)
        np.testing.assert_array_equal(full, full.T)
        expected = net.ntk(x, x) if kind == "ntk" else net.nngp(x, x)
        # On the diagonal the arc cosine amplifies rounding to its square root, and XLA rounds each program its own way.
        np.testing.assert_allclose(full, expected, rtol=5e-4 if dtype == "float32" else 1e-7)


def test_dask_view_of_a_kind_that_is_not_there(fill: Any) -> None:
    with pytest.raises(StoreIncompleteError, match="holds ntk, not nngp"):
        open_gram(fill().path, "nngp")


def test_view_refuses_a_store_that_was_replaced(fill: Any, tmp_path: Path) -> None:
    import shutil

    view = open_gram(fill().path)
    shutil.rmtree(tmp_path / "gram.zarr")
    fill(tile=9)
    with pytest.raises(StoreMismatchError, match=r"gram\.tile"):
        np.asarray(view)


def test_writing_twice_gives_the_same_bytes(fill: Any) -> None:
    store = fill()
    before = {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()}
    store.commits["ntk"].remove(1, 3)
    fill()
    for path, content in before.items():
        if "commits/ntk/c/1/3" not in str(path):
            assert path.read_bytes() == content, path


def test_first_commit_stays(fill: Any) -> None:
    store = fill()
    record = store.commits["ntk"].read(0, 0)
    again = store.write_tile("ntk", store.grid.at(0, 0), np.zeros((8, 8), np.float32), attempt=2)
    assert again == record
    assert store.read_tile("ntk", 0, 0).all()


def _computed_elsewhere(values: NDArray[np.float32], writer: int) -> NDArray[np.float32]:
    """The tile as a processor of another kind computes it: other last bits."""
    return (values * np.float32(1 + 2e-7 * writer)).astype(np.float32)


@pytest.mark.parametrize("first_dies", [False, True])
@pytest.mark.parametrize("after", [0, 1, 2], ids=["nothing", "its chunk", "its record"])
def test_two_writers_with_other_last_bits_leave_one_sound_tile(
    fill: Any, monkeypatch: pytest.MonkeyPatch, after: int, first_dies: bool
) -> None:
    """The second writes the whole tile at each point of the first one's way; then the first goes on, or dies there."""
    computed = fill("other.zarr").read_tile("ntk", 0, 1)
    store, writes = fill(places=[]), 0
    tile, real = store.grid.at(0, 1), durable.write_durable

    def meet(*payload: Any, **keywords: Any) -> bool:
        nonlocal writes
        if writes == after:
            writes = -1
            store.write_tile("ntk", tile, _computed_elsewhere(computed, 2), attempt=2)
            if first_dies:
                raise KeyboardInterrupt
        written = real(*payload, **keywords)
        writes += writes >= 0
        return written

    monkeypatch.setattr(durable, "write_durable", meet)
    if first_dies and after < 2:
        with pytest.raises(KeyboardInterrupt):
            store.write_tile("ntk", tile, _computed_elsewhere(computed, 1))
    else:
        store.write_tile("ntk", tile, _computed_elsewhere(computed, 1))
        store.write_tile("ntk", tile, _computed_elsewhere(computed, 2), attempt=2)
    monkeypatch.undo()
    report = verify_gram(store)
    assert (report.checked, report.damaged) == (1, ())
    stored = store.read_tile("ntk", 0, 1)
    assert (stored == _computed_elsewhere(computed, 1 if after else 2)).all(), "the chunk of the first stays"
    assert not list(store.path.rglob("*.partial"))


def test_two_writers_that_both_replace_a_damaged_leftover_leave_one_sound_tile(
    fill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has seen the damage before the first mended it, and replaces the chunk before the first's commit."""
    computed = fill("other.zarr").read_tile("ntk", 0, 1)
    store = fill(places=[])
    tile, path, log = store.grid.at(0, 1), store.chunk_path("ntk", 0, 1), store.commits["ntk"]
    durable.write_durable(path, b"left by a builder that died")
    second, real, met = _computed_elsewhere(computed, 2), log.write, list[int]()

    def meet(i: int, j: int, record: Any) -> None:
        if not met:
            met.append(record.crc32c)
            data, crc = durable.parts(second)
            durable.write_durable(path, data, crc)
            real(i, j, replace(record, crc32c=durable.checksum(crc), attempt=2))
        real(i, j, record)

    monkeypatch.setattr(log, "write", meet)
    record = store.write_tile("ntk", tile, _computed_elsewhere(computed, 1))
    assert record.crc32c != met[0], "committed anew"
    report = verify_gram(store)
    assert (report.checked, report.damaged) == (1, ())
    assert (store.read_tile("ntk", 0, 1) == second).all()


def test_a_worker_of_a_smaller_store_commits_nothing_in_the_larger_one(net: Any, tmp_path: Path) -> None:
    """It has outlived its driver, and the store was enlarged meanwhile: its ragged tile is a whole one now."""
    x = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 1), dtype=np.uint8)
    path, spec = tmp_path / "gram.zarr", net.spec.as_dict()
    old = open_for_build(path, make_fingerprint(net, x[:12], tile=8), spec, x[:12])
    grown = open_for_build(path, make_fingerprint(net, x, tile=8), spec, x)
    old.write_tile("ntk", old.grid.at(0, 1), np.ones((8, 4), np.float32))
    assert not grown.committed()[0, 1]
    assert not GramStore.open(path).committed()[0, 1]
    grown.write_tile("ntk", grown.grid.at(0, 1), np.ones((8, 8), np.float32))
    assert (grown.read_tile("ntk", 0, 1) == 1).all()


def test_many_writers_at_once_leave_one_sound_tile(fill: Any) -> None:
    computed, store = fill("other.zarr"), fill(places=[])
    with ThreadPoolExecutor(8) as pool:
        for t in store.grid:
            values = computed.read_tile("ntk", t.i, t.j)
            start = threading.Barrier(8)

            def write(writer: int, t: Any = t, values: Any = values, start: Any = start) -> None:
                start.wait(30)
                store.write_tile("ntk", t, _computed_elsewhere(values, writer))

            list(pool.map(write, range(8)))
    assert verify_gram(store).ok


@pytest.mark.parametrize("there", ["other values", "damaged", "of fewer images"])
def test_a_chunk_that_is_not_this_tile_is_replaced(fill: Any, there: str) -> None:
    """A chunk proves nothing: what is left without a commit counts only where its values are the tile's."""
    expected, store = fill("other.zarr"), fill(places=[])
    values = expected.read_tile("ntk", 0, 1)
    left = np.where(np.arange(8) < 5, values, np.nan) if there == "of fewer images" else 1.1 * values
    payload = durable.encode(left.astype(np.float32))
    durable.write_durable(store.chunk_path("ntk", 0, 1), payload[:-1] + b"x" if there == "damaged" else payload)
    store.write_tile("ntk", store.grid.at(0, 1), values)
    assert (store.read_tile("ntk", 0, 1) == values).all()
    assert not verify_gram(store).damaged


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOTSUP, errno.EIO])
def test_a_file_system_without_links(fill: Any, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    if error == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(error)):
            fill()
        assert not list((fill(places=[]).path / "ntk").rglob("*.partial"))
        return
    store = fill()
    assert verify_gram(store).ok
    store.commits["ntk"].remove(0, 1)
    values = store.grid.at(0, 1), _computed_elsewhere(fill("other.zarr").read_tile("ntk", 0, 1), 3)
    store.write_tile("ntk", *values)
    assert verify_gram(store).ok


def test_chunk_without_record_is_not_committed(fill: Any) -> None:
    store = fill()
    store.commits["ntk"].remove(0, 1)
    assert store.chunk_path("ntk", 0, 1).exists()
    assert not store.committed()[0, 1]
    with pytest.raises(StoreIncompleteError, match="9 of 10 tiles"):
        store.require_complete()
    with pytest.raises(StoreIncompleteError, match=r"tile \(0, 1\) of ntk is not committed"):
        store.read_tile("ntk", 0, 1)
    with pytest.raises(StoreIncompleteError, match="9 of 10 tiles"):
        open_gram(store.path)


def test_damaged_record_is_not_committed(fill: Any) -> None:
    store = fill()
    _flip(store.path / "commits" / "ntk" / "c" / "0" / "1" / "0", 5)
    assert not store.committed()[0, 1]
    assert store.status().damaged == 1
    assert store.status().done == 9
    with pytest.raises(StoreIncompleteError):
        store.read_tile("ntk", 0, 1)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "first byte": (lambda path: _flip(path, 0), "checksum"),
    "a byte": (lambda path: _flip(path, 100), "checksum"),
    "last byte": (lambda path: _flip(path, -1), "checksum"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-7]), "253 bytes instead of 260"),
    "gone": (lambda path: path.unlink(), "chunk is missing"),
    "of another tile": (lambda path: path.write_bytes((path.parents[1] / "0" / "1").read_bytes()), "commit record"),
}


@pytest.mark.parametrize("harm", DAMAGE)
def test_a_damaged_chunk_is_found_on_reading(fill: Any, harm: str) -> None:
    store, (damage, reason) = fill(), DAMAGE[harm]
    damage(store.chunk_path("ntk", 1, 2))
    with pytest.raises(StoreDamagedError, match=rf"tile \(1, 2\) of ntk is damaged \(.*{reason}") as caught:
        store.read_tile("ntk", 1, 2)
    assert caught.value.exit_code == 3
    with pytest.raises(StoreDamagedError):
        np.asarray(open_gram(store.path))
    if harm in ("cut", "gone"):
        with pytest.raises(StoreDamagedError, match=reason):
            store.read_tile("ntk", 1, 2, verify=False)


def test_tiles_below_the_diagonal_do_not_exist(fill: Any) -> None:
    with pytest.raises(IndexError):
        fill().read_tile("ntk", 2, 1)


def test_values_that_are_not_finite_are_refused(fill: Any) -> None:
    store = fill(places=[])
    tile = store.grid.at(1, 2)
    values = np.ones(tile.shape, np.float32)
    values[3, 4] = np.nan
    with pytest.raises(GramBuildError, match=r"tile \(1, 2\) of ntk.*not finite for image 11 with image 20;"):
        store.write_tile("ntk", tile, values)
    values[:, 4] = np.inf
    with pytest.raises(GramBuildError, match=r"tile \(1, 2\) of ntk.*not finite for image 20;"):
        store.write_tile("ntk", tile, values)
    assert not store.committed().any()
    assert not store.chunk_path("ntk", 1, 2).exists()


def test_spoilt_images_are_named_in_diagonal_and_rectangular_tiles() -> None:
    values = np.ones((8, 8), np.float32)
    values[3, :] = values[:, 3] = values[6, 6] = np.nan
    with pytest.raises(GramBuildError, match="not finite for image 11, image 14;"):
        require_finite("ntk", TileGrid.square(27, 8).at(1, 1), values, symmetric=True)
    values = np.ones((8, 8), np.float32)
    values[:, 2] = np.nan
    with pytest.raises(GramBuildError, match="not finite for column image 2;"):
        require_finite("ntk", TileGrid(27, 27, 8).at(1, 0), values, symmetric=False)


def test_values_of_another_shape_or_dtype_are_refused(fill: Any) -> None:
    store = fill(places=[])
    for values in (np.ones((8, 8)), np.ones((8, 7), np.float32)):
        with pytest.raises(GramBuildError, match="the store takes float32"):
            store.write_tile("ntk", store.grid.at(0, 1), values)


CHANGES: dict[str, dict[str, Any]] = {
    "kinds": {"kinds": ("ntk", "nngp")},
    "network.name": {"net": network("mlp-3")},
    "network.W_std": {"net": network("mlp-2", W_std=1.5)},
    "network.b_std": {"net": network("mlp-2", b_std=0.0)},
    "network.activation": {"net": network("mlp-2", activation="erf")},
    "gram.dtype": {"dtype": "float64"},
    "gram.tile": {"tile": 9},
}


@pytest.mark.parametrize("field", CHANGES)
def test_mismatch_names_the_field(fill: Any, net: Network, images: NDArray[np.uint8], field: str) -> None:
    store = fill(places=[])
    wanted: dict[str, Any] = {"net": net, "tile": 8, **CHANGES[field]}
    other = make_fingerprint(wanted.pop("net"), images, **wanted)
    with pytest.raises(StoreMismatchError, match=field.replace(".", r"\.")) as caught:
        GramStore.create_or_open(store.path, other, net.spec.as_dict())
    assert caught.value.field == field
    assert caught.value.exit_code == 3


def test_mismatch_of_images_order_and_columns(fill: Any, net: Network, images: NDArray[np.uint8]) -> None:
    store = fill(places=[])
    for x, columns, field in (
        (images[::-1], None, "images"),
        (images[:, :2], None, "image_shape"),
        (images[:26], None, "n"),
        (images, images, "columns"),
        (images, images[:3], "n_columns"),
    ):
        other = make_fingerprint(net, x, tile=8, columns=columns)
        with pytest.raises(StoreMismatchError) as caught:
            GramStore.create_or_open(store.path, other, net.spec.as_dict())
        assert caught.value.field == field


@pytest.mark.parametrize("field", ["backend", "neural_tangents", "matmul_precision", "format"])
def test_mismatch_of_what_computed_the_store(fill: Any, field: str) -> None:
    store = fill(places=[])
    file = store.path / "zarr.json"
    meta = json.loads(file.read_text())
    about = meta["attributes"]["advntk_gram"]
    about["fingerprint"][field] = "other"
    about["crc32c"] = checksum(about["fingerprint"], about["network"])
    file.write_text(json.dumps(meta))
    with pytest.raises(StoreMismatchError) as caught:
        fill(places=[])
    assert caught.value.field == field


def test_what_is_not_a_store_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreIncompleteError, match="no Gram store here"):
        GramStore.open(tmp_path / "nothing.zarr")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    (tmp_path / "file").write_text("mine")
    for name in ("folder", "other.zarr", "file"):
        with pytest.raises(StoreError, match="not a Gram store"):
            GramStore.open(tmp_path / name)


def test_creating_over_foreign_files_is_refused(fill: Any, tmp_path: Path) -> None:
    (tmp_path / "gram.zarr").mkdir()
    (tmp_path / "gram.zarr" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="not a Gram store"):
        fill()
    assert (tmp_path / "gram.zarr" / "notes.txt").read_text() == "mine"


def test_half_created_store_is_cleared_away(fill: Any, tmp_path: Path) -> None:
    left = tmp_path / "gram.zarr.0123.creating"
    left.mkdir()
    (left / "zarr.json").write_text("{")
    fill().require_complete()
    assert not left.exists()


@pytest.mark.parametrize(
    "wrong",
    [{"tile": 0}, {"tile": 2.5}, {"tile": True}, {"dtype": "float16"}, {"kinds": ()}, {"kinds": ("ntk", "ntk")}],
)
def test_impossible_requests(net: Network, images: NDArray[np.uint8], wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        make_fingerprint(net, images, **{"tile": 8, **wrong})
    assert caught.value.exit_code == 2


def test_tile_is_reduced_to_n(net: Network, images: NDArray[np.uint8]) -> None:
    assert make_fingerprint(net, images, tile=2048)["gram.tile"] == 27


def test_rectangular_store(net: Network, images: NDArray[np.uint8], tmp_path: Path) -> None:
    rows, cols = images[:5] / 255.0 - 0.5, images[5:] / 255.0 - 0.5
    fingerprint = make_fingerprint(net, rows, tile=8, dtype="float64", columns=cols)
    store = GramStore.create_or_open(tmp_path / "cross.zarr", fingerprint, net.spec.as_dict())
    for t in store.grid:
        store.write_tile("ntk", t, net.ntk(rows[t.rows], cols[t.cols]))
    store.require_complete()
    np.testing.assert_allclose(np.asarray(open_gram(store.path)), net.ntk(rows, cols), rtol=1e-14)


def test_one_builder_and_the_lock_dies_with_it(tmp_path: Path) -> None:
    store = tmp_path / "deep" / "gram.zarr"
    refused = pytest.raises(StoreBusyError, match="another process is building")
    with held_elsewhere(store, "builder_lock(root)"), refused, builder_lock(store):
        pass
    with builder_lock(store), pytest.raises(StoreBusyError), builder_lock(store):
        pass

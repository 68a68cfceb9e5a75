"""Images in a Zarr group, whole and damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from advntk_dist.data import load_dataset
from advntk_dist.errors import DatasetError

X = np.random.default_rng(0).integers(1, 256, (10, 4, 5, 3), dtype=np.uint8)
Y = np.array([0, 1, 2, 2, 1, 0, 1, 2, 0, 1], dtype=np.uint8)


def write(
    path: Path, arrays: dict[str, Any], chunk: int = 3, attributes: dict[str, Any] | None = None, **options: Any
) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=options.pop("zarr_format", 3), attributes=attributes)
    for name, values in arrays.items():
        chunks = (chunk, *values.shape[1:])
        config: Any = {"write_empty_chunks": options.get("whole", True)}
        group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks, config=config)[:] = values
    return path


def refused(path: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        load_dataset("zarr", path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_reads_what_an_npz_of_the_same_arrays_gives(tmp_path: Path, zarr_format: int) -> None:
    arrays = {"x": X, "y": Y, "x_test": X[:4], "y_test": Y[:4]}
    names = ["a", "b", "c"]
    path = write(tmp_path / "g.zarr", arrays, attributes={"classes": names}, zarr_format=zarr_format)
    np.savez(tmp_path / "g.npz", allow_pickle=True, **arrays, classes=names)
    data = load_dataset("zarr", path)
    assert (data.test_start, data.classes, data.name) == (10, ("a", "b", "c"), "g.zarr")
    assert data.fingerprint == load_dataset(str(tmp_path / "g.npz")).fingerprint == load_dataset(str(path)).fingerprint


def test_grey_images_and_unnamed_classes(tmp_path: Path) -> None:
    data = load_dataset(str(write(tmp_path / "g", {"x": X[..., 0], "y": Y})))
    assert (data.x.shape, data.classes) == ((10, 4, 5, 1), ("0", "1", "2"))


def test_absent_chunks_do_not_read_as_zeros(tmp_path: Path) -> None:
    path = write(tmp_path / "g", {"x": X, "y": Y})
    (path / "x" / "c" / "1" / "0" / "0" / "0").unlink()
    assert zarr.open_group(path, mode="r")["x"][3:6].sum() == 0, "Zarr itself reads them so"  # type: ignore[index, union-attr]
    message = refused(path)
    assert "x: 1 of 4 chunks are absent and would read as 0" in message
    assert "write_empty_chunks" in message


def test_chunks_that_zarr_left_out_for_being_zero_are_absent_too(tmp_path: Path) -> None:
    sorted_labels = np.sort(Y)
    path = write(tmp_path / "g", {"x": X, "y": sorted_labels}, whole=False)
    assert "y: 1 of 4 chunks are absent" in refused(path)
    assert len(load_dataset("zarr", write(tmp_path / "h", {"x": X, "y": sorted_labels}))) == 10


def test_damaged_chunks_name_their_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "g", {"x": X, "y": Y})
    chunk = path / "x" / "c" / "2" / "0" / "0" / "0"
    for content in (b"123", chunk.read_bytes()[:-9], b""):
        chunk.write_bytes(content)
        assert "x: rows 6 to 8 cannot be read" in refused(path)


@pytest.mark.parametrize(
    ("arrays", "attributes", "words"),
    [
        ({"x": X}, None, "no array y"),
        ({}, None, "no array x and no array y"),
        ({"x": X / 300, "y": Y}, None, "x is float64 of shape"),
        ({"x": X.astype(complex), "y": Y}, None, "x: is complex128 of shape"),
        ({"x": X.astype(np.uint16), "y": Y}, None, "x is uint16"),
        ({"x": X, "y": Y / 2}, None, "y is float64"),
        ({"x": X, "y": Y[:4]}, None, "x has 10 images but y 4 labels"),
        ({"x": X, "y": Y, "x_test": X}, None, "belong together"),
        ({"x": X, "y": Y}, {"classes": ["a", "b"]}, "image 2 has label 2, but there are 2 classes"),
        ({"x": X, "y": Y}, {"classes": "abc"}, "must be a list of strings, got 'abc'"),
        ({"x": X, "y": Y, "classes": Y}, None, "give it as an attribute"),
    ],
)
def test_other_arrays_are_refused(
    tmp_path: Path, arrays: dict[str, Any], attributes: dict[str, Any] | None, words: str
) -> None:
    assert words in refused(write(tmp_path / "g", arrays, attributes=attributes))


def test_what_is_no_group_of_arrays_is_refused(tmp_path: Path) -> None:
    assert "no Zarr group" in refused(tmp_path)
    write(tmp_path / "nested", {"y": Y})
    zarr.open_group(tmp_path / "nested" / "x", mode="w")
    assert "x: is a group, not an array" in refused(tmp_path / "nested")
    (tmp_path / "bad").mkdir()
    for content in ("{", '{"zarr_format": 3, "node_type": "array"}'):
        (tmp_path / "bad" / "zarr.json").write_text(content)
        assert "not a readable Zarr group" in refused(tmp_path / "bad")
    group = zarr.open_group(tmp_path / "shards", mode="w")
    group.create_array("x", data=X, chunks=(1, 4, 5, 3), shards=(2, 4, 5, 3))
    group.create_array("y", data=Y)
    assert "in shards" in refused(tmp_path / "shards")

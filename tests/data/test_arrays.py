"""Images as named arrays in .npz files and Zarr groups: read where they are certain, else mended as is said."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from advntk_dist.data import Dataset, load_dataset

from . import refused

DRAW = np.random.default_rng(0)
X = DRAW.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
X[0, 0, 0] = (0, 255, 128)
Y = np.arange(12) % 3
SMOOTH = DRAW.random((12, 8, 8, 3))
PARTS = {"train": slice(0, 6), "val": slice(6, 9), "test": slice(9, 12)}
NATIVE = {"train": ("x", "y"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}
KERAS = NATIVE | {"train": ("x_train", "y_train")}
MEDMNIST = {part: (f"{part}_images", f"{part}_labels") for part in PARTS}


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, allow_pickle=True, **arrays)
    return path


def write_zarr(path: Path, zarr_format: Any = 3, whole: bool = True, **arrays: Any) -> Path:
    """A group with three rows a chunk and ``classes`` as its attribute; ``whole`` writes chunks of zeros, too."""
    classes = arrays.pop("classes", None)
    attributes = None if classes is None else {"classes": classes}
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format, attributes=attributes)
    for name, values in arrays.items():
        chunks = (3, *values.shape[1:])
        config: Any = {"write_empty_chunks": whole}
        group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks, config=config)[:] = values
    return path


def saved(folder: Path, **arrays: Any) -> Dataset:
    """The dataset of some arrays, which a .npz file and a Zarr group of them give alike."""
    data = load_dataset(str(write_npz(folder / "mine.npz", **arrays)))
    group = {name: values for name, values in arrays.items() if name == "classes" or values.dtype.kind in "biuf"}
    if "classes" in group:
        group["classes"] = list(group["classes"])
    assert load_dataset(str(write_zarr(folder / "mine.zarr", **group))).fingerprint == data.fingerprint
    return data


def unsaved(folder: Path, **arrays: Any) -> str:
    """The message that refuses some arrays, of a Zarr group the same where that can hold them."""
    message = refused("npz", path := write_npz(folder / "bad.npz", **arrays))
    assert message.startswith(f"{path}: ")
    if all(v.ndim and v.size and v.dtype.kind in "biuf" and n != "classes" for n, v in arrays.items()):
        group = refused("zarr", write_zarr(folder / "bad.zarr", **arrays))
        assert group.replace("bad.zarr", "bad.npz").replace("a Zarr group with", "a .npz file with") == message
    return message


@pytest.mark.parametrize("layout", [NATIVE, KERAS, MEDMNIST])
@pytest.mark.parametrize("parts", [("train",), ("train", "test"), ("train", "val", "test")])
def test_parts_of_ones_own_are_read_and_kept(
    tmp_path: Path, layout: dict[str, tuple[str, str]], parts: tuple[str, ...]
) -> None:
    arrays = {layout[p][0]: X[PARTS[p]] for p in parts}
    arrays |= {layout[p][1]: Y[PARTS[p]][:, None].astype(np.uint64) for p in parts}
    data = saved(tmp_path, **arrays, remark=np.array([1.0]))
    rows = np.concatenate([np.arange(12)[PARTS[part]] for part in parts])
    np.testing.assert_array_equal(data.x, X[rows])
    np.testing.assert_array_equal(data.y, Y[rows])
    assert {p: len(r) for p, r in data.parts.items()} == (
        {"all": 6} if len(parts) == 1 else {p: len(Y[PARTS[p]]) for p in parts}
    )


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_classes_have_their_names(tmp_path: Path, save: Callable[..., None]) -> None:
    save(path := tmp_path / "mine.npz", x=X, y=Y, classes=["a", "b", "c", "d"])
    data = load_dataset("npz", path)
    assert (data.name, data.classes, data.test_start) == ("mine.npz", ("a", "b", "c", "d"), None)
    for zarr_format in (2, 3):
        group = write_zarr(tmp_path / "mine.zarr", zarr_format, x=X, y=Y, classes=["a", "b", "c", "d"])
        for found in (load_dataset("zarr", group), load_dataset(str(group))):
            assert (found.name, found.fingerprint) == ("mine.zarr", data.fingerprint)


def test_grey_images_get_a_channel_and_classes_their_numbers(tmp_path: Path) -> None:
    data = saved(tmp_path, x=X[..., 0], y=Y)
    np.testing.assert_array_equal(data.x, X[..., :1])
    assert data.classes == ("0", "1", "2")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("black", "white"), [(0, 1), (0, 255), (-0.5, 0.5), (-1, 1)])
def test_floats_that_are_the_levels_of_8_bits_are_read_as_these(
    tmp_path: Path, black: float, white: float, dtype: type
) -> None:
    values: np.ndarray = (X / 255 * (white - black) + black).astype(dtype)
    assert saved(tmp_path, x=values, y=Y).fingerprint == saved(tmp_path, x=X, y=Y).fingerprint


def test_all_arrays_of_a_file_have_one_scale(tmp_path: Path) -> None:
    """An array without a value below 0 is read on the scale of the others."""
    bright = np.maximum(X, 128)
    train, test = ((x / 127.5 - 1).astype(np.float32) for x in (X, bright))
    found = saved(tmp_path, x_train=train, x_test=test, y_train=Y, y_test=Y)
    np.testing.assert_array_equal(found.x, np.concatenate([X, bright]))


STRETCHED = 'np.rint(255.0 * (x - x.min()) / (x.max() - x.min())).astype("uint8")'
NUMBERED = "classes, y = np.unique(y, return_inverse=True)"


@pytest.mark.parametrize(
    ("arrays", "why", "line"),
    [
        ({"x": X.transpose(0, 3, 1, 2)}, "3 x 8 images of 8 channels", "x.transpose(0, 2, 3, 1)"),
        ({"x": X.transpose(0, 3, 1, 2)}, "really are 3 rows", "x.transpose(0, 2, 1, 3)"),
        ({"x": X.transpose(0, 3, 1, 2)[:, :1]}, "1 x 8 images of 8 channels", "x.transpose(0, 2, 3, 1)"),
        ({"x": SMOOTH}, "are not the 256 levels of 8 bits", 'np.rint(255 * x).astype("uint8")'),
        ({"x": SMOOTH - 0.5}, "where -0.5 is black and 0.5 white", 'np.rint(255 * (x + 0.5)).astype("uint8")'),
        ({"x": 2 * SMOOTH - 1}, "where -1 is black and 1 white", 'np.rint(127.5 * (x + 1)).astype("uint8")'),
        ({"x": 255 * SMOOTH}, "where 0 is black and 255 white", 'np.rint(x).astype("uint8")'),
        ({"x": 9 * SMOOTH - 4}, "which is no scale of pixels", STRETCHED),
        ({"x": np.zeros((12, 8, 8))}, "do not tell their scale", 'np.rint(255 * x).astype("uint8")'),
        ({"x": X.astype(np.int64)}, "x is int64", 'x.astype("uint8")'),
        ({"x": 257 * X.astype(np.uint16)}, "x is uint16", STRETCHED),
        ({"x": X > 127}, "x is bool", '255 * x.astype("uint8")'),
        ({"x": X[..., 0].reshape(12, 64)}, "x is uint8 of shape (12, 64)", "x.reshape(-1, 8, 8)"),
        ({"y": np.eye(3)[Y]}, "y is float64 of shape (12, 3)", "y.argmax(axis=1)"),
        ({"y": Y.astype(float)}, "y is float64", "y.astype(int)"),
        ({"y": Y == 1}, "y is bool", "y.astype(int)"),
        ({"y": np.array(list("abc"))[Y]}, "y is <U1", NUMBERED),
        ({"y": Y - 1}, "y: image 0 has label -1", NUMBERED),
        (
            {"y": 10 * np.arange(12)},
            "12 classes (0, 10, 20, 30, ..., 110), which leaves 99 of 0..110 without an image",
            NUMBERED,
        ),
        ({"y": Y + 10**9}, "y: image 0 has label 1000000000", NUMBERED),
    ],
)
def test_the_line_that_is_said_to_mend_an_array_mends_it(
    tmp_path: Path, arrays: dict[str, Any], why: str, line: str
) -> None:
    wrong: dict[str, Any] = {"x": X, "y": Y} | arrays
    message = unsaved(tmp_path, **wrong)
    assert why in message
    assert line in message
    names: dict[str, Any] = {"np": np} | wrong
    exec(line if line == NUMBERED else f"{next(iter(arrays))} = {line}", names)
    mended = {name: names[name] for name in ("x", "y")}
    if "classes" in names:
        assert "with classes=classes.astype(str) in the file" in message
        mended["classes"] = names["classes"].astype(str)
    data = saved(tmp_path, **mended)
    assert len(data) == 12
    if "classes" in names:
        assert [data.classes[label] for label in data.y] == [str(label) for label in wrong["y"]]


def test_images_without_labels_are_left_out_as_is_said(tmp_path: Path) -> None:
    y = np.where(np.arange(12) < 3, -1, Y)
    assert "where that means no label, keep the images of y >= 0 alone" in unsaved(tmp_path, x=X, y=y)
    keep = y >= 0
    assert len(saved(tmp_path, x=X[keep], y=y[keep])) == 9


def test_images_that_are_not_finite_are_left_out_as_is_said(tmp_path: Path) -> None:
    x = X / 255
    x[2, 0, 0, 0] = np.nan
    assert "keep the images where np.isfinite(x).all((1, 2, 3)), with their labels" in unsaved(tmp_path, x=x, y=Y)
    keep = np.isfinite(x).all((1, 2, 3))
    assert len(saved(tmp_path, x=x[keep], y=Y[keep])) == 11


def test_classes_are_numbered_anew_in_all_parts_as_is_said(tmp_path: Path) -> None:
    arrays = {"x_train": X[:9], "y_train": 5 * Y[:9], "x_test": X[9:], "y_test": 5 * Y[9:]}
    message = unsaved(tmp_path, **arrays)
    line = (
        "classes = np.unique(np.concatenate([y_train, y_test])); y_train, y_test = (np.searchsorted(classes, y) for y "
        "in (y_train, y_test))"
    )
    assert line in message
    names: dict[str, Any] = {"np": np} | arrays
    exec(line, names)
    data = saved(tmp_path, **{name: names[name] for name in arrays}, classes=names["classes"].astype(str))
    assert data.classes == ("0", "5", "10")
    np.testing.assert_array_equal(data.y, Y)


def test_classes_without_an_image_may_be_named(tmp_path: Path) -> None:
    assert "or name all 5 in classes" in unsaved(tmp_path, x=X, y=2 * Y)
    assert saved(tmp_path, x=X, y=2 * Y, classes=list("abcde")).n_classes == 5


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    message = unsaved(tmp_path, x=X.transpose(0, 3, 1, 2), y=Y[:5] - 1, x_test=SMOOTH, y_test=Y / 2)
    for words in (
        "x has shape (12, 3, 8, 8)",
        "x has 12 images but y 5 labels",
        "x_test is float64",
        "y_test is float64",
    ):
        assert words in message


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.array(5), "y": np.array(1)}, "x is int64 of shape (); it must be uint8"),
        ({"x": X.astype(complex), "y": Y}, "x is complex128 of shape"),
        ({"x": X[0, 0], "y": Y}, "x is uint8 of shape (8, 3)"),
        ({"x": X[:0], "y": Y[:0]}, "at least one image"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y[:1]}, "x_test has 12 images but y_test 1 labels"),
        ({"x": X, "y": Y, "x_test": X[:, :7], "y_test": Y}, "(8, 8, 3) but x_test has images of shape (7, 8, 3)"),
        ({"x": X, "y": Y / 2}, "y is float64"),
        ({"x": X, "y": Y[:, None].repeat(2, 1)}, "y is int64 of shape (12, 2)"),
        ({"x": X, "y": Y + 10**12}, "has label 1000000000000"),
        ({"x": X, "y": Y.astype(np.uint64) + np.uint64(2**63)}, "has label -"),
        ({"x": X, "y": Y, "classes": ["a", "b"]}, "image 2 has label 2, but there are 2 classes"),
        ({"x": X, "y": Y, "classes": [1, 2, 3]}, "classes is int64"),
        ({"x": X, "y": Y, "classes": np.array("a")}, "classes is <U1 of shape ()"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    assert words in unsaved(tmp_path, **{name: np.asarray(values) for name, values in arrays.items()})


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("images", "labels"), "no array x and no array y; it must be a .npz file"),
        (("x", "y", "x_train", "y_train"), "holds x and x_train, which are both training data; keep one of them"),
        (("x",), "no array y"),
        (("y",), "no array x"),
        (("train_images",), "no array train_labels"),
        (("x_train", "y_train", "x_val"), "x_val and y_val belong together"),
        (("x", "y", "y_test"), "x_test and y_test belong together"),
        (("x", "y", "x_val", "y_val"), "x_val without x_test: name the images that results are of x_test and y_test"),
        (("images", "labels"), "it holds 'images', 'labels'"),
        (("\x1b[2J",), r"it holds '\x1b[2J'"),
    ],
)
def test_arrays_under_other_names_are_named(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    arrays = {name: Y if name[0] == "y" or name.endswith("labels") else X for name in names}
    message = unsaved(tmp_path, **arrays)
    assert words in message


# a .npz file that is damaged or harmful


class Harmful:
    """An object whose unpickling makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the call."""
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("where", ["x", "y", "classes"])
def test_object_arrays_are_refused_and_never_unpickled(tmp_path: Path, where: str) -> None:
    marker = tmp_path / "ran"
    arrays = {"x": X, "y": Y} | {where: np.array([Harmful(marker)], dtype=object)}
    path = write_npz(tmp_path / "bad.npz", **arrays)
    assert "Object arrays cannot be loaded" in refused("npz", path)
    assert not marker.exists()
    np.load(path, allow_pickle=True)[where]
    assert marker.exists(), "the file would have run its call, so the refusal above means something"


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    single = io.BytesIO()
    np.save(single, X)
    for content, words in [
        (b"", "not a readable .npz"),
        (b"hello world", "not a readable .npz"),
        (b"\x80\x02}.", "not a readable .npz"),
        (single.getvalue(), "single array"),
        (b"PK\x03\x04" + bytes(100), "not a readable .npz"),
    ]:
        path.write_bytes(content)
        assert words in refused("npz", path)
    path.unlink()
    assert "no such file" in refused("npz", path)
    path.mkdir()
    assert "not a readable .npz" in refused("npz", path)
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        archive.writestr("x.npy", b"not an array")
        archive.writestr("y.npy", b"not an array")
    assert "x is not a NumPy array" in refused("npz", tmp_path / "raw.npz")
    assert "data.path to a .npz" in refused("npz")


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999999, 9, 9), }",
        b"{'descr': '|u1', 'shape': (1,), }",
        b"{{{(",
        b"'",
        b"os.abort()",
    ],
)
def test_a_damaged_array_header_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        archive.writestr("y.npy", b"")
    assert "not a readable .npz" in refused("npz", path)


# a Zarr group that is incomplete or damaged


def test_absent_chunks_do_not_read_as_zeros(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "g", x=X, y=Y)
    (path / "x" / "c" / "1" / "0" / "0" / "0").unlink()
    assert zarr.open_group(path, mode="r")["x"][3:6].sum() == 0, "Zarr itself reads them so"  # type: ignore[index, union-attr]
    message = refused("zarr", path)
    assert "x: 1 of 4 chunks are absent and would read as 0" in message
    assert "write_empty_chunks" in message


def test_chunks_that_zarr_left_out_for_being_zero_are_absent_too(tmp_path: Path) -> None:
    sorted_labels = np.sort(Y)
    path = write_zarr(tmp_path / "g", whole=False, x=X, y=sorted_labels)
    assert "y: 1 of 4 chunks are absent" in refused("zarr", path)
    assert len(load_dataset("zarr", write_zarr(tmp_path / "h", x=X, y=sorted_labels))) == 12


def test_damaged_chunks_name_their_rows(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "g", x=X, y=Y)
    chunk = path / "x" / "c" / "2" / "0" / "0" / "0"
    for content in (b"123", chunk.read_bytes()[:-9], b""):
        chunk.write_bytes(content)
        assert "x: rows 6 to 8 cannot be read" in refused("zarr", path)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "no array x and no array y"),
        ({"x": X.astype(complex), "y": Y}, "x: is complex128 of shape"),
        ({"x": X, "y": Y, "classes": ["a", "b"]}, "image 2 has label 2, but there are 2 classes"),
        ({"x": X, "y": Y, "classes": "abc"}, "must be a list of strings, got 'abc'"),
    ],
)
def test_other_groups_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    assert words in refused("zarr", write_zarr(tmp_path / "g", **arrays))


def test_what_is_no_group_of_arrays_is_refused(tmp_path: Path) -> None:
    assert "no Zarr group" in refused("zarr", tmp_path)
    write_zarr(tmp_path / "nested", y=Y)
    zarr.open_group(tmp_path / "nested" / "x", mode="w")
    assert "x: is a group, not an array" in refused("zarr", tmp_path / "nested")
    (tmp_path / "bad").mkdir()
    for content in ("{", '{"zarr_format": 3, "node_type": "array"}'):
        (tmp_path / "bad" / "zarr.json").write_text(content)
        assert "not a readable Zarr group" in refused("zarr", tmp_path / "bad")
    group = zarr.open_group(tmp_path / "shards", mode="w")
    group.create_array("x", data=X, chunks=(1, 4, 5, 3), shards=(2, 4, 5, 3))
    group.create_array("y", data=Y)
    assert "in shards" in refused("zarr", tmp_path / "shards")

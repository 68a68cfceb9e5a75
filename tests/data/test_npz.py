"""Images in a NumPy archive, whole and damaged."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from advntk_dist.data import load_dataset
from advntk_dist.errors import DatasetError

X = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
Y = np.array([0, 1, 2, 2, 1, 0], dtype=np.uint8)


class Harmful:
    """An object whose unpickling makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the call."""
        return os.mkdir, (str(self.marker),)


def write(path: Path, **arrays: ArrayLike) -> Path:
    """Write a .npz as NumPy does."""
    np.savez(path, allow_pickle=True, **arrays)
    return path


def refused(path: Path) -> str:
    """Expect the one-line error that names the file, and return its message."""
    with pytest.raises(DatasetError) as caught:
        load_dataset("npz", path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_images_labels_and_names(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "mine.npz"
    save(path, x=X, y=Y, classes=["a", "b", "c", "d"], remark=np.array([1.0]))
    data = load_dataset("npz", path)
    np.testing.assert_array_equal(data.x, X)
    np.testing.assert_array_equal(data.y, Y)
    assert (data.name, data.classes, data.test_start) == ("mine.npz", ("a", "b", "c", "d"), None)
    assert load_dataset(str(path)).fingerprint == data.fingerprint


def test_grey_images_get_a_channel_and_classes_their_numbers(tmp_path: Path) -> None:
    data = load_dataset(str(write(tmp_path / "grey.npz", x=X[..., 0], y=Y)))
    np.testing.assert_array_equal(data.x, X[..., :1])
    assert data.classes == ("0", "1", "2")


def test_a_test_set_is_appended(tmp_path: Path) -> None:
    path = write(tmp_path / "t.npz", x=X, y=Y, x_test=X[:2] // 2, y_test=Y[:2].astype(np.uint64) + np.uint64(3))
    data = load_dataset("npz", path)
    assert data.test_start == 6
    np.testing.assert_array_equal(data.x, np.concatenate([X, X[:2] // 2]))
    np.testing.assert_array_equal(data.y, [*Y, 3, 4])
    assert data.n_classes == 5


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X}, "no array y"),
        ({"y": Y}, "no array x"),
        ({"images": X}, "no array x and no array y"),
        ({"x": X, "y": Y[:5]}, "x has 6 images but y 5 labels"),
        ({"x": X, "y": Y, "x_test": X}, "belong together"),
        ({"x": X, "y": Y, "y_test": Y}, "belong together"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y[:1]}, "x_test has 6 images but y_test 1 labels"),
        ({"x": X, "y": Y, "x_test": X[:, :3], "y_test": Y}, "(4, 5, 3) but x_test has images of shape (3, 5, 3)"),
        ({"x": np.array(5), "y": np.array(1)}, "x is int64 of shape (); it must be uint8"),
        ({"x": X.astype(complex), "y": Y}, "x is complex128 of shape"),
        ({"x": X / 300, "y": Y}, "x is float64 of shape"),
        ({"x": X[0, 0], "y": Y}, "x is uint8 of shape (5, 3)"),
        ({"x": X[:0], "y": Y[:0]}, "at least one image"),
        ({"x": X, "y": Y / 2}, "y is float64"),
        ({"x": X, "y": Y[:, None].repeat(2, 1)}, "y is uint8 of shape (6, 2)"),
        ({"x": X, "y": Y == 1}, "y is bool"),
        ({"x": X, "y": Y, "classes": ["a", "b"]}, "image 2 has label 2, but there are 2 classes"),
        ({"x": X, "y": Y, "classes": [1, 2, 3]}, "classes is int64"),
        ({"x": X, "y": Y, "classes": np.array("a")}, "classes is <U1 of shape ()"),
        ({"x": X, "y": Y.astype(np.int64) - 1}, "image 0 has label -1"),
        ({"x": X, "y": Y.astype(np.int64) + 10**12}, "has label 1000000000000"),
        ({"x": X, "y": Y + np.uint64(2**63)}, "has label -"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    assert words in refused(write(tmp_path / "bad.npz", **arrays))


@pytest.mark.parametrize("where", ["x", "y", "classes"])
def test_object_arrays_are_refused_and_never_unpickled(tmp_path: Path, where: str) -> None:
    marker = tmp_path / "ran"
    arrays = {"x": X, "y": Y} | {where: np.array([Harmful(marker)], dtype=object)}
    path = write(tmp_path / "bad.npz", **arrays)
    assert "Object arrays cannot be loaded" in refused(path)
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
        assert words in refused(path)
    path.unlink()
    assert "no such file" in refused(path)
    path.mkdir()
    assert "not a readable .npz" in refused(path)
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        archive.writestr("x.npy", b"not an array")
        archive.writestr("y.npy", b"not an array")
    assert "x is not a NumPy array" in refused(tmp_path / "raw.npz")
    with pytest.raises(DatasetError, match=r"data\.path to a \.npz"):
        load_dataset("npz")


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
    assert "not a readable .npz" in refused(path)


def test_every_kind_of_cut_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "good.npz", x=X, y=Y).read_bytes()
    path = tmp_path / "cut.npz"
    for size in range(0, len(whole), 17):
        path.write_bytes(whole[:size])
        refused(path)


@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), compressed=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_byte_is_found_or_harmless(tmp_path: Path, place: float, flip: int, compressed: bool) -> None:
    good = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(good, x=X, y=Y)
    content = bytearray(good.getvalue())
    content[int(place * len(content))] ^= flip
    path = tmp_path / "flipped.npz"
    path.write_bytes(content)
    try:
        data = load_dataset("npz", path)
    except DatasetError as error:
        outcome = str(error)
    else:
        outcome = "same" if np.array_equal(data.x, X) and np.array_equal(data.y, Y) else "other"
    assert str(path) in outcome or outcome == "same"

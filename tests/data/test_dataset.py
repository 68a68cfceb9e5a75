"""The Dataset type, its fingerprint, one-hot labels and the unit range."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tracemalloc

import numpy as np
import pytest

from advntk_dist.data import Dataset, dataset, fingerprint_images, one_hot, to_unit_range
from advntk_dist.errors import DatasetError

CLASSES = ("cat", "dog", "owl")


def small(n: int = 5) -> Dataset:
    """Return n images of 2x3x1 with labels 0, 1, 2, 0, ..."""
    x = np.arange(n * 6, dtype=np.uint8).reshape(n, 2, 3, 1)
    return Dataset("small", x, np.arange(n, dtype=np.int64) % 3, CLASSES)


def test_describes_itself() -> None:
    data = small()
    assert (len(data), data.image_shape, data.n_classes) == (5, (2, 3, 1), 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((5, 2, 3), np.uint8)}, r"x is uint8 of shape \(5, 2, 3\)"),
        ({"x": np.zeros((5, 2, 3, 1), np.float32)}, "x is float32"),
        ({"x": [[1]]}, "x is a list"),
        ({"x": np.zeros((0, 2, 3, 1), np.uint8), "y": np.zeros(0, np.int64)}, "no images"),
        ({"x": np.zeros((5, 0, 3, 1), np.uint8)}, "no images"),
        ({"y": np.zeros(5, np.int32)}, "y is int32"),
        ({"y": np.zeros((5, 1), np.int64)}, r"y is int64 of shape \(5, 1\)"),
        ({"y": np.zeros(4, np.int64)}, "5 images but 4 labels"),
        ({"y": np.array([0, 1, 2, 3, 0])}, "image 3 has label 3"),
        ({"y": np.array([0, -1, 2, 0, 0])}, "image 1 has label -1"),
        ({"classes": ()}, "classes must be"),
        ({"classes": ("a", 1, "b")}, "classes must be"),
        ({"test_start": 0}, "test_start is 0"),
        ({"test_start": 5}, "test_start is 5"),
        ({"test_start": 4, "val_start": 4}, "val_start is 4"),
        ({"val_start": 2}, "val_start is 2"),
        ({"x": np.zeros((5, 3, 8, 8), np.uint8)}, r"x has shape \(5, 3, 8, 8\)"),
        ({"files": ("a", "b")}, "5 images but 2 names"),
    ],
)
def test_refuses_impossible_fields(change: dict[str, object], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        dataclasses.replace(small(), **change)  # type: ignore[arg-type]
    assert "'small'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 1, 1, 64), (2, 3, 3, 8), (2, 3, 8, 3), (2, 5, 8, 8), (2, 4, 5, 3)])
def test_shapes_in_which_the_channels_may_come_last_are_kept(shape: tuple[int, ...]) -> None:
    assert Dataset("a", np.zeros(shape, np.uint8), np.zeros(2, np.int64), CLASSES).image_shape == shape[1:]


def test_pieces_are_joined_in_the_order_of_their_rows() -> None:
    whole = small(7)
    rows = {"train": [slice(0, 1), slice(1, 3)], "val": [slice(3, 4)], "test": [slice(4, 7)]}
    pieces = [(part, whole.x[at], whole.y[at].astype(np.uint8)) for part, ats in rows.items() for at in ats]
    joined = Dataset.joined("small", pieces, CLASSES)
    assert (joined.val_start, joined.test_start) == (3, 4)
    assert joined.fingerprint == dataclasses.replace(whole, val_start=3, test_start=4).fingerprint
    alone = Dataset.joined("small", [("train", whole.x, whole.y)], CLASSES)
    assert (alone.x is whole.x, alone.fingerprint) == (True, whole.fingerprint), "nothing is copied"


def test_arrays_are_read_only_and_independent_of_the_callers() -> None:
    x, y = np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.int64)
    data = Dataset("a", x, y, ("only",))
    before = data.fingerprint
    x[0], y[0] = 9, 7
    assert not data.x.any()
    assert not data.y.any()
    assert dataclasses.replace(data).fingerprint == before
    for array in (data.x, data.y):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_read_only_contiguous_arrays_are_not_copied() -> None:
    data = small()
    assert dataclasses.replace(data, name="other").x is data.x


def test_strided_images_become_contiguous() -> None:
    wide = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
    data = Dataset("a", wide[:, ::2, ::2], np.zeros(2, np.int64), ("only",))
    assert data.x.flags.c_contiguous
    np.testing.assert_array_equal(data.x, wide[:, ::2, ::2])


def test_fingerprint_sees_bytes_order_labels_shape_and_classes_but_no_name() -> None:
    data = small(6)
    brighter = data.x.copy()
    brighter[3, 1, 2, 0] ^= 1
    relabelled = data.y.copy()
    relabelled[0] = 1
    order = np.array([1, 0, 2, 3, 4, 5])
    others = [
        dataclasses.replace(data, x=brighter),
        dataclasses.replace(data, y=relabelled),
        dataclasses.replace(data, x=data.x[order], y=data.y[order]),
        dataclasses.replace(data, x=data.x[order]),
        dataclasses.replace(data, x=data.x.reshape(6, 3, 2, 1)),
        dataclasses.replace(data, classes=("cat", "dog", "fox")),
        dataclasses.replace(data, classes=("cat", "dog", "owl", "fox")),
        dataclasses.replace(data, x=data.x[:5], y=data.y[:5]),
        dataclasses.replace(data, test_start=4, val_start=2),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)
    assert len(data.fingerprint) == 64
    assert dataclasses.replace(data, name="other").fingerprint == data.fingerprint


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("block", [1, 150, 200, 699, dataset._HASH_BLOCK])
def test_fingerprint_images_is_sha256_of_dtype_shape_and_bytes_in_any_layout(
    monkeypatch: pytest.MonkeyPatch, dtype: type, block: int
) -> None:
    monkeypatch.setattr(dataset, "_HASH_BLOCK", block)
    x: np.ndarray = np.arange(168).reshape(7, 4, 3, 2).astype(dtype)
    for array in (x, x[::-1], x.reshape(7, 3, 4, 2), x[:3], x[:0]):
        head = b"advntk-images-1" + json.dumps([np.dtype(dtype).str, array.shape]).encode()
        for same in (array, np.asfortranarray(array), np.repeat(array, 2, axis=0)[::2]):
            assert fingerprint_images(same) == hashlib.sha256(head + array.tobytes()).hexdigest()


def test_fingerprint_images_copies_nothing_of_a_contiguous_array() -> None:
    x = np.zeros((40, 1 << 20), np.uint8)
    tracemalloc.start()
    try:
        fingerprint_images(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("x", [np.zeros((2, 2), np.int64), np.array(1.0), np.array(["a"])])
def test_fingerprint_images_refuses_other_types(x: np.ndarray) -> None:
    with pytest.raises(DatasetError, match="uint8 or floating-point"):
        fingerprint_images(x)


def test_one_hot() -> None:
    encoded = one_hot(np.array([2, 0, 1], np.uint8), 4)
    assert encoded.dtype == np.float64
    np.testing.assert_array_equal(encoded, [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]])
    assert one_hot(np.zeros(0, np.int64), 3).shape == (0, 3)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([0, 3]), "image 1 has label 3"),
        (np.array([-1]), "label -1"),
        (np.array([0.0]), "1-dimensional integer"),
        (np.array([[0]]), "1-dimensional integer"),
    ],
)
def test_one_hot_refuses_bad_labels(y: np.ndarray, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        one_hot(y, 3)


def test_uint8_images_become_float32_in_the_unit_range() -> None:
    x = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    scaled = to_unit_range(x)
    assert scaled.dtype == np.float32
    assert (scaled.min(), scaled.max()) == (-0.5, 0.5)
    np.testing.assert_allclose(scaled, x.astype(np.float64) / 255 - 0.5, rtol=0, atol=6e-8)
    assert x.max() == 255
    assert to_unit_range(scaled) is scaled


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_in_range_pass_unchanged(dtype: type) -> None:
    x: np.ndarray = np.linspace(-0.5, 0.5, 16, dtype=dtype).reshape(4, 2, 2, 1)
    assert to_unit_range(x) is x
    assert to_unit_range(x[:0]).shape == (0, 2, 2, 1)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 3, 1), np.uint8), "4 axes"),
        (np.zeros((1, 2, 2, 1), np.int64), "int64 of shape"),
        (np.zeros((1, 2, 2, 1), np.float16), "float16 of shape"),
        (np.full((1, 2, 2, 1), 0.50001), "0.50001"),
        (np.full((1, 2, 2, 1), -0.75, np.float32), "-0.75"),
        (np.full((1, 2, 2, 1), np.nan), "not finite"),
        (np.full((1, 2, 2, 1), -np.inf, np.float32), "not finite"),
    ],
)
def test_unit_range_refuses_other_images(x: np.ndarray, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        to_unit_range(x)
    assert "\n" not in str(caught.value)

"""Images of one's own in the layouts that people have them in: read where they are certain, else mended as is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from advntk_dist.config import load_config
from advntk_dist.data import Dataset, load_dataset, split
from advntk_dist.data.select import keep_classes
from advntk_dist.errors import ConfigError, DatasetError
from advntk_dist.pipeline.context import Problem

DRAW = np.random.default_rng(0)
X = DRAW.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
X[0, 0, 0] = (0, 255, 128)
Y = np.arange(12) % 3
PARTS = {"train": slice(0, 6), "val": slice(6, 9), "test": slice(9, 12)}
NATIVE = {"train": ("x", "y"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}
KERAS = NATIVE | {"train": ("x_train", "y_train")}
MEDMNIST = {part: (f"{part}_images", f"{part}_labels") for part in PARTS}


def saved(path: Path, **arrays: Any) -> Dataset:
    np.savez(path / "mine.npz", allow_pickle=True, **arrays)
    return load_dataset(str(path / "mine.npz"))


def refused(path: Path, **arrays: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        saved(path, **arrays)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("layout", [NATIVE, KERAS, MEDMNIST])
@pytest.mark.parametrize("parts", [("train",), ("train", "test"), ("train", "val", "test")])
def test_parts_of_ones_own_are_read_and_kept(
    tmp_path: Path, layout: dict[str, tuple[str, str]], parts: tuple[str, ...]
) -> None:
    arrays = {layout[p][0]: X[PARTS[p]] for p in parts} | {layout[p][1]: Y[PARTS[p]][:, None] for p in parts}
    data = saved(tmp_path, **arrays, remark=np.array([1.0]))
    rows = np.concatenate([np.arange(12)[PARTS[part]] for part in parts])
    np.testing.assert_array_equal(data.x, X[rows])
    np.testing.assert_array_equal(data.y, Y[rows])
    assert {p: len(r) for p, r in data.parts.items()} == (
        {"all": 6} if len(parts) == 1 else {p: len(Y[PARTS[p]]) for p in parts}
    )
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    for name, values in arrays.items():
        group.create_array(name, data=values, chunks=(2, *values.shape[1:]))
    assert load_dataset(str(tmp_path / "g.zarr")).fingerprint == data.fingerprint


def test_each_part_of_a_run_is_drawn_from_the_one_of_its_name(tmp_path: Path) -> None:
    arrays = {x: X[PARTS[part]] for part, (x, _) in KERAS.items()} | {
        y: Y[PARTS[part]] for part, (_, y) in KERAS.items()
    }
    data = saved(tmp_path, **arrays)
    parts = split(data, n_train=5, n_val=2, n_test=2, seed=0)
    assert (parts.train < 6).all()
    assert ((parts.val >= 6) & (parts.val < 9)).all()
    assert (parts.test >= 9).all()
    fewer = split(data, n_train=3, n_val=3, n_test=2, seed=0)
    assert np.array_equal(fewer.train, parts.train[:3])
    assert np.array_equal(fewer.val[:2], parts.val)
    for asked, words in (
        ({"n_train": 7}, "data.n_train = 7: 'mine.npz' has 6 training images"),
        ({"n_val": 4}, "data.n_val = 4: 'mine.npz' has 3 validation images"),
        ({"n_test": 4}, "data.n_test = 4: 'mine.npz' has 3 test images"),
    ):
        with pytest.raises(ConfigError, match=words):
            split(data, **({"n_train": 5, "n_val": 2, "n_test": 2, "seed": 0} | asked))
    some = keep_classes(data, [0, 2])
    assert {part: len(rows) for part, rows in some.parts.items()} == {"train": 4, "val": 2, "test": 2}


def test_a_validation_set_belongs_to_the_fingerprint() -> None:
    plain, own = (Dataset("a", X, Y, ("a", "b", "c"), 9, start) for start in (None, 6))
    assert plain.fingerprint != own.fingerprint
    with pytest.raises(DatasetError, match="val_start is 9"):
        Dataset("a", X, Y, ("a", "b", "c"), 9, 9)
    with pytest.raises(DatasetError, match="val_start is 2"):
        Dataset("a", X, Y, ("a", "b", "c"), None, 2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("black", "white"), [(0, 1), (0, 255), (-0.5, 0.5), (-1, 1)])
def test_floats_that_are_the_levels_of_8_bits_are_read_as_these(
    tmp_path: Path, black: float, white: float, dtype: type
) -> None:
    values: np.ndarray = (X / 255 * (white - black) + black).astype(dtype)
    assert saved(tmp_path, x=values, y=Y).fingerprint == saved(tmp_path, x=X, y=Y).fingerprint


SMOOTH = DRAW.random((12, 8, 8, 3))
TOO_FEW = np.arange(12) * 10
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
        ({"y": TOO_FEW}, "12 classes (0, 10, 20, 30, ..., 110), which leaves 99 of 0..110 without an image", NUMBERED),
        ({"y": Y + 10**9}, "y: image 0 has label 1000000000", NUMBERED),
    ],
)
def test_the_line_that_is_said_to_mend_an_array_mends_it(
    tmp_path: Path, arrays: dict[str, Any], why: str, line: str
) -> None:
    wrong: dict[str, Any] = {"x": X, "y": Y} | arrays
    message = refused(tmp_path, **wrong)
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
    assert "where that means no label, keep the images of y >= 0 alone" in refused(tmp_path, x=X, y=y)
    keep = y >= 0
    assert len(saved(tmp_path, x=X[keep], y=y[keep])) == 9


def test_images_that_are_not_finite_are_left_out_as_is_said(tmp_path: Path) -> None:
    x = X / 255
    x[2, 0, 0, 0] = np.nan
    assert "keep the images where np.isfinite(x).all((1, 2, 3)), with their labels" in refused(tmp_path, x=x, y=Y)
    keep = np.isfinite(x).all((1, 2, 3))
    assert len(saved(tmp_path, x=x[keep], y=Y[keep])) == 11


def test_classes_are_numbered_anew_in_all_parts_as_is_said(tmp_path: Path) -> None:
    arrays = {"x_train": X[:9], "y_train": 5 * Y[:9], "x_test": X[9:], "y_test": 5 * Y[9:]}
    message = refused(tmp_path, **arrays)
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
    assert "or name all 5 in classes" in refused(tmp_path, x=X, y=2 * Y)
    assert saved(tmp_path, x=X, y=2 * Y, classes=list("abcde")).n_classes == 5


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, x=X.transpose(0, 3, 1, 2), y=Y[:5] - 1, x_test=SMOOTH, y_test=Y / 2)
    for words in (
        "x has shape (12, 3, 8, 8)",
        "x has 12 images but y 5 labels",
        "x_test is float64",
        "y_test is float64",
    ):
        assert words in message


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("images", "labels"), "it holds 'images', 'labels'"),
        (("x", "y", "x_train", "y_train"), "holds x and x_train, which are both training data; keep one of them"),
        (("train_images",), "no array train_labels"),
        (("x_train", "y_train", "x_val"), "x_val and y_val belong together"),
        (("x", "y", "x_val", "y_val"), "x_val without x_test: name the images that results are of x_test and y_test"),
        (("\x1b[2J",), r"it holds '\x1b[2J'"),
    ],
)
def test_arrays_under_other_names_are_named(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    arrays = {name: Y if name[0] == "y" or name.endswith("labels") else X for name in names}
    message = refused(tmp_path, **arrays)
    assert words in message
    assert "\x1b" not in message


def tree(root: Path, *folders: str) -> Path:
    for k, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((4, 4), 3 * k + i, np.uint8)).save(root / folder / f"{i}.png")
    return root


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "dev"])
def test_folders_of_three_parts_are_the_parts_of_a_run(tmp_path: Path, validation: str) -> None:
    folders = [f"{part}/{name}" for part in ("train", validation, "test") for name in "ab"]
    data = load_dataset(str(tree(tmp_path / "f", *folders)))
    assert data.x[:, 0, 0, 0].tolist() == list(range(18))
    assert data.y.tolist() == [0, 0, 0, 1, 1, 1] * 3
    assert {part: len(rows) for part, rows in data.parts.items()} == {"train": 6, "val": 6, "test": 6}
    sizes = ["data.n_train=6", "data.n_val=6", "data.n_test=6"]
    problem = Problem(load_config("digits", [f"data.name={tmp_path / 'f'}", *sizes]))
    assert set(problem.val.raw[:, 0, 0, 0].tolist()) == set(range(6, 12))
    assert set(problem.test.raw[:, 0, 0, 0].tolist()) == set(range(12, 18))


def test_two_parts_are_mended_as_is_said(tmp_path: Path) -> None:
    folder = tree(tmp_path / "f", "train/a", "train/b", "val/a", "val/b")
    with pytest.raises(DatasetError, match="rename val to test, of which the results are"):
        load_dataset("images", folder)
    (folder / "val").rename(folder / "test")
    assert load_dataset("images", folder).test_start == 6


def test_channels_that_come_first_are_refused_in_any_dataset() -> None:
    with pytest.raises(DatasetError, match=r"dataset 'a': x has shape \(12, 3, 8, 8\)"):
        Dataset("a", np.ascontiguousarray(X.transpose(0, 3, 1, 2)), Y, ("a", "b", "c"))
    for shape in ((2, 1, 1, 64), (2, 3, 3, 8), (2, 3, 8, 3), (2, 5, 8, 8), (2, 4, 5, 3)):
        assert Dataset("a", np.zeros(shape, np.uint8), Y[:2], ("a", "b", "c")).image_shape == shape[1:]


def test_all_arrays_of_a_file_have_one_scale(tmp_path: Path) -> None:
    """An array without a value below 0 is read on the scale of the others."""
    levels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), dtype=np.uint8)
    bright = np.maximum(levels, 128)
    train, test = ((x / 127.5 - 1).astype(np.float32) for x in (levels, bright))
    np.savez(tmp_path / "a.npz", x_train=train, x_test=test, y_train=np.arange(6) % 2, y_test=np.arange(6) % 2)
    found = load_dataset("npz", str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(found.x, np.concatenate([levels, bright]))

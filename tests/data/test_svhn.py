"""SVHN's MATLAB files, written by SciPy, whole and damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from advntk_dist.data import load_dataset

from . import refused

X = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 7), dtype=np.uint8)
Y = np.array([[1], [10], [9], [2], [10], [5], [3]], dtype=np.uint8)


def write(folder: Path, n_train: int = 5, compressed: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    for name, part in (("train", slice(0, n_train)), ("test", slice(n_train, None))):
        savemat(folder / f"{name}_32x32.mat", {"X": X[..., part], "y": Y[part]}, do_compression=compressed)
    return folder


def test_images_come_in_rows_and_ten_means_zero(tmp_path: Path) -> None:
    loaded = [load_dataset("svhn", write(tmp_path / "a")), load_dataset(str(write(tmp_path / "b", compressed=False)))]
    for data in loaded:
        assert (data.name, data.test_start, data.classes) == ("svhn", 5, tuple("0123456789"))
        assert data.y.tolist() == [1, 0, 9, 2, 0, 5, 3]
        for image in range(7):
            np.testing.assert_array_equal(data.x[image], X[..., image])
    assert loaded[0].fingerprint == loaded[1].fingerprint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (write(tmp_path / "f") / "test_32x32.mat").unlink()
    message = refused("svhn", tmp_path / "f")
    assert f"{tmp_path / 'f'}: test_32x32.mat missing; set data.path to the folder" in message
    assert "advntk data fetch svhn" in message


@pytest.mark.parametrize("content", [b"\x89HDF\r\n\x1a\n" + bytes(600), b"<html>not found</html>" * 20, bytes(400)])
def test_other_formats_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path / "f")
    (folder / "train_32x32.mat").write_bytes(content)
    assert "train_32x32.mat: does not start as a MATLAB 5 file does" in refused("svhn", folder)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": X, "y": np.where(Y == 10, 0, Y)}, "image 1 has label 0, but SVHN's are 1..10"),
        ({"X": X, "y": Y + 1}, "image 1 has label 11"),
        ({"X": X, "y": Y[:-1]}, "y is uint8 of shape (6, 1), not whole numbers of shape (7, 1)"),
        ({"X": X, "y": Y / 2}, "y is float64"),
        ({"X": X}, "y is a NoneType"),
        ({"y": Y}, "X is a NoneType"),
        ({"X": X[:28], "y": Y}, "X is uint8 of shape (28, 32, 3, 7)"),
        ({"X": X.astype(np.float32), "y": Y}, "X is float32"),
        ({"X": X.transpose(3, 0, 1, 2), "y": Y}, "X is uint8 of shape (7, 32, 32, 3)"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    folder = write(tmp_path / "f")
    savemat(folder / "train_32x32.mat", arrays)
    assert f"train_32x32.mat: {words}" in refused("svhn", folder)

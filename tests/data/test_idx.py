"""MNIST's and Fashion-MNIST's IDX files, whole and damaged."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from advntk_dist.data import load_dataset

from . import refused, write_files

FIRST = {
    "mnist": ([5, 0, 4, 1, 9, 2, 1, 3, 1, 4], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]),
    "fashion-mnist": ([9, 0, 0, 3, 0, 2, 7, 2, 5, 5], [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]),
}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def idx_files(name: str = "mnist", n: int = 12, n_test: int = 11) -> dict[str, bytes]:
    draw = np.random.default_rng(0)
    files = {}
    for part, first, rows in zip(("train", "t10k"), FIRST[name], (n, n_test), strict=True):
        labels = np.resize(np.array(first), rows)
        files[f"{part}-images-idx3-ubyte"] = idx(draw.integers(0, 256, (rows, 28, 28), dtype=np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx(labels)
    return files


def write(folder: Path, files: dict[str, bytes], zipped: bool = False) -> Path:
    return write_files(folder, {f"{name}.gz": gzip.compress(c) for name, c in files.items()} if zipped else files)


@pytest.mark.parametrize("name", FIRST)
def test_plain_and_gz_give_the_same_and_are_told_apart_by_their_labels(tmp_path: Path, name: str) -> None:
    files = idx_files(name)
    plain, zipped = write(tmp_path / "a", files), write(tmp_path / "b", files, zipped=True)
    torchvision = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[name]
    write(tmp_path / "c" / torchvision / "raw", {key.replace("-idx", ".idx"): value for key, value in files.items()})
    loaded = [load_dataset(name, place) for place in (plain, zipped, tmp_path / "c")]
    loaded += [load_dataset(str(place)) for place in (plain, zipped)]
    assert {data.name for data in loaded} == {name}
    assert len({data.fingerprint for data in loaded}) == 1
    data = loaded[0]
    assert (data.x.shape, data.test_start) == ((23, 28, 28, 1), 12)
    assert data.x[0].tobytes() == files["train-images-idx3-ubyte"][16 : 16 + 784]
    assert data.x[12].tobytes() == files["t10k-images-idx3-ubyte"][16 : 16 + 784]
    assert data.y[:10].tolist() == FIRST[name][0]
    assert data.y[12:22].tolist() == FIRST[name][1]
    assert data.classes[9] == {"mnist": "9", "fashion-mnist": "Ankle boot"}[name]


def test_a_set_of_the_published_size_is_not_taken_for_the_other(tmp_path: Path) -> None:
    files = idx_files("fashion-mnist", 60_000, 10_000)
    assert 'labels of Fashion-MNIST; set data.name = "fashion-mnist"' in refused("mnist", write(tmp_path / "f", files))
    small = write(tmp_path / "small", idx_files("fashion-mnist"))
    assert load_dataset("mnist", small).classes[9] == "9", "a set of one's own may start with any labels"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda b: b[:-1], "9,407 bytes of values, but its header promises 9,408"),
        (lambda b: b + b"x", "9,409 bytes of values"),
        (lambda b: b[:10], "starts with 00 00 08 03"),
        (lambda b: b"", "starts with nothing"),
        (lambda b: b"\x00\x00\x08\x01" + b[4:], "starts with 00 00 08 01, not with 00 00 08 03"),
        (lambda b: b"\x00\x00\x0d\x03" + b[4:], "starts with 00 00 0d 03"),
        (lambda b: b"<html>" + b[6:], "of another format"),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], "header promises 79,228,"),
        (lambda b: idx(np.zeros((12, 32, 32))), "shape (12, 32, 32), not (n, 28, 28)"),
        (lambda b: idx(np.zeros((11, 28, 28))), "train has 11 images but 12 labels"),
        (lambda b: idx(np.zeros((0, 28, 28))), "shape (0, 28, 28)"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_images_are_refused(tmp_path: Path, damage: Callable[[bytes], bytes], words: str, zipped: bool) -> None:
    files = idx_files()
    files["train-images-idx3-ubyte"] = damage(files["train-images-idx3-ubyte"])
    folder = write(tmp_path / "f", files, zipped)
    message = refused("mnist", folder)
    assert words in message
    assert str(folder) in message


def test_a_label_out_of_range_is_refused(tmp_path: Path) -> None:
    files = idx_files()
    files["t10k-labels-idx1-ubyte"] = files["t10k-labels-idx1-ubyte"][:-1] + b"\x0a"
    message = refused("mnist", write(tmp_path / "f", files))
    assert "t10k-labels-idx1-ubyte: image 10 has label 10, but there are 10 classes" in message


def test_a_damaged_gz_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "f", idx_files(), zipped=True)
    file = folder / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], whole[:-8] + bytes(8)):
        file.write_bytes(content)
        assert f"{file}: not a readable .gz" in refused("mnist", folder)


@pytest.mark.parametrize("gone", list(idx_files()))
def test_a_missing_file_is_named(tmp_path: Path, gone: str) -> None:
    files = idx_files()
    del files[gone]
    message = refused("mnist", write(tmp_path / "f", files))
    assert f"{gone} (or .gz) missing" in message
    assert "advntk data fetch mnist" in message

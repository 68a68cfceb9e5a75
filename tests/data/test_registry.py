"""Names, paths recognised by content, and the embedded digits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from advntk_dist.data import READERS, Dataset, Reader, load_dataset

from . import cifar_files, refused, write_files, write_tar, write_zip


def test_digits_are_scikit_learns_scaled_to_bytes() -> None:
    data = load_dataset("digits")
    assert data.x.shape == (1797, 8, 8, 1)
    assert (data.name, data.test_start, data.n_classes) == ("digits", None, 10)
    source = load_digits()
    expected = [[round(v * 255 / 16) for v in row] for row in source.data]
    np.testing.assert_array_equal(data.x.reshape(1797, 64), expected)
    np.testing.assert_array_equal(data.y, source.target)
    assert (data.x.min(), data.x.max()) == (0, 255)
    assert data.fingerprint == "296d4e3b98337b6bebaae5981bf51f24a9df24978ca4471a80348ea2d9a3f87f"


def test_digits_whose_file_lies_elsewhere_come_from_their_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    here = load_dataset("digits")
    monkeypatch.setattr("advntk_dist.data.registry.find_spec", lambda name: None)
    assert load_dataset("digits").fingerprint == here.fingerprint


def test_digits_read_no_file(tmp_path: Path) -> None:
    assert "leave out data.path" in refused("digits", tmp_path)


@pytest.mark.parametrize("layout", ["bin", "py"])
def test_paths_are_recognised_by_content(tmp_path: Path, layout: str) -> None:
    files = cifar_files(layout)
    folder = write_files(tmp_path / "around" / f"cifar-10-batches-{layout}", files)
    disguised = write_tar(tmp_path / "download.gz", files)
    plain = write_tar(tmp_path / "download", files)
    for place in (folder, folder.parent, disguised, plain):
        assert load_dataset(str(place)).name == "cifar10"


def test_npz_is_recognised_under_any_name(tmp_path: Path) -> None:
    with (tmp_path / "images").open("wb") as file:
        np.savez(file, x=np.zeros((2, 3, 3), np.uint8), y=np.zeros(2, np.int64))
    assert load_dataset(str(tmp_path / "images")).x.shape == (2, 3, 3, 1)


def test_home_folders_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "c", cifar_files("bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert load_dataset("cifar10", "~/c").fingerprint == load_dataset("~/c").fingerprint


@pytest.mark.parametrize("name", ["cifar11", "", "no/such/folder", "x" * 5000, "a\0b"])
def test_unknown_names_list_the_known_ones(name: str) -> None:
    message = refused(name)
    for words in ("unknown dataset", *READERS):
        assert words in message


def test_an_absent_npz_is_named() -> None:
    assert refused("absent.npz").startswith("absent.npz: no such file")


def test_a_path_given_twice_is_refused(tmp_path: Path) -> None:
    for name in (str(tmp_path), "some.npz"):
        assert "is itself a path: leave out data.path" in refused(name, tmp_path)


def test_content_of_no_known_format_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"readme.txt": b"hello"})
    for place in (tmp_path, tmp_path / "readme.txt", write_zip(tmp_path / "a.zip", {"a.txt": b"hello"})):
        message = refused(str(place))
        assert f"{place}: its content is of no known format" in message
        assert ("one folder per class" in message) is place.is_dir()


def test_a_flat_folder_of_images_says_how_they_should_lie(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"")
    assert "one folder per class, CLASS/IMAGE" in refused(str(tmp_path))


def test_a_misspelt_name_is_recognised() -> None:
    assert "unknown dataset 'cifar-10'; did you mean 'cifar10'?" in refused("cifar-10")


def test_a_recognised_but_damaged_folder_says_what_is_wrong(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "c", {"data_batch_1.bin": b"abc"})
    assert "data_batch_1.bin: 3 bytes" in refused(str(folder))


def test_a_new_format_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read(path: Path | None) -> Dataset:
        return Dataset(str(path), np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int64), ("only",))

    monkeypatch.setitem(READERS, "blank", Reader(read, lambda path: path.suffix == ".blank"))
    place = tmp_path / "a.blank"
    place.touch()
    assert load_dataset("blank", place).name == str(place)
    assert load_dataset(os.fspath(place)).name == str(place)

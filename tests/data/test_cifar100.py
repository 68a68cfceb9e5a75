"""CIFAR-100 in both layouts, whole and damaged; what it shares with CIFAR-10 is tested there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advntk_dist.data import load_dataset
from advntk_dist.errors import DatasetError

from . import cifar100_files, cifar_files, cifar_rows, write_folder, write_tar

FOLDERS = {"bin": "cifar-100-binary", "py": "cifar-100-python"}


def refused(path: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        load_dataset("cifar100", path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_container_and_layout_gives_the_same_fine_labels(tmp_path: Path) -> None:
    loaded = []
    for layout, folder in FOLDERS.items():
        files = cifar100_files(layout)
        place = write_folder(tmp_path / layout, files, folder)
        archive = write_tar(tmp_path / f"{folder}.tar.gz", dict(reversed(files.items())), folder)
        loaded += [load_dataset("cifar100", where) for where in (place, place.parent, archive)]
        loaded += [load_dataset(str(where)) for where in (place, archive)]
    assert len({data.fingerprint for data in loaded}) == 1
    data = loaded[0]
    rows, _ = cifar_rows(6)
    np.testing.assert_array_equal(data.x[5, 3, 4], rows[5, [3 * 32 + 4, 1024 + 3 * 32 + 4, 2048 + 3 * 32 + 4]])
    assert data.y.tolist() == [0, 7, 14, 21, 28, 35]
    assert [data.classes[label] for label in data.y[:3]] == ["apple", "beetle", "butterfly"]
    assert (data.name, data.test_start, data.n_classes) == ("cifar100", 4, 100)


def test_a_folder_that_holds_the_published_archive_is_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "cifar-100-binary.tar.gz", cifar100_files("bin"))
    assert load_dataset(str(tmp_path)).name == "cifar100"
    (tmp_path / "ten").mkdir()
    write_tar(tmp_path / "ten" / "cifar-10-python.tar.gz", cifar_files("py"))
    assert len(load_dataset("cifar10", tmp_path / "ten")) == len(load_dataset(str(tmp_path / "ten"))) == 18


@pytest.mark.parametrize("layout", FOLDERS)
def test_a_missing_file_is_named(tmp_path: Path, layout: str) -> None:
    files = cifar100_files(layout)
    gone = next(name for name in files if name.startswith("test"))
    del files[gone]
    assert f"{gone} missing; CIFAR-100 has 2 files" in refused(write_folder(tmp_path, files, "f"))


@pytest.mark.parametrize(
    ("column", "value", "words"), [(0, 20, "image 0 has label 20, but there are 20"), (1, 100, "image 0 has label 100")]
)
def test_labels_out_of_range_are_refused(tmp_path: Path, column: int, value: int, words: str) -> None:
    files = cifar100_files("bin")
    damaged = bytearray(files["train.bin"])
    damaged[column] = value
    place = write_folder(tmp_path, files | {"train.bin": bytes(damaged)}, "f")
    message = refused(place)
    assert words in message
    assert str(place / "train.bin") in message


def test_files_cut_short_and_files_of_cifar10_are_refused(tmp_path: Path) -> None:
    files = cifar100_files("bin")
    place = write_folder(tmp_path, files | {"train.bin": files["train.bin"][:-1]}, "f")
    assert "not a whole number of 3,074-byte CIFAR-100 records" in refused(place)
    ten = cifar_files("py")
    message = refused(write_folder(tmp_path, {"train": ten["data_batch_1"], "test": ten["test_batch"]}, "g"))
    assert "'fine_labels' is a NoneType" in message
    assert "holds none of CIFAR-100's batches" in refused(write_folder(tmp_path, ten, "h"))


def test_folders_named_train_and_test_are_not_taken_for_cifar100(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match="no known format"):
        load_dataset(str(tmp_path))

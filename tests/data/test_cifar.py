"""CIFAR-10 and CIFAR-100 in both layouts, from folders and archives, whole and damaged."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from advntk_dist.data import Dataset, load_dataset

from . import (
    BATCHES,
    PER_BATCH,
    binary_batch,
    cifar100_files,
    cifar_files,
    cifar_rows,
    member,
    python2_batch,
    python3_batch,
    refused,
    write_files,
    write_tar,
)

LAYOUTS = ("bin", "py")
FOLDERS = {"bin": "cifar-100-binary", "py": "cifar-100-python"}


def archive(path: Path, files: dict[str, bytes], *more: tuple[tarfile.TarInfo, bytes]) -> Path:
    return write_tar(path, files, "cifar-10-batches", more)


def check_rows(data: Dataset) -> None:
    """Compare with an unpacking of ``cifar_rows`` written out pixel by pixel."""
    rows, labels = cifar_rows()
    assert data.x.shape == (6 * PER_BATCH, 32, 32, 3)
    assert data.test_start == 5 * PER_BATCH
    np.testing.assert_array_equal(data.y, labels)
    for image, row, column, channel in [(0, 0, 0, 0), (4, 31, 0, 2), (9, 7, 19, 1), (17, 31, 31, 2)]:
        assert data.x[image, row, column, channel] == rows[image, channel * 1024 + row * 32 + column]
    planes = [rows[:, c * 1024 : (c + 1) * 1024].reshape(-1, 32, 32) for c in range(3)]
    np.testing.assert_array_equal(data.x, np.stack(planes, axis=-1))


def test_every_container_and_layout_of_cifar10_gives_the_same(tmp_path: Path) -> None:
    loaded = []
    for layout in LAYOUTS:
        files = cifar_files(layout)
        folder = write_files(tmp_path / layout / f"cifar-10-batches-{layout}", files)
        # Archives list their members in no particular order; the published ones do not start with batch 1.
        backwards = dict(reversed(files.items()))
        archives = [archive(tmp_path / f"{layout}.{end}", backwards) for end in ("tar.gz", "tar")]
        loaded += [load_dataset("cifar10", place) for place in (folder, folder.parent, *archives)]
        loaded += [load_dataset("cifar10", str(folder))]
    for data in loaded:
        check_rows(data)
        assert (data.name, data.classes[0], data.classes[9]) == ("cifar10", "airplane", "truck")
    assert len({data.fingerprint for data in loaded}) == 1


def test_every_container_and_layout_of_cifar100_gives_the_same_fine_labels(tmp_path: Path) -> None:
    loaded = []
    for layout, folder in FOLDERS.items():
        files = cifar100_files(layout)
        place = write_files(tmp_path / layout / folder, files)
        packed = write_tar(tmp_path / f"{folder}.tar.gz", dict(reversed(files.items())), folder)
        loaded += [load_dataset("cifar100", where) for where in (place, place.parent, packed)]
        loaded += [load_dataset(str(where)) for where in (place, packed)]
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


def test_binary_layout_wins_where_both_lie_side_by_side(tmp_path: Path) -> None:
    write_files(tmp_path / "cifar-10-batches-bin", cifar_files("bin"))
    write_files(tmp_path / "cifar-10-batches-py", dict.fromkeys(BATCHES, b"not a pickle"))
    check_rows(load_dataset("cifar10", tmp_path))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "file"), [("cifar10", 1), ("cifar10", 6), ("cifar100", -1)])
def test_a_missing_file_is_named(tmp_path: Path, layout: str, name: str, file: int) -> None:
    files = (cifar_files if name == "cifar10" else cifar100_files)(layout)
    gone = list(files)[file]
    del files[gone]
    for place in (write_files(tmp_path / "folder", files), archive(tmp_path / "a.tar.gz", files)):
        message = refused(name, place)
        assert f"{gone} missing; CIFAR-10" in message
        assert str(place) in message


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-1],
        lambda b: b[: len(b) // 2],
        lambda b: b[:0],
        lambda b: b + b"x",
        lambda b: b"<html>" * (len(b) // 7),
    ],
    ids=["one byte short", "half", "empty", "one byte more", "foreign"],
)
def test_a_damaged_batch_is_named(tmp_path: Path, layout: str, damage: Callable[[bytes], bytes]) -> None:
    files = cifar_files(layout)
    broken = list(files)[3]
    files[broken] = damage(files[broken])
    folder = write_files(tmp_path / "folder", files)
    assert str(folder / broken) in refused("cifar10", folder)
    packed = archive(tmp_path / "a.tar.gz", files)
    message = refused("cifar10", packed)
    assert f"{packed}:cifar-10-batches/{broken}" in message
    assert "get it again" in message


def test_fewer_records_than_published_are_accepted_whole(tmp_path: Path) -> None:
    files = cifar_files("bin") | {"data_batch_2.bin": binary_batch(*cifar_rows(1, seed=5))}
    data = load_dataset("cifar10", write_files(tmp_path / "f", files))
    assert len(data) == 5 * PER_BATCH + 1
    assert data.test_start == 4 * PER_BATCH + 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_label_above_nine_is_refused(tmp_path: Path, layout: str) -> None:
    rows, labels = cifar_rows(PER_BATCH)
    labels[1] = 10
    write, name = (binary_batch, "test_batch.bin") if layout == "bin" else (python2_batch, "test_batch")
    folder = write_files(tmp_path / "f", cifar_files(layout) | {name: write(rows, labels)})
    message = refused("cifar10", folder)
    assert str(folder / name) in message
    assert "image 1 has label 10" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows, labels: python3_batch(rows[:, :-1], labels), "shape (3, 3071)"),
        (lambda rows, labels: python3_batch(rows.astype(np.int16), labels), "int16"),
        (lambda rows, labels: python3_batch(rows, labels[:-1]), "3 images and 2 labels"),
        (lambda rows, labels: python2_batch(rows[:0], labels[:0]), "0 images and 0 labels"),
        (
            lambda rows, labels: python3_batch(rows, labels).replace(b"labels", b"coarse"),
            "'labels' is a NoneType",
        ),
        (
            lambda rows, labels: python3_batch(rows, labels / 2),
            "'labels' is a list, not a list of whole numbers",
        ),
        (lambda rows, labels: python3_batch(rows, labels).replace(b"data", b"atad"), "'data' is a NoneType"),
        (lambda rows, labels: python3_batch(rows, labels - np.int64(300)), "has label -"),
    ],
)
def test_python_batches_with_other_fields_are_refused(
    tmp_path: Path, change: Callable[[np.ndarray, np.ndarray], bytes], words: str
) -> None:
    rows, labels = cifar_rows(PER_BATCH)
    folder = write_files(tmp_path / "f", cifar_files("py") | {"data_batch_1": change(rows, labels)})
    message = refused("cifar10", folder)
    assert words in message
    assert str(folder / "data_batch_1") in message


def test_a_folder_in_the_place_of_a_batch_is_named(tmp_path: Path) -> None:
    files = cifar_files("bin")
    del files["data_batch_4.bin"]
    folder = write_files(tmp_path / "f", files)
    (folder / "data_batch_4.bin").mkdir()
    message = refused("cifar10", folder)
    assert str(folder / "data_batch_4.bin") in message
    assert "cannot be read" in message


def test_no_path_a_wrong_path_an_empty_folder_and_a_single_batch_say_what_to_give(tmp_path: Path) -> None:
    assert "set data.path to the folder cifar-10-batches-bin" in refused("cifar10")
    assert "no such file or folder" in refused("cifar10", tmp_path / "absent")
    assert "none of CIFAR-10's batches" in refused("cifar10", tmp_path)
    single = tmp_path / "data_batch_1.bin"
    single.write_bytes(cifar_files("bin")["data_batch_1.bin"])
    assert f"{single}: not a readable .tar" in refused("cifar10", single)


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    place = write_tar(tmp_path / "photos.tar.gz", {"a.jpg": b"1", "b.jpg": b"2"})
    assert f"{place}: holds none of CIFAR-10's batches" in refused("cifar10", place)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_folders_in_the_place_of_a_batch_are_refused(tmp_path: Path, kind: bytes) -> None:
    files = cifar_files("bin")
    del files["test_batch.bin"]
    link = member("c/test_batch.bin", kind=kind, link="cifar-10-batches/data_batch_1.bin")
    path = archive(tmp_path / "a.tar", files, (link, b""))
    assert "'c/test_batch.bin' is not a plain file" in refused("cifar10", path)


def test_a_batch_twice_in_an_archive_is_refused(tmp_path: Path) -> None:
    again = member("other/data_batch_1.bin", 3073), bytes(3073)
    path = archive(tmp_path / "a.tar", cifar_files("bin"), again)
    assert "'data_batch_1.bin' more than once" in refused("cifar10", path)


@pytest.mark.parametrize(
    ("column", "value", "words"), [(0, 20, "image 0 has label 20, but there are 20"), (1, 100, "image 0 has label 100")]
)
def test_labels_of_cifar100_out_of_range_are_refused(tmp_path: Path, column: int, value: int, words: str) -> None:
    files = cifar100_files("bin")
    damaged = bytearray(files["train.bin"])
    damaged[column] = value
    place = write_files(tmp_path / "f", files | {"train.bin": bytes(damaged)})
    message = refused("cifar100", place)
    assert words in message
    assert str(place / "train.bin") in message


def test_files_of_cifar100_cut_short_and_files_of_cifar10_are_refused(tmp_path: Path) -> None:
    files = cifar100_files("bin")
    place = write_files(tmp_path / "f", files | {"train.bin": files["train.bin"][:-1]})
    assert "not a whole number of 3,074-byte CIFAR-100 records" in refused("cifar100", place)
    ten = cifar_files("py")
    renamed = write_files(tmp_path / "g", {"train": ten["data_batch_1"], "test": ten["test_batch"]})
    assert "'fine_labels' is a NoneType" in refused("cifar100", renamed)
    assert "holds none of CIFAR-100's batches" in refused("cifar100", write_files(tmp_path / "h", ten))


def test_folders_named_train_and_test_are_not_taken_for_cifar100(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    assert "no known format" in refused(str(tmp_path))


def test_the_checksum_of_a_tar_gz_counts(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", cifar_files("bin"))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert "CRC" in refused("cifar10", path)


def test_real_archive_of_jpeg_files_is_refused_in_one_line(shared_dir: Path) -> None:
    place = shared_dir / "data" / "cifar10_jpeg" / "test.tar"
    assert f"{place}: holds none of CIFAR-10's batches" in refused("cifar10", place)

"""CIFAR-10 in both layouts, from folders and archives, whole and damaged."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advntk_dist.data import Dataset, load_dataset
from advntk_dist.errors import DatasetError

from . import (
    BATCHES,
    PER_BATCH,
    binary_batch,
    cifar_files,
    cifar_rows,
    python2_batch,
    python3_batch,
    write_folder,
    write_tar,
)

LAYOUTS = ("bin", "py")


def refused(path: Path) -> str:
    """Load, expect the one-line error, and return its message."""
    with pytest.raises(DatasetError) as caught:
        load_dataset("cifar10", path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_the_folder_the_folder_around_it_and_both_archives(tmp_path: Path, layout: str) -> None:
    files = cifar_files(layout)
    folder = write_folder(tmp_path / "around", files, f"cifar-10-batches-{layout}")
    # Archives list their members in no particular order; the published ones do not start with batch 1.
    backwards = dict(reversed(files.items()))
    archives = [write_tar(tmp_path / f"cifar-10.{end}", backwards) for end in ("tar.gz", "tar")]
    loaded = [load_dataset("cifar10", place) for place in (folder, folder.parent, *archives)]
    loaded.append(load_dataset("cifar10", str(folder)))
    for data in loaded:
        check_rows(data)
        assert data.name == "cifar10"
        assert data.classes[0] == "airplane"
        assert data.classes[9] == "truck"
    assert len({data.fingerprint for data in loaded}) == 1


def test_both_layouts_give_the_same_dataset(tmp_path: Path) -> None:
    binary, python = (
        load_dataset("cifar10", write_folder(tmp_path, cifar_files(layout), layout)) for layout in LAYOUTS
    )
    assert binary.fingerprint == python.fingerprint


def test_binary_layout_wins_where_both_lie_side_by_side(tmp_path: Path) -> None:
    write_folder(tmp_path, cifar_files("bin"), "cifar-10-batches-bin")
    write_folder(tmp_path, {name: b"not a pickle" for name in BATCHES}, "cifar-10-batches-py")
    check_rows(load_dataset("cifar10", tmp_path))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [0, 5])
def test_a_missing_batch_is_named(tmp_path: Path, layout: str, batch: int) -> None:
    files = cifar_files(layout)
    gone = list(files)[1 + batch]
    del files[gone]
    for place in (write_folder(tmp_path, files, "folder"), write_tar(tmp_path / "a.tar.gz", files)):
        message = refused(place)
        assert f"{gone} missing" in message
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
    folder = write_folder(tmp_path, files, "folder")
    assert str(folder / broken) in refused(folder)
    archive = write_tar(tmp_path / "a.tar.gz", files)
    message = refused(archive)
    assert f"{archive}:cifar-10-batches/{broken}" in message
    assert "get it again" in message


def test_fewer_records_than_published_are_accepted_whole(tmp_path: Path) -> None:
    files = cifar_files("bin") | {"data_batch_2.bin": binary_batch(*cifar_rows(1, seed=5))}
    data = load_dataset("cifar10", write_folder(tmp_path, files, "f"))
    assert len(data) == 5 * PER_BATCH + 1
    assert data.test_start == 4 * PER_BATCH + 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_label_above_nine_is_refused(tmp_path: Path, layout: str) -> None:
    rows, labels = cifar_rows(PER_BATCH)
    labels[1] = 10
    write, name = (binary_batch, "test_batch.bin") if layout == "bin" else (python2_batch, "test_batch")
    folder = write_folder(tmp_path, cifar_files(layout) | {name: write(rows, labels)}, "f")
    message = refused(folder)
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
    folder = write_folder(tmp_path, cifar_files("py") | {"data_batch_1": change(rows, labels)}, "f")
    message = refused(folder)
    assert words in message
    assert str(folder / "data_batch_1") in message


def test_a_folder_in_the_place_of_a_batch_is_named(tmp_path: Path) -> None:
    files = cifar_files("bin")
    del files["data_batch_4.bin"]
    folder = write_folder(tmp_path, files, "f")
    (folder / "data_batch_4.bin").mkdir()
    message = refused(folder)
    assert str(folder / "data_batch_4.bin") in message
    assert "cannot be read" in message


def test_no_path_a_wrong_path_an_empty_folder_and_a_single_batch_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"data\.path.*cifar-10-batches-bin"):
        load_dataset("cifar10")
    assert "no such file or folder" in refused(tmp_path / "absent")
    assert "none of CIFAR-10's batches" in refused(tmp_path)
    single = tmp_path / "data_batch_1.bin"
    single.write_bytes(cifar_files("bin")["data_batch_1.bin"])
    assert f"{single}: not a readable .tar" in refused(single)


@pytest.mark.parametrize("end", ["tar.gz", "tar"])
def test_an_archive_cut_short_is_refused(tmp_path: Path, end: str) -> None:
    whole = write_tar(tmp_path / f"whole.{end}", cifar_files("bin")).read_bytes()
    cut = tmp_path / f"cut.{end}"
    # Of the uncompressed one, the padding after the last batch is no loss.
    for size in [0, 1, 2, 300, 512, 513, len(whole) // 3, len(whole) // 2, 7 * len(whole) // 10]:
        cut.write_bytes(whole[:size])
        assert str(cut) in refused(cut)
    if end == "tar.gz":
        cut.write_bytes(whole[:-1])
        assert str(cut) in refused(cut)


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "photos.tar.gz", {"a.jpg": b"1", "b.jpg": b"2"})
    assert f"{archive}: holds none of CIFAR-10's batches" in refused(archive)


@pytest.mark.parametrize("name", ["/etc/data_batch_1.bin", "../data_batch_1.bin", "x/../../readme.html"])
def test_an_archive_that_points_outside_itself_is_refused(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / "a.tar", cifar_files("bin"))
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo(name)
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    message = refused(path)
    assert repr(name) in message
    assert "outside the archive" in message


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_folders_in_the_place_of_a_batch_are_refused(tmp_path: Path, kind: bytes) -> None:
    files = cifar_files("bin")
    del files["test_batch.bin"]
    path = write_tar(tmp_path / "a.tar", files)
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("c/test_batch.bin")
        member.type, member.linkname = kind, "cifar-10-batches/data_batch_1.bin"
        archive.addfile(member)
    assert "'c/test_batch.bin' is not a plain file" in refused(path)


def test_a_batch_twice_in_an_archive_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", cifar_files("bin"))
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("other/data_batch_1.bin")
        member.size = 3073
        archive.addfile(member, io.BytesIO(bytes(3073)))
    assert "'data_batch_1.bin' more than once" in refused(path)


@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_byte_of_a_tar_gz_is_found_or_harmless(tmp_path: Path, place: float, flip: int) -> None:
    good = tmp_path / "good.tar.gz"
    if not good.exists():
        write_tar(good, cifar_files("py", per_batch=1))
    content = bytearray(good.read_bytes())
    content[int(place * len(content))] ^= flip
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(content)
    try:
        outcome = load_dataset("cifar10", bad).fingerprint
    except DatasetError as error:
        outcome = str(error)
    assert str(bad) in outcome or outcome == load_dataset("cifar10", good).fingerprint


def test_the_checksum_of_a_tar_gz_counts(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.gz", cifar_files("bin"))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert "CRC" in refused(path)


def test_real_archive_of_jpeg_files_is_refused_in_one_line(shared_dir: Path) -> None:
    archive = shared_dir / "data" / "cifar10_jpeg" / "test.tar"
    assert f"{archive}: holds none of CIFAR-10's batches" in refused(archive)

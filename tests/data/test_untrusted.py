"""Files of unknown origin: they take no more memory than is allowed, are never waited for, command no terminal."""

from __future__ import annotations

import gzip
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from advntk_dist.data import load_dataset
from advntk_dist.errors import DatasetError
from advntk_dist.text import printable
from tests.conftest import Command

from . import cifar_files, member, png, refused, write_files, write_tar, write_zip
from .test_idx import idx_files

MOST = 20_000
"""What a file may unpack to in these tests; zeros of ten times that are a few hundred bytes."""
ESCAPE = "\x1b[2J\x1b]0;title\x07"


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advntk_dist.data.files.MOST_BYTES", MOST)
    monkeypatch.setattr("advntk_dist.data.svhn.MOST_BYTES", MOST)


TWO = {"a/1.png": png(), "b/1.png": png()}
"""Two classes of one image."""


# what is cut short or damaged


def npz_file(folder: Path, compressed: bool) -> tuple[str, Path]:
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8), np.arange(6, dtype=np.uint8) % 3
    (np.savez_compressed if compressed else np.savez)(folder / "a.npz", x=x, y=y)
    return "npz", folder / "a.npz"


def mat_file(folder: Path, compressed: bool) -> tuple[str, Path]:
    draw = np.random.default_rng(0)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        arrays = {"X": draw.integers(0, 256, (32, 32, 3, 3), dtype=np.uint8), "y": np.array([[1], [10], [9]], np.uint8)}
        savemat(folder / name, arrays, do_compression=compressed)
    return "svhn", folder / "train_32x32.mat"


CHECKED: dict[str, Callable[[Path], tuple[str, Path]]] = {
    "npz": lambda folder: npz_file(folder, compressed=False),
    "npz, compressed": lambda folder: npz_file(folder, compressed=True),
    "mat, compressed": lambda folder: mat_file(folder, compressed=True),
    "images.tar.gz": lambda folder: ("images", write_tar(folder / "a.tar.gz", TWO)),
    "cifar.tar.gz": lambda folder: ("cifar10", write_tar(folder / "a.tar.gz", cifar_files("py", per_batch=1))),
}
"""Writers of datasets in formats with checksums, which give the name of the reader and a file of the dataset."""
CUT = CHECKED | {
    "images.zip": lambda folder: ("images", write_zip(folder / "a.zip", TWO)),
    "mat": lambda folder: mat_file(folder, compressed=False),
    "images.tar": lambda folder: ("images", write_tar(folder / "a.tar", TWO)),
    "cifar.tar": lambda folder: ("cifar10", write_tar(folder / "a.tar", cifar_files("bin", per_batch=1))),
}


@pytest.mark.parametrize("kind", CUT)
def test_every_kind_of_cut_is_refused(tmp_path: Path, kind: str) -> None:
    name, file = CUT[kind](tmp_path)
    whole = file.read_bytes()
    # Of a plain .tar, the padding behind the last member is no loss.
    end = len(whole.rstrip(b"\0")) if file.suffix == ".tar" else len(whole)
    for size in {1, 2, 3, 127, 128, 131, 140, 511, 512, 513, end - 1, *range(0, end, end // 40)} - {*range(end, 514)}:
        file.write_bytes(whole[:size])
        assert str(file) in refused(name, file.parent if name == "svhn" else file)


@pytest.mark.parametrize("kind", CHECKED)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_byte_is_found_or_harmless(tmp_path: Path, kind: str, place: float, flip: int) -> None:
    name, file = CHECKED[kind](tmp_path)
    dataset = file.parent if name == "svhn" else file
    whole = load_dataset(name, dataset).fingerprint
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= flip
    file.write_bytes(content)
    try:
        outcome = load_dataset(name, dataset).fingerprint
    except DatasetError as error:
        outcome = str(error)
    assert str(file) in outcome or outcome == whole


def test_damage_inside_a_zip_is_found(tmp_path: Path) -> None:
    """In the bytes of an image, in a name, and in the lengths in its directory, by which members could be lost."""
    path = write_zip(tmp_path / "a.zip", TWO, zipfile.ZIP_STORED)
    whole = path.read_bytes()
    entry = whole.index(b"PK\x01\x02")
    for place, flip in ((60, 255), (entry + 46, ord("a")), *((entry + k, 1) for k in range(28, 34))):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        assert str(path) in refused("images", path)


# what unpacks to more than a dataset holds


def test_a_gz_of_zeros_is_not_unpacked(tmp_path: Path, little_room: None) -> None:
    folder = write_files(tmp_path / "m", {f"{name}.gz": gzip.compress(c) for name, c in idx_files().items()})
    assert len(load_dataset("mnist", folder)) == 23
    bomb = gzip.compress(bytes(10 * MOST))
    assert len(bomb) < MOST / 20
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(bomb)
    assert "t10k-images-idx3-ubyte.gz: unpacks to more than" in refused("mnist", folder)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, little_room: None) -> None:
    folder = write_files(tmp_path / "c", cifar_files("bin"))
    with (folder / "test_batch.bin").open("wb") as file:
        file.truncate(MOST + 1)
    assert "test_batch.bin: " in (message := refused("cifar10", folder))
    assert "more than any file of a dataset holds" in message


@pytest.mark.parametrize("name", ["a/2.png", "elsewhere.bin"])
@pytest.mark.parametrize("end", ["tar", "tar.gz", "zip"])
def test_a_member_that_is_too_large_is_not_unpacked(tmp_path: Path, name: str, end: str, little_room: None) -> None:
    path = tmp_path / f"f.{end}"
    (write_zip if end == "zip" else write_tar)(path, TWO | {name: bytes(10 * MOST)})
    assert f"member {name!r} unpacks to" in refused("images", path)


def test_a_sparse_member_that_promises_much_is_not_unpacked(tmp_path: Path) -> None:
    """A hole of 1 TiB in 512 bytes, as GNU tar writes it."""
    hole = member("a/2.png", 0, tarfile.GNUTYPE_SPARSE)
    block = bytearray(hole.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"00000000000\0" * 2  # one hole from 0 on, of length 0
    block[483:495] = b"\x80" + (2**40).to_bytes(11, "big")
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    plain = write_tar(tmp_path / "f.tar", TWO).read_bytes()
    end = plain.rstrip(b"\0")
    start = -(-len(end) // 512) * 512
    (tmp_path / "f.tar").write_bytes(plain[:start] + bytes(block) + bytes(10_240))
    assert "member 'a/2.png' unpacks to 1.02e+03 GiB" in refused("images", tmp_path / "f.tar")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_that_is_too_large_is_not_read(tmp_path: Path, kind: bytes, little_room: None) -> None:
    path = write_tar(tmp_path / "f.tar.gz", TWO, more=[(member("header", 10 * MOST, kind), bytes(10 * MOST))])
    assert "a header of" in refused("images", path)


def test_what_follows_the_end_of_a_tar_gz_ends_soon(tmp_path: Path, little_room: None) -> None:
    plain = gzip.decompress(write_tar(tmp_path / "f.tar.gz", TWO).read_bytes())
    assert len(load_dataset("images", tmp_path / "f.tar.gz")) == 2
    (tmp_path / "f.tar.gz").write_bytes(gzip.compress(plain + bytes(200 * MOST)))
    assert "behind its end mark" in refused("images", tmp_path / "f.tar.gz")


def test_the_number_of_members_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advntk_dist.data.files.MOST_MEMBERS", 3)
    for end in ("tar", "tar.gz"):
        path = write_tar(tmp_path / f"f.{end}", TWO | {"c/0.png": b"", "c/1.png": b""})
        assert "more than 3 files and folders" in refused("images", path)
    assert "more than 3 files and folders" in refused("images", write_files(tmp_path / "f", TWO))


def test_a_link_to_a_folder_around_it_is_not_followed_for_ever(tmp_path: Path) -> None:
    write_files(tmp_path / "f", TWO)
    for k in range(20):
        (tmp_path / "f" / "b" / f"{k}").symlink_to(tmp_path / "f")
    assert "f/b/0: is a link to a folder around it" in refused(str(tmp_path / "f"))
    for k in range(20):
        (tmp_path / "f" / "b" / f"{k}").unlink()
    (tmp_path / "f" / "c").symlink_to(tmp_path / "f" / "a")
    assert load_dataset(str(tmp_path / "f")).classes == ("a", "b", "c")


def test_arrays_larger_than_the_memory_are_not_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.zeros((30, 8, 8, 1), np.uint8), np.arange(30) % 2
    np.savez_compressed(tmp_path / "a.npz", x=x, y=y)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    for name, values in (("x", x), ("y", y)):
        group.create_array(name, data=values, chunks=values.shape, config={"write_empty_chunks": True})
    write_files(tmp_path / "tree", TWO)
    for place in ("a.npz", "a.zarr", "tree"):
        assert len(load_dataset(str(tmp_path / place))) > 0
    for memory, place in ((1900, "a.npz"), (1900, "a.zarr"), (31, "tree")):
        monkeypatch.setattr("advntk_dist.data.files._memory", lambda memory=memory: memory)
        assert "more than this machine's memory" in refused(str(tmp_path / place))


def test_a_matlab_file_of_zeros_is_not_unpacked(tmp_path: Path, little_room: None) -> None:
    for part, n in (("train", 100), ("test", 3)):
        zeros = {"X": np.zeros((32, 32, 3, n), np.uint8), "y": np.ones((n, 1), np.uint8)}
        savemat(tmp_path / f"{part}_32x32.mat", zeros, do_compression=True)
    assert "train_32x32.mat: unpacks to" in refused("svhn", tmp_path)


# what would be waited for


def pipe(path: Path) -> Path:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def test_a_pipe_in_the_place_of_a_dataset_is_not_opened(tmp_path: Path) -> None:
    for name in ("images", "npz", "cifar10", "mnist", "svhn", "zarr"):
        assert "is neither a file nor a folder" in refused(name, pipe(tmp_path / "p"))
    assert "is neither a file nor a folder" in refused(str(tmp_path / "p"))
    assert "is neither a file nor a folder" in refused(str(pipe(tmp_path / "p.npz")))
    assert "is neither a file nor a folder" in refused("/dev/zero")


def mnist(folder: Path) -> Path:
    return write_files(folder / "mnist", idx_files()) / "train-labels-idx1-ubyte"


def cifar(folder: Path) -> Path:
    return write_files(folder / "cifar", cifar_files("py")) / "test_batch"


def svhn(folder: Path) -> Path:
    return write_files(folder / "svhn", {"train_32x32.mat": b"", "test_32x32.mat": b""}) / "train_32x32.mat"


def chunk(folder: Path) -> Path:
    group = zarr.open_group(folder / "zarr", mode="w")
    group.create_array("x", data=np.ones((2, 3, 3, 1), np.uint8))
    group.create_array("y", data=np.arange(2))
    return folder / "zarr" / "x" / "c" / "0" / "0" / "0" / "0"


@pytest.mark.parametrize(("name", "make"), [("mnist", mnist), ("cifar10", cifar), ("svhn", svhn), ("zarr", chunk)])
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_not_opened(
    tmp_path: Path, name: str, make: Callable[[Path], Path]
) -> None:
    place = pipe(make(tmp_path))
    folder = next(tmp_path.iterdir())
    assert f"{place}: is neither a file nor a folder but a pipe" in refused(name, folder)
    place.unlink()
    place.symlink_to("/dev/zero")
    assert f"{place}: is neither a file nor a folder but a pipe" in refused(name, folder)


@pytest.mark.parametrize("name", ["a/2.png", "a/notes", "2.png"])
def test_pipes_and_devices_among_images_are_named_and_not_opened(tmp_path: Path, name: str) -> None:
    place = pipe(write_files(tmp_path / "f", TWO) / name)
    assert f"{name!r} is a link, a pipe, a device" in refused(str(tmp_path / "f"))
    for target in ("/dev/zero", "/nowhere"):
        place.unlink()
        place.symlink_to(target)
        assert f"{name!r} is a link, a pipe, a device" in refused(str(tmp_path / "f"))
    place.unlink()
    (tmp_path / "f" / "a" / "2.png").symlink_to(tmp_path / "f" / "b" / "1.png")
    assert len(load_dataset(str(tmp_path / "f"))) == 3


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_special_members_of_a_tar_are_named(tmp_path: Path, kind: bytes) -> None:
    path = write_tar(tmp_path / "f.tar", TWO, more=[(member("a/2.png", kind=kind, link="/etc/passwd"), b"")])
    assert "'a/2.png' is a link, a pipe, a device" in refused("images", path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_special_members_of_a_zip_are_named(tmp_path: Path, kind: int) -> None:
    special = zipfile.ZipInfo("a/2.png")
    special.external_attr = (kind | 0o644) << 16
    path = write_zip(tmp_path / "f.zip", {**TWO, special: b"/etc/passwd"})
    assert "'a/2.png' is a link, a pipe, a device" in refused("images", path)


# what would command a terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("Käse 猫 \u0646 \u00a0.", "Käse 猫 \u0646 \u00a0."),
        (ESCAPE, r"\x1b[2J\x1b]0;title\x07"),
        ("a\nb\r\t\x9b", r"a\nb\r\t\x9b"),
        ("\u202egpj.exe\u2066", r"\u202egpj.exe\u2066"),
        ("\udcff\u2028", r"\udcff\u2028"),
        ("👩\u200d🔬", "👩\u200d🔬"),
    ],
)
def test_what_is_escaped_and_what_is_not(text: str, shown: str) -> None:
    assert printable(text) == shown


def printed(advntk: Command, *words: str) -> str:
    text = "".join(advntk(*words)[1:])
    assert all(c.isprintable() or c == "\n" for c in text)
    return text


def test_names_of_classes_and_files_are_printed_escaped(tmp_path: Path, advntk: Command) -> None:
    strange = os.fsdecode(f"{ESCAPE} ".encode() + b"\xff")
    root = tmp_path / f"set{ESCAPE}"
    write_files(root, {f"{strange}/1.png": png(), "b/1.png": png()})
    data = load_dataset("images", root)
    assert data.classes == (r"\x1b[2J\x1b]0;title\x07 \udcff", "b")
    assert data.name == r"set\x1b[2J\x1b]0;title\x07"
    text = printed(advntk, "data", "info", "images", "--path", str(root))
    assert text.count(r"\x1b[2J") == 4  # the dataset, a class and a file of it, and the class again of two equal images
    assert r"\\x1b" not in text
    (root / strange / "2.png").write_bytes(b"none")
    with pytest.raises(DatasetError, match=re.escape(r"\x1b[2J\x1b]0;title\x07 \udcff/2.png")):
        load_dataset("images", root)


def test_names_in_arrays_and_archives_are_printed_escaped(tmp_path: Path, advntk: Command) -> None:
    x, y = np.zeros((4, 3, 3, 1), np.uint8), np.arange(4) % 2
    np.savez(tmp_path / "a.npz", allow_pickle=True, x=x, y=y, classes=[ESCAPE, "b"])
    assert r"\x1b[2J" in printed(advntk, "data", "info", str(tmp_path / "a.npz"))
    assert r"\x1b[2J" in printed(advntk, "data", "info", str(tmp_path / "a.npz"), "--class-subset", "b,c")
    path = write_tar(tmp_path / "c.tar", cifar_files("bin") | {"test_batch.bin": b"abc"}, folder=ESCAPE)
    assert r"\x1b[2J" in printed(advntk, "data", "info", "cifar10", "--path", str(path))

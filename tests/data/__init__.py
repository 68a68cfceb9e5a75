"""Writers of real-format dataset files, a few records each, for the reader tests."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from advntk_dist.data import load_dataset
from advntk_dist.errors import DatasetError

PER_BATCH = 3
BATCHES = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")


def refused(name: str, path: Path | None = None, resize: int | None = None) -> str:
    """The message that refuses a dataset: one printable line."""
    with pytest.raises(DatasetError) as caught:
        load_dataset(name, path, resize=resize)
    assert str(caught.value).isprintable()
    return str(caught.value)


def cifar_rows(n: int = 6 * PER_BATCH, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random images as published, (n, 3072) uint8 channel-major, and labels (n,) uint8."""
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (n, 3072), dtype=np.uint8), draw.integers(0, 10, n, dtype=np.uint8)


def binary_batch(rows: np.ndarray, labels: np.ndarray) -> bytes:
    """One .bin file: a label byte and 3,072 pixel bytes a record."""
    return np.column_stack([labels, rows]).astype(np.uint8).tobytes()


def python2_batch(rows: np.ndarray, labels: np.ndarray, raw: bytes | None = None) -> bytes:
    """One file of the python layout, opcode by opcode as Python 2 and NumPy 1 wrote it (protocol 2)."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def array(of: np.ndarray) -> bytes:
        dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
        dtype += b"(K\x03" + text(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
        content = of.tobytes() if raw is None else raw
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R(K\x01"
            + b"".join(b"J" + struct.pack("<i", length) for length in of.shape) + b"\x86"
            + dtype + b"\x89T" + struct.pack("<i", len(content)) + content + b"tb"
        )  # fmt: skip

    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"](" + b"".join(text(b"img_%04d.png" % k) for k in range(len(labels))) + b"e"
    fields = text(b"batch_label") + text(b"training batch 1 of 5") + text(b"labels") + numbers
    return b"\x80\x02}(" + fields + text(b"data") + array(rows) + text(b"filenames") + names + b"u."


def python3_batch(rows: np.ndarray, labels: np.ndarray, protocol: int = 2) -> bytes:
    """One file of the python layout as Python 3 writes it, keys as bytes."""
    fields = {b"batch_label": b"a", b"labels": labels.tolist(), b"data": rows, b"filenames": [b"a.png"]}
    return pickle.dumps(fields, protocol)


def cifar_files(layout: str, per_batch: int = PER_BATCH) -> dict[str, bytes]:
    """Make the six batches of either layout ("bin" or "py"), ``cifar_rows`` in order, and a readme."""
    rows, labels = cifar_rows(6 * per_batch)
    write, suffix = (binary_batch, ".bin") if layout == "bin" else (python2_batch, "")
    files = {"readme.html": b"<html></html>"}
    for k, name in enumerate(BATCHES):
        part = slice(k * per_batch, (k + 1) * per_batch)
        files[name + suffix] = write(rows[part], labels[part])
    return files


def cifar100_files(layout: str, n_train: int = 4, n_test: int = 2) -> dict[str, bytes]:
    """Make CIFAR-100's two files: ``cifar_rows``, fine labels 0, 7, 14, ..., coarse labels 19, 18, ..."""
    rows, _ = cifar_rows(n_train + n_test)
    fine, coarse = np.arange(len(rows)) * 7 % 100, 19 - np.arange(len(rows)) % 20
    files = {"notes.txt": b"x", "train": b"", "test": b""}
    for name, part in (("train", slice(0, n_train)), ("test", slice(n_train, None))):
        if layout == "bin":
            del files[name]
            files[name + ".bin"] = np.column_stack([coarse[part], fine[part], rows[part]]).astype(np.uint8).tobytes()
        else:
            fields = {b"fine_labels": fine[part].tolist(), b"coarse_labels": coarse[part].tolist(), b"data": rows[part]}
            files[name] = pickle.dumps(fields, 2)
    return files


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    """Write files under a folder, made where it is missing, and return it."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """The header of a member of a .tar."""
    header = tarfile.TarInfo(name)
    header.size, header.type, header.linkname = size, kind, link
    return header


def write_tar(
    path: Path, files: dict[str, bytes], folder: str = "", more: Sequence[tuple[tarfile.TarInfo, bytes]] = ()
) -> Path:
    """Write a .tar, or a .tar.gz where the name ends so, with the files under ``folder``, and then other members."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in files.items():
            archive.addfile(member(f"{folder}/{name}" if folder else name, len(content)), io.BytesIO(content))
        for header, content in more:
            archive.addfile(header, io.BytesIO(content))
    content = plain.getvalue()
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith("gz") else content)
    return path


def write_zip(path: Path, files: Mapping[Any, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a .zip with the files."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def png(pixels: np.ndarray | int = 0) -> bytes:
    """A PNG file of some pixels, or of 4 x 4 pixels of one shade."""
    stream = io.BytesIO()
    array = np.full((4, 4), pixels, np.uint8) if isinstance(pixels, int) else pixels
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()

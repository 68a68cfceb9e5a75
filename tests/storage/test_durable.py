from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, Crc32cCodec

from advntk_dist.storage import durable


def test_payload_is_what_zarr_itself_would_write(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    array = zarr.create_array(
        tmp_path / "a", shape=(4, 4), chunks=(4, 4), dtype="float32", zarr_format=3,
        serializer=BytesCodec(endian="little"), compressors=[Crc32cCodec()], filters=None,
    )  # fmt: skip
    array[:] = values
    assert (tmp_path / "a" / "c" / "0" / "0").read_bytes() == durable.encode(values)
    np.testing.assert_array_equal(durable.decode(durable.encode(values), (4, 4), "float32"), values)


@given(bit=st.integers(0, 8 * (9 * 8 + 4) - 1))
def test_every_flipped_bit_is_found(bit: int) -> None:
    payload = bytearray(durable.encode(np.arange(9.0)))
    payload[bit // 8] ^= 1 << bit % 8
    with pytest.raises(durable.ChunkDamagedError, match="checksum"):
        durable.check(bytes(payload), 72)


@pytest.mark.parametrize("length", [0, 3, 75, 77])
def test_another_length_is_found(length: int) -> None:
    payload = (durable.encode(np.arange(9.0)) + b"x")[:length]
    for find in (lambda: durable.decode(payload, (9,), "float64"), lambda: durable.check(payload, 72)):
        with pytest.raises(durable.ChunkDamagedError, match=f"{length} bytes instead of 76"):
            find()


def test_big_endian_values_are_stored_little_endian() -> None:
    assert durable.encode(np.arange(3, dtype=">f8")) == durable.encode(np.arange(3, dtype="<f8"))


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    durable.write_durable(tmp_path / "c" / "0", b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        durable.write_durable(tmp_path / "c" / "0", b"after")
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["0"]
    assert (tmp_path / "c" / "0").read_bytes() == b"before"


def test_partial_files_are_removed(tmp_path: Path) -> None:
    durable.write_durable(tmp_path / "ntk" / "c" / "0" / "0", b"kept")
    (tmp_path / "ntk" / "c" / "0" / "1.0123.partial").write_bytes(b"half")
    assert durable.remove_partials(tmp_path) == 1
    assert [p.name for p in (tmp_path / "ntk" / "c" / "0").iterdir()] == ["0"]


# what is written past the page cache

MIB = 2**20


def payload(nbytes: int, offset: int) -> memoryview:
    memory = durable.aligned_empty((nbytes + offset,), np.uint8)
    memory[:] = np.random.default_rng(nbytes).integers(0, 256, len(memory))
    return memory[offset:].data


def flags_of_opens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    asked: list[int] = []
    real = os.open

    def note(path: Any, flags: int, *rest: Any) -> int:
        asked.append(flags)
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", note)
    return asked


@pytest.mark.parametrize("nbytes", [0, 5, 4096, MIB, MIB + 1, 3 * MIB + 4096 + 17])
@pytest.mark.parametrize("offset", [0, 8])
def test_what_is_written_is_what_is_read(tmp_path: Path, nbytes: int, offset: int) -> None:
    body = payload(nbytes, offset)
    path = tmp_path / "file"
    durable.write_flushed(path, (body, b"tail"))
    assert path.read_bytes() == bytes(body) + b"tail"
    assert b"".join(map(bytes, durable.read_pieces(path))) == bytes(body) + b"tail"


def test_large_aligned_bodies_do_pass_the_cache_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = flags_of_opens(monkeypatch)
    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        pytest.skip("the file system of the temporary folder knows no direct writes")
    for name, offset in (("aligned", 0), ("shifted", 8)):
        durable.write_flushed(tmp_path / name, (payload(2 * MIB, offset), b"tail"))
    assert [bool(flags & os.O_DIRECT) for flags in asked[1:]] == [True, False]


@pytest.mark.parametrize("step", ["open", "write"])
def test_where_direct_writes_are_refused_the_cache_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    body = payload(2 * MIB, 0)
    real_open, real_write = os.open, os.write
    refused: list[str] = []

    def refuse() -> None:
        refused.append(step)
        raise OSError(errno.EINVAL, "Invalid argument")

    def no_direct_open(path: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_DIRECT:
            refuse()
        return real_open(path, flags, *rest)

    def no_direct_write(descriptor: int, data: Any) -> int:
        if not refused:
            refuse()
        return real_write(descriptor, data)

    monkeypatch.setattr(os, step, no_direct_open if step == "open" else no_direct_write)
    durable.write_flushed(tmp_path / "file", (body, b"tail"))
    assert refused
    assert b"".join(map(bytes, durable.read_pieces(tmp_path / "file"))) == bytes(body) + b"tail"


@pytest.mark.parametrize("step", ["open", "write"])
def test_other_errors_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    body = payload(2 * MIB, 0)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        durable.write_flushed(tmp_path / "file", (body, b"tail"))


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(FileExistsError):
        durable.write_flushed(tmp_path / "file", (payload(2 * MIB, 0), b"tail"))
    assert (tmp_path / "file").read_bytes() == b"before"

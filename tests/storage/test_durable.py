from __future__ import annotations

import os
from pathlib import Path

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

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advntk_dist.storage import durable

MIB = 2**20


def payload(nbytes: int, offset: int) -> memoryview:
    memory = durable.aligned_empty((nbytes + offset,), np.uint8)
    memory[:] = np.random.default_rng(nbytes).integers(0, 256, len(memory))
    return memory[offset:].data


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


def flags_of_opens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    asked: list[int] = []
    real = os.open

    def note(path: Any, flags: int, *rest: Any) -> int:
        asked.append(flags)
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", note)
    return asked

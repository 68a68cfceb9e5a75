"""Who holds a lock on a disk: seen from this machine and from others, while they live and after they died."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path

import pytest

from advntk_dist.errors import StoreBusyError
from advntk_dist.storage import locks
from advntk_dist.storage.locks import exclusive_lock, holder_of
from tests.waiting import held_elsewhere, wait_until


def test_holder_is_seen_from_here_and_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, lock = socket.gethostname(), tmp_path / ".lock"
    assert holder_of(lock) is None
    with held_elsewhere(tmp_path) as other:
        for host in (here, "elsewhere"):
            monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
            found = holder_of(lock)
            assert found is not None
            assert found[0] == f"process {other.pid} on {here}"
            assert found[1] < 30
            assert found[2]
        with (
            pytest.raises(StoreBusyError, match=rf"busy \(process {other.pid} on "),
            exclusive_lock(lock, tmp_path, "busy"),
        ):
            pass
    # Killed: this machine knows at once, another only that it has heard nothing for a while.
    assert (holder_of(lock) or ("", 0.0, False))[2]
    monkeypatch.setattr(locks, "STALE", 0.05)
    time.sleep(0.1)
    assert not (holder_of(lock) or ("", 0.0, True))[2]
    monkeypatch.undo()
    assert not (holder_of(lock) or ("", 0.0, True))[2]
    with exclusive_lock(lock, tmp_path, "busy"):
        found = holder_of(lock)
        assert found is not None
        assert found[0] == f"process {os.getpid()} on {here}"
    assert holder_of(lock) is None
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_holder_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW", 0.1)
    with exclusive_lock(tmp_path / ".lock", tmp_path, "busy"):
        (beside,) = tmp_path.glob("*.holder")
        os.utime(beside, (0, 0))
        wait_until(lambda: beside.stat().st_mtime > 0, 20, "not renewed")
        assert json.loads(beside.read_text())["pid"] == os.getpid()


def test_folder_that_is_removed_ends_the_renewals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW", 0.05)
    folder = tmp_path / "run"
    folder.mkdir()
    with locks.heartbeat(folder / ".lock") as thread:
        shutil.rmtree(folder)
        thread.join(20)
        assert not thread.is_alive()


def test_file_server_that_fails_for_a_while_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "RENEW", 0.05)

    def away(path: Path) -> None:
        raise OSError(5, "Input/output error")

    with locks.heartbeat(tmp_path / ".lock") as thread, monkeypatch.context() as patch:
        patch.setattr(os, "utime", away)
        wait_until(lambda: bool(caplog.records), 20)
        assert thread.is_alive()
    assert "not renewed" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", "[1]", '{"host": "a"}'])
def test_file_that_is_damaged_is_somebodys(content: str, tmp_path: Path) -> None:
    (tmp_path / ".lock.holder").write_text(content)
    found = holder_of(tmp_path / ".lock")
    assert found is not None
    assert "process 0" in found[0]

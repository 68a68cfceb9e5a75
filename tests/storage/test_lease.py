"""One process at a time in an object store: leases that are held, renewed, lost and taken over."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from advntk_dist.errors import StoreBusyError
from advntk_dist.storage import locks, paths
from advntk_dist.storage.locks import Holder, Lease, exclusive_lock, last_seen, read_holder
from advntk_dist.storage.paths import ObjectPath
from tests.waiting import held_elsewhere, wait_until

if TYPE_CHECKING:
    from tests.conftest import FaultProxy


def _is_held(lock: Any) -> bool:
    seen = last_seen(lock)
    return seen is not None and seen[1] < locks.STALE


@pytest.fixture
def root(place: ObjectPath) -> ObjectPath:
    return place


def test_one_process_at_a_time(root: ObjectPath) -> None:
    """And one that is killed is followed once its lease is stale, not before."""
    with held_elsewhere(root) as other:
        assert _is_held(root / ".lock")
        with (
            pytest.raises(StoreBusyError, match=rf"busy \(process {other.pid} on "),
            exclusive_lock(root / ".lock", root, "busy"),
        ):
            pass
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "STALE", 4.0)
        with exclusive_lock(root / ".lock", root, "busy"):
            assert _is_held(root / ".lock")
            (root / "x").write_bytes(b"")
    assert time.monotonic() - started < 60
    assert not (root / ".lock").exists()
    assert [path.name for path in root.iterdir()] == ["x"], "nothing is left behind"


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_lease_is_renewed(scheme: str, gs: FaultProxy, root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW", 0.3)
    root = replace(root, scheme=scheme)
    with Lease(root / ".lock", root, "busy"):
        with pytest.raises(StoreBusyError), Lease(root / ".lock", root, "busy"):
            pass
        first = (root / ".lock").head()
        assert first is not None

        def renewed() -> bool:
            last = (root / ".lock").head()
            return last is not None and bool(last["last_modified"] > first["last_modified"])

        wait_until(renewed, why="the lease is not renewed")
    assert not (root / ".lock").exists()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_lease_that_is_renewed_elsewhere_is_not_taken(
    scheme: str, gs: FaultProxy, root: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks waits until it sees a renewal, however long the lease has been held."""
    monkeypatch.setattr(locks, "RENEW", 0.5)
    monkeypatch.setattr(locks, "STALE", 3.0)
    monkeypatch.setattr(locks, "_POLL", 0.2)
    root = replace(root, scheme=scheme)
    lease = Lease(root / ".lock", root, "busy")
    lease.holder = Holder("elsewhere", 7, "x")
    with lease:
        for _ in range(2):
            with (
                pytest.raises(StoreBusyError, match="process 7 on elsewhere"),
                exclusive_lock(root / ".lock", root, "busy"),
            ):
                pass
        (root / "x").write_bytes(b"1")
    assert not (root / ".lock").exists()


def test_who_lost_the_lease_writes_nothing_more(root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW", 0.2)
    monkeypatch.setattr(locks, "_POLL", 0.2)
    thief = Holder("elsewhere", 7, "x")
    lease = Lease(root / ".lock", root / "run", "busy")
    lease.__enter__()
    (root / "run" / "x").write_bytes(b"1")
    (root / ".lock").write_bytes(json.dumps(thief.__dict__).encode())
    wait_until(lambda: str(root / "run") in paths._lost, why="the loss is not noticed")
    (root / "beside").write_bytes(b"1")
    for write in (lambda: (root / "run" / "x").write_bytes(b"2"), lambda: lease.__exit__(None, None, None)):
        with pytest.raises(StoreBusyError, match="another process has taken over"):
            write()
    assert (root / "run" / "x").read_bytes() == b"1"
    found = read_holder(root / ".lock")
    assert found is not None
    assert found[0] == thief, "a lease of another is not given back"
    timer = threading.Timer(0.6, lambda: (root / ".lock").write_bytes(b"renewed"))
    timer.start()
    with pytest.raises(StoreBusyError, match="process 7 on elsewhere"), Lease(root / ".lock", root / "run", "busy"):
        pass
    timer.join()
    threading.Timer(0.6, (root / ".lock").unlink).start()  # given back while somebody waits
    with Lease(root / ".lock", root / "run", "busy"):
        (root / "run" / "x").write_bytes(b"2")


def test_a_lease_outlives_a_lost_answer(root: ObjectPath, s3: FaultProxy) -> None:
    """The store has made the object and the answer is lost: the second try finds that it exists, and is ours."""
    answers = iter(["cut"])
    s3.fault = lambda method, path: next(answers, None) if method == "PUT" else None
    with Lease(root / ".lock", root, "busy") as lease:
        found = read_holder(root / ".lock")
        assert found is not None
        assert found[0] == lease.holder


def test_a_lease_outlives_an_outage(root: ObjectPath, s3: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW", 0.3)
    with Lease(root / ".lock", root, "busy"):
        s3.seen.clear()
        s3.out = True
        wait_until(lambda: len(s3.seen) >= 2, why="nobody tries to renew the lease")
        s3.out = False
        (root / "x").write_bytes(b"1")


def test_a_damaged_lease_is_somebody_elses(root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_POLL", 0.2)
    (root / ".lock").write_bytes(b"{")
    timer = threading.Timer(0.6, lambda: (root / ".lock").write_bytes(b"["))
    timer.start()
    with (
        pytest.raises(StoreBusyError, match="a machine that is not known"),
        exclusive_lock(root / ".lock", root, "busy"),
    ):
        pass
    timer.join()


def test_a_lease_that_could_not_be_given_back_is_no_obstacle_to_its_own_process(
    root: ObjectPath, s3: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(root / ".lock", root, "busy")
    lease.__enter__()
    s3.out = True
    monkeypatch.setenv("ADVNTK_STORE_PATIENCE", "0.3")
    lease.__exit__(None, None, None)
    monkeypatch.setenv("ADVNTK_STORE_PATIENCE", "30")
    s3.out = False
    assert _is_held(root / ".lock")
    with Lease(root / ".lock", root, "busy"), pytest.raises(StoreBusyError), Lease(root / ".lock", root, "busy"):
        pass
    assert not (root / ".lock").exists()


def test_a_lock_file_that_was_copied_from_a_disk_is_nobodys(root: ObjectPath) -> None:
    (root / ".lock").write_bytes(b"")
    started = time.monotonic()
    with exclusive_lock(root / ".lock", root, "busy"):
        assert _is_held(root / ".lock")
    assert time.monotonic() - started < 30
    assert not (root / ".lock").exists()

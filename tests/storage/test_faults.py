"""What goes wrong between here and an object store: tried again within bounds, and then said in one line."""

from __future__ import annotations

import itertools
import os
import pickle
import threading
import time

import numpy as np
import pytest

from advntk_dist import metrics
from advntk_dist.errors import StoreError, StoreMismatchError, StoreUnreachableError
from advntk_dist.storage import Records, durable, guarded_group, retry
from advntk_dist.storage.paths import ObjectPath, location
from advntk_dist.storage.retry import short_timeout
from tests.conftest import BOTH, FaultProxy

FAULTS = ["500", "503", "drop", "cut"]
IDENTITY = {"network": "mlp-2"}


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.01)


@pytest.fixture
def retries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    counted: list[str] = []
    monkeypatch.setattr(metrics, "count", lambda name, amount=1: counted.append(name))
    return counted


@BOTH
@pytest.mark.parametrize("fault", FAULTS)
def test_every_operation_outlives_faults_that_pass(
    in_a_hurry: None, s3: FaultProxy, place: ObjectPath, fault: str, retries: list[str]
) -> None:
    turns = itertools.count()
    s3.fault = lambda method, path: fault if next(turns) % 2 == 0 else None
    file = place / "x"
    file.write_bytes(b"12345678")
    assert file.read_bytes() == b"12345678"
    assert file.exists()
    assert [path.name for path in place.iterdir()] == ["x"]
    file.unlink()
    with pytest.raises(FileNotFoundError):
        file.read_bytes()
    table = Records(guarded_group(place / "a.zarr", IDENTITY), "table", 2, (3,))
    table.write(0, np.ones((1, 3)))
    again = Records(guarded_group(place / "a.zarr", IDENTITY), "table", 2, (3,))
    values = again.read(0)
    assert values is not None
    assert (values == 1).all()
    assert again.read(1) is None
    assert set(retries) == {"advntk_store_retries"}
    assert len(retries) >= 8


def test_records_travel_to_other_processes_without_secrets(s3: FaultProxy, place: ObjectPath) -> None:
    group = guarded_group(place / "a.zarr", IDENTITY)
    packed = pickle.dumps(group)
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in packed
    assert os.environ["AWS_ACCESS_KEY_ID"].encode() not in packed
    Records(pickle.loads(packed), "table", 1, (1,)).write(0, np.ones((1, 1)))
    assert Records(group, "table", 1, (1,)).read(0) is not None


def test_nothing_but_the_group_is_made(s3: FaultProxy, place: ObjectPath) -> None:
    """Zarr makes groups of the folders above, up to where its store begins."""
    guarded_group(place / "b" / "a.zarr", IDENTITY)
    assert [path.name for path in place.iterdir()] == ["b"]
    assert [path.name for path in (place / "b").iterdir()] == ["a.zarr"]


@BOTH
@pytest.mark.parametrize("fault", [*FAULTS, "out"])
def test_faults_that_stay_end_in_one_line(s3: FaultProxy, place: ObjectPath, fault: str) -> None:
    (place / "x").write_bytes(b"12345678")
    s3.out = fault == "out"
    s3.fault = lambda method, path: fault
    started = time.monotonic()
    with (
        pytest.raises(StoreUnreachableError, match="run the same command again to go on") as caught,
        short_timeout(0.5),
    ):
        (place / "x").read_bytes()
    assert time.monotonic() - started < 10
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert text.startswith(f"{place}/x: the object store does not answer")
    assert "\n" not in text
    assert os.environ["AWS_ACCESS_KEY_ID"] not in text, "the server's answer names it"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None, "the library's error, which holds the answer, must not trail behind"
    s3.out, s3.fault = False, lambda method, path: None
    assert (place / "x").read_bytes() == b"12345678"


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch, place: ObjectPath) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreUnreachableError, match="no connection"), short_timeout(0.3):
        place.exists()


def test_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch, place: ObjectPath) -> None:
    import socket

    monkeypatch.setenv("ADVNTK_STORE_TIMEOUT", "0.3")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(StoreUnreachableError, match="no answer in time"), short_timeout(0.5):
            place.exists()
        assert time.monotonic() - started < 10


def test_a_bucket_that_is_not_there(s3: FaultProxy) -> None:
    missing = location("s3://nobucket/a")
    assert isinstance(missing, ObjectPath)
    with pytest.raises(StoreError, match=r"s3://nobucket/a/x: there is no such bucket"):
        (missing / "x").write_bytes(b"")
    with pytest.raises(StoreError, match="there is no such bucket"):
        guarded_group(missing / "a.zarr", IDENTITY)


def test_a_refusal_is_not_tried_again(s3: FaultProxy, place: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "x").write_bytes(b"1")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    s3.seen.clear()
    with pytest.raises(StoreError, match=r"refused by the object store \(.*HTTP 403"):
        (place / "x").read_bytes()
    assert len(s3.seen) == 1


@BOTH
@pytest.mark.parametrize("fault", ["short", "flip"])
def test_what_is_damaged_on_the_way_is_read_again(s3: FaultProxy, place: ObjectPath, fault: str) -> None:
    """A body that is damaged, and none the shorter for its Content-Length: only our checksums tell."""
    table = Records(guarded_group(place / "a.zarr", IDENTITY), "table", 1, (64,))
    table.write(0, np.ones((1, 64)))
    values = np.arange(64, dtype=np.float32)
    durable.write_durable(place / "chunk", *durable.parts(values))

    turns = itertools.count()
    s3.fault = lambda method, path: fault if method == "GET" and next(turns) < 2 else None
    assert table.read(0) is not None
    turns = itertools.count()
    payload = durable.read_checked(place / "chunk", values.nbytes)
    assert (durable.decode(payload, (64,), np.float32) == values).all()

    turns = itertools.count()
    of = table.seal(0)
    assert of >= 0
    turns = itertools.count()
    again = Records(guarded_group(place / "a.zarr", IDENTITY), "table", 1, (64,))
    assert again.read(0) is not None
    turns = itertools.count()
    with pytest.raises(StoreMismatchError):
        guarded_group(place / "a.zarr", IDENTITY | {"other": 1})

    s3.fault = lambda method, path: fault if method == "GET" else None
    assert table.read(0) is None
    with pytest.raises(durable.ChunkDamagedError):
        durable.check_file(place / "chunk", values.nbytes)


def _outage(s3: FaultProxy, place: ObjectPath, seconds: float) -> None:
    (place / "x").write_bytes(b"1")
    s3.out = True
    timer = threading.Timer(seconds, lambda: setattr(s3, "out", False))
    timer.start()
    started = time.monotonic()
    try:
        assert (place / "x").read_bytes() == b"1"
        (place / "x").write_bytes(b"2")
    finally:
        timer.join()
    assert time.monotonic() - started >= seconds - 0.5


@BOTH
def test_an_outage_of_seconds_is_waited_for(s3: FaultProxy, place: ObjectPath) -> None:
    _outage(s3, place, 2.0)


@pytest.mark.slow
def test_an_outage_of_a_minute_is_waited_for(
    s3: FaultProxy, place: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADVNTK_STORE_PATIENCE")
    _outage(s3, place, 60.0)


def test_short_timeout_bounds_the_retries(s3: FaultProxy, place: ObjectPath) -> None:
    s3.out = True
    started = time.monotonic()
    with pytest.raises(StoreUnreachableError), short_timeout(0.2):
        place.exists()
    assert time.monotonic() - started < 5

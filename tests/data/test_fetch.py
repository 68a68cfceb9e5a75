"""Downloads from a real HTTP server on loopback, and `advntk data info`."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from advntk_dist.cli import advntk
from advntk_dist.data import load_dataset, sources
from advntk_dist.data.download import download, fetch, fetch_if_missing
from advntk_dist.data.sources import RemoteFile, Source
from advntk_dist.errors import ConfigError, DatasetError, FetchError
from advntk_dist.progress import Display

from . import write_files
from .test_idx import idx_files

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
FILE = RemoteFile("images.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Server(ThreadingHTTPServer):
    """Serves ``files``; ``faults`` are met by the first requests, one each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {FILE.name: CONTENT}
        self.faults: list[str] = []
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        fault = self.server.faults.pop(0) if self.server.faults else ""
        content = self.server.files.get(self.path.lstrip("/"))
        if fault.startswith("503") or content is None:
            self.send_response(503 if content is not None else 404)
            if " for " in fault:
                self.send_header("Retry-After", fault.split()[2])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and fault != "no range" else 0
        self.send_response(206 if start else 200)
        if start:
            shown = start + 1 if fault == "wrong range" else start
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: {"drop": len(body) // 2, "empty": 0}.get(fault, len(body))])


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(10)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that are waited for between attempts, none of which a test waits for."""
    waited: list[float] = []
    monkeypatch.setattr("advntk_dist.data.download.time.sleep", waited.append)
    return waited


def get(server: Server, folder: Path, said: list[str] | None = None) -> bytes:
    """The file as it is downloaded, with as many bytes counted as it has."""
    told: list[int] = []
    say = (list[str]() if said is None else said).append
    path = download(server.url + FILE.name, FILE, folder, lambda n, fresh: told.append(n), say=say)
    assert sum(told) == FILE.size
    return path.read_bytes()


@pytest.mark.parametrize(
    ("there", "part", "faults", "ranges"),
    [
        (None, None, [], [None]),
        (CONTENT, None, [], []),
        (b"x" * FILE.size, None, [], [None]),
        (None, CONTENT[:123_456], [], ["bytes=123456-"]),
        (None, CONTENT, [], []),
        (None, b"z" * 1000, [], ["bytes=1000-", None]),
        (None, b"z" * (FILE.size + 1), [], [None]),
        (None, CONTENT[:1000], ["no range"], ["bytes=1000-"]),
        (None, CONTENT[:1000], ["wrong range"], ["bytes=1000-", None]),
    ],
    ids=[
        "new",
        "there",
        "damaged",
        "begun",
        "all but its name",
        "part of another",
        "too long",
        "no range",
        "wrong range",
    ],
)
def test_what_is_there_is_kept_where_it_is_right(
    server: Server, tmp_path: Path, there: bytes | None, part: bytes | None, faults: list[str], ranges: list[str | None]
) -> None:
    folder, server.faults = tmp_path / "new" / "folder", faults
    found = {FILE.name: there, f"{FILE.name}.part": part}
    write_files(folder, {name: content for name, content in found.items() if content is not None})
    assert get(server, folder) == CONTENT
    assert server.ranges == ranges
    assert not (folder / "images.bin.part").exists()


def test_dropped_connection_goes_on_where_it_stopped(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.faults = ["drop", "drop"]
    assert get(server, tmp_path) == CONTENT
    assert waits == [0, 0], "each brought something new"
    starts = [int(r.removeprefix("bytes=").removesuffix("-")) for r in server.ranges[1:] if r]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] < FILE.size


@pytest.mark.parametrize(
    ("fault", "expected"), [("503", [0, 2, 4]), ("503 for 5 s", [5, 5, 5]), ("503 for 3600 s", [30, 30, 30])]
)
def test_a_busy_server_is_asked_again_and_each_wait_is_announced_and_bounded(
    server: Server, tmp_path: Path, waits: list[float], fault: str, expected: list[float]
) -> None:
    server.faults = [fault] * 3
    said: list[str] = []
    assert get(server, tmp_path, said) == CONTENT
    assert waits == expected
    assert said == [f"images.bin: the server answers 503 Service Unavailable, retrying in {s} s" for s in expected]


@pytest.mark.parametrize(
    ("faults", "why"),
    [
        (["drop", *["503"] * 6], "the server answers 503 Service Unavailable"),
        (["drop", *["empty"] * 5], "the connection (ended|failed)"),
    ],
    ids=["busy", "empty"],
)
def test_a_server_that_sends_nothing_new_is_given_up_and_the_part_kept(
    server: Server, tmp_path: Path, waits: list[float], faults: list[str], why: str
) -> None:
    server.faults = faults
    with pytest.raises(FetchError, match=rf"{why}.*; 1,4\d\d,\d\d\d of 3,000,000 bytes are kept, the same command"):
        get(server, tmp_path)
    assert waits[-4:] == [2, 4, 8, 16]
    assert get(server, tmp_path) == CONTENT


def test_wrong_content_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    server.files[FILE.name] = CONTENT[::-1]
    with pytest.raises(FetchError, match="another sha256"):
        get(server, tmp_path)
    assert not list(tmp_path.glob("images.bin*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "answers 404 Not Found"), (CONTENT + b"more", "offers 3000004 bytes"), (b"", "offers 0")],
    ids=["absent", "longer", "empty"],
)
def test_other_files_are_refused_at_once(server: Server, tmp_path: Path, content: bytes | None, message: str) -> None:
    server.files = {} if content is None else {FILE.name: content}
    with pytest.raises(FetchError, match=f"{message}.*--mirror"):
        get(server, tmp_path)
    assert len(server.ranges) == 1


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"bin: the connection failed \(Connection refused\); 0 of 3,000,000 bytes"):
        download("http://127.0.0.1:9/images.bin", FILE, tmp_path, lambda n, fresh: None)


@pytest.mark.parametrize("address", ["http://me:secret@127.0.0.1:9/", "ftp://me:secret@host/", "http://me:secret@[x/"])
def test_errors_hold_no_credentials_of_the_address(tmp_path: Path, address: str) -> None:
    with pytest.raises(FetchError) as caught:
        download(f"{address}images.bin", FILE, tmp_path, lambda n, fresh: None)
    assert str(caught.value).startswith(f"{address.replace('me:secret@', '')}images.bin: ")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FetchError, match=r"cannot be written.*--to"):
        get(server, tmp_path / "file" / "folder")


@pytest.fixture
def tiny_mnist(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """MNIST's four files with a few images, published by the loopback server."""
    server.files = {f"{name}.gz": gzip.compress(content) for name, content in idx_files(n=30, n_test=12).items()}
    files = tuple(RemoteFile(k, len(v), hashlib.sha256(v).hexdigest()) for k, v in server.files.items())
    monkeypatch.setitem(sources.SOURCES, "mnist", Source(server.url, files))
    monkeypatch.setenv(sources.FOLDER_VARIABLE, str(tmp_path / "store"))
    return server


def test_a_fetched_dataset_is_found_by_its_name(tiny_mnist: Server, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"advntk data fetch mnist|path"):
        load_dataset("mnist")
    result = CliRunner().invoke(advntk, ["data", "fetch", "mnist"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "42 images of 28 x 28 x 1, 10 classes" in result.output
    assert len(load_dataset("mnist")) == 42
    again = len(tiny_mnist.ranges)
    fetch("mnist", display=Display())
    assert len(tiny_mnist.ranges) == again


def test_what_is_missing_is_fetched_and_nothing_else(tiny_mnist: Server, tmp_path: Path) -> None:
    fetch_if_missing("mnist", str(tmp_path / "mine"), display=Display())
    fetch_if_missing("digits", None, display=Display())
    assert not tiny_mnist.ranges
    fetch_if_missing("mnist", None, display=Display())
    assert len(tiny_mnist.ranges) == 4
    fetch_if_missing("mnist", None, display=Display())
    assert len(tiny_mnist.ranges) == 4
    assert len(load_dataset("mnist")) == 42


def test_a_run_with_fetch_gets_past_missing_data(tiny_mnist: Server, tmp_path: Path) -> None:
    words = ["run", "digits", "--set", "data.name=mnist", "--set", "data.n_train=50", "--out", str(tmp_path / "run")]
    with pytest.raises(DatasetError, match="advntk data fetch mnist"):
        CliRunner().invoke(advntk, words, catch_exceptions=False)
    with pytest.raises(ConfigError, match="'mnist' has 12 test images"):  # the images are there now, and are too few
        CliRunner().invoke(advntk, [*words, "--fetch"], catch_exceptions=False)


def test_to_and_mirror(tiny_mnist: Server, tmp_path: Path) -> None:
    folder = fetch("mnist", tmp_path / "here", mirror=tiny_mnist.url.rstrip("/"), display=Display())
    assert folder == tmp_path / "here"
    assert len(list(folder.glob("*.gz"))) == 4
    assert not (tmp_path / "store").exists()


def test_no_such_dataset_to_fetch() -> None:
    with pytest.raises(DatasetError, match="no dataset 'imagenet' to fetch; there are cifar10, "):
        fetch("imagenet", display=Display())
    with pytest.raises(DatasetError, match=r"'fashion_mnist' to fetch; did you mean 'fashion-mnist'\?"):
        fetch("fashion_mnist", display=Display())


def test_info_counts(tmp_path: Path) -> None:
    x = np.random.default_rng(2).integers(0, 256, (50, 6, 5, 3), dtype=np.uint8)
    y = np.arange(50) % 3
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    result = CliRunner().invoke(advntk, ["data", "info", str(tmp_path / "mine.npz"), "--json"], catch_exceptions=False)
    found = json.loads(result.output)
    assert found["n"] == 50
    assert found["shape"] == [6, 5, 3]
    assert [row["all"] for row in found["classes"]] == [17, 17, 16]
    np.testing.assert_allclose(found["mean"], x.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found["std"], x.std((0, 1, 2)), rtol=1e-12)
    text = CliRunner().invoke(advntk, ["data", "info", str(tmp_path / "mine.npz")], catch_exceptions=False).output
    assert re.search(r"images +50", text)
    assert found["fingerprint"] in text


def test_info_resized(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=np.full((4, 6, 6, 1), 7, np.uint8), y=np.array([0, 1, 0, 1]))
    arguments = ["data", "info", str(tmp_path / "mine.npz"), "--resize", "3", "--json"]
    found = json.loads(CliRunner().invoke(advntk, arguments, catch_exceptions=False).output)
    assert found["shape"] == [3, 3, 1]
    assert found["mean"] == [7.0]

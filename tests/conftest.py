"""Fixtures and options that all tests share."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

import advntk_dist  # noqa: F401  # sets what Ray reads when it is first imported
from advntk_dist.cli import main
from advntk_dist.storage.paths import ObjectPath, location
from tests.terminal import without_ray

KEY_ID, SECRET = "AKIAPLANTEDBYTESTS", "planted-by-the-tests"
# Before Ray starts, as its workers inherit them; and whoever runs the tests has real ones.
os.environ |= {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
for _name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
    os.environ.pop(_name, None)

_OPTIONAL = {
    "slow": "takes minutes",
    "gpu": "needs an NVIDIA GPU",
    "cluster": "starts clusters of several nodes",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for marker, why in _OPTIONAL.items():
        parser.addoption(f"--run-{marker}", action="store_true", help=f"also run tests marked {marker} ({why})")


_GOOGLE = {"gcs_base_url": "", "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}


def pytest_configure(config: pytest.Config) -> None:
    """Processes of a session, and those that they start, share what XLA compiles, and one key of Google's.

    The key asks nobody for a token. What was compiled stays for the next session, in the user's cache folder.
    """
    if hasattr(config, "workerinput"):
        return
    for name in [name for name in os.environ if name.startswith("GOOGLE_")]:
        os.environ.pop(name)
    keys = TemporaryDirectory(prefix="keys", ignore_cleanup_errors=True)
    config.add_cleanup(keys.cleanup)
    key = Path(keys.name, "key.json")
    key.write_text(json.dumps(_GOOGLE))
    os.environ["GOOGLE_SERVICE_ACCOUNT"] = str(key)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": str(_compiled() or keys.name),
            "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**30),  # the oldest go first
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }


def _compiled() -> Path | None:
    """Folder of compiled programs: of this kind of processor, as a home folder may serve machines of several kinds.

    None where it cannot be made.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    flags = next((line for line in text.splitlines() if line.lower().startswith(("flags", "features"))), "")
    flags = flags or platform.processor()
    folder = caches / "advntk-dist" / f"tests-{platform.machine()}-{zlib.crc32(flags.encode()):08x}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what was not asked for; keep the tests of a file on one worker, and all that use Ray on the first one.

    A file whose tests ask for Ray by name as they run is marked ``xdist_group("ray")``.
    """
    for item in items:
        for marker, why in _OPTIONAL.items():
            if item.get_closest_marker(marker) and not config.getoption(f"--run-{marker}"):
                item.add_marker(pytest.mark.skip(reason=f"{why}; run with --run-{marker}"))
    on_ray = {
        item.path
        for item in items
        if not item.get_closest_marker("skip")
        and ("ray_cluster" in getattr(item, "fixturenames", ()) or item.get_closest_marker("xdist_group"))
    }
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if item.path in on_ray else item.nodeid.partition("::")[0]))
    # The longest group first; then what mostly waits for processes, beside which there is time for the rest.
    items.sort(key=lambda item: (item.path not in on_ray, not {"jobs", "launch", "faults"} & {*item.path.parts}))


@pytest.fixture(autouse=True)
def no_fetched_datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the user of this machine has fetched must not change what a test finds."""
    monkeypatch.setenv("ADVNTK_DATA", str(tmp_path / "no-datasets"))


Command = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


@pytest.fixture
def advntk(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process: its exit code, standard output and standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


@pytest.fixture
def refused(advntk: Command) -> Refused:
    """The one line in which a command ends that does nothing else: refused(code, *words)."""

    def call(expected: int, *words: object) -> str:
        code, out, err = advntk(*words)
        assert (code, out, err.count("\n")) == (expected, "", 1), err
        assert err.startswith("advntk: ")
        assert "Traceback" not in err
        return err

    return call


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real data and golden values beside the checkout, where they are at hand."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no shared folder beside the checkout (real CIFAR-10 images, golden values)")
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One real Ray on this machine for the whole session, with two CPUs."""
    import ray

    # "local": without it Ray joins whatever cluster runs on this machine
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    yield
    ray.shutdown()


class FaultProxy(ThreadingHTTPServer):
    """Forwards to an S3 server, and does to answers what ``fault(method, path)`` says.

    "500", "503": an error instead; "drop": no answer; "cut": half of the body, and the connection closed; "short":
    half of the body as if it were all; "flip": one byte changed. ``out`` closes every connection at once.
    """

    daemon_threads = True

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.upstream, self.out, self.google = upstream, False, False
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        self.errors: list[bytes] = []
        self.generations: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is nothing to tell."""


class _Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body go in two writes, and the second would wait for an answer
    server: FaultProxy

    def do_GET(self) -> None:
        path = unquote(self.path)  # Google's interface wants slashes of a key encoded
        self.server.seen.append((self.command, path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = "drop" if self.server.out else self.server.fault(self.command, path)
        if fault == "drop":
            self.close_connection = True
            return
        if fault in ("500", "503"):
            self._answer(int(fault), {}, self._error({"500": "InternalError", "503": "SlowDown"}[fault]))
            return
        up = HTTPConnection("127.0.0.1", self.server.upstream, timeout=30)
        up.request(self.command, self.path, body, self._headers())
        answer = up.getresponse()
        content, headers = answer.read(), dict(answer.getheaders())
        up.close()
        if fault == "short":
            content = content[: len(content) // 2]
        if fault == "flip" and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        self._answer(answer.status, headers, content, cut=fault == "cut")

    def _error(self, code: str) -> bytes:
        """An error that repeats what it was asked with, as S3's do: key, session token, credential."""
        token, credential = (self.headers.get(name, "") for name in ("x-amz-security-token", "authorization"))
        said = f"<Code>{code}</Code><Key>{KEY_ID}</Key><Token-0>{token}</Token-0><Message>{credential}</Message>"
        self.server.errors.append(f"<Error>{said}</Error>".encode())
        return self.server.errors[-1]

    def _headers(self) -> dict[str, str]:
        """The headers; those of Google's XML interface, which is S3's but for these, as S3 has them."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.server.google and not headers.get("authorization", "").startswith("AWS4"):
            scope = f"{KEY_ID}/20260101/us-east-1/s3/aws4_request"
            headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
            generation = headers.pop("x-goog-if-generation-match", None)
            if generation is not None:
                new = generation == "0"
                headers["if-none-match" if new else "if-match"] = "*" if new else self.server.generations[generation]
        return headers

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _answer(self, status: int, headers: dict[str, str], content: bytes, cut: bool = False) -> None:
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
            if name.lower() == "etag":
                generation = str(zlib.crc32(value.encode()))
                self.server.generations[generation] = value
                self.send_header("x-goog-generation", generation)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
    """The port of a real server of the S3 protocol, in a process of its own, with a bucket "bucket"."""
    code = (
        "import time\nfrom moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)\nserver.start()\n"
        "print(server.get_host_and_port()[1], flush=True)\ntime.sleep(3600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        made = HTTPConnection("127.0.0.1", port, timeout=60)
        made.request("PUT", "/bucket")
        assert made.getresponse().status == 200
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def fault_proxy(upstream: int) -> Iterator[FaultProxy]:
    """An object store behind a proxy that makes faults."""
    proxy = FaultProxy(upstream)
    threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield proxy
    proxy.shutdown()
    proxy.server_close()


@pytest.fixture
def s3(s3_server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """One that this process and its workers use for s3:// URLs."""
    with fault_proxy(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("ADVNTK_STORE_PATIENCE", "30")
        monkeypatch.setenv("ADVNTK_STORE_TIMEOUT", "5")
        yield proxy


@pytest.fixture
def gs(s3: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """The same for gs:// URLs: no server of Google's, but one that is asked as Google's is."""
    monkeypatch.setenv("GOOGLE_BASE_URL", s3.url)
    s3.google = True
    return s3


BOTH = pytest.mark.parametrize("scheme", ["s3", "gs"], indirect=True)


@pytest.fixture
def scheme(request: pytest.FixtureRequest) -> str:
    """s3, or what a test asks for; gs is spoken to a server of S3's protocol through a proxy."""
    return str(getattr(request, "param", "s3"))


@pytest.fixture
def place(scheme: str, request: pytest.FixtureRequest) -> ObjectPath:
    """A folder of a test's own in the bucket."""
    request.getfixturevalue(scheme)
    found = location(f"{scheme}://bucket/{uuid.uuid4().hex}")
    assert isinstance(found, ObjectPath)
    return found


@pytest.fixture(scope="session")
def drive() -> Callable[..., str]:
    """Run a driver of several nodes as a process of its own: drive(script, *words, timeout=seconds), its last line."""
    # Nothing of this session's Ray; a busy machine takes longer to start one than Ray thinks.
    environment = without_ray() | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
        "RAY_agent_register_timeout_ms": "200000",
        "RAY_raylet_start_wait_time_s": "100",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Under `uv run` each worker would build an environment of its own, where a driver imports Ray before us.
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }

    def run(script: Path, *words: str, timeout: float) -> str:
        # A folder of its own: who calls ray.init() on this machine meanwhile must not find these nodes. Sockets want
        # a short path.
        with TemporaryDirectory(prefix="ar", dir="/tmp", ignore_cleanup_errors=True) as ray:
            done = subprocess.run(
                [sys.executable, str(script), *words],
                capture_output=True, text=True, env=environment | {"RAY_TMPDIR": ray}, timeout=timeout, check=False,
            )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout.splitlines()[-1]

    return run


@pytest.fixture(scope="session")
def spectral() -> Callable[..., NDArray[np.float64]]:
    """Make a symmetric matrix with a prescribed spectrum and random eigenvectors: spectral(values, seed=0)."""

    def make(values: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
        eigenvalues = np.asarray(values, dtype=np.float64)
        n = len(eigenvalues)
        q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
        matrix = (q * eigenvalues) @ q.T
        return np.asarray((matrix + matrix.T) / 2)

    return make

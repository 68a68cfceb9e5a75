from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from advntk_dist.distributed import session
from advntk_dist.distributed.session import cluster_workers, ray_announced, ray_session
from advntk_dist.distributed.worker import import_path, worker_environment
from advntk_dist.errors import RequestError
from tests.conftest import Command

UNREACHABLE = """
from advntk_dist.errors import RequestError
from advntk_dist.distributed.session import ray_session
import ray
try:
    with ray_session("127.0.0.1:1"):
        raise SystemExit("connected")
except RequestError as error:
    assert error.exit_code == 2
    assert "127.0.0.1:1" in str(error) and "\\n" not in str(error), error
assert not ray.is_initialized()
print("refused")
"""


def test_ray_that_is_there_is_used_and_left_running(ray_cluster: None) -> None:
    with ray_session():
        assert cluster_workers() == (0, 2)
    assert ray.is_initialized()


def test_unreachable_address_is_one_clear_error() -> None:
    done = subprocess.run([sys.executable, "-c", UNREACHABLE], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "refused", done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize("address", ["user:planted@127.0.0.1:1", "ray://user:planted@127.0.0.1:1", "a:planted@auto"])
def test_credentials_in_an_address_are_not_repeated(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advntk: Command
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    code, out, err = advntk("run", "digits", "--out", tmp_path / "run", "--address", address)
    assert code == 2
    assert "--address: holds credentials" in err
    assert "planted" not in err + out
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file() and b"planted" in p.read_bytes()]


def test_ray_that_does_not_start_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(*address: object, **settings: object) -> None:
        raise Exception("The current node timed out during startup.\nMore of it.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", too_slow)
    refused = pytest.raises(RequestError, match=r"Ray does not start on this machine \(The current node timed out")
    with refused as caught, ray_session():
        raise AssertionError("there is none")
    assert "\n" not in str(caught.value)


def test_a_folder_for_temporary_files_with_too_long_a_name(tmp_path: Path) -> None:
    """Ray's sockets lie there; what the message says is done, and Ray starts."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    program = "from advntk_dist.distributed.session import ray_session\nwith ray_session(num_cpus=1): print('started')"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"TMPDIR": str(long)}

    def start(**more: str) -> subprocess.CompletedProcess[str]:
        command, env = [sys.executable, "-c", program], environment | more
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)

    refused = start()
    last = refused.stderr.strip().splitlines()[-1]
    assert "RequestError: Ray does not start on this machine (" in last
    assert last.endswith("; set RAY_TMPDIR to a folder with a short name, such as /tmp")
    assert start(RAY_TMPDIR="/tmp").stdout == "started\n"


def test_workers_import_from_where_the_driver_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folders = import_path().split(os.pathsep)
    assert str(tmp_path) in folders
    assert os.getcwd() in folders
    assert not [f for f in folders if f.startswith(sys.prefix)], "the worker's own installation comes first"


def test_environment_of_workers() -> None:
    alone = worker_environment(1, gpu=False)
    assert alone["NPROC"] == alone["OMP_NUM_THREADS"] == alone["OPENBLAS_NUM_THREADS"] == "1"
    assert alone["JAX_PLATFORMS"] == "cpu"
    assert "XLA_FLAGS" not in alone, "a user's stay"
    four = worker_environment(4, gpu=False)
    assert four["NPROC"] == "4"
    gpu = worker_environment(1, gpu=True)
    assert "JAX_PLATFORMS" not in gpu
    assert gpu["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(15)], ids=["SIGINT", "SIGTERM in Ray's handler"])
def test_an_interruption_while_ray_starts_stops_what_has_started(
    raised: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []

    def interrupted(*args: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray puts a handler of its own there
        raise raised

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: stopped.append("all"))
    monkeypatch.setattr(session, "_start_ray", interrupted)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), ray_session():
            pytest.fail("Ray did not start")
        assert stopped == ["all"]
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_start_of_ray_is_announced_to_who_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(session, "_start_ray", lambda *args: None)
    with ray_announced(said.append):
        with ray_session():
            pass
        with pytest.raises(RequestError), ray_session("127.0.0.1:1"):
            pytest.fail("nobody answers there")
    with ray_session():
        pass
    assert said == ["starting Ray", "joining the Ray cluster at 127.0.0.1:1"]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with ray_announced(said.append), ray_session():
        pass
    assert said[-1] == "starting Ray; RAY_ADDRESS is set and not used, --address joins a cluster"

"""A real Ray with its dashboard on loopback, token required; one for the whole session."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import pytest
import requests

from tests.conftest import FaultProxy, fault_proxy
from tests.terminal import Terminal, terminal

TOKEN = "planted-token-0123456789abcdef0123456789abcdef"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret-Zk3v",
    "AWS_ACCESS_KEY_ID": "PLANTEDKEYID77",
    "AWS_SESSION_TOKEN": "planted-session-token-Qm8x",
}

SMALL = (
    "--set", "data.n_train=60", "--set", "data.n_val=20", "--set", "data.n_test=20", "--set", "gram.tile=60",
    "--set", "network.name=mlp-2", "--set", "attack.steps=1", "--set", "train.steps=1", "--set", "train.batch=16",
    "--set", "train.recipe=paper", "--set", "evaluation.tier=none",
    "--set", "evaluation.times=[1e-2]", "--set", "gram.workers=1", "--set", "evaluation.workers=1",
)  # fmt: skip

IMAGES = 20 + 3 * 20 + 3 * 20
"""Attacked images of this run: one time on validation and test images, the NTK and Adv-NTK on test images, and three
methods over the radius."""


@dataclass(frozen=True)
class Head:
    """A running head: address of its dashboard, port of its metrics, folder of its logs."""

    dashboard: str
    metrics: int
    folder: Path
    runs: Path
    forks: Terminal

    def advntk(
        self, *words: str, timeout: float = 150, fresh: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A command on another machine, as it were: with the token, without the cluster's other secrets.

        In a process of its own, as Ray reads a token once; only a fresh one imports everything anew.
        """
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "ADVNTK_RUNS"))}
        env |= {"HOME": str(self.folder), "RAY_AUTH_TOKEN": TOKEN, "RAY_ADDRESS": "10.255.255.1:6379"} | environment
        if not fresh:
            process = self.forks.start("advntk_dist.cli", *words, environment=env)
            try:
                out, err = process.communicate(timeout)
            finally:
                process.kill()
            return subprocess.CompletedProcess(words, int(process.returncode or 0), out, err)
        return subprocess.run(
            [sys.executable, "-m", "advntk_dist", *words],
            env=env, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def scrape(self) -> dict[str, float]:
        """Our counters as Ray's own endpoint gives them to Prometheus, each summed over its labels."""
        found: dict[str, float] = {}
        text = requests.get(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10).text
        for name, value in re.findall(r"^(ray_advntk_\w+_total){.*} (\S+)$", text, re.MULTILINE):
            found[name] = found.get(name, 0.0) + float(value)
        return found


@contextmanager
def free_ports(n: int) -> Iterator[list[int]]:
    """Ports that nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        yield [s.getsockname()[1] for s in sockets]


@contextmanager
def running_head(
    forks: Terminal,
    runs: Path,
    ports: list[int] | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Head]:
    """Start a head that holds the planted secrets, with settings in its environment; end it with all its processes."""
    if ports is None:
        with free_ports(7) as found:
            ports = found
    gcs, dashboard, agent, agent_grpc, metrics, environment_agent, client = ports
    with TemporaryDirectory(prefix="ar", dir="/tmp", ignore_cleanup_errors=True) as name:  # sockets want a short path
        env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | SECRETS
        env |= {**settings} | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "HOME": name, "ADVNTK_RUNS": str(runs),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_prestart_worker_first_driver": "0",
            "RAY_metrics_report_interval_ms": "2000",  # what Prometheus is given is waited for
            # a busy machine takes longer than Ray thinks
            "RAY_agent_register_timeout_ms": "200000", "RAY_raylet_start_wait_time_s": "100",
        }  # fmt: skip
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2",
            "--node-ip-address=127.0.0.1", f"--port={gcs}", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
            f"--dashboard-agent-grpc-port={agent_grpc}", f"--metrics-export-port={metrics}",
            f"--runtime-env-agent-port={environment_agent}", f"--ray-client-server-port={client}",
            f"--object-store-memory={200 * 2**20}", f"--temp-dir={name}/ray",
            "--no-monitor", "--include-log-monitor=false",  # nothing here scales, and nobody reads logs
        ]  # fmt: skip
        with (Path(name) / "head.log").open("w") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        head = Head(f"http://127.0.0.1:{dashboard}", metrics, Path(name), runs, forks)
        try:
            _wait_until_it_takes_jobs(head, process)
            yield head
        finally:
            _end(process)


def _wait_until_it_takes_jobs(head: Head, process: subprocess.Popen[bytes], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            if requests.get(f"{head.dashboard}/api/jobs/", headers=headers, timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass
        time.sleep(0.3)
    raise AssertionError((head.folder / "head.log").read_text())


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the head to end its processes; what is left of its session is killed."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


@pytest.fixture(scope="session")
def forks() -> Iterator[Terminal]:
    modules = ("advntk_dist.cli", "advntk_dist.jobs.client", "advntk_dist.jobs.follow", "ray.job_submission")
    with terminal(*modules, RAY_AUTH_MODE="token") as found:
        yield found


@pytest.fixture(scope="session")
def store(s3_server: int) -> Iterator[FaultProxy]:
    """The object store of the head and its jobs."""
    with fault_proxy(s3_server) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory, store: FaultProxy, forks: Terminal) -> Iterator[Head]:
    settings = {"AWS_ENDPOINT_URL": store.url, "ADVNTK_STORE_PATIENCE": "2", "ADVNTK_STORE_TIMEOUT": "5"}
    with running_head(forks, tmp_path_factory.mktemp("runs"), settings=settings) as found:
        yield found


@dataclass(frozen=True)
class Submitted:
    """A small run that the cluster has done: what was printed, how it ended, what Prometheus was given then."""

    log: str
    state: dict[str, Any]
    counters: dict[str, float]


@pytest.fixture(scope="session")
def submitted(head: Head) -> Submitted:
    done = head.advntk(
        "submit", "digits", "--address", head.dashboard, *SMALL, "--follow", "--json", timeout=200, fresh=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deadline, counters = time.monotonic() + 30, head.scrape()
    # Ray hands metrics on every few seconds; images are the last that the run counts.
    while counters.get("ray_advntk_attack_images_total", 0.0) < IMAGES and time.monotonic() < deadline:
        time.sleep(1)
        counters = head.scrape()
    return Submitted(done.stderr, json.loads(done.stdout), counters)

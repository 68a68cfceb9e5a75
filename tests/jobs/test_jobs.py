"""What is submitted, and what is refused before anything is: no Ray is needed."""

from __future__ import annotations

import importlib.util
import os
import shlex
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from advntk_dist.config import load_config
from advntk_dist.errors import AdvNTKError, RequestError
from advntk_dist.jobs import client
from advntk_dist.jobs.client import JobServer
from advntk_dist.jobs.follow import JobState
from advntk_dist.jobs.job import Job, attempt_of, is_submission
from tests.conftest import Refused


def test_identity_is_that_of_the_run() -> None:
    job = Job.of("digits", [], "/runs/a")
    same = Job.of("digits", ["gram.workers=2", "solver.memory=1GiB"], "/runs/a")
    assert job.identity == same.identity
    assert job == Job.of("digits", [], "/runs/a/") == Job.of("digits", [], "/runs//a")
    assert Job.of("digits", [], "s3://b/a") == Job.of("digits", [], "s3://b/a/")
    others = [
        Job.of("digits", [], "/runs/b"),
        Job.of("digits", [], None),
        Job.of("digits", ["train.steps=3"], "/runs/a"),
    ]
    assert len({job.identity, *(other.identity for other in others)}) == 4
    assert is_submission(job.attempt(3))
    assert not is_submission("digits")
    assert attempt_of(job.attempt(12), job.identity) == 12
    assert attempt_of(job.attempt(12), others[0].identity) is None
    assert attempt_of("raysubmit_x", job.identity) is None


def test_configuration_travels_with_the_job(tmp_path: Path) -> None:
    file = tmp_path / "my run.toml"
    file.write_text("[data]\nn_train = 200\n")
    job = Job.of(str(file), ["train.steps=7"], "/shared/runs/my run")
    words = shlex.split(job.entrypoint)
    with job.folder() as folder:
        (found,) = Path(folder).iterdir()
        assert found.name == words[4] == "my-run.toml"
        assert load_config(found) == job.config
    assert job.config.train.steps == 7
    assert words[5:] == ["--out", "/shared/runs/my run", "--address", "auto", "--fetch"]
    assert str(tmp_path) not in job.entrypoint


def test_a_job_may_lie_in_an_object_store() -> None:
    job = Job.of("digits", [], "s3://bucket/runs/a")
    assert shlex.split(job.entrypoint)[5:] == ["--out", "s3://bucket/runs/a", "--address", "auto", "--fetch"]
    assert job.identity != Job.of("digits", [], "gs://bucket/runs/a").identity


def test_cluster_chooses_where_nobody_says() -> None:
    assert '--out "${ADVNTK_RUNS:-$HOME/runs}"/digits' in Job.of("digits", [], None).entrypoint


@pytest.mark.parametrize("out", ["s3://KEY:part/planted@bucket/run", "https://x/run?X-Amz-Signature=planted"])
def test_credentials_in_a_url_are_refused_unprinted(out: str) -> None:
    """Others are in tests/storage/test_location.py."""
    with pytest.raises(RequestError, match="--out: holds credentials") as refused:
        Job.of("digits", [], out)
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["digits", "--address", "ray://127.0.0.1:10001"], 2, "URL of the cluster's dashboard"),
        (["digits", "--address", "http://127.0.0.1:x"], 2, "URL of the cluster's dashboard"),
        (["digits", "--address", "http://user:planted@127.0.0.1:1"], 2, "--address: holds credentials"),
        (["digits", "--address", "user:planted@127.0.0.1:1"], 2, "--address: holds credentials"),
        (["digits", "--address", "user:planted@127.0.0.1:99999"], 2, "--address: holds credentials"),
        (["digits", "--address", "http://user:pass/planted@127.0.0.1:1"], 2, "--address: holds credentials"),
        (["digits", "--address", "127.0.0.1:1?token=planted"], 2, "--address: holds credentials"),
        (["digits", "--address", "http://127.0.0.1:1"], 2, "no Ray dashboard answers at http://127.0.0.1:1"),
        (["digits", "--address", "127.0.0.1:1", "--out", "runs/a"], 2, "--out runs/a: the nodes do not know"),
        (["digits", "--address", "127.0.0.1:1", "--out", "ftp://host/a"], 2, "s3://BUCKET/PATH"),
        (["digits", "--address", "http://no.such.host.invalid", "--out", "/r"], 2, "no.such.host"),
        (["digits", "--address", "http://127.0.0.1:1", "--status"], 2, "check --address and that the cluster is up"),
        (["nothing", "--address", "127.0.0.1:1"], 2, "no preset and no file 'nothing'"),
        (["digits", "--address", "127.0.0.1:1", "--set", "train.stepz=1"], 2, "train.stepz: no such key"),
        (["digits", "--address", "127.0.0.1:1", "--status", "--follow"], 2, "contradict each other"),
        ([f"advntk-{'0' * 16}-1", "--address", "127.0.0.1:1", "--out", "/a"], 2, "--out and --set belong to"),
        (["digits"], 2, "Missing option '--address'"),
    ],
)
def test_wrong_requests(words: list[str], code: int, says: str, refused: Refused) -> None:
    err = refused(code, "submit", *words)
    assert says in err
    assert "planted" not in err


def test_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "aiohttp" else found(name))
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(RequestError, match=r"advntk-dist\[cluster\]"):
        JobServer(f"127.0.0.1:{server.getsockname()[1]}")


def test_another_server_is_not_taken_for_ray() -> None:
    """A server that answers, but is no Ray: one line, with no secret of ours in it.

    In a process of its own: Ray reads a token once, and this one must not become that of the other tests.
    """

    def answer(server: socket.socket) -> None:
        for _ in range(2):  # the first connection only looks whether someone is there
            connection, _address = server.accept()
            with connection:
                if connection.recv(4096):
                    connection.sendall(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,), daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        words = [sys.executable, "-m", "advntk_dist", "submit", "digits", "--address", address]
        environment = os.environ | {"RAY_AUTH_TOKEN": "planted" * 5}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
        thread.join(10)
    assert done.returncode == 2
    assert done.stderr.startswith(f"advntk: {address}: is no Ray dashboard")
    assert len(done.stderr.splitlines()) == 1
    assert "planted" not in done.stderr + done.stdout


@dataclass
class _Cluster:
    """Says what a cluster would that refuses so often before it takes a job."""

    refusals: list[str]
    taken: list[str] = field(default_factory=list)

    def list_jobs(self) -> list[object]:
        return []

    def submit_job(self, *, submission_id: str, **_: object) -> str:
        if self.refusals:
            raise RuntimeError(f"Request failed with status code 500: {self.refusals.pop(0)}.")
        self.taken.append(submission_id)
        return submission_id


@pytest.mark.parametrize(
    ("refusals", "new", "taken"),
    [(["No available agent, please try again later"] * 2, True, 1), (["Job with that id already exists"], False, 0)],
)
def test_cluster_that_is_not_ready_or_has_the_job(
    refusals: list[str], new: bool, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_PAUSE", 0.01)
    server, job = JobServer.__new__(JobServer), Job.of("digits", [], "/runs/a")
    server.address, cluster = "http://head:8265", _Cluster(refusals)
    monkeypatch.setattr(server, "ray", cluster, raising=False)
    assert server.submit(job) == (job.attempt(1), new)
    assert len(cluster.taken) == taken


def test_cluster_that_never_gets_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAUSE", 0.01)
    monkeypatch.setattr(client, "_AGENT_SECONDS", 0.05)
    server = JobServer.__new__(JobServer)
    server.address = "http://head:8265"
    monkeypatch.setattr(server, "ray", _Cluster(["No available agent, please try again later"] * 99), raising=False)
    with pytest.raises(AdvNTKError, match=r"^http://head:8265: .*No available agent"):
        server.submit(Job.of("digits", [], "/runs/a"))


@pytest.mark.parametrize(
    ("status", "exit_code", "ours"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", 3, 3), ("FAILED", 137, 1), ("FAILED", None, 1)],
)
def test_exit_code_is_the_runs_own(status: str, exit_code: int | None, ours: int) -> None:
    assert JobState("advntk-0-1", status, exit_code, "").our_exit_code == ours

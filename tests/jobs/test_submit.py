"""advntk submit against a real Ray that wants a token: done, followed, counted, gone on with; no secret is printed."""

from __future__ import annotations

import json
import subprocess
import uuid
from fnmatch import fnmatch
from pathlib import Path

import pytest

from advntk_dist import metrics
from advntk_dist.pipeline.status import STAGES, run_status
from advntk_dist.storage.paths import ObjectPath, location
from tests.conftest import FaultProxy
from tests.jobs.conftest import IMAGES, SECRETS, SMALL, TOKEN, Head, Submitted, free_ports, running_head
from tests.terminal import Terminal
from tests.waiting import wait_until


def test_job_does_the_run_where_the_cluster_keeps_runs(head: Head, submitted: Submitted) -> None:
    assert submitted.state["status"] == "SUCCEEDED"
    assert submitted.state["exit_code"] == 0
    assert (head.runs / "digits" / "report.html").is_file()
    assert "report:" in submitted.log


def test_second_submission_goes_on(head: Head, submitted: Submitted) -> None:
    first = submitted.state["job"]
    done = head.advntk("submit", "digits", "--address", head.dashboard, *SMALL, "--follow")
    assert done.returncode == 0, done.stderr
    assert "finished before, nothing to do" in done.stdout
    assert first.endswith("-1")
    assert f"{first[:-1]}2: succeeded" in done.stdout
    asked = head.advntk("submit", first, "--address", head.dashboard, "--logs")
    assert "report:" in asked.stdout


def test_job_that_fails_exits_as_its_run_does(head: Head) -> None:
    """The folder of another configuration: the run says so on the cluster, and exits with 3."""
    folder = head.runs / "other"
    folder.mkdir()
    (folder / "config.toml").write_text("[data]\nn_train = 77\n")
    words = ("submit", "digits", "--address", head.dashboard, *SMALL, "--out", str(folder))
    done = head.advntk(*words, "--follow")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "data.n_train differs" in done.stdout
    assert "failed (exit code 3)" in done.stdout.splitlines()[-1]
    asked = head.advntk(*words, "--status", "--json")
    assert asked.returncode == 0
    assert json.loads(asked.stdout)["exit_code"] == 3


def test_stopped_job(head: Head) -> None:
    words = ("submit", "digits", "--address", head.dashboard, "--out", str(head.runs / "stopped"))
    started = head.advntk(*words, "--json")
    name = json.loads(started.stdout)["job"]
    again = head.advntk(*words, "--json")
    assert json.loads(again.stdout)["job"] == name, "a job that runs is not started twice"
    head.advntk("submit", name, "--address", head.dashboard, "--stop")
    asked = head.advntk("submit", name, "--address", head.dashboard, "--follow")
    assert asked.returncode == 1
    assert "stopped" in asked.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("token", "says"), [("z" * 48, "refuses the token"), ("", "wants a token")], ids=["wrong", "none"]
)
def test_token_is_wanted(head: Head, token: str, says: str) -> None:
    done = head.advntk("submit", "digits", "--address", head.dashboard, RAY_AUTH_TOKEN=token)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_job_that_the_cluster_does_not_know(head: Head) -> None:
    name = f"advntk-{'0' * 16}-1"
    done = head.advntk("submit", name, "--address", head.dashboard)
    assert done.returncode == 2
    assert f"knows no job {name}" in done.stderr


@pytest.fixture(scope="session")
def failed_in_a_store(head: Head, store: FaultProxy) -> subprocess.CompletedProcess[str]:
    """A job whose object store fails while tiles are written, and repeats in its answers what it was asked with."""
    store.fault = lambda method, path: "500" if method == "PUT" and "/gram.zarr/ntk/c/" in path else None
    words = ("submit", "digits", "--address", head.dashboard, *SMALL, "--out", f"s3://bucket/{uuid.uuid4().hex}/run")
    done = head.advntk(*words, "--follow", timeout=200)
    store.fault = lambda method, path: None
    assert all(secret.encode() in store.errors[-1] for name, secret in SECRETS.items() if "SECRET" not in name)
    return done


def test_job_whose_store_fails_says_so_in_one_line(failed_in_a_store: subprocess.CompletedProcess[str]) -> None:
    assert failed_in_a_store.returncode == 3, failed_in_a_store.stdout + failed_in_a_store.stderr
    (line,) = [line for line in failed_in_a_store.stdout.splitlines() if line.startswith("advntk: ")]
    assert "the object store does not answer as it should (HTTP 500 InternalError" in line
    assert line.endswith("nothing that was committed is lost: run the same command again to go on")


def test_no_secret_in_what_is_printed_or_written(
    head: Head, submitted: Submitted, failed_in_a_store: subprocess.CompletedProcess[str], s3: FaultProxy
) -> None:
    """In what commands print, runs and buckets hold, and Ray keeps of the session, whatever the file."""
    refused = head.advntk("submit", "digits", "--address", head.dashboard, RAY_AUTH_TOKEN=TOKEN[::-1])
    printed = [submitted.log, json.dumps(submitted.state)]
    printed += [text for done in (refused, failed_in_a_store) for text in (done.stdout, done.stderr)]
    files = [p for folder in (head.runs, head.folder) for p in folder.rglob("*") if p.is_file()]
    for expected in ("events.jsonl", "job-driver-*.log", "worker-*.out", "worker-*.err", "raylet.out", "raylet.err"):
        assert any(fnmatch(p.name, expected) for p in files), expected
    contents = {str(p): p.read_bytes() for p in files} | _objects()
    assert any(name.endswith("/run/events.jsonl") and name.startswith("s3:") for name in contents)
    for secret in (TOKEN, TOKEN[::-1], *SECRETS.values()):
        assert not any(secret in text for text in printed)
        assert [name for name, content in contents.items() if secret.encode() in content] == []


def _objects() -> dict[str, bytes]:
    """All that lies in the bucket."""
    import obstore

    bucket = location("s3://bucket")
    assert isinstance(bucket, ObjectPath)
    keys = [entry["path"] for entry in obstore.list(bucket.store).collect()]
    return {str(bucket / key): (bucket / key).read_bytes() for key in keys}


@pytest.mark.cluster
def test_job_whose_head_dies_goes_on_when_submitted_again(tmp_path: Path, forks: Terminal) -> None:
    paper = ("--set", "train.recipe=paper", "--set", "train.steps=3")
    words = ("submit", "digits", "--set", "gram.tile=50", *paper, "--follow")
    with free_ports(7) as ports:
        pass
    with running_head(forks, tmp_path, ports) as first:
        begun = first.advntk(*words[:-1], "--address", first.dashboard)
        assert begun.returncode == 0, begun.stderr
        log = tmp_path / "digits" / "events.jsonl"
        wait_until(lambda: log.exists() and log.read_text().count('"event": "tile"') >= 3, 120, "no tiles came")
    lost = first.advntk(*words, "--address", first.dashboard)
    assert lost.returncode == 2
    assert "no Ray dashboard answers" in lost.stderr
    with running_head(forks, tmp_path, ports) as second:
        done = second.advntk(*words, "--address", second.dashboard, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in (tmp_path / "digits" / "events.jsonl").read_text().splitlines()]
    assert sum(e["event"] == "run begins" for e in events) == 2
    tiles = [(e["receipt"]["i"], e["receipt"]["j"]) for e in events if e["event"] == "tile"]
    assert len(tiles) - len(set(tiles)) <= 2, "committed tiles are not computed again, but for events a kill cut short"


def test_prometheus_is_given_what_was_done(submitted: Submitted) -> None:
    """One tile of 60 x 60 float32 with its checksum, each image once; nothing had to be done again."""
    # What else ends in _total is a gauge, and comes and goes with the build.
    counters = {f"ray_{name}_total" for name in metrics.COUNTERS}
    found = {name: value for name, value in submitted.counters.items() if name in counters}
    assert found.pop("ray_advntk_passes_total") >= 1
    assert found == {
        "ray_advntk_tiles_total": 1.0, "ray_advntk_tile_bytes_total": 4.0 * 60 * 60 + 4,
        "ray_advntk_attack_images_total": float(IMAGES),
    }  # fmt: skip


def test_stages_are_those_of_a_run(submitted: Submitted, head: Head) -> None:
    found = run_status(head.runs / "digits")
    assert found.finished
    assert set(found.stages.values()) == {"done"}
    assert (found.tiles, found.steps, found.images) == (found.tiles_total, found.steps_total, found.images_total)
    events = [json.loads(line) for line in (head.runs / "digits" / "events.jsonl").read_text().splitlines()]
    assert {e["stage"] for e in events if "stage" in e} == set(STAGES)

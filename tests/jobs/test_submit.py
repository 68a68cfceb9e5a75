"""advntk submit against a real Ray that wants a token: done, followed, counted, gone on with; no secret is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advntk_dist import metrics
from advntk_dist.pipeline.status import STAGES, run_status
from tests.jobs.conftest import IMAGES, SECRETS, SMALL, TOKEN, Head, Submitted, free_ports, running_head


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


def test_no_secret_in_what_is_printed_or_written(head: Head, submitted: Submitted) -> None:
    refused = head.advntk("submit", "digits", "--address", head.dashboard, RAY_AUTH_TOKEN=TOKEN[::-1])
    printed = [submitted.log, json.dumps(submitted.state), refused.stdout, refused.stderr]
    files = [p for p in head.runs.rglob("*") if p.is_file()]
    files += [p for p in (head.folder / "ray").rglob("*.log") if p.is_file()]
    assert any(p.name == "events.jsonl" for p in files)
    assert any(p.name.startswith("job-driver-") for p in files)
    for secret in (TOKEN, TOKEN[::-1], *SECRETS.values()):
        assert not any(secret in text for text in printed)
        assert [p for p in files if secret.encode() in p.read_bytes()] == []


@pytest.mark.cluster
def test_job_whose_head_dies_goes_on_when_submitted_again(tmp_path: Path) -> None:
    paper = ("--set", "train.recipe=paper", "--set", "train.steps=3")
    words = ("submit", "digits", "--set", "gram.tile=50", *paper, "--follow")
    with free_ports(7) as ports:
        pass
    with running_head(tmp_path, ports) as first:
        begun = first.advntk(*words[:-1], "--address", first.dashboard)
        assert begun.returncode == 0, begun.stderr
        _wait_for_tiles(tmp_path / "digits" / "events.jsonl", 3)
    lost = first.advntk(*words, "--address", first.dashboard)
    assert lost.returncode == 2
    assert "no Ray dashboard answers" in lost.stderr
    with running_head(tmp_path, ports) as second:
        done = second.advntk(*words, "--address", second.dashboard, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in (tmp_path / "digits" / "events.jsonl").read_text().splitlines()]
    assert sum(e["event"] == "run begins" for e in events) == 2
    tiles = [(e["receipt"]["i"], e["receipt"]["j"]) for e in events if e["event"] == "tile"]
    assert len(tiles) - len(set(tiles)) <= 2, "committed tiles are not computed again, but for events a kill cut short"


def _wait_for_tiles(events: Path, n: int, seconds: float = 120) -> None:
    import time

    deadline = time.monotonic() + seconds
    while not events.exists() or events.read_text().count('"event": "tile"') < n:
        assert time.monotonic() < deadline, "no tiles came"
        time.sleep(0.2)


def test_prometheus_is_given_what_was_done(submitted: Submitted) -> None:
    """One tile of 60 x 60 float32 with its checksum, each image once; nothing had to be done again."""
    # What else ends in _total is a gauge, and comes and goes with the build.
    found = {name: value for name, value in submitted.counters.items() if name in metrics.exported()}
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

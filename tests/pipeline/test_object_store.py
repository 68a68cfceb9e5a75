"""A whole run in an object store: the numbers of a local one, resumable, and without secrets."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from advntk_dist.errors import StoreUnreachableError
from advntk_dist.pipeline.directory import RunDirectory
from advntk_dist.pipeline.run import run
from advntk_dist.pipeline.status import run_status
from advntk_dist.progress import Display
from advntk_dist.storage.locks import exclusive_lock
from advntk_dist.storage.paths import ObjectPath, location
from tests.pipeline.conftest import Command, comparable, results_of, small

if TYPE_CHECKING:
    from tests.conftest import FaultProxy

QUIET = Display(quiet=True)


def everything(folder: ObjectPath) -> dict[str, bytes]:
    import obstore

    keys = [entry["path"] for entry in obstore.list(folder.store, f"{folder.key}/").collect()]
    return {key: ObjectPath(folder.scheme, folder.bucket, key).read_bytes() for key in keys}


def put(folder: Path, url: str) -> None:
    """What a folder holds, at a URL: a run is the same files wherever it lies."""
    for file in folder.rglob("*"):
        if file.is_file():
            location(url).joinpath(*file.relative_to(folder).parts).write_bytes(file.read_bytes())


@pytest.mark.parametrize("scheme", ["s3", pytest.param("gs", marks=pytest.mark.slow)])
def test_a_run_that_an_outage_ends_goes_on(
    scheme: str,
    request: pytest.FixtureRequest,
    finished: Path,
    filled: Path,
    s3: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    advntk: Command,
) -> None:
    request.getfixturevalue(scheme)
    url = f"{scheme}://bucket/{uuid.uuid4().hex}/run"
    local = results_of(finished)
    put(filled, url)

    # The store goes away when the second step of the training is committed, and stays away.
    def fault(method: str, path: str) -> str | None:
        s3.out = s3.out or (method == "PUT" and "/train.zarr/state/c/2/" in path)
        return "drop" if s3.out else None

    s3.fault = fault
    monkeypatch.setenv("ADVNTK_STORE_PATIENCE", "1")
    with pytest.raises(StoreUnreachableError, match=rf"{url}/train.zarr/state/c/2/0: .*run the same command") as caught:
        run(small(), url, display=QUIET)
    assert caught.value.exit_code == 3
    s3.out, s3.fault = False, lambda method, path: None
    monkeypatch.setenv("ADVNTK_STORE_PATIENCE", "30")
    folder = RunDirectory.at(url)
    assert isinstance(folder.root, ObjectPath)
    assert not run_status(url).finished
    assert (folder.root / ".lock").exists(), "the lease could not be given back"
    s3.seen.clear()
    outcome = run(small(), url, display=QUIET)
    assert outcome.worked
    assert comparable(outcome.results) == comparable(local)
    written = [path for method, path in s3.seen if method == "PUT"]
    assert not [path for path in written if "/gram.zarr/ntk" in path], "the Gram matrix was there"
    assert not [path for path in written if "/train.zarr/state/c/1/" in path], "and the first step"
    assert [path for path in written if "/train.zarr/state/c/2/" in path]
    assert written.count(f"/bucket/{folder.root.key}/events.jsonl") < 40, "events are put now and then, not one by one"

    status = run_status(url)
    assert status.finished
    assert (status.tiles, status.steps) == (status.tiles_total, status.steps_total)
    before = everything(folder.root)
    assert {name for name in before if name.endswith((".svg", ".csv"))} == {
        f"{folder.root.key}/{p.name}" for p in finished.iterdir() if p.suffix in (".svg", ".csv")
    }
    events = [json.loads(line)["event"] for line in folder.events.read_text().splitlines()]
    assert events.count("run begins") == 2
    assert events[-1] == "run ends"
    s3.seen.clear()
    assert not run(small(), url, display=QUIET).worked
    assert {path for method, path in s3.seen if method == "PUT"} == {f"/bucket/{folder.root.key}/.lock"}
    assert everything(folder.root) == before
    for name, content in before.items():
        for secret in (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]):
            assert secret.encode() not in content, name

    # The other commands take the URL as well.
    assert f"{url}: finished" in advntk("status", url)[1]
    assert advntk("gram", "status", url)[0] == 0
    assert f"{url}/gram.zarr: 6 tiles are sound" in advntk("gram", "verify", f"{url}/gram.zarr")[1]
    with exclusive_lock(folder.root / ".lock", folder.root, "busy"):
        code, _, err = advntk("report", url)
    assert code == 1
    assert "another process is working on this run" in err


@pytest.mark.slow
def test_every_command_on_a_finished_run_takes_its_url(finished: Path, s3: FaultProxy, advntk: Command) -> None:
    url = f"s3://bucket/{uuid.uuid4().hex}/run"
    put(finished, url)
    root, said = location(url), ""
    for command, written in (
        (("status", url), None),
        (("gram", "info", url), None),
        (("gram", "verify", url), None),
        (("report", url), "report.html"),
        (("evaluate", url, "--set", "steps=1"), "results-pgd_linf_r0.2_s0.04_n1_seed0_margin.json"),
        (("evaluate", url, "--tier", "fast", "--images", "8"), "evaluation/fast_linf_r0.2_seed0_images8.json"),
        (("dynamics", url, "--images", "16"), "dynamics.svg"),
        (("report", "--compare", url, str(finished), "--out", f"{url}/comparison.html"), "comparison.html"),
    ):
        if written is not None:
            root.joinpath(*written.split("/")).unlink(missing_ok=True)
        code, out, err = advntk(*command)
        assert code == 0, err
        said += out
        assert written is None or root.joinpath(*written.split("/")).is_file()
    assert advntk("check", url, "--images", "8")[0] in (0, 1), "the verdict of so few images is open"
    assert (root / "check.json").is_file()
    assert "s3://" in said

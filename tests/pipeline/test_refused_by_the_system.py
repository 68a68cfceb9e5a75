"""What the operating system refuses ends a command in one line that says where, why, and how to go on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.pipeline.evaluate import check_run, evaluate_again
from advntk_dist.pipeline.run import rebuild_report
from advntk_dist.pipeline.tier import evaluate_run_tier
from advntk_dist.progress import Display
from advntk_dist.storage import durable
from tests.pipeline.conftest import Command, Refused, command_of, results_of
from tests.waiting import wait_until

QUIET = Display(quiet=True)


def test_a_name_that_is_too_long(refused: Refused, tmp_path: Path) -> None:
    assert "give a shorter name" in refused(2, *command_of(tmp_path / ("x" * 300)))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_the_results(advntk: Command, refused: Refused, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "results.json").unlink()
    (run / "results.json").mkdir()
    for command in (command_of(run), ("report", run), ("check", run)):
        assert "results.json: Is a directory; a folder is in the way; move it away, and" in refused(3, *command)
    (run / "results.json").rename(tmp_path / "away")
    _ends_like(finished, run, advntk)


@pytest.mark.parametrize("writes", [3, 12, 40, 60, 80, 120])
def test_a_full_disk(
    advntk: Command, refused: Refused, filled: Path, finished: Path, tmp_path: Path, writes: int, monkeypatch: Any
) -> None:
    """In every stage, as no space is left after so many files."""
    run, left, write = shutil.copytree(filled, tmp_path / "run"), [writes], durable.write_flushed

    def flushed(path: Path, payload: Sequence[bytes | memoryview]) -> None:
        left[0] -= 1
        if left[0] < 0:
            path.write_bytes(b"begun")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, payload)

    with monkeypatch.context() as full:
        full.setattr(durable, "write_flushed", flushed)
        said = refused(1, "-q", *command_of(run))
    assert "No space left on device; free some space; nothing that was committed is lost, go on with: advntk" in said
    wait_until(lambda: not list(run.rglob("*.partial")), why="what was begun is not removed")  # zarr writes in threads
    _ends_like(finished, run, advntk)


@pytest.fixture
def read_only(finished: Path, tmp_path: Path, quick_tiers: None) -> Iterator[Path]:
    """The finished run, attacked and examined, on a file system that cannot be written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        run = shutil.copytree(finished, disk / "run")
        evaluate_again(run, "fgsm", display=QUIET)
        evaluate_run_tier(run, "standard", images=5, display=QUIET)
        check_run(run, images=5, display=QUIET)
        rebuild_report(run, display=QUIET)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield disk / "run"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_finished_run_is_read_where_nothing_can_be_written(
    advntk: Command, refused: Refused, read_only: Path, finished: Path, tmp_path: Path
) -> None:
    page, said = tmp_path / "page.html", ""
    for command in (
        command_of(read_only),
        ("report", read_only),
        ("report", "--compare", read_only, finished, "--out", page),
        ("status", read_only),
        ("evaluate", read_only, "--attack", "fgsm"),
        ("evaluate", read_only, "--tier", "standard", "--images", "5", "--method", "ntk"),
        ("check", read_only, "--images", "5"),
    ):
        code, out, _ = advntk("-q", *command)
        assert code in ((0, 1) if command[0] == "check" else (0,)), command
        said += out
    assert "adv_ntk" in said
    assert page.is_file()
    others = ("check", "--images", "6"), ("evaluate", "--attack", "apgd"), ("evaluate", "--tier", "full")
    for name, *more in others:
        assert "cannot be written ([Errno 30] Read-only file system" in refused(2, "-q", name, read_only, *more)


def _ends_like(finished: Path, run: Path, advntk: Command) -> None:
    assert advntk("-q", *command_of(run))[0] == 0
    found, expected = (results_of(folder) for folder in (run, finished))
    assert found["methods"] == expected["methods"]

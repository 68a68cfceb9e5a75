"""What the operating system refuses ends a command in one line that says where, why, and how to go on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.cli import main
from advntk_dist.pipeline.check import check_run
from advntk_dist.pipeline.evaluate import evaluate_again
from advntk_dist.pipeline.run import rebuild_report
from advntk_dist.pipeline.tier import evaluate_run_tier
from advntk_dist.progress import Display
from advntk_dist.storage import durable
from tests.waiting import wait_until

QUIET = Display(quiet=True)

Call = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Call:
    """The one line in which a command ends."""

    def call(*arguments: str, code: int) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(["-q", *arguments])
        err = capsys.readouterr().err
        assert stopped.value.code == code, err
        assert err.startswith("advntk: ")
        assert err.count("\n") == 1
        return err

    return call


@pytest.fixture
def words(small_settings: tuple[str, ...]) -> list[str]:
    return [word for setting in small_settings for word in ("--set", setting)]


def test_a_name_that_is_too_long(refused: Call, words: list[str], tmp_path: Path) -> None:
    assert "give a shorter name" in refused("run", "digits", "--out", str(tmp_path / ("x" * 300)), *words, code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_the_results(refused: Call, words: list[str], finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "results.json").unlink()
    (run / "results.json").mkdir()
    for command in (("run", "digits", "--out", str(run), *words), ("report", str(run)), ("check", str(run))):
        assert "results.json: Is a directory; a folder is in the way; move it away, and" in refused(*command, code=3)
    (run / "results.json").rename(tmp_path / "away")
    _ends_like(finished, run, words)


@pytest.mark.parametrize("writes", [3, 12, 40, 60, 80, 120])
def test_a_full_disk(
    refused: Call, words: list[str], filled: Path, finished: Path, tmp_path: Path, writes: int, monkeypatch: Any
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
        said = refused("run", "digits", "--out", str(run), *words, code=1)
    assert "No space left on device; free some space; nothing that was committed is lost, go on with: advntk" in said
    wait_until(lambda: not list(run.rglob("*.partial")), why="what was begun is not removed")  # zarr writes in threads
    _ends_like(finished, run, words)


@pytest.fixture
def read_only(finished: Path, tmp_path: Path) -> Iterator[Path]:
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
    refused: Call, words: list[str], read_only: Path, finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    for command in (
        ("run", "digits", "--out", str(read_only), *words),
        ("report", str(read_only)),
        ("report", "--compare", str(read_only), str(finished), "--out", str(page)),
        ("status", str(read_only)),
        ("evaluate", str(read_only), "--attack", "fgsm"),
        ("evaluate", str(read_only), "--tier", "standard", "--images", "5", "--method", "ntk"),
        ("check", str(read_only), "--images", "5"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["-q", *command])
        assert stopped.value.code in ((0, 1) if command[0] == "check" else (0, None)), command
    assert "adv_ntk" in capsys.readouterr().out
    assert page.is_file()
    others = ("check", "--images", "6"), ("evaluate", "--attack", "apgd"), ("evaluate", "--tier", "full")
    for command in ((name, str(read_only), *more) for name, *more in others):
        assert "cannot be written ([Errno 30] Read-only file system" in refused(*command, code=2)


def _ends_like(finished: Path, run: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["-q", "run", "digits", "--out", str(run), *words])
    assert not stopped.value.code
    found, expected = (json.loads((folder / "results.json").read_text()) for folder in (run, finished))
    assert found["methods"] == expected["methods"]

"""What the operating system refuses ends a command in one line that says where, why, and how to go on."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.cli import main
from advntk_dist.storage import direct_io, durable
from tests.waiting import wait_until

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
    run, left, write = shutil.copytree(filled, tmp_path / "run"), [writes], direct_io.write_flushed

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


def _ends_like(finished: Path, run: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["-q", "run", "digits", "--out", str(run), *words])
    assert not stopped.value.code
    found, expected = (json.loads((folder / "results.json").read_text()) for folder in (run, finished))
    assert found["methods"] == expected["methods"]

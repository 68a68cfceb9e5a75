"""A service of Ray that dies under a command ends it in one line that says how to go on, and that does."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path

import psutil
import pytest

from advntk_dist.gram import GramStore
from tests.terminal import Terminal, setting_words
from tests.waiting import wait_until

SETTINGS = ("data.n_train=1400", "data.n_val=40", "data.n_test=40", "network.name=mlp-2", "gram.tile=8")
"""More tiles than are computed before the service is killed."""


def service(pid: int, name: str) -> psutil.Process | None:
    """The service of Ray that a command has started."""
    found = [p for p in psutil.Process(pid).children(recursive=True) if p.name() == name]
    return found[0] if found else None


@pytest.mark.parametrize("name", ["raylet", pytest.param("gcs_server", marks=pytest.mark.slow)])
def test_the_command_says_how_to_go_on(forks: Terminal, tmp_path: Path, name: str) -> None:
    arguments = ["gram", "build", "digits", "--out", str(tmp_path / "run"), *setting_words(SETTINGS)]
    process = forks.start("advntk_dist.cli", *arguments)
    events = tmp_path / "run" / "events.jsonl"
    wait_until(lambda: events.exists() and '"event": "tile"' in events.read_text(), seconds=90)
    victim = service(process.pid, name)
    assert victim is not None
    victim.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert "of Ray on this machine has died" in last
    again = last.partition("go on with: ")[2]
    assert shlex.split(again) == ["advntk", *arguments]
    tiles = GramStore.open(tmp_path / "run" / "gram.zarr").status()
    assert 0 < tiles.done < tiles.total

"""Completion as a shell asks for it, and the scripts that make it ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import Command

PROGRAM = "import sys; from advntk_dist.cli import main; main(); "


def asked(line: str) -> dict[str, str]:
    """The environment in which bash asks for the last word of a line."""
    return {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_ADVNTK_COMPLETE": "bash_complete"}


def test_a_process_completes_a_word() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | asked("advntk run dig"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("plain,digits\n", "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("advntk pl", ["plain,plan"]),
        ("advntk run dig", ["plain,digits"]),
        ("advntk plan cifar10-c", ["plain,cifar10-cnn3"]),
        ("advntk gram build dig", ["plain,digits"]),
        ("advntk run pap", ["plain,paper/"]),
        ("advntk run paper/svhn-cnn-10-r", ["plain,paper/svhn-cnn-10-r4", "plain,paper/svhn-cnn-10-r8"]),
        ("advntk finite-width cifar10-s", ["plain,cifar10-small"]),
        ("advntk run mine.to", ["file,mine.to"]),
        ("advntk data fetch fash", ["plain,fashion-mnist"]),
        ("advntk plan digits --save", ["plain,--save-calibration"]),
    ],
)
def test_words_are_completed(line: str, expected: list[str], advntk: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in asked(line).items():
        monkeypatch.setenv(name, value)
    _, out, err = advntk()
    assert (out.splitlines(), err) == (expected, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_command_and_the_variable(shell: str, advntk: Command) -> None:
    code, out, _ = advntk("completion", shell)
    assert code == 0
    assert f"_ADVNTK_COMPLETE={shell}_complete" in out
    assert "advntk" in out
    if shutil.which(shell):
        # The shell must be able to read it; `complete` and `compdef` themselves need an interactive one.
        subprocess.run([shell, "-n"], input=out, text=True, check=True, timeout=60)

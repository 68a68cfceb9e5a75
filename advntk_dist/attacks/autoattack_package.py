"""The packages behind AutoAttack: whether they are there, which, and what they print."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

from advntk_dist.errors import RequestError

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The parts of its standard version, in order."""
LEAST_OUTPUTS = 10
"""Outputs that its standard version needs: it moves towards nine other classes, whether there are so many or not."""
_FLAG = "Warning: "


def packages() -> tuple[Any, Any]:
    """The modules ``torch`` and ``autoattack``; RequestError, which says how to get them, where one is missing."""
    try:
        return importlib.import_module("torch"), importlib.import_module("autoattack")
    except ImportError as error:
        raise RequestError(
            f"attack: AutoAttack is not installed ({error}); pip install torch git+https://github.com/fra31/auto-attack"
        ) from error


def package_versions() -> dict[str, str | None]:
    """Versions of both packages, and what tells one state of AutoAttack's code from another: it has no releases."""
    torch, package = packages()
    try:
        version: str | None = metadata.version("autoattack")
    except metadata.PackageNotFoundError:  # its folder is on the path, and nothing is installed
        version = None
    code = hashlib.sha256()
    for file in sorted(Path(package.__file__).parent.glob("*.py")):
        code.update(file.name.encode() + b"\0" + file.read_bytes())
    return {"torch": str(torch.__version__), "autoattack": version, "autoattack_sha256": code.hexdigest()}


def check_outputs(outputs: int) -> None:
    """Raise RequestError where the standard version cannot run on a predictor of so many outputs."""
    if outputs < LEAST_OUTPUTS:
        raise RequestError(
            f"attack: AutoAttack's standard version moves towards 9 other classes, and the predictor has {outputs} "
            'outputs; use tier full, or version "custom" with attacks that need no targets'
        )


@contextlib.contextmanager
def heard(on_flag: Callable[[str], None], *, show: bool = False) -> Iterator[None]:
    """Tell the warnings among the lines that it prints, which reach standard output only if they are to be shown."""
    listener = _Listener(sys.stdout if show else None)
    with contextlib.redirect_stdout(listener):
        yield
    for line in listener.getvalue().splitlines():
        if line.startswith(_FLAG):
            on_flag(line.removeprefix(_FLAG))


class _Listener(io.StringIO):
    def __init__(self, through: TextIO | None) -> None:
        super().__init__()
        self._through = through

    def write(self, text: str) -> int:
        if self._through is not None:
            self._through.write(text)
        return super().write(text)


def square_flag(accuracies: Mapping[str, float], on_flag: Callable[[str], None]) -> None:
    """Its own check of the whole result: whether Square has felled what its attacks with gradients have left.

    Parameters
    ----------
    accuracies
        "clean", and what was left after each part, in order.
    on_flag
        Called with what it says, if anything.
    """
    with heard(on_flag):
        importlib.import_module("autoattack.checks").check_square_sr(
            dict(accuracies), logger=SimpleNamespace(log=print)
        )

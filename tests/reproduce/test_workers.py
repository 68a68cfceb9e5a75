"""Cells on Ray actors, and the progress of each: the numbers are those of one process."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from advntk_dist.evaluation import remote
from advntk_dist.evaluation.evaluator import InProcess
from advntk_dist.networks import Network
from advntk_dist.pipeline import coefficients, stages
from advntk_dist.predictor import KernelPredictor
from advntk_dist.progress import Display
from advntk_dist.reproduce.grid import METHODS, Grid, Sizes
from advntk_dist.reproduce.job import reproduce
from tests.filled import matrices_filled_here

from . import TABLES, command, request

BATCHES = ("--n-test", "300", "--attack", "pgd")

pytestmark = pytest.mark.usefixtures("matrices_filled")


@pytest.fixture(scope="module")
def several_batches(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid with two full batches of test images, and one that is not, attacked in one process."""
    out = tmp_path_factory.mktemp("serial")
    with matrices_filled_here():
        assert command(*request(archive, out), *BATCHES, "--method", "ntk") == 0
    return out


SOME = {"seconds": 0, "checksum": ""}
"""What two computations of a cell do not share."""


def events(folder: Path) -> list[str]:
    """Names of what happened in each run, in order."""
    paths = sorted(folder.glob("runs/**/events.jsonl"))
    assert paths
    return [json.loads(line)["event"] for path in paths for line in path.read_text().splitlines()]


def same_with_workers(serial: Path, archive: Path, out: Path, methods: str) -> int:
    """Cells of a grid whose batches went to two workers; the grid in one process has the same numbers."""
    assert command(*request(archive, out), *BATCHES, "--method", methods, "--workers", "2") == 0
    for name in TABLES:
        assert (out / name).read_text() == (serial / name).read_text()
    paths = [path.relative_to(out) for path in sorted(out.glob("cells/*/*.json"))]
    for path in paths:
        there, here = (json.loads((folder / path).read_text()) for folder in (out, serial))
        assert there | SOME == here | SOME
    assert events(out).count("evaluator_started") >= 2
    assert "evaluator_started" not in events(serial)
    return len(paths)


def test_workers_give_the_same_numbers(several_batches: Path, archive: Path, tmp_path: Path, ray_cluster: None) -> None:
    assert same_with_workers(several_batches, archive, tmp_path, "ntk") == 2


@pytest.mark.slow
def test_workers_that_make_way_for_training_give_the_same_numbers(
    archive: Path, tmp_path: Path, ray_cluster: None
) -> None:
    assert command(*request(archive, tmp_path / "serial"), *BATCHES, "--method", "ntk,adv-ntk") == 0
    assert same_with_workers(tmp_path / "serial", archive, tmp_path / "spread", "ntk,adv-ntk") == 3


class Here:
    """A pool without actors: what a real one gives is held to one process above."""

    def __init__(self, net: Network, x_train: Any, batch: int, **_: Any) -> None:
        self.make = partial(KernelPredictor, net, x_train, batch=batch)

    def evaluator(self, coefficients: Callable[[], Any], x: Any, y: Any) -> InProcess:
        return InProcess(lambda: self.make(coefficients()), x, y)

    def release(self) -> None:
        """There is nothing to release."""

    close = release


def test_the_address_reaches_matrix_operator_and_workers(
    several_batches: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str | None] = {}

    def told(name: str, real: Any, *arguments: Any, address: str | None, **more: Any) -> Any:
        seen[name] = address
        return real(*arguments, **more)

    monkeypatch.setattr(remote, "EvaluationPool", Here)
    for where, name in ((stages, "build_gram"), (coefficients, "operator_for_store"), (remote, "EvaluationPool")):
        monkeypatch.setattr(where, name, partial(told, name, getattr(where, name)))
    assert command(*request(archive, tmp_path), *BATCHES, "--method", "ntk", "--address", "head:10001") == 0
    assert seen == dict.fromkeys(("build_gram", "operator_for_store", "EvaluationPool"), "head:10001")
    name = "r40-pgd-ntk.json"
    there, here = (json.loads(next(f.glob(f"cells/*/{name}")).read_text()) for f in (tmp_path, several_batches))
    assert there | SOME == here | SOME


def test_progress_of_every_cell_is_shown(archive: Path, tmp_path: Path) -> None:
    """In a pipe; tests/test_progress.py has the bars of a terminal."""
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=False, width=200, highlight=False))
    sizes = Sizes(60, 20, 20, 10)
    reproduce(Grid([str(archive)], ["mlp-2"], METHODS, [40], 1, sizes, ["pgd"]), tmp_path, display=display)
    for title, count, unit in (
        ("Gram matrix", "1/1", "tiles"),
        ("ntk pgd r40", "20/20", "images"),
        ("early-stopped pgd r40", "220/220", "images"),
        ("adv-ntk pgd r40, training", "50/50", "steps"),
        ("at pgd r40, training", "10/10", "steps"),
        ("at pgd r40", "20/20", "images"),
    ):
        assert f"{title}: {count} {unit}" in out.getvalue()
    assert "steps/s" in out.getvalue()

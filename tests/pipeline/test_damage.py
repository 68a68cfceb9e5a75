"""Whatever happens to one file of a run, the same command ends with the undisturbed results, or a remedy does."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.config import RunConfig
from advntk_dist.errors import StoreError
from advntk_dist.pipeline.run import RunOutcome, rebuild_report, run
from advntk_dist.progress import Display
from tests.filled import fill_matrices_here
from tests.pipeline.conftest import small

QUIET = Display(quiet=True)
DERIVED = ("attack", "methods", "paired", "curve")
"""What results.json says of outcomes."""


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def _cut(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(max(1, path.stat().st_size))])


HARMS: dict[str, Callable[[Path, random.Random], object]] = {
    "bit": _flip,
    "cut": _cut,
    "emptied": lambda path, _: path.write_bytes(b""),
    "deleted": lambda path, _: path.unlink(),
}


@pytest.fixture(scope="module")
def undisturbed(finished: Path) -> dict[str, Any]:
    return run(small(), finished, display=QUIET).results


@pytest.fixture(scope="module")
def half_done(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a kill in its training leaves it."""
    folder = tmp_path_factory.mktemp("half") / "run"
    shutil.copytree(finished, folder)
    for name in ("results.json", "report.html"):
        (folder / name).unlink()
    for path in (*folder.glob("*.svg"), *folder.glob("*.csv")):
        path.unlink()
    for outcomes in folder.glob("evaluation.zarr/*/test_*"):
        shutil.rmtree(outcomes)
    for table, rows in (("varpi", (3, 4)), ("state", (3, 4)), ("history", (2, 3))):
        for row in rows:
            for chunk in (
                folder / "train.zarr" / table / "c" / str(row),
                folder / f"train.zarr/commits/{table}/c/{row}",
            ):
                shutil.rmtree(chunk) if chunk.is_dir() else chunk.unlink()
    shutil.rmtree(folder / "dynamics.zarr" / "adv_ntk")
    return folder


def files(folder: Path) -> list[Path]:
    """A file of every kind: those whose paths differ in numbers alone are of one kind."""
    found = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".lock"))
    return list({re.sub(r"\d+", "#", str(path)): path for path in found}.values())


def finish(folder: Path, config: RunConfig) -> RunOutcome:
    """Run until it ends, following what a message says."""
    for _ in range(16):
        try:
            return run(config, folder, display=QUIET)
        except StoreError as error:
            place = Path(str(error).split(": ")[0])
            if "advntk report" in str(error):
                rebuild_report(folder, display=QUIET)
            elif "move it away" in str(error):
                place.rename(place.with_name(f"{place.name}.away"))
            else:
                raise
    raise AssertionError("the remedies do not help")


@pytest.mark.parametrize(
    "alone", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])], ids=["together", "alone"]
)
@pytest.mark.parametrize("start", ["finished", "half_done"])
def test_files_of_every_kind_are_harmed(
    start: str,
    alone: bool,
    request: pytest.FixtureRequest,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twelve files in one run, each in one way; or each alone in every way."""
    source: Path = request.getfixturevalue(start)
    fill_matrices_here(monkeypatch)
    rng, paths = random.Random(0), files(source)
    harmed = [[(path, harm)] for path in paths for harm in HARMS]
    if not alone:
        rng.shuffle(paths)
        each = [(path, rng.choice(list(HARMS))) for path in paths]
        harmed = [each[at : at + 12] for at in range(0, len(each), 12)]
    for harms in harmed:
        folder = shutil.copytree(source, tmp_path / "run")
        for path, harm in harms:
            HARMS[harm](folder / path, rng)
        results = finish(folder, small()).results
        assert {key: results[key] for key in DERIVED} == {key: undisturbed[key] for key in DERIVED}, harms
        shutil.rmtree(folder)


def test_a_power_cut_loses_no_file_that_matters(
    filled: Path, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is flushed to disk before it has its name, but for the log and the lock, which may come back empty."""
    folder, flushed = tmp_path / "run", set[int]()
    shutil.copytree(filled, folder)
    old, fsync = {p.stat().st_ino for p in folder.rglob("*")}, os.fsync

    def flush(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    run(small(), folder, display=QUIET)
    written = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_ino not in old]
    lost = [p for p in written if p.stat().st_ino not in flushed]
    assert len(written) > 50
    assert {p.name for p in lost} <= {"events.jsonl", ".lock", "gram.zarr.lock"}, "all else survives"
    assert all(p.parent.stat().st_ino in flushed for p in written if p not in lost), "and so do their names"
    for path in lost:
        path.write_bytes(b"")
    results = finish(folder, small()).results
    assert {key: results[key] for key in DERIVED} == {key: undisturbed[key] for key in DERIVED}


def test_results_and_outcomes_damaged_at_once(finished: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "results.json").write_text('{"methods"')
    for chunk in folder.glob("evaluation.zarr/*/test_adv_ntk/c/*/0"):
        chunk.write_bytes(b"")
    results = run(small(), folder, display=QUIET).results
    assert {key: results[key] for key in DERIVED} == {key: undisturbed[key] for key in DERIVED}

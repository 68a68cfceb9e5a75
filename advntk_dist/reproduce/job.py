"""The grid at work: cell after cell, each committed when it is done, then the tables."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from advntk_dist.errors import RequestError, StoreBusyError
from advntk_dist.pipeline.rundir import RunDirectory
from advntk_dist.progress import Display
from advntk_dist.reproduce.grid import ATTACKS, METHODS, Cell, Sizes, cells, gram_seconds, subjects
from advntk_dist.reproduce.table import write_tables
from advntk_dist.storage.location import local, location


@dataclass(frozen=True)
class Grid:
    """What is asked for.

    Attributes
    ----------
    datasets
        "cifar10", "svhn", another dataset's name, or the path of a .npz file.
    networks, methods, attacks
        Names; early stopping is always there, as every table of Adv-NTK needs it.
    radii
        In units of 1/255.
    seeds
        How many: 0, 1, ...
    sizes
        Numbers of images and steps.
    path
        Where the dataset lies, if its name does not say.
    """

    datasets: Sequence[str]
    networks: Sequence[str]
    methods: Sequence[str]
    radii: Sequence[float]
    seeds: int
    sizes: Sizes
    attacks: Sequence[str] = ATTACKS
    path: str | None = None

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        for option, asked, there in (("--method", self.methods, METHODS), ("--attack", self.attacks, ATTACKS)):
            for name in asked:
                if name not in there:
                    raise RequestError(f"{option} {name}: there are {', '.join(there)}")
        if any(not 0 < r <= 255 for r in self.radii):
            raise RequestError(f"--radius: must be above 0 and at most 255/255, got {list(self.radii)} (in 1/255)")
        if self.path is not None and sum(not d.endswith(".npz") for d in self.datasets) > 1:
            raise RequestError("--data: one path cannot be that of several datasets; ask for one dataset at a time")

    def plan(self) -> list[list[Cell]]:
        """Cells by subject, in the order in which they are done."""
        wanted = [m for m in METHODS if m in self.methods or m == "early-stopped"]
        found = subjects(self.datasets, self.networks, self.seeds, self.sizes)
        return [cells(s, self.radii, [a for a in ATTACKS if a in self.attacks], wanted) for s in found]


def missing(plan: list[list[Cell]], root: Path) -> list[list[Cell]]:
    """What of a plan is not committed."""
    left = [[cell for cell in group if cell.read(root) is None] for group in plan]
    return [group for group in left if group]


def predicted(groups: list[list[Cell]]) -> float:
    """Seconds on two cores."""
    return sum(cell.seconds() for group in groups for cell in group) + sum(
        gram_seconds(group[0].subject) for group in groups if any(c.method != "at" for c in group)
    )


def reproduce(grid: Grid, out: str | Path, *, display: Display | None = None, keep_grams: bool = False) -> list[Any]:
    """Run what is missing of a grid, and write the tables of everything that the folder holds.

    Returns
    -------
    rows
        Of the table.

    Raises
    ------
    RequestError
        If the request is impossible: data that are not there, too many images.
    StoreError
        If stored data are damaged, or of other images.
    """
    from advntk_dist.reproduce.laboratory import Laboratory

    shown, folder = display or Display(), RunDirectory.at(local(location(out)))
    root = local(folder.root)
    plan = grid.plan()
    seen = set()
    for group in plan:  # a wrong request fails before anything is written
        subject = group[0].subject
        if subject.dataset not in seen:
            seen.add(subject.dataset)
            _ = Laboratory(subject, root, grid.path, shown, keep_grams).problem
    with _claimed(root):
        left = missing(plan, root)
        clock = _Clock(sum(map(len, plan)), sum(map(len, left)), predicted(left))
        for group in left:
            laboratory = Laboratory(group[0].subject, root, grid.path, shown, keep_grams)
            clock.gram(group)
            finished = False
            try:
                for cell in group:
                    result = laboratory.run(cell)
                    path = root / "cells" / f"{cell.name}.json"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    folder.write_text(path, json.dumps(result, indent=1) + "\n")
                    shown.say(clock.line(cell, result))
                finished = True
            finally:
                laboratory.close(finished=finished)
            write_tables(folder)
        return write_tables(folder)


class _Clock:
    """Time left: what was predicted of the rest, at the pace of what has been done."""

    def __init__(self, total: int, left: int, seconds: float) -> None:
        self.total, self.done, self.left = total, total - left, seconds
        self.start, self.passed = time.monotonic(), 0.0

    def gram(self, group: list[Cell]) -> None:
        if any(c.method != "at" for c in group):
            self._pass(gram_seconds(group[0].subject))

    def line(self, cell: Cell, result: dict[str, Any]) -> str:
        self.done += 1
        self._pass(cell.seconds())
        pace = (time.monotonic() - self.start) / max(self.passed, 1e-9)
        return (
            f"[{self.done}/{self.total}] {cell.name}: clean {100 * result['clean']:.1f} "
            f"robust {100 * result['robust']:.1f}, {result['seconds']:.0f} s; {duration(pace * self.left)} left"
        )

    def _pass(self, seconds: float) -> None:
        self.passed += seconds
        self.left = max(0.0, self.left - seconds)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@contextmanager
def _claimed(root: Path) -> Iterator[None]:
    """Hold the folder for this process."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreBusyError(f"{root}: another process is working on this grid; wait for it") from error
    except OSError as error:
        raise RequestError(f"--out {root}: cannot be written ({error}); give another folder") from error
    try:
        yield
    finally:
        lock.release()

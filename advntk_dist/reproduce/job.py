"""The grid at work: cell after cell, each committed when it is done, then the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from advntk_dist.errors import DatasetError, RequestError, StoreBusyError
from advntk_dist.pipeline.rundir import RunDirectory
from advntk_dist.progress import Display
from advntk_dist.reproduce.grid import (
    ATTACKS,
    METHODS,
    Cell,
    Clock,
    Sizes,
    cells,
    label_of,
    left_line,
    predicted,
    read_cells,
    refuse_other_data,
    subjects,
)
from advntk_dist.reproduce.table import write_tables
from advntk_dist.results import schema
from advntk_dist.storage.paths import local, location


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
        labels = [label_of(d) for d in self.datasets]
        if twice := [label for label in dict.fromkeys(labels) if labels.count(label) > 1]:
            raise RequestError(f"--dataset: two are called {twice[0]}; cells go by that name: give each its own --out")

    def plan(self) -> list[list[Cell]]:
        """Cells by subject, in the order in which they are done."""
        wanted = [m for m in METHODS if m in self.methods or m == "early-stopped"]
        found = subjects(self.datasets, self.networks, self.seeds, self.sizes)
        return [cells(s, self.radii, [a for a in ATTACKS if a in self.attacks], wanted) for s in found]


def missing(plan: list[list[Cell]], root: Path, data: Mapping[str, str]) -> list[list[Cell]]:
    """What of a plan is not committed.

    Parameters
    ----------
    plan
        See :meth:`Grid.plan`.
    root
        Folder of the grid.
    data
        Fingerprints of its datasets by label, as far as they are known.

    Raises
    ------
    StoreMismatchError
        If the folder has cells of another dataset of the same label.
    StoreDamagedError
        If a cell cannot be parsed.
    """
    refuse_other_data(root, data)
    left = [[cell for cell in group if cell.read(root) is None] for group in plan]
    return [group for group in left if group]


def known_data(grid: Grid, root: Path, display: Display) -> dict[str, str]:
    """Fingerprints by label of those datasets that a folder has cells of, where they can be loaded; for a dry run.

    The display says what cannot be loaded, and so is not compared.

    Raises
    ------
    StoreDamagedError
        If a cell cannot be parsed.
    """
    from advntk_dist.data import load_dataset

    found, there = {}, {cell["dataset"] for cell in read_cells(root).values()}
    for dataset in grid.datasets:
        label, path = label_of(dataset), None if dataset.endswith(".npz") else grid.path
        if label in there:
            try:
                found[label] = load_dataset(dataset, path).fingerprint
            except DatasetError as error:
                display.say(f"whether the cells of {label} in {root} are of these data is not known: {error}")
    return found


def reproduce(
    grid: Grid,
    out: str | Path,
    *,
    display: Display | None = None,
    keep_grams: bool = False,
    workers: int | None = None,
    address: str | None = None,
) -> list[Any]:
    """Run what is missing of a grid, and write the tables of everything that the folder holds.

    Parameters
    ----------
    grid
        What is asked for.
    out
        Folder of the grid, on a disk.
    display
        Where to show progress.
    keep_grams
        Leave Gram matrices on disk.
    workers
        Ray actors that share the batches of attacked images; by default one a GPU or a core of a cluster, and none on
        one machine. The results are the same.
    address
        Ray cluster, None for this machine.

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
    start = partial(Laboratory, root=root, path=grid.path, display=shown, workers=workers, address=address)
    firsts = {group[0].subject.label: group[0].subject for group in reversed(plan)}
    # A wrong request fails before anything is written.
    data = {label: start(subject).problem.dataset.fingerprint for label, subject in firsts.items()}
    missing(plan, root, data)
    with _claimed(root):
        left = missing(plan, root, data)
        shown.say(left_line(plan, left))
        clock = Clock(sum(map(len, plan)), sum(map(len, left)), predicted(left))
        for group in left:
            clock.gram(group)
            with start(group[0].subject, keep_gram=keep_grams) as laboratory:
                for cell in group:
                    result = laboratory.run(cell)
                    path = cell.path(root)
                    schema.write(path, schema.CellResults, result)
                    shown.say(clock.line(cell, result))
            write_tables(folder)
        return write_tables(folder)


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

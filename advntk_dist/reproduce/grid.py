"""The grid and its cells: what is asked for, where each is committed, what each is predicted to cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advntk_dist.attacks.registry import PAPER, PLAIN
from advntk_dist.config import AttackConfig, RunConfig, paper, parse_config
from advntk_dist.config.finite_width import AdversarialTrainingConfig
from advntk_dist.errors import DatasetError, NetworkError, RequestError, StoreMismatchError
from advntk_dist.evaluation.cost import Priced, predict_cost
from advntk_dist.planning.calibration import TYPICAL_CORES, typical_at_step, typical_costs
from advntk_dist.progress import Display
from advntk_dist.results import schema, sealed
from advntk_dist.spec import parse_name
from advntk_dist.text import duration

METHODS = ("ntk", "early-stopped", "adv-ntk", "at")
ATTACKS = (PLAIN.name, PAPER.name)


@dataclass(frozen=True)
class Sizes:
    """Numbers of images, and of steps of finite adversarial training."""

    n_train: int = paper.N_TRAIN
    n_val: int = paper.N_VAL
    n_test: int = paper.N_TEST
    at_steps: int = paper.AT_STEPS

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for option, value, least in (
            ("--n-train", self.n_train, 2),
            ("--n-val", self.n_val, 1),
            ("--n-test", self.n_test, 1),
            ("--at-steps", self.at_steps, 1),
        ):
            if value < least:
                raise RequestError(f"{option} is {value}; it must be at least {least}")


def label_of(dataset: str) -> str:
    """The name of a dataset in file names and tables: of a path, its last part, of a .npz file without the suffix."""
    path = Path(dataset)
    return path.stem if path.suffix == ".npz" else path.name


@dataclass(frozen=True)
class GridPoint:
    """What one Gram matrix serves: all radii, attacks and methods on one draw of images."""

    dataset: str
    network: str
    seed: int
    sizes: Sizes

    @property
    def label(self) -> str:
        """The data's name, see :func:`label_of`."""
        return label_of(self.dataset)

    @property
    def name(self) -> str:
        """A file name."""
        s = self.sizes
        return f"{self.label}-{self.network}-n{s.n_train}-{s.n_val}-{s.n_test}-s{self.seed}"


@dataclass(frozen=True)
class Cell:
    """One number pair of the table, clean and robust accuracy, for one seed; radius in units of 1/255."""

    subject: GridPoint
    radius: float
    attack: str
    method: str

    @property
    def name(self) -> str:
        """Where it is committed."""
        steps = f"-{self.subject.sizes.at_steps}" if self.method == "at" else ""
        return f"{self.subject.name}/r{self.radius:g}-{self.attack}-{self.method}{steps}"

    @property
    def title(self) -> str:
        """What a progress bar says of it."""
        return f"{self.method} {self.attack} r{self.radius:g}"

    def path(self, root: Path) -> Path:
        """Its file in the folder of a grid."""
        return root / CELLS / f"{self.name}.json"

    def seconds(self) -> float:
        """Predicted seconds on two cores, without the Gram matrix."""
        s = self.subject.sizes
        if self.method == "at":
            return s.at_steps * typical_at_step(self.subject.network) if self.attack == PLAIN.name else 5.0
        costs = typical_costs(self.subject.network)
        attack = Priced.of(AttackConfig.model_validate({"name": self.attack, "steps": 10}))
        batch = costs.batch_seconds(BATCH, s.n_train)

        def attacked(images: int) -> float:
            return predict_cost([attack], images, batch, clean=RIGHT, robust=RIGHT).seconds

        test = attacked(s.n_test)
        if self.method == "early-stopped":
            return test + len(paper.TIMES) * attacked(s.n_val)
        if self.method == "adv-ntk":
            step = batch.of(attack.passes) + STEP_PASSES * costs.entry * s.n_train**2
            return test + TRAIN_STEPS * step
        return test


RIGHT = 0.4
"""Part of the images that is classified correctly, and so attacked."""
BATCH, TRAIN_STEPS = 128, 50
"""Images of a batch, and steps of Adv-NTK, of the paper's settings."""
STEP_PASSES = 8
"""Passes over the Gram matrix of one training step with them: measured with mlp-3 at n = 10,000."""
LOADING = 5.0
"""Seconds in which data are loaded, and what the Gram matrix is built with is compiled."""


def gram_seconds(group: list[Cell]) -> float:
    """Predicted seconds of the Gram matrix of some cells, and of loading data and compiling; 0 where none needs it."""
    if all(cell.method == "at" for cell in group):
        return 0.0
    point = group[0].subject
    costs = typical_costs(point.network)
    return LOADING + costs.start + costs.stop + point.sizes.n_train**2 / 2 * costs.pair / TYPICAL_CORES


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
        """Refuse what cannot be meant."""
        if self.seeds < 1:
            raise RequestError(f"--seeds is {self.seeds}; it must be at least 1")
        for network in self.networks:
            try:
                known = parse_name(network)
            except NetworkError as error:
                raise RequestError(f"--network: {str(error).removeprefix('network.name: ')}") from error
            if known is None:
                raise RequestError(f"--network {network}: give mlp-x, cnn-x, resnet-18 or resnet-34")
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
        """Cells by grid point, in the order in which they are done: seed by seed, so that an interrupted grid is even.

        pgd comes first, as the networks of `at` are trained by it.
        """
        methods = [m for m in METHODS if m in self.methods or m == "early-stopped"]
        attacks = [a for a in ATTACKS if a in self.attacks]
        points = [
            GridPoint(d, n, s, self.sizes) for s in range(self.seeds) for d in self.datasets for n in self.networks
        ]
        return [[Cell(p, r, a, m) for r in self.radii for a in attacks for m in methods] for p in points]


def configuration(
    subject: GridPoint, radius: float, attack: str, path: str | None, workers: int | None = None
) -> RunConfig:
    """The paper's settings at the sizes that are asked for; radius in units of 1/255."""
    s = subject.sizes
    text = paper.settings(
        subject.dataset,
        subject.network,
        radius,
        attack=attack,
        n_train=s.n_train,
        n_val=s.n_val,
        n_test=s.n_test,
        seed=subject.seed,
    )
    overrides = [] if path is None or subject.dataset.endswith(".npz") else [f"data.path={path}"]
    if workers is not None:
        overrides.append(f"evaluation.workers={workers}")
    return parse_config(text, where=subject.name, overrides=overrides)


def finite_settings(steps: int, seed: int) -> AdversarialTrainingConfig:
    """The paper's adversarial training in so many steps; its milestones stay at the same parts of the whole."""
    return AdversarialTrainingConfig(
        steps=steps,
        lr_every=max(1, round(paper.AT_EVERY * steps / paper.AT_STEPS)),
        evaluate_every=min(steps, max(1000, steps // 5)),
        seed=seed,
    )


CELLS = "cells"
"""Folder of the cells below that of a grid."""
REMEDY = "remove it and run the same command again"
"""For a damaged cell."""

_SHOWN = 12
"""Digits of a fingerprint that people are shown."""


def read_cells(root: Path) -> dict[Path, schema.CellResults]:
    """Every committed cell of a folder, in the order of the paths; StoreDamagedError if one was changed, or is none."""
    found = {path: sealed.read(path, schema.CellResults, REMEDY) for path in sorted((root / CELLS).glob("*/*.json"))}
    return {path: cell for path, cell in found.items() if cell is not None}


def short(fingerprint: str) -> str:
    """The beginning of a fingerprint, for people."""
    return fingerprint[:_SHOWN]


def missing(plan: list[list[Cell]], root: Path, data: Mapping[str, str]) -> list[list[Cell]]:
    """What of a plan is not committed.

    Cells are named by the label of their dataset alone, and one label is one dataset in all of a folder: another one is
    refused as well where the cells that are asked for are not there yet.

    Parameters
    ----------
    plan
        See :meth:`Grid.plan`.
    root
        Folder of the grid.
    data
        Fingerprints (:attr:`advntk_dist.data.Dataset.fingerprint`) of its datasets by label, as far as they are known.

    Raises
    ------
    StoreMismatchError
        If the folder has a cell of another dataset of the same label; names both.
    StoreDamagedError
        If a cell cannot be parsed.
    """
    committed = read_cells(root)
    for path, cell in committed.items():
        wanted = data.get(cell.dataset, cell.data)
        if cell.data != wanted:
            stored, asked = (f"{cell.dataset} with fingerprint {short(f)}" for f in (cell.data, wanted))
            raise StoreMismatchError(str(path), "dataset", stored, asked)
    left = [[cell for cell in group if cell.path(root) not in committed] for group in plan]
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

    found, there = {}, {cell.dataset for cell in read_cells(root).values()}
    for dataset in grid.datasets:
        label, path = label_of(dataset), None if dataset.endswith(".npz") else grid.path
        if label in there:
            try:
                found[label] = load_dataset(dataset, path).fingerprint
            except DatasetError as error:
                display.say(f"whether the cells of {label} in {root} are of these data is not known: {error}")
    return found


def predicted(groups: list[list[Cell]]) -> float:
    """Seconds on two cores."""
    return sum(gram_seconds(group) + sum(cell.seconds() for cell in group) for group in groups)


def left_line(plan: list[list[Cell]], left: list[list[Cell]]) -> str:
    """How much of a plan is left, in words."""
    count = f"{sum(map(len, left))} of {sum(map(len, plan))} cells to do"
    return f"{count}, about {duration(predicted(left))} on two cores"


class Clock:
    """Time left of a plan: what was predicted of the rest, at the pace of what has been done."""

    def __init__(self, plan: list[list[Cell]], left: list[list[Cell]]) -> None:
        self.total, self.left = sum(map(len, plan)), predicted(left)
        self.done = self.total - sum(map(len, left))
        self.start, self.passed = time.monotonic(), 0.0

    def gram(self, group: list[Cell]) -> None:
        """The Gram matrix of a group counts as done."""
        self._pass(gram_seconds(group))

    def line(self, cell: Cell, result: dict[str, Any]) -> str:
        """What is said of a cell that is done."""
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

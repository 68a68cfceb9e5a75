"""Cells of the grid: what is asked for, where each is committed, what each is predicted to cost."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advntk_dist.attacks.registry import DEFAULT, PAPER
from advntk_dist.config import RunConfig, paper, parse_config
from advntk_dist.config.finite_width import AdversarialTrainingConfig
from advntk_dist.errors import NetworkError, RequestError, StoreDamagedError, StoreMismatchError
from advntk_dist.results import schema
from advntk_dist.spec import RESNET_STAGES, parse_name
from advntk_dist.text import duration

METHODS = ("ntk", "early-stopped", "adv-ntk", "at")
ATTACKS = (DEFAULT.name, PAPER.name)


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

    def read(self, root: Path) -> dict[str, Any] | None:
        """What is committed of it, or None; whose data it is, :func:`.committed.refuse_other_data` says.

        Raises
        ------
        StoreDamagedError
            If it cannot be parsed.
        """
        path = self.path(root)
        return read_cell(path) if path.exists() else None

    def seconds(self) -> float:
        """Predicted seconds on two cores, without the Gram matrix."""
        s, rate = self.subject.sizes, UnitSeconds.of(self.subject.network)
        steps = 1 if self.attack == PAPER.name else 10
        gradients = steps * s.n_train * rate.gradient

        def attacked(images: int) -> float:
            return images * (2 * s.n_train * rate.value + RIGHT * gradients)

        test = attacked(s.n_test)
        if self.method == "ntk":
            return test
        if self.method == "early-stopped":
            return test + len(paper.TIMES) * attacked(s.n_val)
        if self.method == "adv-ntk":
            return test + 50 * (128 * (gradients + s.n_train * rate.value) + SOLVE * (s.n_train / 10_000) ** 2)
        return s.at_steps * rate.at_step if self.attack == DEFAULT.name else 5.0


RIGHT = 0.4
"""Part of the images that is classified correctly, and so attacked."""
SOLVE = 0.7
"""Seconds of the solves of one training step at n = 10,000, measured with mlp-3."""


@dataclass(frozen=True)
class UnitSeconds:
    """Seconds for a pair of images on two cores, and for a step of finite adversarial training."""

    value: float
    gradient: float
    at_step: float

    @classmethod
    def of(cls, network: str) -> UnitSeconds:
        """Of a network: MLPs as measured, convolutions in proportion to their number (measured with 10)."""
        family, depth = parse_name(network) or ("mlp", 5)
        if family == "mlp":
            return cls(0.03e-6 + 0.001e-6 * depth, 0.055e-6 + 0.005e-6 * depth, 0.06 + 0.002 * depth)
        layers = depth if family == "cnn" else 5 + 2 * sum(RESNET_STAGES[depth])
        return cls(1.7e-6 * layers, 8.2e-6 * layers, 20.0 * layers)


def gram_seconds(subject: GridPoint) -> float:
    """Predicted seconds of the Gram matrix, and of loading data and compiling."""
    return 15.0 + subject.sizes.n_train**2 / 2 * UnitSeconds.of(subject.network).value


def subjects(datasets: Sequence[str], networks: Sequence[str], seeds: int, sizes: Sizes) -> list[GridPoint]:
    """Seed by seed, so that an interrupted grid is even.

    Raises
    ------
    RequestError
        If a network is unknown, or there is no seed.
    """
    if seeds < 1:
        raise RequestError(f"--seeds is {seeds}; it must be at least 1")
    for network in networks:
        try:
            known = parse_name(network)
        except NetworkError as error:
            raise RequestError(f"--network: {str(error).removeprefix('network.name: ')}") from error
        if known is None:
            raise RequestError(f"--network {network}: give mlp-x, cnn-x, resnet-18 or resnet-34")
    return [GridPoint(d, n, s, sizes) for s in range(seeds) for d in datasets for n in networks]


def cells(subject: GridPoint, radii: Sequence[float], attacks: Sequence[str], methods: Sequence[str]) -> list[Cell]:
    """The cells of a subject; pgd first, as the networks of `at` are trained by it."""
    return [Cell(subject, r, a, m) for r in radii for a in attacks for m in methods]


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


def training_identity(config: RunConfig) -> dict[str, Any]:
    """What the training of Adv-NTK depends on, as short text."""
    text = config.model_dump_json(include={"attack", "train", "network", "solver"})
    return {"configuration": hashlib.sha256(text.encode()).hexdigest()[:16]}


CELLS = "cells"
"""Folder of the cells below that of a grid."""

_SHOWN = 12
"""Digits of a fingerprint that people are shown."""


def read_cell(path: Path) -> dict[str, Any]:
    """A committed cell.

    Raises
    ------
    StoreDamagedError
        If it is not there, cannot be parsed, or was changed since it was written.
    """
    cell = schema.read(path, schema.CellResults, "remove it and run the same command again")
    if cell is None:
        raise StoreDamagedError(f"{path}: is not there; run the same command again")
    return cell


def read_cells(root: Path) -> dict[Path, dict[str, Any]]:
    """Every committed cell of a folder, in the order of the paths; errors as :func:`read_cell`."""
    return {path: read_cell(path) for path in sorted((root / CELLS).glob("*/*.json"))}


def refuse_other_data(root: Path, asked: Mapping[str, str]) -> None:
    """Hold every committed cell to the datasets that are asked for.

    Cells are named by the label of their dataset alone, and one label is one dataset in all of a folder: it is refused
    as well where the cells that are asked for are not there yet.

    Parameters
    ----------
    root
        Folder of the grid.
    asked
        Fingerprints of datasets (:attr:`advntk_dist.data.Dataset.fingerprint`) by label; cells of other labels pass.

    Raises
    ------
    StoreMismatchError
        If a cell was made from another dataset of the same label; names both.
    StoreDamagedError
        If a cell cannot be parsed.
    """
    for path, cell in read_cells(root).items():
        label = cell["dataset"]
        if label in asked and cell["data"] != asked[label]:
            stored, wanted = (f"{label} with fingerprint {short(f)}" for f in (cell["data"], asked[label]))
            raise StoreMismatchError(str(path), "dataset", stored, wanted)


def short(fingerprint: str) -> str:
    """The beginning of a fingerprint, for people."""
    return fingerprint[:_SHOWN]


def predicted(groups: list[list[Cell]]) -> float:
    """Seconds on two cores."""
    return sum(cell.seconds() for group in groups for cell in group) + sum(
        gram_seconds(group[0].subject) for group in groups if any(c.method != "at" for c in group)
    )


def left_line(plan: list[list[Cell]], left: list[list[Cell]]) -> str:
    """How much of a plan is left, in words."""
    count = f"{sum(map(len, left))} of {sum(map(len, plan))} cells to do"
    return f"{count}, about {duration(predicted(left))} on two cores"


class Clock:
    """Time left: what was predicted of the rest, at the pace of what has been done.

    Parameters
    ----------
    total, left
        Cells in all, and those that are to be done.
    seconds
        Predicted for those.
    """

    def __init__(self, total: int, left: int, seconds: float) -> None:
        self.total, self.done, self.left = total, total - left, seconds
        self.start, self.passed = time.monotonic(), 0.0

    def gram(self, group: list[Cell]) -> None:
        """The Gram matrix of a group counts as done."""
        if any(c.method != "at" for c in group):
            self._pass(gram_seconds(group[0].subject))

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

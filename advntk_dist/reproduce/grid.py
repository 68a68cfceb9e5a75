"""Cells of the grid: what is asked for, where each is committed, what each is predicted to cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advntk_dist.config import paper
from advntk_dist.errors import NetworkError, RequestError
from advntk_dist.reproduce.committed import CELLS, read_cell
from advntk_dist.spec import RESNET_STAGES, parse_name

METHODS = ("ntk", "early-stopped", "adv-ntk", "at")
ATTACKS = ("pgd", "pgd-reference")


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
class Subject:
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

    subject: Subject
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
        s, rate = self.subject.sizes, Pairs.of(self.subject.network)
        steps = 1 if self.attack == "pgd-reference" else 10
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
        return s.at_steps * rate.at_step if self.attack == "pgd" else 5.0


RIGHT = 0.4
"""Part of the images that is classified correctly, and so attacked."""
SOLVE = 0.7
"""Seconds of the solves of one training step at n = 10,000, measured with mlp-3."""


@dataclass(frozen=True)
class Pairs:
    """Seconds for a pair of images on two cores, and for a step of finite adversarial training."""

    value: float
    gradient: float
    at_step: float

    @classmethod
    def of(cls, network: str) -> Pairs:
        """Of a network: MLPs as measured, convolutions in proportion to their number (measured with 10)."""
        family, depth = parse_name(network) or ("mlp", 5)
        if family == "mlp":
            return cls(0.03e-6 + 0.001e-6 * depth, 0.055e-6 + 0.005e-6 * depth, 0.06 + 0.002 * depth)
        layers = depth if family == "cnn" else 5 + 2 * sum(RESNET_STAGES[depth])
        return cls(1.7e-6 * layers, 8.2e-6 * layers, 20.0 * layers)


def gram_seconds(subject: Subject) -> float:
    """Predicted seconds of the Gram matrix, and of loading data and compiling."""
    return 15.0 + subject.sizes.n_train**2 / 2 * Pairs.of(subject.network).value


def subjects(datasets: Sequence[str], networks: Sequence[str], seeds: int, sizes: Sizes) -> list[Subject]:
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
    return [Subject(d, n, s, sizes) for s in range(seeds) for d in datasets for n in networks]


def cells(subject: Subject, radii: Sequence[float], attacks: Sequence[str], methods: Sequence[str]) -> list[Cell]:
    """The cells of a subject; pgd first, as the networks of `at` are trained by it."""
    return [Cell(subject, r, a, m) for r in radii for a in attacks for m in methods]

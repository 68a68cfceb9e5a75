"""What the variants of the ablation share: a division of CIFAR-10's training set, a Gram matrix, attacks that judge.

Training, validation and held-out images are disjoint parts of the publisher's training set; the rows of the publisher's
test set are dropped as soon as they are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist import apgd, pgd
from advntk_dist.attacks.base import BoundAttack
from advntk_dist.data import Dataset, load_dataset, one_hot, split
from advntk_dist.dynamics import ATDynamics
from advntk_dist.networks import network
from advntk_dist.pipeline.context import Part
from advntk_dist.predictor import KernelPredictor
from advntk_dist.storage.durable import write_durable

Array = NDArray[np.float64]
Right = NDArray[np.bool_]

RADIUS = 8 / 255
CLASSES = 10
TOLERANCE = 1e-6
TIMES = (1e-3, 2e-3, 3e-3, 4e-3, 6e-3, 1e-2, 2e-2)
BATCH = 400
FOLDS = 5
FEATURES = 50
JUDGE_SEED = 1000
"""Random starts of the attacks that judge derive from this number more than the seed of the data."""

MARGIN: BoundAttack = partial(pgd, radius=RADIUS, steps=10, loss="margin")
SQUARED: BoundAttack = partial(pgd, radius=RADIUS, steps=10, loss="squared-error")
PGD_20: BoundAttack = partial(pgd, radius=RADIUS, steps=20, loss="margin")
APGD_50: BoundAttack = partial(apgd, radius=RADIUS, steps=50, loss="dlr")


@dataclass(frozen=True)
class Settings:
    """What a folder of results belongs to."""

    network: str
    n_train: int
    n_val: int
    n_held: int


class Thrifty(KernelPredictor):
    """A predictor that looks only at training images whose coefficients are not 0: what is left out costs nothing."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._images_of_training = arguments[1]
        self._parts: dict[bytes, KernelPredictor] = {}

    def with_coefficients(self, coefficients: Any) -> KernelPredictor:
        """The same outputs from fewer images."""
        used = np.any(coefficients, axis=1)
        if used.all() or not used.any():
            return super().with_coefficients(coefficients)
        key = used.tobytes()
        if key not in self._parts:
            self._parts[key] = KernelPredictor(
                self.net, self._images_of_training[used], coefficients[used], batch=self.batch
            )
        return self._parts[key].with_coefficients(coefficients[used])


class Lab:
    """One seed: images, Gram matrix, and predictors of coefficients.

    Parameters
    ----------
    images
        CIFAR-10, as ``data.path`` takes it.
    settings
        Network and sizes.
    seed
        Of the division of the images, and of everything random that follows.
    folder
        Where trainings keep their checkpoints.
    """

    def __init__(self, images: str, settings: Settings, seed: int, folder: Path) -> None:
        self.images, self.settings, self.seed, self.folder = images, settings, seed, folder
        loaded = load_dataset("cifar10", images)
        assert loaded.test_start is not None
        published = slice(loaded.test_start)
        data = Dataset(loaded.name, loaded.x[published], loaded.y[published], loaded.classes)
        rows = split(data, n_train=settings.n_train, n_val=settings.n_val, n_test=settings.n_held, seed=seed)
        self.train, self.val, self.held = (
            Part(data.x[i], data.y[i], "float32") for i in (rows.train, rows.val, rows.test)
        )
        self.net = network(settings.network, classes=CLASSES)

    @property
    def identity(self) -> dict[str, Any]:
        """Of checkpoints."""
        return asdict(self.settings) | {"seed": self.seed}

    @cached_property
    def targets(self) -> Array:
        """One-hot training targets (n, k)."""
        return np.asarray(one_hot(self.train.y, CLASSES))

    @cached_property
    def gram(self) -> NDArray[np.float32]:
        """Gram matrix (n, n) of the training images."""
        return self.net.compiled.matrix(self.train.x, self.train.x, "ntk", symmetric=True)

    @cached_property
    def dynamics(self) -> ATDynamics:
        """On one-hot targets."""
        return ATDynamics(self.gram, self.targets)

    def blank(self, batch: int = BATCH) -> KernelPredictor:
        """On the training images, for one training: what it keeps of each fold goes with it."""
        return Thrifty(self.net, self.train.x, np.zeros((len(self.train.y), CLASSES)), batch=min(batch, BATCH))

    @cached_property
    def _whole(self) -> KernelPredictor:
        return KernelPredictor(self.net, self.train.x, np.zeros((len(self.train.y), CLASSES)), batch=BATCH)

    def predictor(self, coefficients: Array) -> KernelPredictor:
        """On the training images, to be judged."""
        return self._whole.with_coefficients(coefficients)

    def of_varpi(self, varpi: Array) -> KernelPredictor:
        """With the coefficients of effective training times (n,), to be judged."""
        return self.predictor(self.dynamics.coefficients(varpi, tol=TOLERANCE).value)

    @cached_property
    def features(self) -> Array:
        """Leading eigenvectors of the Gram matrix, (n, FEATURES), orthonormal, largest eigenvalue last."""
        return self._leading[1]

    @cached_property
    def eigenvalues(self) -> Array:
        """Of the features, ascending."""
        return self._leading[0]

    @cached_property
    def _leading(self) -> tuple[Array, Array]:
        from scipy.sparse.linalg import eigsh

        start = np.random.default_rng([self.seed, 5]).standard_normal(len(self.gram))
        values, vectors = eigsh(self.gram.astype(np.float64), k=FEATURES, v0=start)
        return np.asarray(values), np.asarray(vectors)

    def choose(self, predictors: Sequence[KernelPredictor]) -> tuple[int, list[float]]:
        """The predictor of the best robust accuracy on validation images (the first of equals), and all accuracies."""
        robust = [float(withstands(p, self.val, MARGIN, self.seed)[1].mean()) for p in predictors]
        return best_of(robust), robust

    @cached_property
    def uniform(self) -> tuple[float, list[float]]:
        """The best uniform time, and the robust accuracy by which it was chosen at all times; committed."""
        file = self.folder / "uniform.json"
        if not file.exists():
            if self.settings.n_val:
                solutions = self.dynamics.trajectory(1.0, TIMES, TOLERANCE)
                robust = self.choose([self.predictor(s.value) for s in solutions])[1]
            else:
                robust = self._cross_validated()
            self.folder.mkdir(parents=True, exist_ok=True)
            write_durable(file, json.dumps(robust).encode())
        found = [float(v) for v in json.loads(file.read_text())]
        return TIMES[best_of(found)], found

    def _cross_validated(self) -> list[float]:
        """Without validation images: robust accuracy at all times on a part of each fold, which is left out."""
        n = len(self.train.y)
        fold = np.random.default_rng([self.seed, 3]).permutation(n) % FOLDS
        found = np.zeros(len(TIMES))
        blank = self.blank()
        for part in range(FOLDS):
            chosen = np.flatnonzero(fold == part)[:BATCH]
            images = Part(self.train.raw[chosen], self.train.y[chosen], "float32")
            solutions = self.dynamics.trajectory((fold != part).astype(float), TIMES, TOLERANCE)
            for i, solution in enumerate(solutions):
                predictor = blank.with_coefficients(solution.value)
                found[i] += withstands(predictor, images, MARGIN, self.seed)[1].mean() / FOLDS
        return [float(v) for v in found]

    @cached_property
    def wider(self) -> Lab:
        """The same held-out images; the validation images are training images too."""
        s = self.settings
        wider = Settings(s.network, s.n_train + s.n_val, 0, s.n_held)
        return Lab(self.images, wider, self.seed, self.folder / "wider")

    def time(self) -> float:
        """The best uniform time."""
        return self.uniform[0]

    def judge(self, predictor: KernelPredictor, *, harder: bool) -> dict[str, Right]:
        """Held-out images that are right: clean, under PGD-20, and where ``harder`` is set, under APGD-50 too."""
        clean, robust = withstands(predictor, self.held, PGD_20, JUDGE_SEED + self.seed)
        found = {"clean": clean, "robust": robust}
        if harder:
            found["harder"] = withstands(predictor, self.held, APGD_50, JUDGE_SEED + self.seed, robust)[1]
        return found


def best_of(robust: Sequence[float]) -> int:
    """The first of the largest."""
    return max(range(len(robust)), key=lambda i: (robust[i], -i))


def withstands(
    predictor: KernelPredictor, part: Part, attack: BoundAttack, seed: int, among: Right | None = None
) -> tuple[Right, Right]:
    """Which images are right, and which still are under an attack; ``among`` spares the attack those that are lost."""
    clean = predictor.predict(part.x).argmax(axis=1) == part.y
    rows = np.flatnonzero(clean if among is None else clean & among)
    robust = np.zeros(len(clean), bool)
    if len(rows):
        x, y = part.x[rows], part.y[rows]
        robust[rows] = predictor.predict(attack(predictor, x, y, seed=seed, indices=rows)).argmax(axis=1) == y
    return clean, robust

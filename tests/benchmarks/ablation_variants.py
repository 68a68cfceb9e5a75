"""The variants of the ablation: each makes a predictor from training and validation images.

The recipes that exist for the ablation alone, cross-fit and the paper's with one thing changed, come first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import optax
from numpy.typing import NDArray

from ablation_lab import CLASSES, FOLDS, MARGIN, SQUARED, TOLERANCE, Array, Lab
from advntk_dist.attacks.geometry import Images
from advntk_dist.dynamics import ATDynamics
from advntk_dist.predictor import KernelPredictor
from advntk_dist.storage import Records, guarded_group
from advntk_dist.training import CrossFitRecipe, PaperRecipe, StepRecord, train_adv_ntk
from advntk_dist.training.cross_fit import MEMORY, SoftError, soft_error
from advntk_dist.training.loop import Recipe
from advntk_dist.training.optimiser import Optimiser

Labels = NDArray[np.int64]
Error = Callable[[Array, Labels], SoftError]
Projection = Callable[[Array], Array]

SMALLEST = 1e-12
"""Of |a|, where its logarithm is taken."""


class Varied(CrossFitRecipe):
    """Cross-fit with another loss, with shared parameters, drawn towards one uniform time, or with steps of one length.

    Parameters
    ----------
    *arguments, **keywords
        Those of :class:`CrossFitRecipe`.
    error
        The loss.
    projection
        Orthogonal projection of gradients (n,) on what parameters can change: steps of orthonormal parameters.
    pull
        Weight p of p/2 x the mean of (a - mean a)^2 in the loss.
    constant
        Whether steps keep their first length.
    """

    def __init__(
        self,
        *arguments: Any,
        error: Error = soft_error,
        projection: Projection = np.asarray,
        pull: float = 0.0,
        constant: bool = False,
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        self._error, self._projection, self._pull, self._constant = error, projection, pull, constant

    @cached_property
    def optimiser(self) -> Optimiser:
        """Cross-fit's, or the same without a schedule."""
        if not self._constant:
            return super().optimiser
        n = len(self._x)
        normalised = optax.normalize_by_update_norm(scale_factor=1.0, eps=1e-30)
        running = optax.ema(MEMORY, debias=False)
        return Optimiser(optax.chain(running, normalised, optax.scale(-self._lr * np.sqrt(n))), n)

    def error(self, outputs: Array, labels: Labels) -> SoftError:
        """The variant's loss."""
        return self._error(outputs, labels)

    def examine(
        self, step: int, a: Array, dynamics: ATDynamics, predictor: KernelPredictor
    ) -> tuple[StepRecord, Array]:
        """The step of cross-fit, its gradient changed."""
        record, gradient = super().examine(step, a, dynamics, predictor)
        return record, self._projection(gradient + self._pull * (a - a.mean()) / len(a))


class Absolute(Varied):
    """varpi = |a|, from a = the uniform time; ``lr`` is the root mean square of the first change of a."""

    def start(self) -> Array:
        """The uniform time, (n,)."""
        return np.full(len(self._x), self._time())

    def varpi(self, a: Array) -> Array:
        """|a|, (n,)."""
        return np.abs(a)

    def examine(
        self, step: int, a: Array, dynamics: ATDynamics, predictor: KernelPredictor
    ) -> tuple[StepRecord, Array]:
        """d/da = (d / d log |a|) / a."""
        a = np.where(a < 0, -1.0, 1.0) * np.maximum(np.abs(a), SMALLEST)
        record, gradient = super().examine(step, np.log(np.abs(a)), dynamics, predictor)
        return record, gradient / a


class OnValidation(Varied):
    """No cross-fitting: nothing is left out, and each step attacks validation images, as many as a fold has."""

    def held_out(self, step: int) -> tuple[NDArray[np.bool_], Images, Labels, Labels]:
        """What every second step of cross-fit sees where it has validation images."""
        return super().held_out(2 * step)


class Compensated(Varied):
    """While a fold is left out, the others' times are longer by folds / (folds - 1): the same learning from fewer."""

    def examine(
        self, step: int, a: Array, dynamics: ATDynamics, predictor: KernelPredictor
    ) -> tuple[StepRecord, Array]:
        """The step of cross-fit at longer times."""
        return super().examine(step, a + np.log(self._folds / (self._folds - 1)), dynamics, predictor)


class PaperFrom(PaperRecipe):
    """The paper's recipe from one uniform time."""

    def __init__(self, *arguments: Any, time: float, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._start = time

    def start(self) -> Array:
        """That time, (n,)."""
        return np.full(len(self._x_train), self._start)


def squared_error(outputs: Array, labels: Labels, mean: float = 0.0) -> SoftError:
    """1/(2m) || f - (Y - mean) ||^2, the paper's loss."""
    residual = outputs - (np.eye(outputs.shape[1])[labels] - mean)
    right = float((outputs.argmax(axis=1) == labels).mean())
    return SoftError(0.5 * float((residual**2).sum()) / len(labels), residual / len(labels), right)


def cross_entropy(outputs: Array, labels: Labels, sharpness: float) -> SoftError:
    """Cross-entropy of logits sharpness x f / size; size, and what the gradient leaves out, as in the soft error."""
    f = outputs - outputs.mean(axis=1, keepdims=True)
    m, rows = len(f), np.arange(len(f))
    wrong = f.copy()
    wrong[rows, labels] = -np.inf
    margin = wrong.max(axis=1) - f[rows, labels]
    scale = sharpness / float(np.median(np.abs(margin)))
    z = scale * f
    z -= z.max(axis=1, keepdims=True)
    total = np.exp(z).sum(axis=1, keepdims=True)
    gradient = np.exp(z) / total
    gradient[rows, labels] -= 1
    gradient *= scale / m
    gradient -= f * (gradient * f).sum() / (f * f).sum()
    value = float((np.log(total[:, 0]) - z[rows, labels]).mean())
    return SoftError(value, gradient, float((margin < 0).mean()))


def mean_of_groups(group: Labels) -> Projection:
    """Gradients become their means over groups (n,): one parameter a group."""
    sizes = np.maximum(np.bincount(group), 1)
    return lambda g: (np.bincount(group, weights=g) / sizes)[group]


def span_of(columns: Array) -> Projection:
    """Gradients are projected on the span of orthonormal columns (n, m)."""
    return lambda g: columns @ (columns.T @ g)


DEFAULT, UNIFORM = "cross-fit", "best uniform time"
STEPS, LR = 30, 0.03
RIDGES = (4.0, 16.0, 64.0)
"""Added to the diagonal, in units of its mean; the leading eigenvalues are some tens to a thousand of these units."""
RIDGE_TIMES = (4e-3, 1e-2, 1e-1)
CLUSTERS = 50
Changes = Callable[[Lab], dict[str, Any]]


class Made(NamedTuple):
    """A predictor, and what is worth keeping of how it was made."""

    predictor: KernelPredictor
    notes: dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    group: str
    name: str
    make: Callable[[Lab], Made]
    harder: bool = False
    """Whether APGD attacks it too."""


def iterates(lab: Lab, name: str, recipe: Recipe, steps: int, batch: int, dynamics: ATDynamics | None = None) -> Array:
    """varpi (steps + 1, n) before the first and after each step; what is committed already is not trained again."""
    n = len(lab.train.y)
    group = guarded_group(lab.folder / name.replace("/", "by").replace(" ", "-"), lab.identity | {"steps": steps})
    blank = lab.blank(batch)
    train_adv_ntk(recipe, lambda: dynamics or lab.dynamics, lambda: blank, n, group=group, steps=steps)
    found = Records(group, "varpi", steps + 1, (n,)).read_all()
    assert found is not None
    return found


def cross_fit(lab: Lab, name: str, kind: type[CrossFitRecipe] = CrossFitRecipe, **changes: Any) -> Array:
    """Iterates of the default recipe with changes."""
    steps = changes.setdefault("steps", STEPS)
    dynamics = changes.pop("dynamics", None)
    usual = {"lr": LR, "batch": 1000, "folds": FOLDS, "clean_weight": 0.4, "seed": lab.seed, "tolerance": TOLERANCE}
    recipe = kind(lab.train.x, lab.train.y, MARGIN, lab.time, **(usual | changes))
    return iterates(lab, name, recipe, steps, 1000, dynamics)


def made(lab: Lab, varpi: Array, **notes: Any) -> Made:
    """The predictor of effective training times (n,), on one-hot targets."""
    return Made(lab.of_varpi(varpi), notes | {"spread": float(varpi.std() / varpi.mean())})


def changed(
    group: str, name: str, changes: Changes = lambda lab: {}, kind: type[CrossFitRecipe] = Varied, harder: bool = False
) -> Variant:
    """A variant of cross-fit that differs in what ``changes`` gives."""
    return Variant(group, name, lambda lab: made(lab, cross_fit(lab, name, kind, **changes(lab))[-1]), harder)


def set_to(**values: Any) -> Changes:
    """Changes that are the same for all seeds."""
    return lambda lab: dict(values)


def on_validation(lab: Lab) -> dict[str, Any]:
    """The validation images, for recipes that attack them."""
    return {"validation": (lab.val.x, lab.val.y)}


def default_iterates(lab: Lab) -> Array:
    """Those of the default itself."""
    return cross_fit(lab, DEFAULT)


def uniform(lab: Lab, factor: float = 1.0) -> Made:
    """One time for all images, a multiple of the best on validation images."""
    time, robust = lab.uniform
    return made(lab, np.full(len(lab.train.y), time * factor), time=time * factor, validation=robust)


def uniform_with_ridge(lab: Lab) -> Made:
    """Time and ridge chosen together, no ridge among them."""
    found: list[tuple[float, float, float, Array | None]] = [(0.0, lab.time(), max(lab.uniform[1]), None)]
    for ridge in RIDGES:
        shift = ridge * float(np.diag(lab.gram).mean())
        solutions = ATDynamics(lab.gram + np.float32(shift) * np.eye(len(lab.gram), dtype=np.float32), lab.targets)
        coefficients = [s.value for s in solutions.trajectory(1.0, RIDGE_TIMES, TOLERANCE)]
        robust = lab.choose([lab.predictor(c) for c in coefficients])[1]
        found += [(ridge, t, r, c) for t, r, c in zip(RIDGE_TIMES, robust, coefficients, strict=True)]
    ridge, time, _, c = max(found, key=lambda f: f[2])
    notes = {"ridge": ridge, "time": time, "validation": [f[:3] for f in found]}
    return Made(lab.of_varpi(np.full(len(lab.train.y), time)) if c is None else lab.predictor(c), notes)


def paper(
    lab: Lab, name: str, *, from_uniform: bool = False, lr: float = 0.1, steps: int = 50, batch: int = 128
) -> Made:
    """The paper's recipe at its settings for MLPs on CIFAR-10, or with changes."""
    settings: dict[str, Any] = {"lr": lr, "batch": batch, "seed": lab.seed, "tolerance": TOLERANCE}
    data = (lab.train.x, lab.val.x, lab.val.y, SQUARED)
    recipe: Recipe = PaperRecipe(*data, **settings)
    if from_uniform:
        recipe = PaperFrom(*data, time=lab.time(), **settings)
    return made(lab, iterates(lab, name, recipe, steps, batch)[-1], lr=lr)


def paper_small_steps(lab: Lab, name: str) -> Made:
    """The paper's loss and batches from the uniform time, by steps whose length suits varpi there."""
    return paper(lab, name, from_uniform=True, lr=LR * lab.time() * len(lab.train.y) ** 0.5)


def centred_squared_error(lab: Lab) -> dict[str, Any]:
    """Training targets and those of the loss have mean 0 over classes."""
    dynamics = ATDynamics(lab.gram, lab.targets - 1 / CLASSES)
    return {"error": partial(squared_error, mean=1 / CLASSES), "dynamics": dynamics}


def clusters(lab: Lab) -> dict[str, Any]:
    """k-means of kernel features: one parameter a cluster."""
    from sklearn.cluster import KMeans

    points = lab.features * np.sqrt(lab.eigenvalues)
    group = KMeans(CLUSTERS, n_init=3, random_state=lab.seed).fit_predict(points)
    return {"projection": mean_of_groups(group.astype(np.int64))}


def averaged(lab: Lab, varpi: Array) -> Made:
    """The geometric mean of varpi over the last half of the iterates."""
    half = varpi[len(varpi) // 2 + 1 :]
    return made(lab, np.exp(np.log(half).mean(axis=0)))


def selected(lab: Lab, varpi: Array) -> Made:
    """The iterate that is most robust on validation images, among every sixth."""
    steps = range(0, len(varpi), 6)
    best, robust = lab.choose([lab.of_varpi(varpi[i]) for i in steps])
    return made(lab, varpi[steps[best]], step=steps[best], validation=robust)


def named(group: str, name: str, make: Callable[[Lab, str], Made], harder: bool = False) -> Variant:
    """A variant that keeps its training under its own name."""
    return Variant(group, name, lambda lab: make(lab, name), harder)


CONSTANT = "constant step length"
VARIANTS = [
    Variant("a", UNIFORM, uniform, True),
    Variant("", DEFAULT, lambda lab: made(lab, default_iterates(lab)[-1]), True),
    named("b", "paper", paper, True),
    changed("c", "no cross-fitting", on_validation, OnValidation),
    changed("c", "folds and validation in turn", on_validation),
    changed("c", "longer times while a fold is out", kind=Compensated),
    changed(
        "c", "no cross-fitting, clean weight 0", lambda lab: on_validation(lab) | {"clean_weight": 0.0}, OnValidation
    ),
    changed("c", "no cross-fitting, lr x 3", lambda lab: on_validation(lab) | {"lr": 3 * LR}, OnValidation),
    Variant("g", "averaged", lambda lab: averaged(lab, default_iterates(lab))),
    Variant("g", "step selected", lambda lab: selected(lab, default_iterates(lab))),
    named("b", "paper, from the uniform time", lambda lab, name: paper(lab, name, from_uniform=True)),
    named("b", "paper, from the uniform time, small steps", paper_small_steps),
    changed("g", "lr x 3", set_to(lr=3 * LR)),
    changed("e", "varpi smooth", lambda lab: {"projection": span_of(lab.features)}),
    changed("d", "squared error", set_to(error=squared_error)),
    Variant("a", "uniform time and ridge", uniform_with_ridge),
    changed("e", "varpi of a class", lambda lab: {"projection": mean_of_groups(lab.train.y)}),
    changed("e", "varpi = |a|", lambda lab: {"lr": LR * lab.time()}, Absolute),
    changed("g", CONSTANT, set_to(constant=True)),
    Variant("g", "constant, averaged", lambda lab: averaged(lab, cross_fit(lab, CONSTANT, Varied, constant=True))),
    Variant("a", "uniform time, validation images added", lambda lab: uniform(lab.wider)),
    changed("h", "clean weight 0", set_to(clean_weight=0.0)),
    changed("h", "clean weight 0.8", set_to(clean_weight=0.8)),
    changed("d", "sharpness 3", set_to(error=partial(soft_error, sharpness=3.0))),
    changed("d", "sharpness 12", set_to(error=partial(soft_error, sharpness=12.0))),
    changed("h", "10 folds", set_to(folds=10)),
    changed("f", "pulled strongly", set_to(pull=1.5)),
    changed("d", "cross-entropy", set_to(error=partial(cross_entropy, sharpness=3.0))),
    changed("e", "varpi of a cluster", clusters),
    changed("g", "lr / 3", set_to(lr=LR / 3)),
    changed("h", "clean weight 1.5", set_to(clean_weight=1.5)),
    changed("f", "pulled weakly", set_to(pull=0.3)),
    changed("h", "2 folds", set_to(folds=2)),
    Variant("a", "uniform time / 2", lambda lab: uniform(lab, 0.5)),
    Variant("a", "uniform time x 2", lambda lab: uniform(lab, 2.0)),
    changed("d", "squared error, targets centred", centred_squared_error),
    changed("g", "60 steps", set_to(steps=60)),
    named("b", "paper, batch 1,000", lambda lab, name: paper(lab, name, batch=1000)),
]
"""In the order of measurement: what decides most comes first."""

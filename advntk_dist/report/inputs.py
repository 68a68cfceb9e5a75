"""What a report is made of: everything that one finished run has, checked once on the way in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.errors import RequestError


@dataclass(frozen=True, eq=False)
class ReportInputs:
    """Everything a report shows; parts that a run does not have are ``None`` and are left out with a note.

    Attributes
    ----------
    results : dict
        What results.json says, as :class:`advntk_dist.results.schema.RunResults` has it.
    config_toml : str
        The resolved configuration.
    curve, training, examples
        The degeneration curve, the training history, the adversarial examples.
    varpi : (n,) float or None
        Trained time of each training sample, finite and >= 0.
    y_train : (n,) int or None
        Class of each training sample, for the distribution of varpi by class.
    classes : tuple of str
        Class names, by index.
    extremes, spectrum
        Training images at both ends of varpi, leading eigenvalues of the Gram matrix.
    y_test : (m,) int or None
        Class of each test image, for the accuracy of guessing.
    facts : tuple of (str, str)
        More to show under the title, as the day of the run.
    """

    results: dict[str, Any]
    config_toml: str
    curve: DegenerationCurve | None
    training: TrainingHistory | None
    varpi: FloatArray | None
    y_train: IntArray | None
    classes: tuple[str, ...]
    examples: Examples | None
    extremes: Extremes | None = None
    spectrum: KernelSpectrum | None = None
    y_test: IntArray | None = None
    facts: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Check shapes, ranges and labels; raises :class:`~advntk_dist.errors.RequestError`."""
        if self.varpi is not None:
            varpi = np.asarray(self.varpi, dtype=np.float64)
            require(varpi.ndim == 1 and varpi.size > 0, "varpi", f"shape {varpi.shape}", "pass (n,) times")
            valid = bool(np.all(np.isfinite(varpi)) and np.all(varpi >= 0))
            require(valid, "varpi", "negative or not finite", "pass trained times, which are >= 0")
            if self.y_train is not None:
                vector("y_train", self.y_train, varpi.size)
        labels = [("y_train", self.y_train), ("y_test", self.y_test)]
        if self.examples is not None:
            labels += [
                (f"examples.{name}", getattr(self.examples, name))
                for name in ("labels", "predicted_clean", "predicted_adversarial")
            ]
        if self.extremes is not None:
            labels += [(f"extremes.{end}", getattr(self.extremes, f"{end}_labels")) for end in ("longest", "shortest")]
        for where, values in labels:
            if values is not None:
                self._check_labels(where, np.asarray(values))

    def _check_labels(self, where: str, values: IntArray) -> None:
        integral = np.issubdtype(values.dtype, np.integer)
        require(bool(integral), where, f"dtype {values.dtype}", "pass class indices as integers")
        low, high = (int(values.min()), int(values.max())) if values.size else (0, -1)
        known = low >= 0 and high < len(self.classes)
        remedy = "name every class in classes"
        require(known, where, f"labels {low} to {high} with {len(self.classes)} class names", remedy)


COUNT = 10
"""Images at either end of the training times."""


def require(condition: bool, where: str, problem: str, remedy: str) -> None:
    """Raise RequestError unless the condition holds."""
    if not condition:
        raise RequestError(f"report: {where}: {problem}; {remedy}")


def vector(where: str, values: FloatArray | IntArray, length: int) -> None:
    """Raise RequestError unless there are ``length`` values."""
    shape = np.shape(values)
    require(shape == (length,), where, f"shape {shape}, expected ({length},)", "pass one value an entry")


def _fractions(where: str, values: FloatArray) -> None:
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    within = bool(np.all((finite >= 0.0) & (finite <= 1.0)))
    require(within, where, "accuracies outside [0, 1]", "pass fractions, not per cent")


@dataclass(frozen=True, eq=False)
class DegenerationCurve:
    """Accuracy of the uniformly stopped NTK against its training time: the degeneration curve.

    Attributes
    ----------
    times : (T,) float
        Finite, strictly ascending, not negative; in units of the closed form's t.
    clean, robust : (T,) float
        Accuracy at each time, as fractions of ``n_test`` images.
    clean_ntk, robust_ntk : float
        The same at t = infinity, the plain NTK regressor.
    chosen_t : float
        The time that the validation images chose; ``inf`` is allowed.
    n_test : int
        Images behind each point.
    """

    times: FloatArray
    clean: FloatArray
    robust: FloatArray
    clean_ntk: float
    robust_ntk: float
    chosen_t: float
    n_test: int

    def __post_init__(self) -> None:
        """Check shapes and ranges; raises :class:`~advntk_dist.errors.RequestError`."""
        times = np.asarray(self.times, dtype=np.float64)
        require(times.ndim == 1 and times.size > 0, "curve.times", f"shape {times.shape}", "pass (T,) times")
        ascending = bool(np.all(np.isfinite(times)) and np.all(np.diff(times) > 0) and times[0] >= 0)
        require(ascending, "curve.times", "not finite, ascending and >= 0", "sort them; infinity has its own fields")
        require(bool(times[-1] > 0), "curve.times", "no time above 0", "add a positive time")
        for name, values in (("clean", self.clean), ("robust", self.robust)):
            vector(f"curve.{name}", values, times.size)
            _fractions(f"curve.{name}", values)
        for name, value in (("clean_ntk", self.clean_ntk), ("robust_ntk", self.robust_ntk)):
            require(0.0 <= value <= 1.0, f"curve.{name}", f"{value!r} outside [0, 1]", "pass a fraction")
        require(self.chosen_t >= 0, "curve.chosen_t", f"{self.chosen_t!r}", "pass a time >= 0, or infinity")
        require(self.n_test > 0, "curve.n_test", f"{self.n_test!r}", "pass the number of images behind a point")


@dataclass(frozen=True, eq=False)
class TrainingHistory:
    """What the Adv-NTK loop recorded after each of its S steps; every field is (S,) float.

    Attributes
    ----------
    loss : (S,) float
        The recipe's loss on the step's attacked batch; the paper's is 1/(2m) ||K_v c - Y_v||_F^2 on validation images.
    grad_norm : (S,) float
        Euclidean norm of the gradient before it is normalised.
    robust : (S,) float
        Fraction of the batch still classified right under attack.
    varpi_mean, varpi_max : (S,) float
        Mean and largest training time over the n samples.
    cycle : int
        Steps after which the same kinds of images come again: the folds of cross-fit and its steps on validation
        images, each with its own level; 1 where all steps draw from the same images.
    """

    loss: FloatArray
    grad_norm: FloatArray
    robust: FloatArray
    varpi_mean: FloatArray
    varpi_max: FloatArray
    cycle: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        """Check shapes and ranges; raises :class:`~advntk_dist.errors.RequestError`."""
        steps = np.size(self.loss)
        for name in ("loss", "grad_norm", "robust", "varpi_mean", "varpi_max"):
            vector(f"training.{name}", getattr(self, name), steps)
        _fractions("training.robust", self.robust)
        require(self.cycle >= 1, "training.cycle", f"{self.cycle!r}", "pass the steps of a cycle, 1 for none")


def running_mean(values: FloatArray, width: int) -> FloatArray:
    """Means (S - width + 1,) float64 of ``width`` successive values out of (S,); (0,) of fewer."""
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(values, dtype=np.float64)]))
    return np.asarray((sums[width:] - sums[:-width]) / width)


@dataclass(frozen=True, eq=False)
class Examples:
    """A few test images with their adversarial twins.

    Attributes
    ----------
    clean, adversarial : (m, H, W, C) float
        Images in [-0.5, 0.5]; one channel is drawn in grey, three in colour.
    labels, predicted_clean, predicted_adversarial : (m,) int
        Indices into the class names.
    method : str
        The method that was attacked, by its key in ``results.json``.
    """

    clean: FloatArray
    adversarial: FloatArray
    labels: IntArray
    predicted_clean: IntArray
    predicted_adversarial: IntArray
    method: str

    def __post_init__(self) -> None:
        """Check shapes and ranges; raises :class:`~advntk_dist.errors.RequestError`."""
        shape = np.shape(self.clean)
        require(len(shape) == 4, "examples.clean", f"shape {shape}", "pass images as (m, H, W, C)")
        other = np.shape(self.adversarial)
        require(other == shape, "examples.adversarial", f"shape {other}, expected {shape}", "pass one twin an image")
        for name in ("clean", "adversarial"):
            values = np.asarray(getattr(self, name))
            # A millionth of slack: float32 arithmetic may leave the pixel range by a rounding error.
            within = bool(np.all(np.isfinite(values)) and np.all(np.abs(values) <= 0.5 + 1e-6))
            require(within, f"examples.{name}", "pixels outside [-0.5, 0.5]", "pass pixel / 255 - 0.5")
        for name in ("labels", "predicted_clean", "predicted_adversarial"):
            vector(f"examples.{name}", getattr(self, name), shape[0])

    @property
    def shown(self) -> int:
        """How many of the images a report shows: the first twelve."""
        return min(len(self.labels), 12)

    @property
    def scale(self) -> float:
        """Factor that brings the largest difference of the shown images to 0.5; 1 if they all are as before."""
        differences = self.adversarial[: self.shown] - self.clean[: self.shown]
        largest = float(np.max(np.abs(differences), initial=0.0))
        return 0.5 / largest if largest > 0 else 1.0


@dataclass(frozen=True, eq=False)
class Extremes:
    """Images at both ends of the training times, the most extreme first.

    Attributes
    ----------
    longest, shortest : (m, H, W, C) float
        Images in [-0.5, 0.5].
    longest_times, shortest_times : (m,) float
        Their varpi.
    longest_labels, shortest_labels : (m,) int
        Their classes.
    """

    longest: FloatArray
    longest_times: FloatArray
    longest_labels: IntArray
    shortest: FloatArray
    shortest_times: FloatArray
    shortest_labels: IntArray

    def __post_init__(self) -> None:
        """Check shapes; raises :class:`~advntk_dist.errors.RequestError`."""
        for name in ("longest", "shortest"):
            images, times, labels = (np.shape(getattr(self, name + end)) for end in ("", "_times", "_labels"))
            if len(images) != 4 or times != images[:1] or labels != images[:1]:
                raise RequestError(
                    f"report: extremes.{name}: shapes {images}, {times} and {labels}; pass (m, H, W, C) images with "
                    "one time and one label each"
                )


def extremes_of(x: FloatArray, varpi: FloatArray, y: IntArray, count: int = COUNT) -> Extremes:
    """Pick the ends out of all training images (n, H, W, C); ties go to the earlier image."""
    order = np.argsort(np.asarray(varpi), kind="stable")
    low, high = order[:count], np.argsort(-np.asarray(varpi), kind="stable")[:count]
    return Extremes(x[high], varpi[high], y[high], x[low], varpi[low], y[low])


@dataclass(frozen=True, eq=False)
class KernelSpectrum:
    """Leading eigenvalues of Theta.

    Attributes
    ----------
    eigenvalues : (m,) float
        Positive, descending.
    errors : (m,) float
        For each the bound of its distance to an eigenvalue of Theta.
    n : int
        Edge of Theta.
    """

    eigenvalues: FloatArray
    errors: FloatArray
    n: int

    def __post_init__(self) -> None:
        """Check shapes and order; raises :class:`~advntk_dist.errors.RequestError`."""
        values = np.asarray(self.eigenvalues, dtype=np.float64)
        if values.ndim != 1 or not values.size or not (np.diff(values) <= 0).all() or not values[-1] > 0:
            raise RequestError(
                "report: spectrum.eigenvalues: not positive and descending; pass (m,) leading eigenvalues"
            )
        if np.shape(self.errors) != values.shape:
            raise RequestError("report: spectrum.errors: pass one bound an eigenvalue")


FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

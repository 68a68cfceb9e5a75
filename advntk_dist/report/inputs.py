"""What a report is made of: the numbers and arrays of one finished run, checked once on the way in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from advntk_dist.errors import RequestError
from advntk_dist.report.arrays import FloatArray, IntArray
from advntk_dist.report.scores import method_scores

if TYPE_CHECKING:
    from advntk_dist.report.extremes import Extremes
    from advntk_dist.report.spectrum import KernelSpectrum


def _require(condition: bool, where: str, problem: str, remedy: str) -> None:
    if not condition:
        raise RequestError(f"report: {where}: {problem}; {remedy}")


def _vector(where: str, values: FloatArray | IntArray, length: int) -> None:
    shape = np.shape(values)
    _require(shape == (length,), where, f"shape {shape}, expected ({length},)", "pass one value an entry")


def _fractions(where: str, values: FloatArray) -> None:
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    within = bool(np.all((finite >= 0.0) & (finite <= 1.0)))
    _require(within, where, "accuracies outside [0, 1]", "pass fractions, not per cent")


@dataclass(frozen=True, eq=False)
class Curve:
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
        _require(times.ndim == 1 and times.size > 0, "curve.times", f"shape {times.shape}", "pass (T,) times")
        ascending = bool(np.all(np.isfinite(times)) and np.all(np.diff(times) > 0) and times[0] >= 0)
        _require(ascending, "curve.times", "not finite, ascending and >= 0", "sort them; infinity has its own fields")
        _require(bool(times[-1] > 0), "curve.times", "no time above 0", "add a positive time")
        for name, values in (("clean", self.clean), ("robust", self.robust)):
            _vector(f"curve.{name}", values, times.size)
            _fractions(f"curve.{name}", values)
        for name, value in (("clean_ntk", self.clean_ntk), ("robust_ntk", self.robust_ntk)):
            _require(0.0 <= value <= 1.0, f"curve.{name}", f"{value!r} outside [0, 1]", "pass a fraction")
        _require(self.chosen_t >= 0, "curve.chosen_t", f"{self.chosen_t!r}", "pass a time >= 0, or infinity")
        _require(self.n_test > 0, "curve.n_test", f"{self.n_test!r}", "pass the number of images behind a point")


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
    """

    loss: FloatArray
    grad_norm: FloatArray
    robust: FloatArray
    varpi_mean: FloatArray
    varpi_max: FloatArray

    def __post_init__(self) -> None:
        """Check shapes and ranges; raises :class:`~advntk_dist.errors.RequestError`."""
        steps = np.size(self.loss)
        for name in ("loss", "grad_norm", "robust", "varpi_mean", "varpi_max"):
            _vector(f"training.{name}", getattr(self, name), steps)
        _fractions("training.robust", self.robust)


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
        _require(len(shape) == 4, "examples.clean", f"shape {shape}", "pass images as (m, H, W, C)")
        other = np.shape(self.adversarial)
        _require(other == shape, "examples.adversarial", f"shape {other}, expected {shape}", "pass one twin an image")
        for name in ("clean", "adversarial"):
            values = np.asarray(getattr(self, name))
            # A millionth of slack: float32 arithmetic may leave the pixel range by a rounding error.
            within = bool(np.all(np.isfinite(values)) and np.all(np.abs(values) <= 0.5 + 1e-6))
            _require(within, f"examples.{name}", "pixels outside [-0.5, 0.5]", "pass pixel / 255 - 0.5")
        for name in ("labels", "predicted_clean", "predicted_adversarial"):
            _vector(f"examples.{name}", getattr(self, name), shape[0])


@dataclass(frozen=True, eq=False)
class ReportInputs:
    """Everything a report shows; parts that a run does not have are ``None`` and are left out with a note.

    Attributes
    ----------
    results : dict
        Parsed ``results.json``; ``methods`` is needed, other keys are shown where present.
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
    """

    results: dict[str, Any]
    config_toml: str
    curve: Curve | None
    training: TrainingHistory | None
    varpi: FloatArray | None
    y_train: IntArray | None
    classes: tuple[str, ...]
    examples: Examples | None
    extremes: Extremes | None = None
    spectrum: KernelSpectrum | None = None

    def __post_init__(self) -> None:
        """Check shapes, ranges and labels; raises :class:`~advntk_dist.errors.RequestError`."""
        method_scores(self.results)
        if self.varpi is not None:
            varpi = np.asarray(self.varpi, dtype=np.float64)
            _require(varpi.ndim == 1 and varpi.size > 0, "varpi", f"shape {varpi.shape}", "pass (n,) times")
            valid = bool(np.all(np.isfinite(varpi)) and np.all(varpi >= 0))
            _require(valid, "varpi", "negative or not finite", "pass trained times, which are >= 0")
            if self.y_train is not None:
                _vector("y_train", self.y_train, varpi.size)
        labels = [("y_train", self.y_train)]
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
        _require(bool(integral), where, f"dtype {values.dtype}", "pass class indices as integers")
        low, high = (int(values.min()), int(values.max())) if values.size else (0, -1)
        known = low >= 0 and high < len(self.classes)
        remedy = "name every class in classes"
        _require(known, where, f"labels {low} to {high} with {len(self.classes)} class names", remedy)

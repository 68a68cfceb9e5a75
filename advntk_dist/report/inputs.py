"""What a report is made of: everything that one finished run has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from advntk_dist.results.schema import MethodRow, RunResults


@dataclass(frozen=True, eq=False)
class ReportInputs:
    """Everything a report shows.

    Attributes
    ----------
    results : RunResults
        What results.json says.
    config_toml : str
        The resolved configuration.
    training, examples
        The training history, the adversarial examples.
    varpi : (n,) float
        Trained time of each training sample, finite and >= 0.
    y_train : (n,) int
        Class of each training sample, for the distribution of varpi by class.
    classes : tuple of str
        Class names, by index.
    extremes, spectrum
        Training images at both ends of varpi, leading eigenvalues of the Gram matrix.
    y_test : (m,) int
        Class of each test image, for the accuracy of guessing.
    facts : tuple of (str, str)
        More to show under the title, as the day of the run.
    """

    results: RunResults
    config_toml: str
    training: TrainingHistory
    varpi: FloatArray
    y_train: IntArray
    classes: tuple[str, ...]
    examples: Examples
    extremes: Extremes
    spectrum: KernelSpectrum
    y_test: IntArray
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DegenerationCurve:
    """Accuracies of the uniformly stopped NTK over its training time: the degeneration curve.

    Attributes
    ----------
    times
        Positive and ascending, in units of the closed form's t.
    rows
        Accuracies at each time.
    limit
        Accuracies at t = infinity, of the plain NTK regressor.
    chosen_t
        The time that the validation images chose.
    """

    times: tuple[float, ...]
    rows: tuple[MethodRow, ...]
    limit: MethodRow
    chosen_t: float

    @classmethod
    def of(cls, results: RunResults) -> DegenerationCurve:
        """The curve of a run, under its own attack alone."""
        curve, methods = results.curve, results.methods
        chosen = methods["early_stopped"].t
        assert chosen is not None
        return cls(tuple(curve.times), tuple(curve.test), methods["ntk"], chosen)


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


class TimedImages(NamedTuple):
    """Training images (m, H, W, C) in [-0.5, 0.5], the varpi (m,) and the class (m,) of each."""

    images: FloatArray
    times: FloatArray
    labels: IntArray


class Extremes(NamedTuple):
    """Images at both ends of the training times, the most extreme first."""

    longest: TimedImages
    shortest: TimedImages


def extremes_of(x: FloatArray, varpi: FloatArray, y: IntArray, count: int = 10) -> Extremes:
    """Pick ``count`` images at either end out of all training images (n, H, W, C); ties go to the earlier image."""
    orders = (np.argsort(values, kind="stable")[:count] for values in (-np.asarray(varpi), np.asarray(varpi)))
    return Extremes(*(TimedImages(x[at], varpi[at], y[at]) for at in orders))


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


FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

"""What a report is made of: everything that one finished run has, checked once on the way in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from advntk_dist.report.arrays import FloatArray, IntArray
from advntk_dist.report.paired import pairs_of
from advntk_dist.report.parts import Curve, Examples, Extremes, KernelSpectrum, TrainingHistory, require, vector
from advntk_dist.report.scores import method_scores


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
    y_test : (m,) int or None
        Class of each test image, for the accuracy of guessing.
    facts : tuple of (str, str)
        More to show under the title, as the day of the run.
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
    y_test: IntArray | None = None
    facts: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Check shapes, ranges and labels; raises :class:`~advntk_dist.errors.RequestError`."""
        method_scores(self.results)
        pairs_of(self.results)
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

"""The plots of a report in page order: each rendered for both themes, or a note that says why it is absent."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from advntk_dist.report import sentences
from advntk_dist.report.attacks import under_attack, worst_results
from advntk_dist.report.curves import degeneration_figure, training_figure
from advntk_dist.report.dynamics import dynamics_caption, dynamics_figure
from advntk_dist.report.inputs import ReportInputs
from advntk_dist.report.run_plots import (
    examples_figure,
    extremes_caption,
    extremes_figure,
    methods_figure,
    spectrum_caption,
    spectrum_figure,
    varpi_figure,
)
from advntk_dist.report.scores import method_scores
from advntk_dist.report.style import DARK, LIGHT, Theme, draw

NAMES = ("methods", "degeneration", "training", "varpi", "extremes", "examples", "spectrum")


@dataclass(frozen=True)
class Plot:
    """A plot as PNG bytes for the light and the dark theme, with its size in pixels, caption and alt text."""

    light: bytes
    dark: bytes
    caption: str
    alt: str

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, from the PNG header."""
        return int.from_bytes(self.light[16:20]), int.from_bytes(self.light[20:24])

    @property
    def light_uri(self) -> str:
        """The light picture as a data URI."""
        return _data_uri(self.light)

    @property
    def dark_uri(self) -> str:
        """The dark picture as a data URI."""
        return _data_uri(self.dark)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def plot(figure: Callable[[Theme], Figure], caption: str, alt: str) -> Plot:
    """Draw a figure in both themes, with its caption and what a screen reader says."""
    light, dark = draw(figure, LIGHT, DARK)
    return Plot(light, dark, caption, alt)


def dynamics_plot(results: dict[str, Any]) -> Plot:
    """The plot of `advntk dynamics`, from what its dynamics.json holds."""
    return plot(
        lambda theme: dynamics_figure(results, theme),
        dynamics_caption(results),
        "Clean and robust accuracy over effective training time, of standard and of adversarial training.",
    )


def make_plots(inputs: ReportInputs) -> dict[str, Plot | str]:
    """Render every plot that the inputs allow; an absent one is a one-line note in its place."""
    scores = method_scores(worst_results(inputs.results))
    titles = {score.key: score.title for score in scores}
    plots: dict[str, Plot | str] = {
        "methods": plot(
            lambda theme: methods_figure(scores, theme),
            sentences.methods_caption(scores, under_attack(inputs.results)),
            "Bars of clean and robust accuracy of each method; the numbers are in the table above.",
        ),
        "degeneration": "No degeneration curve: this run did not evaluate a range of training times.",
        "training": "No training curves: this run has no training history.",
        "varpi": "No distribution of ϖ: this run has no trained times.",
        "extremes": "No images at the ends of ϖ: this run has no trained times.",
        "examples": "No adversarial examples: this run kept no images.",
        "spectrum": "No spectrum: this run did not keep the eigenvalues of its Gram matrix.",
    }
    curve, history, varpi, examples = inputs.curve, inputs.training, inputs.varpi, inputs.examples
    if curve is not None:
        plots["degeneration"] = plot(
            lambda theme: degeneration_figure(curve, theme),
            sentences.curve_caption(curve),
            sentences.curve_alt(curve),
        )
    if history is not None and np.size(history.loss) > 0:
        plots["training"] = plot(
            lambda theme: training_figure(history, theme),
            sentences.training_caption(history),
            "Loss, gradient norm, robust accuracy and ϖ over the steps of Adv-NTK.",
        )
    if varpi is not None:
        plots["varpi"] = plot(
            lambda theme: varpi_figure(varpi, inputs.y_train, inputs.classes, theme),
            sentences.varpi_caption(varpi, inputs.y_train, inputs.classes),
            "Histogram of the training times of all samples, with a box for each class where labels are given.",
        )
    if examples is not None and len(examples.labels) > 0:
        plots["examples"] = plot(
            lambda theme: examples_figure(examples, inputs.classes, theme),
            sentences.examples_caption(examples, titles.get(examples.method, examples.method)),
            "Test images in columns: clean, adversarial twin, magnified difference.",
        )
    extremes, spectrum = inputs.extremes, inputs.spectrum
    if extremes is not None and len(extremes.longest_labels) > 0:
        plots["extremes"] = plot(
            lambda theme: extremes_figure(extremes, inputs.classes, theme),
            extremes_caption(extremes, varpi),
            "Training images with the longest and the shortest effective training times.",
        )
    if spectrum is not None:
        chosen = curve.chosen_t if curve is not None else None
        plots["spectrum"] = plot(
            lambda theme: spectrum_figure(spectrum, chosen, theme),
            spectrum_caption(spectrum, chosen),
            "The largest eigenvalues of the Gram matrix against their number.",
        )
    return plots

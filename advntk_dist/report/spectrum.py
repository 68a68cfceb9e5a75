"""The largest eigenvalues of the Gram matrix, and which of them a training time has learned."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from advntk_dist.report.parts import KernelSpectrum
from advntk_dist.report.scores import as_number
from advntk_dist.report.style import Theme, log_axis, new_figure


def spectrum_figure(spectrum: KernelSpectrum, chosen_t: float | None, theme: Theme) -> Figure:
    """Eigenvalues against their number on log axes; modes above 1/t are learned by the time t."""
    figure = new_figure(2.7)
    axes = figure.add_subplot()
    values, number = np.asarray(spectrum.eigenvalues), np.arange(1, len(spectrum.eigenvalues) + 1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    low = np.maximum(values - spectrum.errors, values / 10)
    axes.fill_between(number, low, values + spectrum.errors, color=theme.robust, alpha=0.2, linewidth=0)
    axes.plot(number, values, color=theme.robust, marker="o", markersize=2.5)
    if chosen_t is not None and math.isfinite(chosen_t) and chosen_t > 0:
        axes.axhline(1 / chosen_t, color=theme.ink, linewidth=1.0, linestyle=(0, (1, 2)))
        axes.annotate(
            f"1/t at the chosen t = {as_number(chosen_t)}", (1.0, 1 / chosen_t), xycoords=("axes fraction", "data"),
            xytext=(0, 2), textcoords="offset points", ha="right", va="bottom", fontsize=8, color=theme.ink,
        )  # fmt: skip
    log_axis(axes.xaxis)
    log_axis(axes.yaxis)
    axes.set_xlabel("number of the eigenvalue")
    axes.set_ylabel("eigenvalue of the Gram matrix")
    return figure


def spectrum_caption(spectrum: KernelSpectrum, chosen_t: float | None) -> str:
    """Sentence under the spectrum."""
    values = np.asarray(spectrum.eigenvalues)
    text = (
        f"The {len(values)} largest eigenvalues of the {spectrum.n:,} x {spectrum.n:,} Gram matrix fall from "
        f"{as_number(float(values[0]))} to {as_number(float(values[-1]))}; a mode of eigenvalue λ "
        "is learned by the time 1/λ"
    )
    if chosen_t is not None and math.isfinite(chosen_t) and chosen_t > 0:
        learned = int((values * chosen_t >= 1).sum())
        whole = f"{learned}" if learned < len(values) else f"all {learned} of these and perhaps more"
        text += f": at the time that validation chose these are {whole}"
    return f"{text}."

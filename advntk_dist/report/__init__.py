"""Plots and one self-contained HTML page for a finished run."""

from __future__ import annotations

from advntk_dist.report.extremes import Extremes, extremes_of
from advntk_dist.report.inputs import Curve, Examples, ReportInputs, TrainingHistory
from advntk_dist.report.spectrum import KernelSpectrum
from advntk_dist.report.write import write_report

__all__ = [
    "Curve",
    "Examples",
    "Extremes",
    "KernelSpectrum",
    "ReportInputs",
    "TrainingHistory",
    "extremes_of",
    "write_report",
]

"""One self-contained HTML page for a finished run, its plots as SVG and their data as CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advntk_dist.report.inputs import (
    DegenerationCurve,
    Examples,
    Extremes,
    KernelSpectrum,
    ReportInputs,
    TrainingHistory,
    extremes_of,
)

if TYPE_CHECKING:
    from advntk_dist.report.write import write_report as write_report

__all__ = [
    "DegenerationCurve",
    "Examples",
    "Extremes",
    "KernelSpectrum",
    "ReportInputs",
    "TrainingHistory",
    "extremes_of",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """``write_report`` is imported when it is used: Matplotlib takes a second, and a run needs it last of all."""
    if name != "write_report":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from advntk_dist.report.write import write_report

    return write_report

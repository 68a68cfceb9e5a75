"""Intervals of fractions."""

from __future__ import annotations


def wilson_interval(fraction: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of ``round(fraction * n)`` successes in ``n`` trials, through scipy."""
    from scipy.stats import binomtest  # takes more than a second to import: commands that count nothing need not wait

    interval = binomtest(round(fraction * n), n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)

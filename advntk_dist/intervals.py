"""Intervals of fractions, of their differences and of means, at 95%."""

from __future__ import annotations


def wilson_interval(fraction: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of ``round(fraction * n)`` successes in ``n`` trials, through scipy."""
    from scipy.stats import binomtest  # takes more than a second to import: commands that count nothing need not wait

    interval = binomtest(round(fraction * n), n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def paired_interval(won: int, lost: int, n: int) -> tuple[float, float]:
    """95% interval of the difference (won - lost) / n of two fractions that were counted on the same ``n`` images.

    Bonett & Price (2012), adjusted Wald: one image is added to those that only the first method gets right (``won``)
    and one to those that only the second does (``lost``), so that the interval has a length even where no image tells
    the methods apart.
    """
    from scipy.special import ndtri

    up, down = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = float(ndtri(0.975)) * ((up + down - (up - down) ** 2) / (n + 2)) ** 0.5
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def student_interval(mean: float, deviation: float, n: int) -> tuple[float, float]:
    """Student's 95% interval of the mean of ``n`` >= 2 values with this mean and standard deviation (n - 1)."""
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.975)) * deviation / n**0.5
    return mean - half, mean + half

"""Numbers as a page or a terminal shows them: fractions, points, radii, differences with their intervals."""

from __future__ import annotations

import math

Interval = tuple[float, float]


def as_number(value: float) -> str:
    """A number for reading: three significant digits, infinity as ∞; int, and what is as good as one, in full."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e4):
        return f"{int(value):,}"
    return f"{value:.3g}"


def as_radius(length: float) -> str:
    """A length in pixel space: as n/255 where that is how it was meant, otherwise as a plain number."""
    levels = round(255.0 * length, 1)
    # 1e-6 of slack: the value may have passed through float32.
    plain = abs(round(length, 3) - length) < 1e-6
    return as_number(length) if plain or abs(levels / 255.0 - length) > 1e-6 else f"{levels:g}/255"


def as_percent(fraction: float) -> str:
    """A fraction as per cent with one decimal."""
    return f"{100.0 * fraction:.1f}%"


def with_interval(value: float, interval: Interval) -> str:
    """A fraction and its 95% interval, in per cent."""
    return f"{as_percent(value)} (95% interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def as_points(difference: float) -> str:
    """The size of a difference of two fractions, in percentage points."""
    size = f"{abs(100.0 * difference):.1f}"
    return f"{size} point" if size == "1.0" else f"{size} points"


def signed(*differences: float) -> str:
    """Differences of fractions in points with their signs, as a page shows them; two are the ends of an interval."""
    return " to ".join(f"{100 * value:+z.1f}" for value in differences).replace("-", "−")


def signed_with_interval(value: float, interval: Interval) -> str:
    """A difference of fractions in points and its interval, with signs, in characters that every terminal has."""
    return f"{signed(value)} ({signed(*interval)})".replace("−", "-")


def disjoint(a: Interval, b: Interval) -> bool:
    """Whether two intervals have no point in common."""
    return a[1] < b[0] or b[1] < a[0]


def beyond_chance(interval: Interval) -> bool:
    """Whether the interval of a difference leaves out 0."""
    return interval[0] > 0 or interval[1] < 0


def join(parts: list[str]) -> str:
    """Parts of a sentence, with "and" before the last."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

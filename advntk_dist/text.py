"""Words, numbers and tables for people: durations, sizes, accuracies, names made fit to print, likely meanings, CSV."""

from __future__ import annotations

import csv
import difflib
import io
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Interval = tuple[float, float]
"""The lower and the upper end of an interval."""

_UNPRINTED = frozenset(("Cc", "Cs", "Zl", "Zp"))
"""Categories of characters that command a terminal, cannot be encoded, or end a line."""
_TURNING = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))
"""Classes of characters that turn the direction of the text after them."""


def printable(text: str) -> str:
    r"""A text in which control characters are escaped, as ``\x1b``: no terminal or page obeys it, each shows it.

    Letters of all scripts stay as they are. Undecodable bytes of file names, line ends and characters that turn the
    direction of the text are escaped too.
    """
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode("ascii") if _commands(c) else c for c in text)


def _commands(character: str) -> bool:
    return unicodedata.category(character) in _UNPRINTED or unicodedata.bidirectional(character) in _TURNING


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'NAME'?`` for the likeliest of the known names, and nothing where none is like the word."""
    names = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[found[0]]!r}?" if found else ""


def duration(seconds: float) -> str:
    """Seconds for reading: ``0.42 s``, ``12.3 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if whole < 3600:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02d} min"


def size(nbytes: float) -> str:
    """Bytes in MiB or GiB."""
    return f"{nbytes / 2**30:.2f} GiB" if nbytes >= 2**27 else f"{nbytes / 2**20:.1f} MiB"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Comma-separated values: a head from the keys of the first row, then a line a row; None is an empty field."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


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

"""Words, numbers and tables for people: durations, sizes, names made fit to print, likely meanings, CSV."""

from __future__ import annotations

import csv
import difflib
import io
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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

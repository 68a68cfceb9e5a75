"""The differences of ``results.json`` between methods on the same images, as typed rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

from advntk_dist.errors import RequestError
from advntk_dist.report.scores import Interval, is_finite_number, title_of


@dataclass(frozen=True)
class Difference:
    """A difference of two accuracies (fractions) and its 95% interval."""

    value: float
    interval: Interval

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval[0] > 0 or self.interval[1] < 0

    def __str__(self) -> str:
        """In percentage points, with signs, in characters that every terminal has."""
        value, low, high = (f"{100 * v:+z.1f}" for v in (self.value, *self.interval))
        return f"{value} ({low} to {high})"

    @property
    def typeset(self) -> str:
        """The same for a page."""
        return str(self).replace("-", "−")

    @property
    def points(self) -> str:
        """The difference alone, for a page."""
        return self.typeset.partition(" ")[0]

    @property
    def ends(self) -> str:
        """The interval alone, for a page."""
        return self.typeset.partition("(")[2].removesuffix(")")


@dataclass(frozen=True)
class PairedDifference:
    """One method against another on the same ``n_test`` images."""

    method: str
    against: str
    n_test: int
    clean: Difference
    robust: Difference

    @property
    def title(self) -> str:
        """Both in words."""
        return f"{title_of(self.method)} − {title_of(self.against)}"


def pairs_of(results: dict[str, Any], source: str = "results.json") -> tuple[PairedDifference, ...]:
    """Rows of ``results["paired"]``, which results of earlier versions do not have; errors name ``source``.

    Raises
    ------
    RequestError
        If a row is not as :func:`advntk_dist.evaluation.statistics.paired_differences` writes it.
    """
    rows = results.get("paired", [])
    if not isinstance(rows, list):
        raise RequestError(f"report: {source}: paired: {rows!r} is not a list; run the evaluation again")
    return tuple(_pair(f"report: {source}: paired[{i}]", row) for i, row in enumerate(rows))


def _pair(where: str, row: object) -> PairedDifference:
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("method", "against")):
        raise RequestError(f"{where}: {row!r} does not name two methods; run the evaluation again")
    n = row.get("n_test")
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise RequestError(f"{where}.n_test: {n!r} is not a number of images; run the evaluation again")
    return PairedDifference(
        row["method"], row["against"], n, _difference(where, row, "clean"), _difference(where, row, "robust")
    )


def _difference(where: str, row: dict[str, Any], key: str) -> Difference:
    value, ends = row.get(key), row.get(f"{key}_interval")
    if _is_difference(value) and isinstance(ends, list) and len(ends) == 2:
        low, high = ends
        if _is_difference(low) and _is_difference(high) and low <= high:
            return Difference(float(value), (float(low), float(high)))
    raise RequestError(
        f"{where}.{key}: {value!r} with interval {ends!r} is not a difference of fractions; run the evaluation again"
    )


def _is_difference(value: object) -> TypeGuard[int | float]:
    return is_finite_number(value) and -1 <= value <= 1

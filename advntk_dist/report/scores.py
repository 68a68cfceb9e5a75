"""The methods of ``results.json`` as typed rows, and how their differences stand against the intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeGuard

from advntk_dist.errors import RequestError

Interval = tuple[float, float]

_TITLES = {"ntk": "NTK", "early_stopped": "Early-stopped NTK", "adv_ntk": "Adv-NTK"}


@dataclass(frozen=True)
class MethodScore:
    """One method's accuracies (fractions), their 95% intervals where recorded, and how it was made."""

    key: str
    title: str
    clean: float
    robust: float
    clean_interval: Interval | None
    robust_interval: Interval | None
    n_test: int | None
    max_perturbation: float | None
    detail: str


def method_scores(results: dict[str, Any], source: str = "results.json") -> tuple[MethodScore, ...]:
    """Rows of ``results["methods"]``: the known methods in their usual order, then any others by name.

    ``source`` is the file that errors name.

    Raises
    ------
    RequestError
        If ``methods`` is missing or empty, or a method lacks an accuracy that is a fraction.
    """
    methods = results.get("methods")
    if not isinstance(methods, dict) or not methods:
        raise RequestError(f"report: {source}: methods is missing or empty; finish the evaluation first")
    known = [key for key in _TITLES if key in methods]
    return tuple(
        _score(f"report: {source}: methods.{key}", key, methods[key])
        for key in known + sorted(set(methods) - set(known))
    )


def title_of(key: str) -> str:
    """What a method of ``results.json`` is called in a text."""
    return _TITLES.get(key, key)


def _score(where: str, key: str, values: object) -> MethodScore:
    if not isinstance(values, dict):
        raise RequestError(f"{where}: {values!r} is not a table of numbers; run the evaluation again")
    for name in ("clean", "robust"):
        if not _is_fraction(values.get(name)):
            raise RequestError(f"{where}.{name}: {values.get(name)!r} is not a fraction; run the evaluation again")
    n_test, largest = values.get("n_test"), values.get("max_perturbation")
    return MethodScore(
        key=key,
        title=title_of(key),
        clean=float(values["clean"]),
        robust=float(values["robust"]),
        clean_interval=_interval(f"{where}.clean_interval", values.get("clean_interval")),
        robust_interval=_interval(f"{where}.robust_interval", values.get("robust_interval")),
        n_test=n_test if isinstance(n_test, int) and n_test > 0 else None,
        max_perturbation=float(largest) if is_finite_number(largest) else None,
        detail=_detail(key, values),
    )


def _is_fraction(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0


def _interval(where: str, value: object) -> Interval | None:
    if value is None:
        return None
    if isinstance(value, list | tuple) and len(value) == 2 and all(_is_fraction(end) for end in value):
        low, high = float(value[0]), float(value[1])
        if low <= high:
            return low, high
    raise RequestError(f"{where}: {value!r} is not [low, high] in fractions; run the evaluation again")


def _detail(key: str, values: dict[str, Any]) -> str:
    if key == "ntk":
        return "t = ∞"
    if key == "early_stopped" and values.get("t") is not None:
        return f"one t = {as_number(values['t'])} for all samples"
    if key == "adv_ntk" and values.get("steps") is not None:
        rate = f", lr {as_number(values['lr'])}" if values.get("lr") is not None else ""
        recipe = {"paper": "the paper's recipe, ", "cross-fit": "cross-fit, "}.get(str(values.get("recipe")), "")
        return f"one time a sample; {recipe}{values['steps']} steps{rate}"
    return ""


def as_number(value: object) -> str:
    """A number for reading: three significant digits, infinity as ∞; anything else as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "∞" if isinstance(value, str) and value.lower() in {"inf", "infinity"} else str(value)
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e4):
        return f"{int(value):,}"
    return f"{value:.3g}"


def as_radius(value: object) -> str:
    """A length in pixel space: as n/255 where that is how it was meant, otherwise as a plain number."""
    if not is_finite_number(value):
        return as_number(value)
    length = float(value)
    levels = round(255.0 * length, 1)
    # 1e-6 of slack: the value may have passed through float32.
    plain = abs(round(length, 3) - length) < 1e-6
    return as_number(length) if plain or abs(levels / 255.0 - length) > 1e-6 else f"{levels:g}/255"


def is_finite_number(value: object) -> TypeGuard[int | float]:
    """Whether ``value`` is an int or float, not a bool, and finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def as_percent(fraction: float) -> str:
    """A fraction as per cent with one decimal."""
    return f"{100.0 * fraction:.1f}%"


def as_points(difference: float) -> str:
    """The size of a difference of two fractions, in percentage points."""
    size = f"{abs(100.0 * difference):.1f}"
    return f"{size} point" if size == "1.0" else f"{size} points"


def disjoint(a: Interval, b: Interval) -> bool:
    """Whether two intervals have no point in common."""
    return a[1] < b[0] or b[1] < a[0]


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

"""Schedules of the rate eta(t) of the inner gradient flow: a few by name, arrays, and any function of time.

A rate is one number for all samples or (n,), one per sample; it is >= 0 and finite. ``kinks`` are the times at
which a schedule is not smooth, so that integrals are taken piece by piece.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.errors import RequestError

Array = NDArray[np.float64]

MOST_PIECES = 100_000
"""Kinks before the last time; a schedule with more of them is refused."""


@runtime_checkable
class Schedule(Protocol):
    """A rate over time."""

    def __call__(self, t: float) -> Array | float:
        """eta(t), a number or (n,)."""
        ...

    def kinks(self, end: float) -> Array:
        """Times in (0, end) at which eta jumps or bends, in order."""
        ...

    @property
    def constant_between_kinks(self) -> bool:
        """Whether the rate does not change between two kinks."""
        ...


@dataclass(frozen=True, eq=False)
class Piecewise:
    """Rates that jump: rates[j] holds from times[j] to times[j + 1], the last one for ever.

    Parameters
    ----------
    times
        (pieces,), increasing, the first one 0.
    rates
        (pieces,) or (pieces, n), >= 0.

    Raises
    ------
    RequestError
        If they are not that.
    """

    times: ArrayLike
    rates: ArrayLike
    constant_between_kinks: bool = True

    def __post_init__(self) -> None:
        times, rates = np.asarray(self.times, dtype=np.float64), np.asarray(self.rates, dtype=np.float64)
        if times.ndim != 1 or not len(times) or times[0] != 0 or not (np.diff(times) > 0).all():
            raise RequestError("schedule: times must be increasing and start at 0")
        if not np.isfinite(times).all() or rates.ndim not in (1, 2) or len(rates) != len(times):
            raise RequestError(f"schedule: {len(times)} times need as many rates, got rates of shape {rates.shape}")
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "rates", rates)

    def __call__(self, t: float) -> Array | float:
        """The rate of the piece that t lies in."""
        times, rates = np.asarray(self.times), np.asarray(self.rates)
        row = rates[int(np.searchsorted(times, t, side="right")) - 1]
        return float(row) if row.ndim == 0 else row

    def kinks(self, end: float) -> Array:
        """The jumps."""
        times = np.asarray(self.times)
        return np.asarray(times[(times > 0) & (times < end)])


@dataclass(frozen=True)
class Constant:
    """One rate for ever."""

    rate: float
    constant_between_kinks: bool = True

    def __call__(self, t: float) -> float:
        """The rate."""
        del t
        return self.rate

    def kinks(self, end: float) -> Array:
        """None."""
        del end
        return np.empty(0)


@dataclass(frozen=True)
class LinearRamp:
    """From ``start`` to ``stop`` in a straight line over ``duration``, then ``stop``: a warm-up of the attack."""

    start: float
    stop: float
    duration: float
    constant_between_kinks: bool = False

    def __post_init__(self) -> None:
        _positive("duration", self.duration)

    def __call__(self, t: float) -> float:
        """The rate."""
        return self.start + (self.stop - self.start) * self._share(min(t / self.duration, 1.0))

    def kinks(self, end: float) -> Array:
        """The end of the way."""
        return np.array([self.duration] if self.duration < end else [])

    def _share(self, part: float) -> float:
        """Fraction of the way from start to stop that is done after this fraction of the duration."""
        return part


@dataclass(frozen=True)
class Cosine(LinearRamp):
    """From ``start`` to ``stop`` along half a cosine over ``duration``, then ``stop``."""

    def _share(self, part: float) -> float:
        return float(0.5 * (1 - np.cos(np.pi * part)))


@dataclass(frozen=True)
class Cyclic:
    """A triangular wave from ``low`` to ``high`` and back in each ``period``."""

    low: float
    high: float
    period: float
    constant_between_kinks: bool = False

    def __post_init__(self) -> None:
        _positive("period", self.period)

    def __call__(self, t: float) -> float:
        """The rate."""
        phase = (t / self.period) % 1.0
        return self.low + (self.high - self.low) * (1 - abs(2 * phase - 1))

    def kinks(self, end: float) -> Array:
        """The turning points."""
        return _regular(0.5 * self.period, end)


@dataclass(frozen=True)
class PerSample:
    """A schedule times one factor per sample, (n,)."""

    factors: Array
    profile: Schedule

    def __call__(self, t: float) -> Array:
        """The rates (n,)."""
        return np.asarray(self.factors * self.profile(t))

    def kinks(self, end: float) -> Array:
        """Kinks of the profile."""
        return self.profile.kinks(end)

    @property
    def constant_between_kinks(self) -> bool:
        """Whether the profile is constant between its kinks."""
        return self.profile.constant_between_kinks


@dataclass(frozen=True)
class Function:
    """Any function of time that returns a number or (n,); smooth, or with the kinks that are given."""

    function: Callable[[float], ArrayLike]
    where: tuple[float, ...] = ()
    constant_between_kinks: bool = False

    def __call__(self, t: float) -> Array:
        """The rate."""
        return np.asarray(self.function(t), dtype=np.float64)

    def kinks(self, end: float) -> Array:
        """The kinks that were given, up to ``end``."""
        return np.array(sorted(k for k in self.where if 0 < k < end))


def named(name: str, duration: float) -> Schedule:
    """A profile between 0 and 1 by name, over ``duration``: what the command line offers.

    "constant"; "ramp" up; "cosine" down to 0; "step" down by 10 at each third; "cyclic", four periods.

    Raises
    ------
    RequestError
        If there is none of that name.
    """
    if name not in _PROFILES:
        raise RequestError(f"schedule: no {name!r}; there are {', '.join(NAMES)}")
    return _PROFILES[name](duration)


_PROFILES: dict[str, Callable[[float], Schedule]] = {
    "constant": lambda duration: Constant(1.0),
    "ramp": lambda duration: LinearRamp(0.0, 1.0, duration),
    "cosine": lambda duration: Cosine(1.0, 0.0, duration),
    "step": lambda duration: Piecewise([0.0, duration / 3, 2 * duration / 3], [1.0, 0.1, 0.01]),
    "cyclic": lambda duration: Cyclic(0.0, 1.0, duration / 4),
}

NAMES = tuple(_PROFILES)


def as_schedule(eta: float | ArrayLike | Schedule | Callable[[float], ArrayLike]) -> Schedule:
    """A schedule from what :func:`advntk_dist.xi` takes: a number, (n,), a schedule or a function of time."""
    if isinstance(eta, Schedule):
        return eta
    if callable(eta):
        return Function(eta)
    rates = np.asarray(eta, dtype=np.float64)
    if rates.ndim > 1:
        raise RequestError(f"eta must be a number, one per sample, or a schedule; got an array of shape {rates.shape}")
    return Piecewise([0.0], rates[None])


def _regular(every: float, end: float) -> Array:
    if not end / every < MOST_PIECES:
        raise RequestError(
            f"schedule: {end / every:.3g} pieces up to t = {end:g}; at most {MOST_PIECES} are integrated"
        )
    kinks = every * np.arange(1, int(end / every) + 1)
    return np.asarray(kinks[kinks < end])


def _positive(field: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise RequestError(f"schedule: {field} must be > 0 and finite, got {value}")

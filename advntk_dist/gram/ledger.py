"""Which tiles are waiting, with whom the others are, and when a worker has been silent for too long.

Pure bookkeeping, without Ray and without a clock of its own.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from advntk_dist.errors import GramBuildError

Place = tuple[int, int]

MAX_ATTEMPTS = 10
"""Times one tile is handed out because workers that had it were lost."""

STRAGGLER = 3.0
"""A tile that has taken this many times the median may be given to an idle worker as well."""


@dataclass
class _Held:
    """What one worker has: tiles with the time each was handed over, and when it last did anything."""

    tiles: dict[Place, float] = field(default_factory=dict)
    since: float = 0.0


class TileLedger:
    """The state of a build's tiles.

    Parameters
    ----------
    places
        Tiles to compute, in the order in which they are handed out.
    deadline
        Seconds without a result after which a worker that has tiles counts as hung; None for ten minutes at
        first, and then thirty times the median time of a tile, at least one minute.
    grace
        Seconds that are added to these.
    """

    def __init__(self, places: Iterable[Place], *, deadline: float | None = None, grace: float = 0.0) -> None:
        self.pending = deque(places)
        self.total = len(self.pending)
        self.finished: set[Place] = set()
        self.attempts: dict[Place, int] = {}
        self.held: dict[int, _Held] = {}
        self.seconds: list[float] = []
        self._deadline, self._grace = deadline, grace

    @property
    def complete(self) -> bool:
        """Whether every tile is finished."""
        return len(self.finished) == self.total

    @property
    def deadline(self) -> float:
        """Seconds of silence that make a worker count as hung."""
        if self._deadline is not None:
            return self._deadline
        own = max(60.0, 30 * statistics.median(self.seconds)) if self.seconds else 600.0
        return own + self._grace

    @property
    def work(self) -> float:
        """Seconds that one worker would take for the tiles that are waiting; 0 until some are finished."""
        return len(self.pending) * statistics.median(self.seconds) if self.seconds else 0.0

    def holds(self, worker: int) -> bool:
        """Whether a worker has tiles."""
        return worker in self.held and bool(self.held[worker].tiles)

    def forget_pace(self) -> None:
        """Forget how long tiles took: from now on other workers compute them, which may be far slower."""
        self.seconds.clear()

    def take(self, worker: int, now: float, depth: int) -> tuple[Place, int] | None:
        """A tile for ``worker`` and the number of this attempt, or None if it has enough or nothing is left.

        A worker holds up to ``depth`` tiles while there are plenty, one at the end. When none is waiting, an idle
        worker gets a copy of the tile that has been out the longest, if that is long for a tile.
        """
        held = self.held.setdefault(worker, _Held())
        plenty = len(self.pending) >= len(self.held)
        if len(held.tiles) >= (depth if plenty else 1):
            return None
        place = self.pending.popleft() if self.pending else self._straggler(worker, now)
        if place is None:
            return None
        if not held.tiles:
            held.since = now
        held.tiles[place] = now
        self.attempts[place] = self.attempts.get(place, 0) + 1
        return place, self.attempts[place]

    def _straggler(self, worker: int, now: float) -> Place | None:
        if len(self.seconds) < 3 or self.held[worker].tiles:
            return None
        slow = STRAGGLER * statistics.median(self.seconds)
        out = [(handed, p) for held in self.held.values() for p, handed in held.tiles.items() if p not in self.finished]
        holders = [p for _, p in out]
        late = [(handed, p) for handed, p in out if now - handed > max(slow, 1.0) and holders.count(p) == 1]
        return min(late)[1] if late else None

    def finish(self, worker: int, place: Place, now: float) -> bool:
        """Note a result; False if another worker had finished the same tile before."""
        held = self.held[worker]
        handed = held.tiles.pop(place)
        self.seconds.append(now - max(handed, held.since))
        held.since = now
        if place in self.finished:
            return False
        self.finished.add(place)
        return True

    def lose(self, worker: int, reason: str) -> list[Place]:
        """Take the tiles of a lost worker back; they are the next to be handed out.

        Raises
        ------
        GramBuildError
            If one of them has been lost MAX_ATTEMPTS times.
        """
        held = self.held.pop(worker, _Held())
        elsewhere = {p for other in self.held.values() for p in other.tiles}
        back = [p for p in held.tiles if p not in self.finished and p not in elsewhere]
        for place in back:
            if self.attempts[place] >= MAX_ATTEMPTS:
                raise GramBuildError(
                    f"tile {place}: {MAX_ATTEMPTS} workers were lost while they had it (last: {reason}); "
                    "see whether workers run out of memory, then run the same command again"
                )
        self.pending.extendleft(reversed(back))
        return back

    def overdue(self, now: float) -> list[int]:
        """Workers that have tiles and have been silent past the deadline."""
        limit = self.deadline
        return [w for w, held in self.held.items() if held.tiles and now - held.since > limit]

"""events.jsonl: what a run did and when, one JSON object a line, only ever appended to."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class EventLog:
    """The events of one run directory.

    Every event inside a stage carries the seconds since the one before it, so that the time of a stage adds up
    over interruptions: a kill loses only what followed the last event.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stage: str | None = None
        self._last = 0.0

    def write(self, event: str, **details: Any) -> None:
        """Append one event."""
        now = time.time()
        record: dict[str, Any] = {"time": round(now, 3), "event": event}
        if self._stage is not None:
            record |= {"stage": self._stage, "seconds": round(now - self._last, 4)}
            self._last = now
        line = json.dumps(record | details)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Everything written inside belongs to this stage."""
        self._stage, self._last = name, time.time()
        try:
            self.write("stage begins")
            yield
            self.write("stage ends", peak_bytes=peak_memory())
        finally:
            self._stage = None

    def seconds(self) -> dict[str, float]:
        """Time spent in each stage so far, over all starts of the run."""
        total: defaultdict[str, float] = defaultdict(float)
        for record in self._records():
            if "stage" in record:
                total[record["stage"]] += float(record["seconds"])
        return {name: round(value, 3) for name, value in total.items()}

    def peak_bytes(self) -> dict[str, int]:
        """Most memory that the process of the run and any of its workers have had so far, as far as it is known."""
        found = {"driver": 0, "worker": 0}
        for record in self._records():
            found["driver"] = max(found["driver"], record.get("peak_bytes", 0))
            found["worker"] = max(found["worker"], record.get("receipt", {}).get("peak_bytes", 0))
        return found

    def _records(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that a kill cut short


def peak_memory() -> int:
    """Most memory that this process has had so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

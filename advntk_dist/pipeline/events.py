"""events.jsonl: what a run did and when, one JSON object a line, only ever appended to.

An object cannot be appended to: in an object store it is put whole, now and then and when a stage ends
or fails, so that a kill loses the last seconds. One process writes it, the holder of the run. It can fail no work: what
of it is damaged is passed over, and a local one that cannot be written is done without.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from advntk_dist.environment import peak_memory
from advntk_dist.errors import StoreBusyError, StoreError
from advntk_dist.storage.durable import write_durable
from advntk_dist.storage.paths import Location
from advntk_dist.storage.retry import short_timeout

log = logging.getLogger(__name__)

PUT_SECONDS = 5.0
"""Between puts of the events of a run in an object store, for each MiB of them that there is."""


class EventLog:
    """The events of one run directory.

    Every event inside a stage carries the seconds since the one before it, so that the time of a stage adds up
    over interruptions: a kill loses only what followed the last event.
    """

    def __init__(self, path: Location) -> None:
        self.path = path
        self._stage: str | None = None
        self._last = 0.0
        self._text: str | None = None
        self._put = 0.0
        self._given_up = False

    def write(self, event: str, **details: Any) -> None:
        """Append one event; in an object store, when its time comes.

        Raises
        ------
        StoreError
            If an object store does not take them.
        """
        now = time.time()
        record: dict[str, Any] = {"time": round(now, 3), "event": event}
        if self._stage is not None:
            record |= {"stage": self._stage, "seconds": round(now - self._last, 4)}
            self._last = now
        line = json.dumps(record | details)
        if isinstance(self.path, Path):
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError as error:
                if not self._given_up:
                    log.warning("%s: cannot be written (%s); the run goes on without", self.path, error.strerror)
                self._given_up = True
            return
        if self._text is None:
            self._text = _text(self.path)
        self._text += line + "\n"
        wait = PUT_SECONDS * max(1.0, len(self._text) / 2**20)  # what is long is sent less often
        if self._stage is None or time.monotonic() - self._put >= wait:
            self.flush()

    def flush(self) -> None:
        """Put what an object store does not have yet; errors as :meth:`write`."""
        if self._text is not None:
            write_durable(self.path, self._text.encode("utf-8"))
            self._put = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Everything written inside belongs to this stage."""
        outer, self._stage, self._last = self._stage, name, time.time()
        try:
            self.write("stage begins")
            yield
            self.write("stage ends", peak_bytes=peak_memory())
            self.flush()
        except BaseException:
            # What ended the stage is what there is to tell, also where the events cannot be written any more.
            with suppress(StoreError, StoreBusyError), short_timeout():
                self.flush()
            raise
        finally:
            self._stage = outer

    def began(self) -> float | None:
        """Time of the first event, in seconds since 1970; None where there is none."""
        return next((record["time"] for record in self.records()), None)

    def seconds(self) -> dict[str, float]:
        """Time spent in each stage so far, over all starts of the run."""
        total: defaultdict[str, float] = defaultdict(float)
        for record in self.records():
            if isinstance(record.get("stage"), str) and _is_number(record.get("seconds")):
                total[record["stage"]] += record["seconds"]
        return {name: round(value, 3) for name, value in total.items()}

    def peak_bytes(self) -> dict[str, int]:
        """Most memory that the process of the run and any of its workers have had so far, as far as it is known."""
        found = {"driver": 0, "worker": 0}
        for record in self.records():
            receipt = record.get("receipt")
            for who, row in (("driver", record), ("worker", receipt if isinstance(receipt, dict) else {})):
                if _is_number(row.get("peak_bytes")):
                    found[who] = max(found[who], int(row["peak_bytes"]))
        return found

    def records(self) -> Iterator[dict[str, Any]]:
        """Every event that is whole: its time, its name and its details."""
        text = _text(self.path) if self._text is None else self._text
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a line that a kill cut short, or damage
            if isinstance(record, dict) and _is_number(record.get("time")) and isinstance(record.get("event"), str):
                yield record


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(path: Location) -> str:
    """The events as they lie there; bytes that are no text are replaced."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, IsADirectoryError):
        return ""

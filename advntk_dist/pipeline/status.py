"""How far a run is: read from what it has stored, at any time, from any terminal, without disturbing it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from advntk_dist.config import RunConfig
from advntk_dist.errors import StoreIncompleteError
from advntk_dist.gram import GramStore
from advntk_dist.pipeline.directory import RunDirectory
from advntk_dist.pipeline.events import EventLog
from advntk_dist.storage.locks import holder_of
from advntk_dist.storage.paths import Location
from advntk_dist.text import duration

STAGES = ("gram", "solve", "select", "train", "evaluate")
"""Of a run, in their order."""

_ATTACKS = ("select", "evaluate")
_UNITS = {"tile": "tiles", "step": "steps", "batch": "images"}
"""The events that say that something is done, and what."""


@dataclass(frozen=True)
class RunStatus:
    """Progress of a run.

    Attributes
    ----------
    run
        Its directory.
    stages
        "done", "running", "interrupted" or "waiting" for each stage; "incomplete" for a Gram matrix that has lost tiles
        since it was done.
    tiles, tiles_total, steps, steps_total, images, images_total
        Tiles committed, steps trained, images attacked by this run's own attack, and how many there will be.
    rate, unit
        Tiles, steps or images a second in the stage that is running, once two of them are done.
    finished
        Whether results and report are there.
    held
        Whether a process holds the directory, of this machine or of another.
    holder, holder_age
        Who holds it, or died with it, and how many seconds ago they were last seen; None where nobody does.
    last_event, last_event_age
        What was noted last, and how many seconds ago; None before anything is.
    """

    run: str
    stages: dict[str, str]
    tiles: int
    tiles_total: int
    steps: int
    steps_total: int
    images: int
    images_total: int
    rate: float | None
    unit: str
    finished: bool
    held: bool
    holder: str | None
    holder_age: float | None
    last_event: str | None
    last_event_age: float | None

    def __str__(self) -> str:
        word = "finished" if self.finished else f"{'at work' if self.held else 'not at work'}{self._holder()}"
        seen = self.last_event_age
        age = "" if seen is None else f"; last event {duration(seen)} ago: {self.last_event}"
        stages = ", ".join(f"{name} {state}" for name, state in self.stages.items())
        pace = "" if self.rate is None else f"\n  rate    {self.rate:.3g} {self.unit}/s"
        return (
            f"{self.run}: {word}{age}\n  stages  {stages}\n  tiles   {self.tiles} of {self.tiles_total}\n"
            f"  steps   {self.steps} of {self.steps_total}\n  images  {self.images} of {self.images_total}{pace}"
        )

    def _holder(self) -> str:
        if self.holder is None or self.holder_age is None:
            return ""
        return f" ({self.holder}{'' if self.held else f', last seen {duration(self.holder_age)} ago'})"


def run_status(out: str | Location) -> RunStatus:
    """Read how far a run is.

    Raises
    ------
    RequestError
        If there is no run directory.
    StoreDamagedError
        If its configuration cannot be read.
    """
    folder = RunDirectory.at(out)
    config = folder.stored_config()
    finished = folder.results.exists() and folder.report.exists()
    events = list(EventLog(folder.events).records())
    holder, holder_age, held = (None if finished else holder_of(folder.root / ".lock")) or (None, None, False)
    try:
        tiles = GramStore.open(folder.gram).status()
    except StoreIncompleteError:
        tiles = None
    grid = -(-config.data.n_train // min(config.gram.tile, config.data.n_train))
    stage, rate, unit = _pace(events)
    last = events[-1] if events else None
    stages = _stages(events, finished, held)
    if tiles is not None and tiles.done < tiles.total and stages["gram"] == "done":
        stages["gram"] = "incomplete"
    return RunStatus(
        run=str(folder.root),
        stages=stages,
        tiles=tiles.done if tiles else 0,
        tiles_total=tiles.total if tiles else grid * (grid + 1) // 2,
        steps=max((_count(e, "step") for e in events if e["event"] == "step" and e.get("stage") == "train"), default=0),
        steps_total=config.train.steps,
        images=sum(_count(e, "images") for e in events if _is_own_batch(e)),
        images_total=_images(config),
        rate=rate if held else None,
        unit=unit,
        finished=finished,
        held=held,
        holder=holder,
        holder_age=None if holder_age is None else round(holder_age, 1),
        last_event=None if last is None else " ".join(filter(None, (stage, last["event"]))),
        last_event_age=None if last is None else max(0.0, round(time.time() - last["time"], 1)),
    )


def _stages(events: Iterable[dict[str, Any]], finished: bool, held: bool) -> dict[str, str]:
    if finished:
        return dict.fromkeys(STAGES, "done")
    found = dict.fromkeys(STAGES, "waiting")
    for event in events:
        if event["event"] in ("stage begins", "stage ends") and event.get("stage") in found:
            found[event["stage"]] = "running" if event["event"] == "stage begins" else "done"
        elif event["event"] == "run begins":
            found |= {name: "interrupted" for name, state in found.items() if state == "running"}
    gone = "running" if held else "interrupted"
    return {name: gone if state == "running" else state for name, state in found.items()}


def _pace(events: list[dict[str, Any]]) -> tuple[str, float | None, str]:
    """The stage that the last event belongs to, and units a second since the first unit of its last start."""
    if not events:
        return "", None, ""
    stage = str(events[-1].get("stage", ""))
    begun = max((i for i, e in enumerate(events) if e["event"] == "stage begins"), default=0)
    work = [e for e in events[begun:] if e["event"] in _UNITS and e.get("stage") == stage]
    if len(work) < 2 or work[-1]["time"] <= work[0]["time"]:
        return stage, None, ""
    done = sum(_count(e, "images", 1) for e in work[1:])
    return stage, done / (work[-1]["time"] - work[0]["time"]), _UNITS[work[-1]["event"]]


def _count(event: dict[str, Any], key: str, default: int = 0) -> int:
    """A number of an event, which damage may have made anything else."""
    value = event.get(key, default)
    return value if isinstance(value, int) else default


def _images(config: RunConfig) -> int:
    """Images that selection, curve and methods attack, each once where two of them share their outcomes."""
    times, tests = len(config.evaluation.times), config.data.n_test
    curve = config.evaluation.curve or tests
    # Of the methods, early stopping shares the curve's outcomes where the curve has all test images.
    methods = 2 if curve == tests else 3
    return times * (config.data.n_val + curve) + methods * tests


def _is_own_batch(event: dict[str, Any]) -> bool:
    """Whether images were attacked with the run's own attack, not by a tier."""
    name = str(event.get("name", ""))
    own = name.startswith(("validation_", "test_", "curve"))
    return event["event"] == "batch" and event.get("stage") in _ATTACKS and own

"""Run a job on a local cluster of three nodes with resident tiles; prints where the work was done as JSON.

    nodes_driver.py FOLDER lose|keep|short SETTING...

With ``lose`` a raylet is killed while tiles are computed, another while holders of tiles train, and a third while
batches are judged; after each another node joins. With ``short`` there are two, the matrix is there, one is killed in
training, and nothing takes its place; then the same job runs undisturbed in this process, in the folder "undisturbed"
beside.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from advntk_dist.config import load_config
from advntk_dist.operators.resident import ResidentOperator
from advntk_dist.pipeline.events import EventLog
from advntk_dist.pipeline.run import run
from advntk_dist.progress import Display

if TYPE_CHECKING:
    from tests.filled import fill_gram
    from tests.several_nodes import Nodes, several_nodes
    from tests.undrawn import undrawn
else:
    from filled import fill_gram
    from several_nodes import Nodes, several_nodes
    from undrawn import undrawn

COUNT = {"lose": 3, "keep": 3, "short": 2}
IN_STAGES = {"lose": ("gram", "train", "evaluate"), "keep": (), "short": ("train",)}
"""Where a node is taken away."""


class Losses:
    """Follows the events of a run, and takes a node away in each stage at a moment at which it is at work."""

    def __init__(self, nodes: Nodes, how: str) -> None:
        self.nodes, self.how, self.stage = nodes, how, ""
        self.lost: dict[str, str] = {}
        self.replaced = 0
        self.home: dict[int, str] = {}

    def event(self, name: str, details: dict[str, Any]) -> None:
        if name in ("worker_ready", "evaluator_ready"):
            self.home[details["pid"]] = details["node"]
        slow = self.stage in ("gram", "evaluate") and self.stage not in self.lost and self.how != "short"
        if slow and name in ("tile", "batch"):
            time.sleep(0.3)  # there are few: the stage would be over before all nodes have joined in
            if name == "tile":
                self._lose(self.home[details["receipt"]["pid"]])
        if self.stage == "evaluate" and name == "batch":
            self._lose(next((node for node in self.home.values() if node in self.nodes.others), ""))
        if name == "step" and details["step"] == 2:
            self.stage = "train"  # the choice of a time lies inside this stage
            self._lose(next(iter(self.nodes.others), ""))

    def begin(self, stage: str) -> None:
        if self.stage != stage:
            self.home.clear()
            if self.how != "short":
                self.nodes.wait_for(COUNT[self.how], 150)
        self.stage = stage

    def _lose(self, name: str) -> None:
        wanted = self.stage in IN_STAGES[self.how] and self.stage not in self.lost
        if wanted and name in self.nodes.others:
            self.lost[self.stage] = name
            self.nodes.lose(name)
            if self.how == "lose":
                self.nodes.add_meanwhile()


def _follow(losses: Losses) -> None:
    write, lost = EventLog.write, ResidentOperator._lost

    def written(log: EventLog, event: str, **details: Any) -> None:
        write(log, event, **details)
        if event == "stage begins":
            losses.begin(log._stage or "")
        losses.event(event, details)

    def holder_lost(operator: ResidentOperator, number: int, reason: str, was_loaded: bool) -> None:
        before = operator._placements[number].node
        lost(operator, number, reason, was_loaded)
        losses.replaced += before != operator._placements[number].node

    setattr(EventLog, "write", written)  # noqa: B010 - mypy forbids the plain assignment
    setattr(ResidentOperator, "_lost", holder_lost)  # noqa: B010


def main(folder: Path, how: str, settings: list[str]) -> None:
    """The whole job, and the operator that it used."""
    said: list[str] = []

    class Listening(Display):
        def say(self, text: str) -> None:
            said.append(text)

    alone = load_config("digits", [*(s for s in settings if "workers" not in s), "solver.operator=memory"])
    if how == "short":
        for name in (folder, folder.with_name("undisturbed")):
            fill_gram(alone, name)
    with undrawn(), several_nodes(COUNT[how]) as nodes:
        losses = Losses(nodes, how)
        ray.init(nodes.address, log_to_driver=False)
        _follow(losses)
        run(load_config("digits", settings), folder, address=nodes.address, display=Listening(quiet=True))
        if how == "short":  # no address: no actor either
            run(alone, folder.with_name("undisturbed"), display=Display(quiet=True))
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        homes = {e["pid"]: e["node"] for e in events if e["event"] == "worker_ready"}
        answer = {
            "operator": next(text for text in said if text.startswith("operator:")),
            "builders": len({homes[e["receipt"]["pid"]] for e in events if e["event"] == "tile"}),
            "evaluators": len({e["node"] for e in events if e["event"] == "evaluator_ready"}),
            "lost": sorted(losses.lost),
            "replaced": losses.replaced,
            "evaluators_lost": sum(e["event"] == "evaluator_lost" for e in events),
        }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])

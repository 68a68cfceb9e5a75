"""Build a store on several nodes twice, the first time killing a raylet, after which a node joins; prints JSON.

cluster_driver.py FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from advntk_dist.gram.build import build_gram
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.verify import verify_gram
from advntk_dist.gram.worker import Receipt
from advntk_dist.networks import network

if TYPE_CHECKING:
    from tests.several_nodes import Nodes, several_nodes
else:
    from several_nodes import Nodes, several_nodes

TILE = 6


class Loss:
    """Kills a node once all have computed something; slows the build down, so that it is not over before."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self.victim, self.slow = nodes, "", 0.1
        self.events: list[dict[str, Any]] = []
        self.receipts: list[tuple[Receipt, float]] = []

    def home(self, pid: int) -> str:
        return next(str(e["node"]) for e in self.events if e["event"] == "worker_ready" and e["pid"] == pid)

    def progress(self, done: int, total: int, receipt: Receipt | None) -> None:  # noqa: ARG002 - what build_gram calls
        if receipt is None:
            return
        self.receipts.append((receipt, time.time()))
        time.sleep(self.slow)
        at_work = {self.home(r.pid) for r, _ in self.receipts}
        if not self.victim and self.nodes.others.keys() < at_work:
            self.victim = next(iter(self.nodes.others))
            self.nodes.lose(self.victim)
            self.nodes.add_meanwhile()
        if self.nodes.joined and self.nodes.joined[0][0] in at_work:
            self.slow = 0.0

    def answer(self, store: GramStore) -> dict[str, Any]:
        receipts = [receipt for receipt, _ in self.receipts]
        name, joined = self.nodes.joined[0]
        ready = [e for e in self.events if e["event"] == "worker_ready" and e["node"] == name]
        return {
            "ok": verify_gram(store).ok,
            "tiles": len(receipts),
            "distinct": len({(r.i, r.j) for r in receipts}),
            "total": len(store.grid),
            "lost": [e["reason"] for e in self.events if e["event"] == "worker_lost"],
            "nodes": len({self.home(r.pid) for r in receipts}),
            "attempts": max(r.attempt for r in receipts),
            "join_to_tile": min(at for r, at in self.receipts if r.pid == ready[0]["pid"]) - joined,
        }


def main(folder: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (240, 8, 8, 1), dtype=np.uint8)
    net = network("mlp-2")
    with several_nodes(3) as nodes:
        loss = Loss(nodes)
        store = build_gram(
            net, x, store=folder / "a", tile=TILE, address=nodes.address, on_progress=loss.progress,
            on_event=loss.events.append,
        )  # fmt: skip
        undisturbed = build_gram(net, x, store=folder / "b", tile=TILE, address=nodes.address)
        answer = loss.answer(store)
    answer["same"] = all(
        np.array_equal(store.read_tile("ntk", t.i, t.j), undisturbed.read_tile("ntk", t.i, t.j)) for t in store.grid
    )
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

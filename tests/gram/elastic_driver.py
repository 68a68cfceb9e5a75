"""Build on a cluster that has no core at first, then one, then a GPU that only Ray believes in; prints JSON.

    elastic_driver.py FOLDER

Then once more with the worker that has the GPU, whose node is ended in good order, as at the end of a lease.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from advntk_dist.distributed.worker import FAKE_GPUS
from advntk_dist.gram.build import build_gram
from advntk_dist.gram.plan import GramPlan
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.verify import verify_gram
from advntk_dist.gram.view import dask_view
from advntk_dist.gram.worker import Receipt, WorkerPool
from advntk_dist.networks import network

if TYPE_CHECKING:
    from tests.several_nodes import Nodes, several_nodes
else:
    from several_nodes import Nodes, several_nodes

NET = network("mlp-2")
X = np.random.default_rng(0).integers(0, 256, (72, 8, 8, 1), dtype=np.uint8)


class Watched:
    """A build, which worker computed each tile, and when."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self.events = nodes, list[dict[str, Any]]()
        self.plans = list[GramPlan]()
        self.receipts = list[tuple[Receipt, float]]()

    def build(self, path: Path, pool: WorkerPool) -> GramStore:
        return build_gram(
            NET, X, store=path, tile=6, pool=pool, on_progress=self.progress, on_event=self.events.append,
            on_plan=self.plans.append,
        )  # fmt: skip

    def progress(self, done: int, total: int, receipt: Receipt | None) -> None:  # noqa: ARG002 - what build_gram calls
        if receipt is not None:
            self.receipts.append((receipt, time.time()))
            self.after(receipt)

    def after(self, receipt: Receipt) -> None:
        raise NotImplementedError

    def ready(self, receipt: Receipt) -> dict[str, Any]:
        """The event of the worker that sent a receipt."""
        return next(e for e in self.events if e["event"] == "worker_ready" and e["pid"] == receipt.pid)

    def first_by(self, worker: int) -> float:
        return next(at for receipt, at in self.receipts if self.ready(receipt)["worker"] == worker)

    def answer(self, store: GramStore) -> dict[str, Any]:
        receipts = [receipt for receipt, _ in self.receipts]
        return {
            "ok": verify_gram(store).ok,
            "tiles": len(receipts),
            "distinct": len({(r.i, r.j) for r in receipts}),
            "total": len(store.grid),
            "workers": list(dict.fromkeys(self.ready(r)["worker"] for r in receipts)),
            "nodes": len({self.ready(r)["node"] for r in receipts}),
            "lost": [e["reason"] for e in self.events if e["event"] == "worker_lost"],
            "planned": [plan.workers for plan in self.plans],
            "events": [{k: e.get(k) for k in ("event", "worker", "gpu", "was_ready")} for e in self.events],
        }


class Growth(Watched):
    """Has a GPU join once a core has computed a tile, and holds the build up until it is there."""

    def after(self, receipt: Receipt) -> None:
        joining = self.nodes.joining
        assert joining is not None
        if len(self.receipts) == 1:
            self.nodes.add_meanwhile(num_gpus=1)
        elif self.ready(receipt)["worker"] == self.ready(self.receipts[0][0])["worker"]:
            joining.join(100)
            time.sleep(0.2)  # the cluster is looked at every two seconds


class Loss(Watched):
    """Ends a node once its worker has computed some tiles."""

    def after(self, receipt: Receipt) -> None:
        home = self.ready(receipt)["node"]
        if len(self.receipts) == 5:
            self.nodes.remove(home)


def main(folder: Path) -> None:
    os.environ[FAKE_GPUS] = "1"
    with several_nodes(1, num_cpus=0) as nodes, WorkerPool(nodes.address) as pool:
        growth, loss = Growth(nodes), Loss(nodes)
        nodes.add_meanwhile(after=2.0)
        store = growth.build(folder / "a", pool)
        again = loss.build(folder / "b", pool)
    floats = (X / 255.0 - 0.5).astype(np.float32)
    core, gpu = (at for _, at in nodes.joined)
    grown = growth.answer(store) | {
        "right": bool(np.allclose(np.asarray(dask_view(store, "ntk")), NET.ntk(floats, floats), rtol=1e-5)),
        "join_to_tile": growth.first_by(growth.answer(store)["workers"][1]) - gpu,
        "first_join_to_tile": growth.receipts[0][1] - core,
    }
    same = all(np.array_equal(store.read_tile("ntk", t.i, t.j), again.read_tile("ntk", t.i, t.j)) for t in store.grid)
    print(json.dumps({"grown": grown, "removed": loss.answer(again) | {"same": same}}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Build on a cluster that has no core at first, then one, then a GPU that only Ray believes in; prints JSON.

elastic_driver.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from advntk_dist.gram.build import build_gram
from advntk_dist.gram.gpu import FAKE
from advntk_dist.gram.plan import GramPlan
from advntk_dist.gram.view import dask_view
from advntk_dist.gram.worker import Receipt
from advntk_dist.networks import network

if TYPE_CHECKING:
    from tests.several_nodes import Nodes, several_nodes
else:
    from several_nodes import Nodes, several_nodes


class Growth:
    """Has a GPU join once a core has computed a tile, and keeps the build going until the GPU has."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self.events, self.slow = nodes, list[dict[str, Any]](), 0.2
        self.workers: list[int] = []
        self.first: float | None = None

    def progress(self, done: int, total: int, receipt: Receipt | None) -> None:  # noqa: ARG002 - what build_gram calls
        if receipt is None:
            return
        ready = {e["pid"]: e["worker"] for e in self.events if e["event"] == "worker_ready"}
        self.workers.append(ready[receipt.pid])
        if len(self.workers) == 1:
            self.nodes.add_meanwhile(num_gpus=1)
        elif self.first is None and self.workers[-1] != self.workers[0]:
            self.first, self.slow = time.time() - self.nodes.joined[-1][1], 0.0
        time.sleep(self.slow)


def main(folder: Path) -> None:
    os.environ[FAKE] = "1"
    x = np.random.default_rng(0).integers(0, 256, (240, 8, 8, 1), dtype=np.uint8)
    net, plans = network("mlp-2"), list[GramPlan]()
    with several_nodes(1, num_cpus=0) as nodes:
        growth = Growth(nodes)
        nodes.add_meanwhile(after=2.0)
        store = build_gram(
            net, x, store=folder / "a", tile=6, address=nodes.address, on_progress=growth.progress,
            on_event=growth.events.append, on_plan=plans.append,
        )  # fmt: skip
    floats = (x / 255.0 - 0.5).astype(np.float32)
    answer = {
        "right": bool(np.allclose(np.asarray(dask_view(store, "ntk")), net.ntk(floats, floats), rtol=1e-5)),
        "tiles": len(growth.workers),
        "total": len(store.grid),
        "planned": [plan.workers for plan in plans],
        "workers": list(dict.fromkeys(growth.workers)),
        "events": [{k: e.get(k) for k in ("event", "worker", "gpu", "was_ready")} for e in growth.events],
        "join_to_tile": growth.first,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

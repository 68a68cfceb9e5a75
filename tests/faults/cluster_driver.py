"""Build a store on a local cluster of several nodes, kill a raylet, add a node; prints what happened as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ray.cluster_utils import Cluster

from advntk_dist.gram.build import build_gram
from advntk_dist.gram.verify import verify_gram
from advntk_dist.gram.worker import Receipt
from advntk_dist.networks import network


def main(path: Path) -> None:
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    victim = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    events: list[dict[str, Any]] = []
    receipts: list[Receipt] = []
    both_at_work: list[int] = []

    def progress(done: int, total: int, receipt: Receipt | None) -> None:
        if receipt is None:
            return
        receipts.append(receipt)
        if not both_at_work and len({r.pid for r in receipts}) == 2:
            both_at_work.append(len(receipts))
            victim.kill_raylet()
            cluster.add_node(num_cpus=1, wait=False)

    x = np.random.default_rng(0).integers(0, 256, (720, 8, 8, 1), dtype=np.uint8)
    store = build_gram(
        network("mlp-2"), x, store=path, tile=6, address=cluster.address, on_progress=progress, on_event=events.append
    )
    nodes = {e["pid"]: e["node"] for e in events if e["event"] == "worker_ready"}
    after = receipts[both_at_work[0] :]
    answer = {
        "ok": verify_gram(store).ok,
        "tiles": len(receipts),
        "distinct": len({(r.i, r.j) for r in receipts}),
        "total": len(store.grid),
        "lost": [e["reason"] for e in events if e["event"] == "worker_lost"],
        "nodes": len(set(nodes.values())),
        "workers_after": len({r.pid for r in after}),
        "attempts": max(r.attempt for r in receipts),
    }
    print(json.dumps(answer))
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

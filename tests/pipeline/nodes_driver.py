"""Run a job on a local cluster of three nodes with resident tiles; prints where the work was done as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from advntk_dist.config import load_config
from advntk_dist.gram.store import GramStore
from advntk_dist.operators import operator_for_store
from advntk_dist.pipeline.run import run
from advntk_dist.progress import Display


def main(folder: Path, settings: list[str]) -> None:
    """The whole job, and the operator that it used."""
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    run(load_config("digits", settings), folder, address=cluster.address, display=Display(quiet=True))
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    store = GramStore.open(folder / "gram.zarr")
    with operator_for_store(store, memory=2**30, operator="resident", address=cluster.address) as operator:
        description = operator.description
    builders = {e["pid"]: e["node"] for e in events if e["event"] == "worker_ready"}
    used = {builders[e["receipt"]["pid"]] for e in events if e["event"] == "tile"}
    print(json.dumps({"operator": description, "builders": len(used)}))
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

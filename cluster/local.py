"""Several Ray nodes on this machine, and one command on them.

    python cluster/local.py --nodes 3 -- advntk run digits --out runs/local --address {address}

``{address}`` in the command stands for the cluster's address. Nodes are separate raylets, each with its own CPUs and
object store, so that work really is shared between nodes; they share the machine's cores. The exit status is the
command's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

OBJECT_STORE = 200 * 2**20
"""Bytes of shared memory a node."""


@contextmanager
def local_cluster(nodes: int, cpus: int = 1) -> Iterator[str]:
    """Start so many nodes with so many CPUs each; gives the address, and ends them at the end."""
    from ray.cluster_utils import Cluster

    first = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    cluster = Cluster(initialize_head=True, head_node_args=first)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=cpus, object_store_memory=OBJECT_STORE)
        cluster.wait_for_nodes(timeout=60)
        yield cluster.address
    finally:
        cluster.shutdown()


def main() -> int:
    """Parse, start, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--cpus", type=int, default=1, help="of each node")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="after --")
    arguments = parser.parse_args()
    command = [word for i, word in enumerate(arguments.command) if i or word != "--"]
    if arguments.nodes < 1 or arguments.cpus < 1 or not command:
        parser.error("give at least 1 node with 1 CPU, and a command after --")
    with local_cluster(arguments.nodes, arguments.cpus) as address:
        print(f"{arguments.nodes} nodes at {address}", file=sys.stderr, flush=True)
        words = [word.replace("{address}", address) for word in command]
        return subprocess.run(words, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())

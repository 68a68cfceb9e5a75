"""Clusters of several raylets, for the drivers that the fixture ``drive`` starts as processes of their own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray._private.services as services
import ray._private.utils as utils
from ray.cluster_utils import Cluster

OBJECT_STORE = 150 * 2**20

# Whoever is at work here has an environment of its own; and nobody reads logs, or scales these nodes.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
QUIET = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}


class Nodes:
    """Raylets on this machine, the first of which is the head and the driver's; they come and go."""

    def __init__(self, count: int, **head: Any) -> None:
        _be_patient()
        first = {"num_cpus": 1, "object_store_memory": OBJECT_STORE} | QUIET | head
        cluster: Any = Cluster(initialize_head=True, head_node_args=first)
        self.cluster = cluster
        self.head: str = cluster.head_node.node_id
        self.others: dict[str, Any] = {}
        self.joining: threading.Thread | None = None
        self.joined: list[tuple[str, float]] = []
        """Nodes that joined, and when, in seconds of ``time.time()``."""
        for _ in range(count - 1):
            self.add()
        self.cluster.wait_for_nodes(timeout=100)
        self.joined.clear()

    @property
    def address(self) -> str:
        """Where the cluster is found."""
        return str(self.cluster.address)

    def add(self, **node: Any) -> None:
        """Start one more node, with one CPU unless keywords say otherwise."""
        given = {"num_cpus": 1, "object_store_memory": OBJECT_STORE} | node
        added = self.cluster.add_node(**given, wait=False)
        self.joined.append((added.node_id, time.time()))
        self.others[added.node_id] = added

    def add_meanwhile(self, after: float = 0.0, **node: Any) -> None:
        """Start one more node while the caller goes on, so many seconds from now; keywords as for :meth:`add`."""
        self.cluster._shutdown_at_exit = False  # handlers of signals are for the main thread; `several_nodes` ends it

        def add() -> None:
            time.sleep(after)
            self.add(**node)

        self.joining = threading.Thread(target=add, daemon=True)
        self.joining.start()

    def lose(self, name: str) -> None:
        """Kill the raylet of a node; its workers die with it, and nobody is told."""
        self.others.pop(name).kill_raylet()

    def remove(self, name: str) -> None:
        """End a node in good order, as at the end of a lease."""
        self.cluster.remove_node(self.others.pop(name))

    def wait_for(self, count: int, seconds: float = 100) -> None:
        """Until so many nodes are alive."""
        if self.joining is not None:
            self.joining.join(seconds)
        deadline = time.monotonic() + seconds
        while sum(node["Alive"] for node in ray.nodes()) != count:
            assert time.monotonic() < deadline, f"there are not {count} nodes after {seconds:g} s"
            time.sleep(0.1)


@contextmanager
def several_nodes(count: int, **head: Any) -> Iterator[Nodes]:
    """So many nodes with one CPU each, ended at the end; keywords are for the head's."""
    nodes = Nodes(count, **head)
    try:
        yield nodes
    finally:
        ray.shutdown()  # a cluster is not ended under its driver
        nodes.cluster.shutdown()


def _be_patient() -> None:
    """Let a raylet take longer to start than Ray allows it, on a machine with other work to do.

    Ray gives a raylet 30 s to register, and its dashboard's agent 15 s to say its ports (ray-project/ray#65983); no
    setting changes either. The agent starts sooner without the dashboard's packages, as where they are not installed.
    """
    found = services.get_node

    def get_node(gcs_address: str, node_id: str) -> Any:
        deadline = time.monotonic() + 100
        while True:
            try:
                return found(gcs_address, node_id)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    services.get_node = get_node
    utils.get_dashboard_dependency_error = lambda: ImportError("no dashboard is wanted")

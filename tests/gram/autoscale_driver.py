"""Build on a cluster whose nodes Ray's own autoscaler brings, as many as it may, and takes away; prints JSON.

    autoscale_driver.py FOLDER

The autoscaler is the one that ``ray up`` starts; its provider is the one of Ray's tests, which starts nodes here.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Read by Ray when it is imported. Nodes of the autoscaler have no parent process: they end when the head is gone.
os.environ |= {
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
}

import numpy as np
import ray
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from advntk_dist.distributed import autoscaling
from advntk_dist.gram.build import build_gram
from advntk_dist.gram.verify import verify_gram
from advntk_dist.networks import network

if TYPE_CHECKING:
    from tests.several_nodes import several_nodes
else:
    from several_nodes import several_nodes

NODES = 2
EMPTY: tuple[str, ...] = (
    "cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands",
    "head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands",
)  # fmt: skip


def cluster(address: str) -> dict[str, Any]:
    """A file for ``ray up``: a head without cores, and up to NODES nodes with one."""
    provider = {"type": "fake_multinode", "gcs_address": address, "head_node_id": FAKE_HEAD_NODE_ID}
    return {
        "cluster_name": "fake",
        "max_workers": NODES,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 1.0,
        "provider": provider
        | {"disable_node_updaters": True, "disable_launch_config_check": True, "use_node_id_as_ip": True},
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "core": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": NODES},
        },
    } | {key: [] for key in EMPTY}


def main(folder: Path) -> None:
    autoscaling.WORTH_SECONDS = 1.0
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    (folder / "cluster.json").write_text(json.dumps(cluster(f"{get_node_ip_address()}:{port}")))
    names = {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID, "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID}
    x = np.random.default_rng(0).integers(0, 256, (240, 8, 8, 1), dtype=np.uint8)
    events: list[dict[str, Any]] = []
    done: list[int] = []

    def progress(so_far: int, total: int, receipt: Any) -> None:
        at_work = {e["node"] for e in events if e["event"] == "worker_ready"}
        if receipt is not None:
            done.append(receipt.pid)
            time.sleep(0.3 if len(at_work) < NODES else 0.0)

    head = {"num_cpus": 0, "gcs_server_port": port, "autoscaling_config": str(folder / "cluster.json")}
    head["no_monitor"] = False  # the autoscaler runs in it
    with several_nodes(1, **head, env_vars=names | {"RAY_NODE_TYPE_NAME": "ray.head.default"}) as nodes:
        store = build_gram(
            network("mlp-2"), x, store=folder / "a", tile=6, address=nodes.address, on_progress=progress,
            on_event=events.append,
        )  # fmt: skip
        ray.init(nodes.address, log_to_driver=False)
        deadline = time.monotonic() + 90
        while sum(node["Alive"] for node in ray.nodes()) > 1 and time.monotonic() < deadline:
            time.sleep(0.5)
        left = sum(node["Alive"] for node in ray.nodes())
    answer = {
        "ok": verify_gram(store).ok,
        "builders": len(set(done)),
        "nodes": len({e["node"] for e in events if e["event"] == "worker_ready"}),
        "started": sum(e["event"] == "worker_started" for e in events),
        "left": left,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

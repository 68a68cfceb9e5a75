"""The end of an actor whose process hangs.

A module of its own, as whoever runs this in a process of Ray's imports it and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any


def end(actor: Any, class_name: str, node: str, pid: int) -> None:
    """Kill an actor of a class, even one whose process is stopped, so that Ray frees its cores."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from advntk_dist.gram.lost import LOST

    with contextlib.suppress(*LOST):
        ray.kill(actor, no_restart=True)
    # A stopped process never reads Ray's message; someone on its own node has to send the signal.
    place = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(_kill_process).options(num_cpus=0, scheduling_strategy=place, max_retries=0)
    task.remote(class_name, pid)


def _kill_process(class_name: str, pid: int) -> None:
    command = Path(f"/proc/{pid}/cmdline")
    # The number may have been given to another process meanwhile.
    if command.exists() and class_name.encode() in command.read_bytes():
        os.kill(pid, signal.SIGKILL)

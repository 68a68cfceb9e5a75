"""Whether the Ray that this process uses still lives.

Ray's core ends a process whose raylet or cluster service has died, from a thread of its own and after up to a minute,
so that no line of Python is run any more. A thread here looks more often, and says it first.
"""

from __future__ import annotations

import threading

import psutil
import ray

from advntk_dist import ray_death

SECONDS = 0.1
"""Between two looks."""
SERVICES = {"raylet": "the raylet", "gcs_server": "the cluster service (GCS)"}


class RayWatch:
    """Looks after Ray's services that this process runs with, from a thread, until it is stopped.

    Of a Ray that this process started those are its raylet and its cluster service; where it joined a cluster, the
    raylet of this machine.
    """

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._services = _services()
        self._thread = threading.Thread(target=self._look, name="ray watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more; what dies afterwards was let go."""
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopped.wait(SECONDS):
            for process, name in self._services:
                if not _lives(process) and ray.is_initialized():
                    ray_death.handler(SERVICES[name])
                    return


def _services() -> list[tuple[psutil.Process, str]]:
    """Ray's services that this process depends on: its children, or else the raylet of the cluster it has joined."""
    found = [p for p in psutil.Process().children(recursive=True) if _name(p) in SERVICES]
    if not found and ray.is_initialized():
        address = ray.get_runtime_context().gcs_address
        found = [p for p in psutil.process_iter() if _name(p) == "raylet" and address in " ".join(_words(p))]
    return [(process, _name(process)) for process in found]


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

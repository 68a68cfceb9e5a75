"""Whether the Ray that this process uses still lives.

Ray's core ends a process whose raylet or cluster service has died, from a thread of its own and after up to a minute,
so that no line of Python is run any more. A thread here looks more often, and reports it first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

SECONDS = 0.1
"""Time between two looks."""

SERVICES = {"raylet": "the raylet", "gcs_server": "the cluster service (GCS)"}
"""Names of Ray's processes, and what they are called in messages."""

log = logging.getLogger(__name__)


def _warn(service: str) -> None:
    log.error("%s of Ray on this machine has died, and Ray ends this process", service)


on_death: Callable[[str], None] = _warn
"""Called from a thread with the name of the service that died; the command line puts its own function here."""


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
        """Look no more; a service that ends afterwards was stopped on purpose."""
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        import ray

        while not self._stopped.wait(SECONDS):
            for process, name in self._services:
                if not _lives(process) and ray.is_initialized():
                    on_death(SERVICES[name])
                    return


def _services() -> list[tuple[psutil.Process, str]]:
    """Ray's services that this process depends on: its children, or else the raylet of the cluster it has joined."""
    import psutil
    import ray

    found = [p for p in psutil.Process().children(recursive=True) if _name(p) in SERVICES]
    if not found and ray.is_initialized():
        address = ray.get_runtime_context().gcs_address
        found = [p for p in psutil.process_iter() if _name(p) == "raylet" and address in " ".join(command_line(p))]
    return [(process, _name(process)) for process in found]


def _name(process: psutil.Process) -> str:
    import psutil

    try:
        return process.name()
    except psutil.Error:
        return ""


def command_line(process: psutil.Process) -> list[str]:
    """The words of a process's command line; none where it has ended or may not be looked at."""
    import psutil

    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _lives(process: psutil.Process) -> bool:
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

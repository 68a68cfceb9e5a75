"""The workers of a build as Ray actors: started, replaced, asked for tiles, and killed when they hang."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from advntk_dist.errors import GramBuildError
from advntk_dist.gram.lost import LOST, reason
from advntk_dist.gram.worker import Failure, GramWorker, Receipt, WorkerInfo, worker_environment


@dataclass(frozen=True)
class Lost:
    """A worker is gone."""

    reason: str


Event = tuple[int, WorkerInfo | Receipt | Failure | Lost]
"""A worker's number and what is new of it."""


@dataclass
class _Member:
    actor: Any
    info: WorkerInfo | None = None


class WorkerPool:
    """Ray actors, numbered in the order in which they are started.

    Parameters
    ----------
    arguments
        Arguments of :class:`GramWorker`; images as object references.
    cpus
        Cores that Ray reserves for one worker.
    """

    def __init__(self, arguments: tuple[Any, ...], *, cpus: int = 1) -> None:
        self._arguments, self._cpus = arguments, cpus
        self._members: dict[int, _Member] = {}
        self._waiting: dict[Any, int] = {}
        self._started = 0

    @property
    def ready(self) -> list[int]:
        """Workers that can take tiles."""
        return [number for number, member in self._members.items() if member.info is not None]

    def start(self, gpu: bool) -> int:
        """Ask Ray for one more worker, with a GPU or without; it reports when it is ready. Returns its number."""
        actor_class: Any = ray.remote(GramWorker)
        actor = actor_class.options(
            num_cpus=self._cpus,
            num_gpus=int(gpu),
            max_concurrency=2,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": worker_environment(self._cpus, gpu)},
        ).remote(*self._arguments)
        number = self._started
        self._started += 1
        self._members[number] = _Member(actor)
        self._waiting[actor.ready.remote()] = number
        return number

    def submit(self, worker: int, i: int, j: int, attempt: int) -> None:
        """Hand a tile to a ready worker."""
        self._waiting[self._members[worker].actor.tile.remote(i, j, attempt)] = worker

    def poll(self, timeout: float) -> list[Event]:
        """What is new, after at most ``timeout`` seconds; a lost worker is reported once and forgotten.

        Raises
        ------
        GramBuildError
            If a worker raises anything but one of :data:`advntk_dist.gram.lost.LOST`.
        """
        done, _ = ray.wait(list(self._waiting), num_returns=1, timeout=timeout)
        if done:  # take everything else that is there, too
            done, _ = ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)
        events: list[Event] = []
        for reference in done:
            number = self._waiting.pop(reference, None)
            if number is None:
                continue  # a result of a worker that was lost a moment ago
            try:
                outcome = ray.get(reference)
            except LOST as error:
                self.forget(number)
                outcome = Lost(reason(error))
            except RayTaskError as error:
                raise GramBuildError(f"a worker failed: {error.cause or error}") from error
            except RayError as error:
                raise GramBuildError(f"Ray failed a worker ({reason(error)}); run the same command again") from error
            if isinstance(outcome, WorkerInfo):
                self._members[number].info = outcome
            events.append((number, outcome))
        return events

    def forget(self, worker: int) -> None:
        """Drop a worker and whatever it still owes."""
        self._members.pop(worker, None)
        self._waiting = {r: n for r, n in self._waiting.items() if n != worker}

    def kill(self, worker: int) -> None:
        """Kill a worker that hangs, even one whose process is stopped, so that Ray frees its cores."""
        member = self._members[worker]
        ray.kill(member.actor, no_restart=True)
        if member.info is not None:
            # A stopped process never reads Ray's message; someone on its own node has to send the signal.
            place = NodeAffinitySchedulingStrategy(member.info.node, soft=False)
            task = ray.remote(_kill_process).options(num_cpus=0, scheduling_strategy=place, max_retries=0)
            task.remote(member.info.pid)
        self.forget(worker)

    def close(self) -> None:
        """Kill every worker."""
        for number in list(self._members):
            with contextlib.suppress(*LOST):
                ray.kill(self._members[number].actor, no_restart=True)
            self.forget(number)


def _kill_process(pid: int) -> None:
    command = Path(f"/proc/{pid}/cmdline")
    # The number may have been given to another process meanwhile.
    if command.exists() and b"GramWorker" in command.read_bytes():
        os.kill(pid, signal.SIGKILL)

"""How many workers there should be, with a GPU each or with a core each, from what the cluster has at the moment.

A worker that is asked for beyond what the cluster has is what makes Ray's autoscaler bring a node: Ray scales by the
actors that wait for resources (docs.ray.io, KubeRay Autoscaling). They end with the process that asked for them, and
those of several jobs add up; what ``ray.autoscaler.sdk.request_resources`` asks for holds until somebody overrides it
(ray-project/ray#19785, #37014), and nodes would stay up after a job that was killed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from advntk_dist.distributed.session import cluster_workers
from advntk_dist.errors import AdvNTKError

log = logging.getLogger(__name__)

WORTH_SECONDS = 120.0
"""Work that a worker must find on a node that is not there yet: nodes take minutes to come."""

NODE_SECONDS = 1800.0
"""Longest wait for a node where the cluster has neither a GPU nor a core: a cloud's has to be set up first."""


@dataclass(frozen=True)
class WorkerTarget:
    """Numbers of workers that there should be now.

    Attributes
    ----------
    gpu, cpu
        Workers with a GPU each, and workers with a core and no GPU each.
    room
        Workers that the cluster carries now; 0 where it has neither a GPU nor a core.
    planned
        Workers to count on, at least 1: those that the user asks for, or else ``room``.
    """

    gpu: int
    cpu: int
    room: int
    planned: int

    @property
    def total(self) -> int:
        """Workers of both kinds."""
        return self.gpu + self.cpu

    def of(self, gpu: bool) -> int:
        """Workers of one kind."""
        return self.gpu if gpu else self.cpu


def worker_target(
    gpus: int, cpus: int, *, asked: int | None = None, work: float = 0.0, had_gpus: bool = False
) -> WorkerTarget:
    """How many workers a cluster should have: one a GPU, or one a core where there is no GPU.

    Parameters
    ----------
    gpus, cpus
        Numbers of GPUs and of cores that the cluster has.
    asked
        Number of workers that the user asks for, whatever the cluster has.
    work
        Seconds that one worker would take for what is left. Where each finds more than WORTH_SECONDS of it, up to
        twice as many are wanted as the cluster carries, which asks an autoscaler for nodes; and again when they are
        there.
    had_gpus
        Whether there were GPUs before. One worker then goes on waiting for the next, so that an autoscaler knows that
        GPUs are wanted.
    """
    room = gpus or cpus
    planned = asked or max(1, room)
    spare = 0 if asked else max(0, min(int(work // WORTH_SECONDS) - room, room))
    if gpus or (had_gpus and not cpus):
        return WorkerTarget(planned + spare, 0, room, planned)
    return WorkerTarget(int(had_gpus), planned + spare, room, planned)


class Autoscaling:
    """How many workers a cluster should have from moment to moment.

    Where the cluster has neither a GPU nor a core, a warning says once that a node is waited for, for NODE_SECONDS.

    Parameters
    ----------
    asked
        Number of workers that the user asks for; by default what the cluster carries.
    grows
        Whether more workers than the cluster carries may be asked for where there is work for them.
    error
        Class of the error that is raised where no node comes.
    clock
        Time in seconds, which tests replace.
    """

    def __init__(
        self,
        asked: int | None,
        *,
        grows: bool,
        error: type[AdvNTKError],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asked, self._grows, self._error, self._clock = asked, grows, error, clock
        self._had_gpus = False
        self._waiting: float | None = None

    def now(self, work: float) -> WorkerTarget:
        """How many workers there should be now, with ``work`` seconds of one worker left to do.

        Raises
        ------
        GramBuildError, EvaluationError
            The error that was given, if no node with a GPU or a core came for NODE_SECONDS.
        """
        gpus, cpus = cluster_workers()
        wanted = worker_target(
            gpus, cpus, asked=self._asked, work=work if self._grows else 0.0, had_gpus=self._had_gpus
        )
        self._had_gpus = self._had_gpus or gpus > 0
        if wanted.room:
            self._waiting = None
        elif self._waiting is None:
            self._waiting = self._clock()
            log.warning(
                "the cluster has no node with a GPU or a core; waiting up to %.0f min for one", NODE_SECONDS / 60
            )
        elif self._clock() - self._waiting > NODE_SECONDS:
            raise self._error(
                f"no node with a GPU or a core joined the cluster within {NODE_SECONDS / 60:.0f} min; see `ray "
                "status`, add a node or let the autoscaler bring one, then run the same command again"
            )
        return wanted

"""The workers of builds as Ray actors: started, kept, replaced, asked for tiles, and killed when they hang."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from advntk_dist.errors import GramBuildError, RequestError
from advntk_dist.gram import cluster
from advntk_dist.gram.end import end
from advntk_dist.gram.lost import LOST, reason
from advntk_dist.gram.worker import Failure, GramWorker, Receipt, WorkerInfo, worker_environment
from advntk_dist.spec import NetworkSpec, parse_name

_REST_SECONDS = 10.0
"""Longest time in which a worker that has nothing to do answers."""


@dataclass(frozen=True)
class Lost:
    """A worker is gone."""

    reason: str


Event = tuple[int, WorkerInfo | Receipt | Failure | Lost]
"""A worker's number and what is new of it."""


@dataclass
class _Member:
    actor: Any
    gpu: bool = False
    environment: dict[str, str] | None = None
    info: WorkerInfo | None = None


class WorkerPool:
    """Workers that compute tiles, for one call of :func:`~advntk_dist.gram.build.build_gram` after another.

    A build whose pool has workers at rest, with JAX imported and kernels compiled, begins seconds sooner. At the end of
    a build those that are idle stay, with the cores and GPUs that Ray reserves for them; :meth:`close`, or the end of
    a ``with`` block, gives them back. Whoever is asked for by a build with other settings in the environment, or has
    imported a network of the user's own, whose code may change, is not kept.

    Parameters
    ----------
    address
        Address of a Ray cluster; by default the Ray that is already in use, or a new one on this machine, with shared
        memory for the images of the first build, that is stopped when the pool is closed.
    cpus
        Cores that Ray reserves for one worker.
    """

    def __init__(self, address: str | None = None, *, cpus: int = 1) -> None:
        self.address, self._cpus = address, cpus
        self._members: dict[int, _Member] = {}
        self._waiting: dict[Any, int] = {}
        self._resting: list[_Member] = []
        self._job: tuple[Any, ...] = ()
        self._started = 0
        self._one_build = threading.Lock()
        self._driver: str | None = None
        self._owns_ray = False

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def connect(self, image_bytes: int = 0) -> None:
        """Have Ray initialised, until the pool is closed; errors as of :func:`advntk_dist.gram.cluster.have_ray`."""
        if self._driver is not None and self._driver != _driver():
            self._resting, self._owns_ray = [], False  # somebody has stopped the Ray that they were of
        self._owns_ray = cluster.have_ray(self.address, image_bytes=image_bytes) or self._owns_ray
        self._driver = _driver()

    @property
    def grows(self) -> bool:
        """Whether the cluster is somebody else's, where an autoscaler may bring nodes."""
        return not self._owns_ray or self.address is not None

    @contextlib.contextmanager
    def job(self, spec: NetworkSpec, *others: Any) -> Iterator[None]:
        """Have workers, numbered from 0, compute for one build; at its end those that are idle rest.

        Parameters
        ----------
        spec, others
            Arguments of :meth:`GramWorker.ready`; images as object references.

        Raises
        ------
        RequestError
            If the pool is at work for another build.
        """
        if not self._one_build.acquire(blocking=False):
            raise RequestError("pool: another build is using it; give each of two builds at once a pool of its own")
        try:
            self._job, self._started = (spec, *others), 0
            wanted = {gpu: worker_environment(self._cpus, gpu) for gpu in (False, True)}
            self._dismiss([m for m in self._resting if m.environment != wanted[m.gpu]])
            try:
                yield
            finally:
                self._end(keep=parse_name(spec.name) is not None)
        finally:
            self._one_build.release()

    @property
    def ready(self) -> list[int]:
        """Workers that can take tiles."""
        return [number for number, member in self._members.items() if member.info is not None]

    def start(self, gpu: bool) -> int:
        """Ask for one more worker, with a GPU or without; it reports when it is ready. Returns its number."""
        member = next((m for m in self._resting if m.gpu == gpu), None)
        if member is None:
            self._dismiss(list(self._resting))  # it may be their cores that the new one needs
            environment = worker_environment(self._cpus, gpu)
            actor_class: Any = ray.remote(GramWorker)
            actor = actor_class.options(
                num_cpus=self._cpus,
                num_gpus=int(gpu),
                max_concurrency=2,
                max_restarts=0,
                max_task_retries=0,
                runtime_env={"env_vars": environment},
            ).remote()
            member = _Member(actor, gpu, environment)
        else:
            self._resting.remove(member)
            member.info = None
        number = self._started
        self._started += 1
        self._members[number] = member
        self._waiting[member.actor.ready.remote(*self._job)] = number
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
        if member.info is None:
            ray.kill(member.actor, no_restart=True)
        else:
            end(member.actor, GramWorker.__name__, member.info.node, member.info.pid)
        self.forget(worker)

    def close(self) -> None:
        """Kill every worker, and stop Ray if it was started for the pool; another build opens it again."""
        if self._driver is not None and self._driver == _driver():
            self._dismiss(list(self._resting))
            if self._owns_ray:
                cluster.stop_ray()
        self._resting, self._driver, self._owns_ray = [], None, False

    def _end(self, *, keep: bool) -> None:
        busy = set(self._waiting.values())
        idle = [m for n, m in self._members.items() if keep and n not in busy and m.info is not None]
        for member in self._members.values():
            if member not in idle:
                with contextlib.suppress(*LOST):
                    ray.kill(member.actor, no_restart=True)
        self._members, self._waiting, self._job = {}, {}, ()
        self._resting += idle
        answers = {member.actor.rest.remote(): member for member in idle}
        done, hung = ray.wait(list(answers), num_returns=len(answers), timeout=_REST_SECONDS) if answers else ([], [])
        lost = [answers[reference] for reference in hung]
        for reference in done:
            try:
                ray.get(reference)
            except RayError:
                lost.append(answers[reference])
        self._dismiss(lost)

    def _dismiss(self, members: list[_Member]) -> None:
        for member in members:
            self._resting.remove(member)
            with contextlib.suppress(*LOST):
                ray.kill(member.actor, no_restart=True)


def _driver() -> str | None:
    """What tells the Ray that this process uses now from one that it used before."""
    return ray.get_runtime_context().get_worker_id() if ray.is_initialized() else None

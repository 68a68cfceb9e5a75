"""A pool of Ray actors of one class: started, given tasks, pinged, kept for the next job, and ended when they hang."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from advntk_dist.distributed import session
from advntk_dist.distributed.worker import PooledActor, WorkerInfo, end_process, worker_environment
from advntk_dist.errors import AdvNTKError, RequestError

LOST = (
    RayActorError,
    ActorUnschedulableError,
    WorkerCrashedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,  # Ray's memory monitor has killed it
    RuntimeEnvSetupError,  # its node could not start it
)
"""Errors of Ray that mean that the actor is gone: another one gets its tasks. Everything else ends the work."""

PING_SECONDS = 120.0
"""Time without an answer to a ping after which a worker counts as hung."""

_REST_SECONDS = 10.0
"""Longest time in which a worker that has nothing to do answers."""

_THREADS = 3
"""Threads of an actor: two tasks, so that one computes while the other writes, and pings."""


@dataclass(frozen=True)
class Lost:
    """A worker is gone, or counts as gone; ``reason`` is one line."""

    reason: str


class Call(NamedTuple):
    """A task as an actor gets it: a method, its arguments, and what messages call the task, as "tile (0, 3)"."""

    method: str
    where: str
    arguments: tuple[Any, ...]


class PoolEvent(NamedTuple):
    """What is new of a worker: WorkerInfo (it is ready), Lost, or what the task of this key has returned."""

    worker: int
    key: Hashable
    outcome: Any


@dataclass(frozen=True)
class Reservation:
    """What Ray sets aside for one actor.

    Attributes
    ----------
    cpus
        Cores; also the threads that the worker uses, unless ``threads`` says otherwise.
    gpu
        Whether it gets a GPU.
    memory
        Bytes of memory, 0 for no reservation.
    node
        Ray's name of the node that it must run on, None for any.
    threads
        Threads that the worker uses, by default one a core.
    """

    cpus: int = 1
    gpu: bool = False
    memory: int = 0
    node: str | None = None
    threads: int | None = None

    def environment(self) -> dict[str, str]:
        """Environment variables of the worker's process."""
        return worker_environment(self.threads or self.cpus, self.gpu)


@dataclass
class _Member:
    actor: Any
    reservation: Reservation
    environment: dict[str, str]
    info: WorkerInfo | None = None
    keys: dict[Any, Hashable] = field(default_factory=dict)
    """References of what it still owes, with the keys of the tasks; the key of its readiness is None."""
    ping: Any = None
    pinged: float = 0.0


class ActorPool:
    """Ray actors of one class that work for one job after another; a context manager.

    Actors that are idle at the end of a job stay for the next one, with JAX imported and kernels compiled, and keep
    the cores and GPUs that Ray reserves for them; :meth:`close` gives them back. An actor is not kept where the next
    job asks for other settings in the environment.

    Parameters
    ----------
    actor_class
        Class of the actors.
    error
        Raised where an actor fails in a way that a replacement would not mend.
    address
        Address of a Ray cluster; by default the Ray that is already in use, or a new one on this machine that is
        stopped when the pool is closed.
    cpus
        Cores that Ray reserves for one actor.
    patience
        Time in seconds without an answer to a ping after which an actor counts as hung.
    """

    def __init__(
        self,
        actor_class: type[PooledActor],
        error: type[AdvNTKError],
        address: str | None = None,
        *,
        cpus: int = 1,
        patience: float = PING_SECONDS,
    ) -> None:
        self.actor_class, self.error, self.address = actor_class, error, address
        self._cpus, self._patience = cpus, patience
        self._members: dict[int, _Member] = {}
        self._resting: list[_Member] = []
        self._job: tuple[Any, ...] = ()
        self._started = 0
        self._one_job = threading.Lock()
        self._driver: str | None = None
        self._owns_ray = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def connect(self, shared_bytes: int = 0) -> None:
        """Have Ray initialised, with so much shared memory if it is started here, until the pool is closed.

        Raises
        ------
        RequestError
            If no cluster answers, or Ray does not start; see :func:`advntk_dist.distributed.session.have_ray`.
        """
        if self._driver is not None and self._driver != _driver():
            self._resting, self._owns_ray = [], False  # the Ray that they belonged to has been stopped
        self._owns_ray = session.have_ray(self.address, image_bytes=shared_bytes) or self._owns_ray
        self._driver = _driver()

    @property
    def grows(self) -> bool:
        """Whether an autoscaler may add nodes: on every cluster that this pool has not started itself."""
        return not self._owns_ray or self.address is not None

    @contextlib.contextmanager
    def job(self, *arguments: Any, keep: bool = True) -> Iterator[None]:
        """Have actors, numbered from 0, work for one job; at its end those that are idle rest.

        Parameters
        ----------
        arguments
            Arguments of :meth:`PooledActor.prepare`; arrays as object references.
        keep
            Whether idle actors stay for the next job. Not where they have imported a user's code, which may change.

        Raises
        ------
        RequestError
            If the pool is at work for another job.
        """
        if not self._one_job.acquire(blocking=False):
            raise RequestError("pool: another build is using it; give each of two builds at once a pool of its own")
        try:
            self._job, self._started = arguments, 0
            wanted = {gpu: worker_environment(self._cpus, gpu) for gpu in (False, True)}
            self._dismiss([m for m in self._resting if m.environment != wanted[m.reservation.gpu]])
            try:
                yield
            finally:
                self._end_job(keep=keep)
        finally:
            self._one_job.release()

    @property
    def kinds(self) -> dict[int, bool]:
        """Whether each worker of the job, be it ready or starting, has a GPU."""
        return {number: member.reservation.gpu for number, member in self._members.items()}

    @property
    def ready(self) -> list[int]:
        """Numbers of the workers that can take tasks."""
        return [number for number, member in self._members.items() if member.info is not None]

    def start(self, gpu: bool) -> int:
        """Ask for one more worker for the job, with a GPU or without, and return its number."""
        member = next((m for m in self._resting if m.reservation.gpu == gpu), None)
        if member is None:
            self._dismiss(list(self._resting))  # it may be their cores that the new one needs
            return self.start_with(Reservation(self._cpus, gpu), *self._job)
        self._resting.remove(member)
        return self._take_up(member, self._job)

    def start_with(self, reservation: Reservation, *job: Any) -> int:
        """Start an actor with a reservation and arguments of its own, and return its number."""
        actor_class: Any = ray.remote(self.actor_class)
        environment = reservation.environment()
        options: dict[str, Any] = {"num_cpus": reservation.cpus, "num_gpus": int(reservation.gpu)}
        if reservation.memory:
            options["memory"] = reservation.memory
        if reservation.node is not None:
            # Not soft: where the node is gone, the caller looks for room elsewhere, and its lack is reported at once.
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(reservation.node, soft=False)
        actor = actor_class.options(
            max_concurrency=_THREADS,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": environment},
            **options,
        ).remote()
        return self._take_up(_Member(actor, reservation, environment), job)

    def _take_up(self, member: _Member, job: tuple[Any, ...]) -> int:
        number = self._started
        self._started += 1
        member.info, member.ping = None, None
        member.keys = {member.actor.ready.remote(*job): None}
        self._members[number] = member
        return number

    def submit(self, worker: int, key: Hashable, call: Call) -> None:
        """Give a task to a ready worker."""
        member = self._members[worker]
        if not member.keys:
            member.pinged = time.monotonic()
        member.keys[member.actor.call.remote(call.method, call.where, *call.arguments)] = key

    def poll(self, timeout: float) -> list[PoolEvent]:
        """What is new, after at most ``timeout`` seconds; a lost worker is reported once and forgotten.

        Raises
        ------
        AdvNTKError
            Of the class of the pool, if an actor ends with anything but one of :data:`LOST`.
        """
        waiting = {reference: number for number, member in self._members.items() for reference in member.keys}
        done, _ = ray.wait(list(waiting), num_returns=1, timeout=timeout)
        if done:  # take everything else that is there, too
            done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        events: list[PoolEvent] = []
        for reference in done:
            number = waiting[reference]
            if number not in self._members:
                continue  # a result of a worker that was lost a moment ago
            key = self._members[number].keys.pop(reference)
            try:
                outcome = ray.get(reference)
            except LOST as error:
                del self._members[number]
                outcome = Lost(ray_error_summary(error))
            except RayTaskError as error:
                raise self.error(f"a worker failed: {error.cause or error}") from error
            except RayError as error:
                said = ray_error_summary(error)
                raise self.error(f"Ray failed a worker ({said}); run the same command again") from error
            if isinstance(outcome, WorkerInfo):
                self._members[number].info = outcome
            events.append(PoolEvent(number, key, outcome))
        return events + self._hung()

    def _hung(self) -> list[PoolEvent]:
        """The workers that have tasks and do not answer pings; they are ended."""
        events, now = [], time.monotonic()
        for number, member in list(self._members.items()):
            if member.info is None or not member.keys:
                member.ping = None
                continue
            if member.ping is not None and ray.wait([member.ping], timeout=0)[0]:
                member.ping = None
            if member.ping is None and now - member.pinged > self._patience / 4:
                member.ping, member.pinged = member.actor.ping.remote(), now
            if member.ping is not None and now - member.pinged > self._patience:
                self.kill(number)
                events.append(PoolEvent(number, None, Lost(f"no sign of life for {self._patience:.0f} s")))
        return events

    def kill(self, worker: int) -> None:
        """End a worker that hangs, even one whose process is stopped, so that Ray frees its cores."""
        member = self._members.pop(worker)
        _kill(member.actor)
        if member.info is not None and member.keys and ray.is_initialized():  # a task would start another Ray
            # A stopped process never reads Ray's message: a task on its own node has to send the signal.
            place = NodeAffinitySchedulingStrategy(member.info.node, soft=False)
            task = ray.remote(end_process).options(num_cpus=0, scheduling_strategy=place, max_retries=0)
            task.remote(self.actor_class.__name__, member.info.pid)

    def release(self) -> None:
        """End every actor now, so that their cores and memory are free; the next task starts new ones."""
        for member in self._members.values():
            _kill(member.actor)
        self._members = {}
        self._dismiss(list(self._resting))

    def close(self) -> None:
        """End every idle actor, and stop Ray if it was started for the pool; another job opens it again."""
        if self._driver is not None and self._driver == _driver():
            self._dismiss(list(self._resting))
            if self._owns_ray:
                session.stop_ray()
        self._resting, self._driver, self._owns_ray = [], None, False

    def _end_job(self, *, keep: bool) -> None:
        idle = [m for m in self._members.values() if keep and m.info is not None and not m.keys]
        for member in self._members.values():
            if member not in idle:
                _kill(member.actor)
        self._members, self._job = {}, ()
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
            _kill(member.actor)


def _kill(actor: Any) -> None:
    if ray.is_initialized():
        with contextlib.suppress(*LOST, ValueError):  # ValueError where it belongs to a Ray that has been stopped
            ray.kill(actor, no_restart=True)


def _driver() -> str | None:
    """What tells the Ray that this process uses now from one that it used before."""
    return ray.get_runtime_context().get_worker_id() if ray.is_initialized() else None


def ray_error_summary(error: BaseException) -> str:
    """The class of an error and its first line, which for most of Ray's errors is followed by many."""
    told = error.error_message if isinstance(error, RuntimeEnvSetupError) else None
    lines = str(told or error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

"""Ray actors that judge batches: started, asked, watched for signs of life, and killed."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from advntk_dist.evaluation.evaluator import Batch
from advntk_dist.evaluation.worker import EvaluationWorker, Failure, Ready
from advntk_dist.gram.end import end
from advntk_dist.gram.lost import LOST, reason
from advntk_dist.gram.staff import Staff
from advntk_dist.gram.worker import worker_environment


@dataclass
class EvaluationActor:
    """An actor, what it is asked for, and since when."""

    number: int
    actor: Any
    asked: Any
    since: float
    info: Ready | None = None
    batch: Batch | None = None
    ping: Any = None
    pinged: float = 0.0
    gpu: bool = False


class Crew:
    """The actors that there are now.

    Parameters
    ----------
    patience
        Seconds without an answer to a ping after which a worker counts as hung.
    limit
        Seconds that one batch may take.
    """

    def __init__(self, patience: float, limit: float) -> None:
        self._patience, self._limit = patience, limit
        self.members: list[EvaluationActor] = []
        self.started = 0
        """Actors started so far; the next one has this number."""

    @property
    def busy(self) -> list[EvaluationActor]:
        """Those with a batch."""
        return [m for m in self.members if m.batch is not None]

    @property
    def free(self) -> list[EvaluationActor]:
        """Those that are ready and have no batch."""
        return [m for m in self.members if m.info is not None and m.batch is None]

    def bring_to(self, staff: Staff, left: int, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
        """Start whom so many batches can use, and let go whom they have no more use for; returns what to tell of it.

        As in a build: who is ready is let go only where none of its kind is wanted, and only without a batch.
        """
        told: list[dict[str, Any]] = []
        for gpu in (True, False):  # first, as it may be their cores that the others need
            mine, wanted = self._of(gpu), staff.of(gpu)
            useless = [m for m in reversed(mine) if m.info is None][: max(0, len(mine) - wanted)]
            if not wanted:
                useless += [m for m in self.free if m.gpu == gpu]
            for member in useless:
                self.kill(member)
                told.append({"event": "evaluator_retired", "worker": member.number, "gpu": gpu})
        for gpu in (True, False):
            for _ in range(min(staff.of(gpu), left) - len(self._of(gpu))):
                told.append({"event": "evaluator_started", "worker": self.start(arguments, gpu), "gpu": gpu})
        return told

    def start(self, arguments: tuple[Any, ...], gpu: bool) -> int:
        """Ask Ray for one more actor with these arguments of :class:`EvaluationWorker`; returns its number."""
        actor_class: Any = ray.remote(EvaluationWorker)
        actor = actor_class.options(
            num_cpus=1,
            num_gpus=int(gpu),
            max_concurrency=2,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": worker_environment(1, gpu)},
        ).remote(*arguments)
        self.members.append(EvaluationActor(self.started, actor, actor.ready.remote(), time.monotonic(), gpu=gpu))
        self.started += 1
        return self.started - 1

    def _of(self, gpu: bool) -> list[EvaluationActor]:
        return [m for m in self.members if m.gpu == gpu]

    def poll(self, seconds: float = 1.0) -> list[tuple[EvaluationActor, Any]]:
        """What is new of which worker: Ready, rows, a Failure, or as text why it counts as lost."""
        asked = {m.asked: m for m in self.members if m.info is None or m.batch is not None}
        done, _ = ray.wait(list(asked), num_returns=1, timeout=seconds)
        events: list[tuple[EvaluationActor, Any]] = []
        for reference in done:
            events.append((asked[reference], _outcome(reference)))
        answered = {id(member) for member, _ in events}
        for member in asked.values():
            silent = None if id(member) in answered else self._silent(member)
            if silent is not None:
                events.append((member, silent))
        return events

    def _silent(self, member: EvaluationActor) -> str | None:
        """Why a worker with a batch counts as hung, if it does; asks it for a sign of life."""
        now = time.monotonic()
        if member.info is None:
            return None
        if now - member.since > self._limit:
            return f"no result of a batch for {self._limit:.0f} s"
        if member.ping is not None and ray.wait([member.ping], timeout=0)[0]:
            member.ping = None
        if member.ping is None and now - member.pinged > self._patience / 4:
            member.ping, member.pinged = member.actor.ping.remote(), now
        if member.ping is not None and now - member.pinged > self._patience:
            return f"no sign of life for {self._patience:.0f} s"
        return None

    def kill(self, member: EvaluationActor) -> None:
        """Kill and forget an actor, even one that hangs on a batch."""
        self.members.remove(member)
        if member.info is None or member.batch is None:
            with contextlib.suppress(*LOST):
                ray.kill(member.actor, no_restart=True)
        else:
            end(member.actor, EvaluationWorker.__name__, member.info.node, member.info.pid)


def _outcome(reference: Any) -> Any:
    """What an actor answers, a Failure, or as text why it is lost."""
    try:
        return ray.get(reference)
    except LOST as error:
        return reason(error)
    except RayTaskError as error:
        return Failure(f"a worker failed: {reason(error.cause or error)}")
    except RayError as error:
        return Failure(f"Ray failed a worker ({reason(error)}); run the same command again")

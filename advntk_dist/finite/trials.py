"""Trials over width and seed on Ray actors; each commits to a Zarr group of its own, and is not run again.

On a cluster the run directory must be a folder that every node sees, or in an object store.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from advntk_dist.config import AttackConfig
from advntk_dist.config.finite_width import AdversarialTrainingConfig, FlowConfig
from advntk_dist.distributed.autoscaling import Autoscaling
from advntk_dist.distributed.pool import ActorPool, Call
from advntk_dist.distributed.scheduler import run_tasks
from advntk_dist.distributed.task_queue import TaskQueue
from advntk_dist.distributed.worker import PooledActor
from advntk_dist.errors import SolverError
from advntk_dist.spec import NetworkSpec
from advntk_dist.storage import Records, guarded_group
from advntk_dist.storage.paths import location

FLOW_FIELDS = ("gap_train", "gap_test", "ntk_change", "ark_change", "step_error", "steps")
"""Columns of the committed numbers of a flow trial."""


@dataclass(frozen=True)
class Trial:
    """One network to be trained.

    Attributes
    ----------
    path
        Its Zarr group.
    identity
        What guards the group.
    network
        The infinite network whose shape it has.
    width, seed
        Which network of that shape.
    """

    path: str
    identity: tuple[tuple[str, str], ...]
    network: NetworkSpec
    width: int
    seed: int

    def group(self) -> Any:
        """The group, made if it is not there."""
        return guarded_group(location(self.path), dict(self.identity))


def flow_trial(trial: Trial, config: FlowConfig, x: Any, y: NDArray[np.float64], x_test: Any) -> None:
    """:func:`advntk_dist.finite.flow.run_flow`, committed."""
    from advntk_dist.finite.flow import run_flow
    from advntk_dist.finite.networks import FiniteNetwork

    group = trial.group()
    numbers, outputs = flow_records(group, config, len(x) + len(x_test), y.shape[1])
    found = run_flow(FiniteNetwork.of(trial.network, trial.width), trial.seed, x, y, x_test, config)
    outputs.write(0, np.stack([found.outputs, found.linear])[None])
    numbers.write(0, np.array([[float(getattr(found, field)) for field in FLOW_FIELDS]]))  # last: it commits the trial


def flow_records(group: Any, config: FlowConfig, images: int, classes: int) -> tuple[Records, Records]:
    """Numbers (1, fields) and outputs (1, 2, times, images, classes) of a flow trial: f_t, then f_t^lin."""
    shape = (2, config.points, images, classes)
    return Records(group, "numbers", 1, (len(FLOW_FIELDS),)), Records(group, "outputs", 1, shape)


def training_trial(
    trial: Trial, config: AdversarialTrainingConfig, attack: AttackConfig, batch: int, train: Any, val: Any, test: Any
) -> None:
    """:func:`advntk_dist.finite.adversarial_training.train_adversarially`, which commits for itself."""
    from advntk_dist.finite.adversarial_training import train_adversarially
    from advntk_dist.finite.networks import FiniteNetwork

    network = FiniteNetwork.of(trial.network, trial.width, config)
    train_adversarially(network, trial.seed, train, val, test, config, attack, group=trial.group(), batch=batch)


def run_trials(
    function: Callable[..., None],
    trials: Sequence[Trial],
    shared: Sequence[Any],
    large: Sequence[Any],
    *,
    address: str | None,
    on_done: Callable[[Trial], None] = lambda trial: None,
) -> None:
    """Run ``function(trial, *shared, *large)`` for each trial, as many at once as the cluster has cores, or GPUs.

    Parameters
    ----------
    function
        :func:`flow_trial` or :func:`training_trial`.
    trials
        What is missing; nothing is started for none.
    shared, large
        Further arguments; the large ones go through Ray's shared memory once.
    address
        Ray cluster, None for this machine.
    on_done
        Called with each trial that has ended, in the order in which they end.

    Raises
    ------
    AdvNTKError
        What a trial has raised, SolverError where that is no error of this package.
    SolverError
        If workers are lost again and again.
    """
    of = {(trial.width, trial.seed): trial for trial in trials}
    if not of:
        return
    queue = TaskQueue(of, "trial", SolverError, deadline=math.inf)
    with ActorPool(TrialWorker, SolverError, address) as pool:
        pool.connect()
        references = [ray.put(part) for part in large]
        autoscaling = Autoscaling(None, grows=pool.grows, error=SolverError)

        def call(key: tuple[int, int], attempt: int) -> Call:  # noqa: ARG001 - a trial is the same at each attempt
            where = f"width {key[0]}, seed {key[1]}"
            return Call("run", where, (function, of[key], tuple(shared), *references))

        done = run_tasks(queue, pool, call, target=autoscaling.now)
        with pool.job(keep=False), contextlib.closing(done):
            for key, _ in done:
                on_done(of[key])


class TrialWorker(PooledActor):
    """Trains finite networks, one after the other."""

    def prepare(self) -> dict[str, Any]:
        """Nothing: a trial brings what it needs."""
        return {}

    def run(self, function: Callable[..., None], trial: Trial, shared: tuple[Any, ...], *large: Any) -> None:
        """Run ``function(trial, *shared, *large)``, which commits what it finds."""
        function(trial, *shared, *large)

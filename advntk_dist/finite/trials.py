"""Trials over width and seed as Ray tasks; each commits to a Zarr group of its own, and is not run again.

On a cluster the run directory must be a folder that every node sees, or in an object store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayTaskError

from advntk_dist.config import AttackConfig
from advntk_dist.config.finite_width import AdversarialTrainingConfig, FlowConfig
from advntk_dist.errors import AdvNTKError, GramBuildError, RequestError, SolverError, StoreError
from advntk_dist.gram.cluster import cluster_workers, ray_session
from advntk_dist.gram.worker import worker_environment
from advntk_dist.spec import NetworkSpec
from advntk_dist.storage import Records, guarded_group
from advntk_dist.storage.paths import location

FLOW_FIELDS = ("gap_train", "gap_test", "ntk_change", "ark_change", "step_error", "steps")
"""Columns of the committed numbers of a flow trial."""

_RETRIES = 3
"""Times that a trial whose worker process is lost is started again; it goes on from its checkpoint."""


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


@dataclass(frozen=True)
class _Failure:
    exit_code: int
    message: str


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

    spec = trial.network
    network = FiniteNetwork(
        spec.name,
        trial.width,
        spec.classes,
        config.W_std,
        config.b_std,
        spec.activation,
        config.parameterization,
    )
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
    RequestError, StoreError, SolverError
        What a trial has raised.
    GramBuildError
        If a worker process is lost again and again.
    """
    if not trials:
        return
    with ray_session(address):
        gpu = cluster_workers()[0] > 0
        task: Any = ray.remote(_guarded).options(
            num_cpus=1,
            num_gpus=1 if gpu else 0,
            max_retries=_RETRIES,
            runtime_env={"env_vars": worker_environment(1, gpu)},
        )
        references = [ray.put(part) for part in large]
        waiting = {task.remote(function, trial, tuple(shared), *references): trial for trial in trials}
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), num_returns=1)
                for reference in done:
                    trial = waiting.pop(reference)  # before it may raise: Ray aborts where an ended task is cancelled
                    _raise_failure(reference)
                    on_done(trial)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


def _guarded(function: Callable[..., None], trial: Trial, shared: tuple[Any, ...], *large: Any) -> _Failure | None:
    """Run a trial in a worker; errors of this package come back as what they say, which always pickles."""
    try:
        function(trial, *shared, *large)
    except AdvNTKError as error:
        return _Failure(error.exit_code, f"width {trial.width}, seed {trial.seed}: {error}")
    return None


def _raise_failure(reference: Any) -> None:
    try:
        outcome = ray.get(reference)
    except RayTaskError as error:
        raise GramBuildError(f"a trial failed: {error.cause or error}") from error
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        raise GramBuildError(f"the worker of a trial was lost {_RETRIES + 1} times ({first}); run again") from error
    if isinstance(outcome, _Failure):
        kinds: dict[int, type[AdvNTKError]] = {2: RequestError, 3: StoreError}
        raise kinds.get(outcome.exit_code, SolverError)(outcome.message)

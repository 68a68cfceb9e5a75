"""The finite network of the paper's adversarial training, trained and read back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zarr

from advntk_dist.config import AttackConfig
from advntk_dist.config.finite_width import AdversarialTrainingConfig
from advntk_dist.errors import StoreDamagedError
from advntk_dist.finite.adversarial_training import optimiser, train_adversarially
from advntk_dist.finite.networks import FiniteNetwork, flatten, unflatten
from advntk_dist.finite.predictor import FinitePredictor
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.pipeline.problem import Problem
from advntk_dist.storage import Records


def train_network(
    problem: Problem,
    settings: AdversarialTrainingConfig,
    attack: AttackConfig,
    group: zarr.Group,
    on_step: Callable[[int], None] = lambda step: None,
) -> Callable[[], Any]:
    """Train a network, or go on with it, to its last step; ``on_step`` hears how many steps are done.

    Returns
    -------
    predictor
        Makes the trained network as attacks see it.

    Raises
    ------
    SolverError
        If the loss overflows.
    StoreDamagedError
        If a checkpoint fails its checksum.
    """
    spec, x = problem.net.spec, problem.train.x
    network = FiniteNetwork(
        spec.name,
        settings.width,
        spec.classes,
        settings.W_std,
        settings.b_std,
        spec.activation,
        settings.parameterization,
    )
    batch = problem.config.evaluation.batch
    val = problem.val.x, problem.val.y
    # The test images wait for the evaluation of the cell: one of the validation images stands in for them here.
    nobody = val[0][:1], val[1][:1]
    train = x, problem.train.y
    train_adversarially(
        network, settings.seed, train, val, nobody, settings, attack, group=group, batch=batch, on_step=on_step
    )

    def predictor() -> FinitePredictor:
        with kernel_scope():
            params = network.init(settings.seed, x.shape[1:], x.dtype.name)
            like = params, optimiser(settings).init(params)
        saved = Records(group, "state", 2, (len(flatten(like)) + 1,))
        rows = [row[0] for row in (saved.read(place) for place in range(2)) if row is not None]
        if not rows:
            raise StoreDamagedError(f"{saved.where}: no state is committed; remove this folder and run again")
        newest = max(rows, key=lambda row: float(row[-1]))
        with kernel_scope():
            trained, _ = unflatten(newest[:-1], like)
        return FinitePredictor(network, trained, batch)

    return predictor

"""Clean and robust accuracy of a predictor under one attack; each batch is committed and never computed twice.

A clean error counts as a robust one, so images that are misclassified to begin with are not attacked; those that are
not are collected over batches, so that every attack has a full batch of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.attacks.base import BoundAttack, DifferentiablePredictor, Images, Norm
from advntk_dist.evaluation.accuracy import COLUMNS, MethodResult
from advntk_dist.evaluation.committed import CommittedRows, counted
from advntk_dist.evaluation.evaluator import Evaluator, InProcess, Withstands, is_right


def evaluate(
    predictor: Callable[[], DifferentiablePredictor],
    x: Images,
    y: NDArray[np.int64],
    attack: BoundAttack,
    *,
    norm: Norm,
    seed: int,
    group: zarr.Group,
    name: str,
    batch: int,
    on_batch: Callable[[int, bool], None] = lambda images, fresh: None,
    evaluator: Evaluator | None = None,
    of: int = 0,
) -> MethodResult:
    """Attack every image that is classified correctly, once; a clean error counts as a robust one.

    Parameters
    ----------
    predictor
        Called once, and only if a batch is missing: makes what is attacked.
    x, y
        Images (m, H, W, C) and labels (m,).
    attack
        Called as attack(predictor, x, y, seed=..., indices=...).
    norm, seed
        Norm of the attack, to measure its perturbations; seed of its random starts.
    group, name
        Zarr group and array name of the committed outcomes, (m, 3) as COLUMNS says.
    batch
        Images predicted and committed at once, and images attacked at once.
    on_batch
        Called after each batch with its number of images, and whether it was computed now or was there before.
    evaluator
        Where batches are judged; by default in this process, by ``predictor``, which is not called otherwise.
    of
        Seal of the predictor's coefficients where these are committed: outcomes of any others are not met again.

    Raises
    ------
    StoreError
        If a batch cannot be committed.
    EvaluationError
        If the evaluator cannot judge a batch.
    """
    where = evaluator or InProcess(predictor, x, y)
    rows = CommittedRows(group, name, len(x), len(COLUMNS), batch, counted(on_batch), of)
    for work, found in where.map(rows.batches(rows.missing, is_right)):
        rows.table[work.indices] = np.where(found > 0, [1.0, np.nan, np.nan], 0.0)
    rows.commit()
    waiting = rows.missing[rows.table[rows.missing, 0] > 0]
    for work, found in where.map(rows.batches(waiting, Withstands(attack, norm, seed))):
        rows.table[work.indices, 1:] = found
        rows.commit()
    table = rows.table
    return MethodResult.of(table[:, 0], table[:, 1], float(table[:, 2].max()))

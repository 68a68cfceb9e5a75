"""Clean and robust accuracy of a predictor; each batch is committed and never computed twice.

A clean error counts as a robust one, so images that are misclassified to begin with are not attacked; those that are
not are collected over batches, so that every attack has a full batch of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.attacks.base import Images, Norm, perturbation_size
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.evaluation.accuracy import Accuracy, MethodResult
from advntk_dist.grid import spans
from advntk_dist.predictor import KernelPredictor
from advntk_dist.storage import Records
from advntk_dist.training.adv_ntk import BoundAttack

COLUMNS = ("clean_correct", "robust_correct", "perturbation")


def evaluate(
    predictor: Callable[[], KernelPredictor],
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

    Raises
    ------
    StoreDamagedError
        If a committed batch fails its checksum.
    """
    outcomes = Records(group, name, len(x), (len(COLUMNS),), span=batch)
    table = np.full((len(x), len(COLUMNS)), np.nan)
    made: KernelPredictor | None = None
    pending: deque[slice] = deque()
    waiting: deque[int] = deque()

    def attack_some(images: int) -> None:
        assert made is not None
        chosen = np.array([waiting.popleft() for _ in range(images)], dtype=np.int64)
        if images:
            table[chosen, 1:] = _attack(made, x[chosen], y[chosen], attack, norm, seed, chosen)
        while pending and np.isfinite(table[pending[0]]).all():
            span = pending.popleft()
            outcomes.write(span.start, table[span])
            on_batch(span.stop - span.start, True)

    for span in spans(len(x), batch):
        row = outcomes.read(span.start)
        if row is not None:
            table[span] = row
            on_batch(len(row), False)
            continue
        made = made or predictor()
        correct = made.predict(x[span]).argmax(axis=1) == y[span]
        table[span, 0] = correct
        table[span, 1:] = np.where(correct, np.nan, 0.0)[:, None]
        pending.append(span)
        waiting.extend((span.start + np.flatnonzero(correct)).tolist())
        attack_some(batch if len(waiting) >= batch else 0)
    if pending:
        attack_some(len(waiting))
    return MethodResult(Accuracy.of(table[:, 0]), Accuracy.of(table[:, 1]), float(table[:, 2].max()))


def _attack(
    predictor: KernelPredictor,
    x: Images,
    y: NDArray[np.int64],
    attack: BoundAttack,
    norm: Norm,
    seed: int,
    indices: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Whether each attacked image is classified correctly, and the size of its perturbation, (m, 2)."""
    adversarial = attack(predictor, x, y, seed=seed, indices=indices)
    robust = predictor.predict(adversarial).argmax(axis=1) == y
    return np.column_stack([robust, perturbation_size(adversarial, to_unit_range(x), norm)]).astype(float)

"""Clean and robust accuracy of a predictor; each batch is committed and never computed twice."""

from __future__ import annotations

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
    """Attack every image once; a clean error counts as a robust one.

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
        Images attacked and committed at once.
    on_batch
        Called after each batch with its number of images, and whether it was computed now or was there before.

    Raises
    ------
    StoreDamagedError
        If a committed batch fails its checksum.
    """
    outcomes = Records(group, name, len(x), (len(COLUMNS),), span=batch)
    made: KernelPredictor | None = None
    rows = []
    for span in spans(len(x), batch):
        row = outcomes.read(span.start)
        fresh = row is None
        if row is None:
            made = made or predictor()
            row = _attack_batch(made, x[span], y[span], attack, norm, seed, np.arange(span.start, span.stop))
            outcomes.write(span.start, row)
        rows.append(row)
        on_batch(len(row), fresh)
    table = np.concatenate(rows)
    return MethodResult(Accuracy.of(table[:, 0]), Accuracy.of(table[:, 1]), float(table[:, 2].max()))


def _attack_batch(
    predictor: KernelPredictor,
    x: Images,
    y: NDArray[np.int64],
    attack: BoundAttack,
    norm: Norm,
    seed: int,
    indices: NDArray[np.int64],
) -> NDArray[np.float64]:
    adversarial = attack(predictor, x, y, seed=seed, indices=indices)
    clean = predictor.predict(x).argmax(axis=1) == y
    robust = clean & (predictor.predict(adversarial).argmax(axis=1) == y)
    return np.column_stack([clean, robust, perturbation_size(adversarial, to_unit_range(x), norm)]).astype(float)

"""Which images of a run are almost the same as one of its training images: committed once, from kernel values.

Those between training images are in the Gram matrix; validation and test images take one pass over the training images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advntk_dist.data.near_equal import NearEqual, find_near_equal
from advntk_dist.evaluation.committed import CommittedRows
from advntk_dist.evaluation.evaluator import FARTHEST, NearestTraining, distances, nearer
from advntk_dist.gram import GramStore
from advntk_dist.pipeline.coefficients import CommittedCoefficients
from advntk_dist.pipeline.problem import Part
from advntk_dist.pipeline.stages import OpenRun, uniform
from advntk_dist.storage import Records

SPAN = 2048
"""Images that are compared at once."""


def near_equal_images(run: OpenRun) -> NearEqual:
    """Find them, or read what was found; the Gram matrix and the uniform coefficients must be there.

    Raises
    ------
    EvaluationError
        If kernel values cannot be computed.
    StoreError
        If the Gram matrix is damaged, or what is found cannot be committed.
    """
    nearest, typical = {"train": _of_training_images(run)}, _typical_distance(run)
    for name, part in (("val", run.context.problem.val), ("test", run.context.problem.test)):
        rows = CommittedRows(run.coefficients.group, f"nearest_{name}", len(part.y), 2, SPAN, lambda *_: None)
        if len(rows.missing):
            with run.context.events.stage("solve"):
                _compare(run, part, rows)
        nearest[name] = rows.table
    return find_near_equal(run.context.problem.dataset, run.context.problem.rows, nearest, typical)


def _compare(run: OpenRun, part: Part, rows: CommittedRows) -> None:
    """Fill in and commit the rows that are missing."""
    task = NearestTraining(_scale(run.coefficients.solver.store()))
    rows.fill(run.outcomes.workers.evaluator(CommittedCoefficients(uniform(run), 0), part), rows.missing, task)


def _of_training_images(run: OpenRun) -> NDArray[np.float64]:
    n = len(run.context.problem.train.y)
    table = Records(run.coefficients.group, "nearest_train", n, (2,), span=n)
    found = table.read(0)
    if found is None:
        with run.context.events.stage("solve"):
            found = nearest_in_store(run.coefficients.solver.store())
            table.write(0, found)
    return found


def _typical_distance(run: OpenRun) -> float:
    """Median distance of two training images, from the first tile."""
    table = Records(run.coefficients.group, "typical_distance", 1, (1,))
    found = table.read(0)
    if found is None:
        tile = run.coefficients.solver.store().read_tile("ntk", 0, 0)
        scale = np.diagonal(tile).astype(np.float64) ** -0.5
        pairs = distances(tile, scale, scale)[np.triu_indices(len(tile), 1)]
        found = np.array([[float(np.median(pairs)) if len(pairs) else 0.0]])
        table.write(0, found)
    return float(found[0, 0])


def nearest_in_store(store: GramStore) -> NDArray[np.float64]:
    """For each of n images of a symmetric store the nearest that it does not equal: distance and index, (n, 2).

    Every tile is read once.
    """
    scale = _scale(store)
    found = np.column_stack([np.full(store.grid.rows, FARTHEST), np.zeros(store.grid.rows)])
    for t in store.grid:
        distance = distances(store.read_tile("ntk", t.i, t.j), scale[t.rows], scale[t.cols])
        if t.on_diagonal:
            np.fill_diagonal(distance, FARTHEST)
        else:
            nearer(found[t.cols], distance.T, t.row_start)
        nearer(found[t.rows], distance, t.col_start)
    return found


def _scale(store: GramStore) -> NDArray[np.float64]:
    """Theta(x, x)^(-1/2) of the images of a store, (n,)."""
    tiles = (t for t in store.grid if t.on_diagonal)
    return np.concatenate([np.diagonal(store.read_tile("ntk", t.i, t.j)) for t in tiles]).astype(np.float64) ** -0.5

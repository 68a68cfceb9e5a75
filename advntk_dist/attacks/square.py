"""The Square attack (Andriushchenko et al. 2020): random search for squares that lower the margin; no gradients."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import HIGH, LOW, DifferentiablePredictor, Images, Norm
from advntk_dist.attacks.geometry import keys_of, stream
from advntk_dist.attacks.losses import Loss, loss_and_slope
from advntk_dist.attacks.proposals import change_l2, change_linf, first_l2, first_linf, share_at
from advntk_dist.attacks.request import check_request, labels_of
from advntk_dist.attacks.worst import check_restarts, outcomes_of, worst_of
from advntk_dist.errors import RequestError


def square(
    predictor: DifferentiablePredictor,
    x: ArrayLike,
    y: ArrayLike,
    *,
    radius: float,
    steps: int = 5000,
    step_size: float | None = None,  # noqa: ARG001 -- as all attacks take it
    norm: Norm = "linf",
    seed: int = 0,
    indices: ArrayLike | None = None,
    loss: Loss = "margin",
    restarts: int = 1,
) -> Images:
    """Search at random for squares that raise the margin of the best wrong class; asks for outputs only.

    An image that is misclassified is done: no more is asked about it.

    Parameters
    ----------
    predictor, x, y, radius, seed, indices, restarts
        As for :func:`advntk_dist.attacks.pgd`; all random numbers of image i come from the stream (seed, indices[i]).
    steps
        Queries an image and a start, the first point included.
    step_size
        Not used.
    norm
        "linf" or "l2".
    loss
        "margin".

    Returns
    -------
    numpy.ndarray
        Perturbed images, shaped as x, floats in [-0.5, 0.5]: the misclassified point, or that of largest margin.

    Raises
    ------
    RequestError
        If an argument is impossible.
    """
    clean = check_request(x, radius, steps, 0.0, norm)
    if steps < 1:
        raise RequestError(f"attack.queries: square needs at least 1, got {steps}")
    if norm == "l1" or loss != "margin":
        raise RequestError(f"attack: square exists for linf and l2 and for loss margin, got {norm} and {loss}")
    check_restarts(restarts)
    keys = keys_of(indices, len(clean))
    wanted, classes, aims = labels_of(predictor, clean, y, loss)

    def ends(rows: NDArray[np.int64], restart: int) -> Images:
        streams = [stream(seed, int(key), restart) for key in keys[rows]]
        return _search(predictor, clean[rows], wanted[rows], radius, steps, norm, streams)

    return worst_of(ends, outcomes_of(predictor, loss, wanted, classes, aims), len(clean), restarts)


def _search(
    predictor: DifferentiablePredictor,
    clean: Images,
    wanted: NDArray[np.float64],
    radius: float,
    queries: int,
    norm: Norm,
    streams: list[np.random.Generator],
) -> Images:
    classes = wanted.argmax(axis=1)
    first, change = (first_linf, change_linf) if norm == "linf" else (first_l2, change_l2)
    best = clean.copy()
    margins = np.full(len(clean), -np.inf)
    left = np.arange(len(clean))
    for query in range(queries):
        share = share_at(query, queries)
        tried = np.empty_like(clean[left])
        for place, i in enumerate(left):
            step = (
                change(streams[i], best[i] - clean[i], radius, share) if query else first(streams[i], clean[i], radius)
            )
            tried[place] = np.clip(clean[i] + step, LOW, HIGH)
        f = predictor.predict(tried)
        margin, _ = loss_and_slope("margin", f, wanted[left], classes[left])
        wrong = f.argmax(axis=1) != classes[left]
        better = wrong | (margin > margins[left])
        found = left[better]
        best[found], margins[found] = tried[better], margin[better]
        left = left[~wrong]
        if not len(left):
            break
    return best

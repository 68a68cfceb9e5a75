"""The Square attack (Andriushchenko et al. 2020): random search for squares that lower the margin; no gradients."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import HIGH, LOW, Images, stream
from advntk_dist.attacks.registry import BLACK_BOX
from advntk_dist.attacks.request import AttackRequest, Rows
from advntk_dist.errors import RequestError
from advntk_dist.spec import Loss, Norm


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

    No more is asked about an image that is misclassified. All random numbers of image i come from the stream
    (seed, indices[i]). The result is the misclassified point, or that of largest margin. Its form, the errors and the
    other parameters are those of :func:`advntk_dist.attacks.pgd.pgd`.

    Parameters
    ----------
    steps
        Queries an image and a start, the first point included.
    step_size
        Not used.
    norm
        "linf" or "l2".
    loss
        "margin".
    """
    if steps < 1:
        raise RequestError(f"attack.queries: square needs at least 1, got {steps}")
    request = AttackRequest.of(
        predictor, x, y, radius=radius, steps=steps, norm=norm, seed=seed, indices=indices, loss=loss,
        restarts=restarts,
    )  # fmt: skip
    BLACK_BOX.require_possible(norm=norm, loss=loss, restarts=restarts)

    def attempt(part: AttackRequest, _rows: Rows, restart: int) -> Images:
        return _search(part, [stream(seed, int(key), restart) for key in part.keys], steps)

    return request.worst_of(attempt, restarts)


def _search(request: AttackRequest, streams: list[np.random.Generator], queries: int) -> Images:
    clean, radius = request.clean, request.radius
    first, change = (first_linf, change_linf) if request.norm == "linf" else (first_l2, change_l2)
    best = clean.copy()
    margins = np.full(len(clean), -np.inf)
    robust = np.arange(len(clean))
    for query in range(queries):
        share = share_at(query, queries)
        tried = np.empty_like(clean[robust])
        for place, i in enumerate(robust):
            step = (
                change(streams[i], best[i] - clean[i], radius, share) if query else first(streams[i], clean[i], radius)
            )
            tried[place] = np.clip(clean[i] + step, LOW, HIGH)
        wrong, margin = request.only(robust).examine(tried)
        better = wrong | (margin > margins[robust])
        found = robust[better]
        best[found], margins[found] = tried[better], margin[better]
        robust = robust[~wrong]
        if not len(robust):
            break
    return best


FIRST_SHARE = 0.8
"""Share of the pixels in the first square, as in AutoAttack."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10,000, after which the share is halved."""
Float = NDArray[np.float64]


def share_at(query: int, queries: int) -> float:
    """Share of the pixels that a query changes (Andriushchenko et al. 2020, section 4)."""
    place = 10_000 * query / queries
    return FIRST_SHARE / 2.0 ** sum(place > halving for halving in HALVINGS)


def first_linf(rng: np.random.Generator, image: Images, radius: float) -> Float:
    """Vertical stripes of one pixel (H, W, C), each +radius or -radius in each channel."""
    _, width, channels = image.shape
    return np.asarray(np.broadcast_to(radius * _signs(rng, (1, width, channels)), image.shape))


def change_linf(rng: np.random.Generator, step: Images, radius: float, share: float) -> Float:
    """The perturbation (H, W, C) with a square of it set to +radius or -radius in each channel."""
    height, width, channels = step.shape
    edge = int(np.clip(round((share * height * width) ** 0.5), 1, min(height, width)))
    new = step.astype(np.float64)
    new[_window(rng, height, width, edge)] = radius * _signs(rng, (1, 1, channels))
    return new


def first_l2(rng: np.random.Generator, image: Images, radius: float) -> Float:
    """Bumps side by side over the whole image, (H, W, C), of size ``radius`` together."""
    height, width, channels = image.shape
    edge = max(1, min(height, width) // 5)
    new = np.zeros(image.shape)
    for top in range(0, height - edge + 1, edge):
        for left in range(0, width - edge + 1, edge):
            new[top : top + edge, left : left + edge] = _bump(rng, edge)[:, :, None] * _signs(rng, (1, 1, channels))
    return _of_size(new, radius)


def change_l2(rng: np.random.Generator, step: Images, radius: float, share: float) -> Float:
    """The perturbation (H, W, C) with a bump added in one window, paid for by clearing another; of size ``radius``.

    The new window gets, channel by channel, the mass of both windows and what the pixel range has kept the
    perturbation from using.
    """
    height, width, channels = step.shape
    edge = max(3, round((share * height * width) ** 0.5))
    edge = min(edge + 1 - edge % 2, height, width)
    here, there = _window(rng, height, width, edge), _window(rng, height, width, edge)
    old = step.astype(np.float64)
    both = np.zeros(step.shape, bool)
    both[here] = both[there] = True
    mass = (np.where(both, old, 0.0) ** 2).sum(axis=(0, 1))
    unused = max(radius**2 - float((old**2).sum()), 0.0) / channels
    before = np.linalg.norm(old[here], axis=(0, 1))
    kept = old[here] / np.where(before > 0, before, 1.0)
    mixed = kept + _bump(rng, edge)[:, :, None] * _signs(rng, (1, 1, channels))
    size = np.linalg.norm(mixed, axis=(0, 1))
    new = old.copy()
    new[there] = 0.0
    new[here] = mixed / np.where(size > 0, size, 1.0) * np.sqrt(mass + unused)
    return _of_size(new, radius)


def _bump(rng: np.random.Generator, edge: int) -> Float:
    """Two halves of opposite sign, one beside or above the other; of unit size."""
    bump = _halves(edge)
    return bump.T if rng.random() < 0.5 else bump


@cache
def _halves(edge: int) -> Float:
    if edge == 1:
        return np.ones((1, 1))
    upper, lower = edge // 2, edge - edge // 2
    halves = np.vstack([_pyramid(upper, edge), -_pyramid(lower, edge)])
    return np.asarray(halves / np.linalg.norm(halves))


def _pyramid(height: int, width: int) -> Float:
    """Nested rectangles around the middle, of heights 1, 1/4, 1/9, ...; of unit size."""
    rings = max(height, width) // 2 + 1
    down, right = (np.abs(np.arange(side) - side // 2) for side in (height, width))
    ring = np.maximum(down[:, None], right[None, :])
    heights = np.cumsum(1.0 / np.arange(rings, 0, -1) ** 2)[::-1]
    pyramid = heights[ring]
    return np.asarray(pyramid / np.linalg.norm(pyramid))


def _of_size(step: Float, radius: float) -> Float:
    size = np.linalg.norm(step)
    return np.asarray(step * (radius / size)) if size > 0 else step


def _window(rng: np.random.Generator, height: int, width: int, edge: int) -> tuple[slice, slice]:
    top, left = (int(rng.integers(0, side - edge + 1)) for side in (height, width))
    return slice(top, top + edge), slice(left, left + edge)


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    return np.asarray(2.0 * rng.integers(0, 2, shape) - 1.0, np.float64)

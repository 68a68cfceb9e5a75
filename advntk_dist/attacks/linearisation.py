"""Linear functions of an image over a ball and the pixel range at once: where they are largest, and how soon.

Within the radii in use the margins of kernel predictors are nearly linear in the image, so that what is exact here is
next to exact there. Every pixel moves in the direction that raises the function, as far as the ball or the pixel's room
to the end of its range lets it. All functions take gradients (..., H, W, C) and images whose shape broadcasts to
theirs; sums are in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.geometry import HIGH, LOW, Images, project
from advntk_dist.spec import Norm

Array = NDArray[np.float64]

FEW = 128
"""Pixels of largest gradient that a change in l1 is looked for in first."""


def steepest_point(gradient: Images, clean: Images, radius: float, norm: Norm) -> Images:
    """The images (m, H, W, C) in the balls of this radius and in the pixel range at which linear functions are largest.

    Parameters
    ----------
    gradient, clean
        Gradients and centres, (m, H, W, C).
    radius, norm
        The ball.
    """
    # In linf the projection cuts the step: a sum with the room of a pixel would miss the end of its range by rounding.
    step = radius if norm == "linf" else _step(gradient, clean, radius, norm).reshape(clean.shape)
    return project((clean + np.sign(gradient) * step).astype(clean.dtype), clean, radius, norm)


def largest_gain(gradient: Images, clean: Images, radius: float, norm: Norm) -> Array:
    """What linear functions gain at most, (...,), in the balls of this radius and in the pixel range."""
    size = _flat(np.abs(gradient))
    return np.asarray((size * _step(gradient, clean, radius, norm)).sum(axis=-1, dtype=np.float64))


def radius_to_gain(gradient: Images, clean: Images, needed: Array, norm: Norm) -> Array:
    """The least radius, (...,), at which a linear function gains ``needed``, (...,); infinite where no radius does.

    It is 0 where nothing is needed.
    """
    size, room = _flat(np.abs(gradient)), _flat(room_along(gradient, clean))
    largest = size.max(axis=-1)  # divided out first: the squares of tiny gradients would vanish
    largest = np.where(largest > 0, largest, 1.0)
    size, wanted = size / largest[..., None], np.maximum(needed, 0.0) / largest
    if norm == "l1":
        return _radius_along_largest(size, room, wanted, FEW)
    speed = np.ones_like(size) if norm == "linf" else size
    scale = _scale(speed, room, size, wanted)
    if norm == "linf":
        return scale
    reached = np.isfinite(scale)
    step = np.minimum(np.where(reached, scale, 0.0)[..., None] * size, room)
    return np.where(reached, np.sqrt((step**2).sum(axis=-1, dtype=np.float64)), np.inf)


def _radius_along_largest(size: NDArray[Any], room: NDArray[Any], wanted: Array, few: int) -> Array:
    """:func:`radius_to_gain` in l1, whose best step moves the pixels of largest gradient: the ``few`` largest first."""
    pixels = size.shape[-1]
    if few < pixels:
        largest = np.argpartition(-size, few, axis=-1)[..., :few]
        near = [np.take_along_axis(np.broadcast_to(a, size.shape), largest, axis=-1) for a in (size, room)]
        least = _radius_along_largest(near[0], near[1], wanted, few)
        if (more := np.isinf(least)).any():
            whole = np.broadcast_to(room, size.shape)[more]
            least[more] = _radius_along_largest(size[more], whole, wanted[more], pixels)
        return least
    order = np.argsort(-size, axis=-1)
    size, room = (np.take_along_axis(a, order, axis=-1).astype(np.float64) for a in (size, room))
    gained = np.cumsum(size * room, axis=-1)
    place = (gained < wanted[..., None]).sum(axis=-1)
    last = np.minimum(place, pixels - 1)[..., None]
    steepness, room_there, below = (
        np.take_along_axis(a, last, axis=-1)[..., 0] for a in (size, np.cumsum(room, axis=-1), gained)
    )
    back = np.divide(below - wanted, steepness, out=np.zeros_like(wanted), where=steepness > 0)
    least = np.where(place < pixels, np.maximum(room_there - back, 0.0), np.inf)
    return np.where(wanted > 0, least, 0.0)


def _step(gradient: Images, clean: Images, radius: float, norm: Norm) -> NDArray[Any]:
    """How far every pixel moves, (..., d), >= 0."""
    room = _flat(room_along(gradient, clean))
    if norm == "linf":
        return np.minimum(room, radius)
    size = _flat(np.abs(gradient))
    if norm == "l1":
        order = np.argsort(-size, axis=-1)
        sorted_room = np.take_along_axis(room, order, axis=-1).astype(np.float64)
        left = radius - (np.cumsum(sorted_room, axis=-1) - sorted_room)
        step = np.empty_like(sorted_room)
        np.put_along_axis(step, order, np.clip(left, 0.0, sorted_room), axis=-1)
        return np.where(size > 0, step, 0.0)
    largest = size.max(axis=-1, keepdims=True)  # divided out first: the squares of tiny gradients would vanish
    speed = (size / np.where(largest > 0, largest, 1.0)).astype(np.float64)
    squared = _scale(speed**2, room.astype(np.float64) ** 2, np.ones_like(speed), np.full(size.shape[:-1], radius**2))
    moved = np.minimum(np.sqrt(np.where(np.isfinite(squared), squared, 0.0))[..., None] * speed, room)
    return np.where(np.isfinite(squared)[..., None], moved, np.where(speed > 0, room, 0.0))


def _scale(speed: NDArray[Any], room: NDArray[Any], weight: NDArray[Any], target: Array) -> Array:
    """The least s >= 0, (...,), with sum(weight min(s speed, room)) = target; infinite where there is none.

    Entries that meet their room are set aside, which only raises s, until no other one does.
    """
    aside = np.zeros(speed.shape, bool)
    while True:
        free = np.where(aside, 0.0, weight * speed).sum(axis=-1, dtype=np.float64)
        rest = target - np.where(aside, weight * room, 0.0).sum(axis=-1, dtype=np.float64)
        scale = np.divide(rest, free, out=np.where(rest > 0, np.inf, 0.0), where=free > 0)
        scale = np.maximum(scale, 0.0)
        found = aside | ((np.where(np.isfinite(scale), scale, 0.0)[..., None] * speed) > room)
        if (found == aside).all():
            return scale
        aside = found


def room_along(gradient: NDArray[Any], pixels: NDArray[Any]) -> NDArray[Any]:
    """How far each pixel can move along the gradient within its range; 0 where the gradient is 0."""
    return np.where(gradient > 0, HIGH - pixels, np.where(gradient < 0, pixels - LOW, 0.0))


def _flat(a: Images) -> NDArray[Any]:
    return a.reshape(*a.shape[:-3], -1)

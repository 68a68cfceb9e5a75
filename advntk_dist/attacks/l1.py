"""Geometry of the l1 ball cut to the pixel range: exact projection and sparse steps; of NumPy or JAX arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

SHARE = 0.01
"""Share of the pixels that a step of PGD changes (Tramer & Boneh 2019)."""


def project_l1(x: Any, centre: Any, radius: Any, low: float, high: float) -> Any:
    """The nearest point to x, (m, ...), in the l1 ball around ``centre`` and in [low, high] at once.

    The projection is delta_i = clip(sign(u_i) max(|u_i| - lambda, 0), low - c_i, high - c_i) with u = x - c and the
    smallest lambda >= 0 that makes the size at most ``radius`` (Croce & Hein 2021, proposition 2.1). The size falls
    piecewise linearly in lambda, so that lambda comes from sorting the 2 d points where its slope changes. In
    float64; the result is rounded towards the centre to the dtype of x, so that it does not leave the ball.
    ``centre`` must lie in [low, high].
    """
    xp = x.__array_namespace__()
    c = centre.reshape(len(x), -1).astype(xp.float64)
    u = x.reshape(len(x), -1).astype(xp.float64) - c
    room = xp.where(u > 0, high - c, c - low)
    size = xp.abs(u)
    # From above: coordinate i grows with slope 1 below |u_i|, until it meets the edge at |u_i| - room_i.
    corners = xp.concat([size, size - room], axis=1)
    order = xp.argsort(-corners, axis=1)
    corners = xp.take_along_axis(corners, order, axis=1)
    slopes = xp.cumsum(xp.where(order < size.shape[1], 1.0, -1.0), axis=1)
    grown = xp.cumsum(slopes[:, :-1] * (corners[:, :-1] - corners[:, 1:]), axis=1)
    grown = xp.concat([xp.zeros_like(grown[:, :1]), grown], axis=1)  # sizes at the corners
    last = (grown <= radius).sum(axis=1)[:, None] - 1  # the last corner that is still in the ball
    corner, slope, there = (xp.take_along_axis(a, last, axis=1) for a in (corners, slopes, grown))
    threshold = xp.maximum(corner - (radius - there) / xp.maximum(slope, 1.0), 0.0)
    inside = xp.minimum(size, room).sum(axis=1)[:, None] <= radius
    step = xp.minimum(xp.maximum(size - xp.where(inside, 0.0, threshold), 0.0), room)
    # Edges are met exactly: sparse steps leave pixels there alone, and would be caught by one that rounding keeps off.
    ends = xp.where(step < room, c + xp.sign(u) * step, xp.where(u > 0, high, low))
    moved = xp.clip(ends.astype(x.dtype), low, high).astype(x.dtype)
    middle = c.astype(x.dtype)
    too_far = xp.abs(moved.astype(xp.float64) - c) > step
    return xp.where(too_far, xp.nextafter(moved, middle), moved).reshape(x.shape)


def sparse_direction(gradient: Any, entries: Any, at: Any, low: float, high: float) -> Any:
    """A direction of unit l1 size: equal steps along the ``entries`` largest entries of a gradient (m, ...).

    The steepest direction changes one pixel; a few at once are the field's choice, for that one soon meets the edge
    of its range. Pixels that a step could only push out of [low, high] are left alone. 0 where no entry is left.

    Parameters
    ----------
    gradient
        (m, ...).
    entries
        Number of entries, (m,) integers from 1 to the size of an image, or one for all images.
    at
        Where the step starts, shaped as ``gradient``, or None if all pixels are free.
    low, high
        Range of pixels.
    """
    xp = gradient.__array_namespace__()
    g = gradient.reshape(len(gradient), -1)
    if at is not None:
        here = at.reshape(g.shape)
        g = xp.where(((here >= high) & (g > 0)) | ((here <= low) & (g < 0)), 0.0, g)
    size = xp.abs(g)
    place = xp.zeros((len(g), 1), dtype=int) + g.shape[1] - xp.asarray(entries).reshape(-1, 1)
    least = xp.take_along_axis(xp.sort(size, axis=1), place, axis=1)
    chosen = xp.sign(g) * ((size >= least) & (size > 0))
    count = xp.maximum(xp.abs(chosen).sum(axis=1), 1.0)
    return (chosen / count[:, None]).astype(gradient.dtype).reshape(gradient.shape)


def pgd_entries(size: int) -> int:
    """Entries that a step of PGD changes in images of ``size`` pixels."""
    return max(1, int(np.ceil(SHARE * size)))


def uniform_l1(rng: np.random.Generator, shape: tuple[int, ...], radius: float) -> Any:
    """A point drawn uniformly from the l1 ball around 0."""
    step = rng.exponential(size=shape) * rng.choice([-1.0, 1.0], size=shape)
    return step * (radius * rng.uniform() ** (1 / step.size) / np.abs(step).sum())

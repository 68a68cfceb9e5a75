"""Balls around images: sizes of perturbations, random starts, projections and directions of steepest ascent."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.errors import RequestError
from advntk_dist.spec import Norm

LOW, HIGH = -0.5, 0.5
"""Ends of the pixel range; it is 1 wide, so that a radius of 8/255 means what it means in the field."""
Images = NDArray[Any]
AnyImages = TypeVar("AnyImages", NDArray[Any], jax.Array)


def perturbation_size(adversarial: Images, clean: Images, norm: Norm) -> NDArray[np.float64]:
    """Size (m,) of each perturbation, in float64, in units of the pixel range."""
    flat = (np.asarray(adversarial, np.float64) - np.asarray(clean, np.float64)).reshape(len(clean), -1)
    if norm == "l1":
        return np.asarray(np.abs(flat).sum(axis=1))
    return np.asarray(np.abs(flat).max(axis=1) if norm == "linf" else np.linalg.norm(flat, axis=1))


def largest_distance(x: Images, norm: Norm) -> float:
    """The radius within which every image lies of every other, for images shaped as x, (m, H, W, C)."""
    pixels = float(np.prod(x.shape[1:]))
    return {"linf": 1.0, "l2": pixels**0.5, "l1": pixels}[norm]


def rounding_of(x: Images, norm: Norm) -> float:
    """What rounding of pixels of size up to 1/2 may add to the size of a perturbation of images x (m, H, W, C)."""
    return 4 * float(np.finfo(x.dtype).eps) * largest_distance(x, norm)


def keys_of(indices: ArrayLike | None, images: int) -> NDArray[np.int64]:
    """The indices (m,) that key the streams of images: by default 0, 1, ...; RequestError if they do not fit."""
    keys = np.arange(images) if indices is None else np.asarray(indices)
    if keys.shape != (images,):
        word = "longer" if keys.size > images else "shorter"
        raise RequestError(f"attack.indices: shape {keys.shape} is {word} than the {images} images; give one an image")
    return keys


def stream(seed: int, key: int, restart: int = 0) -> np.random.Generator:
    """The random numbers of one image, (seed, key), in one restart; restarts are disjoint parts of one stream."""
    bits = np.random.Philox(key=np.array([seed, key], np.uint64), counter=np.array([0, 0, 0, restart], np.uint64))
    return np.random.Generator(bits)


def step_seed(seed: int, step: int) -> int:
    """Seed of the random starts of the attack in one step of a training whose own seed is given."""
    return int(np.random.SeedSequence([seed, 2, step]).generate_state(1, np.uint64)[0])


def random_start(
    x: Images, radius: float, norm: Norm, seed: int, indices: ArrayLike | None, restart: int = 0
) -> Images:
    """A point drawn uniformly from the ball around each image, cut to the pixel range.

    Each image draws from a stream of its own, keyed by its index, so that starts do not depend on how images were
    batched, and what an attack finds from there depends on it by rounding only.
    """
    keys = keys_of(indices, len(x))
    out = np.empty_like(x)
    for image, key, start in zip(x, keys, out, strict=True):
        rng = stream(seed, int(key), restart)
        if norm == "l1":
            step = rng.exponential(size=image.shape) * rng.choice([-1.0, 1.0], size=image.shape)
            step *= radius * rng.uniform() ** (1 / image.size) / np.abs(step).sum()
        elif norm == "linf":
            step = rng.uniform(-radius, radius, image.shape)
        else:
            step = rng.standard_normal(image.shape)
            step *= radius * rng.uniform() ** (1 / image.size) / np.linalg.norm(step)
        start[:] = image + step
    return project(out, x, radius, norm)


def project(x: AnyImages, centre: AnyImages, radius: float, norm: Norm) -> AnyImages:
    """The nearest point in the ball around ``centre``, then cut to the pixel range (which stays in the ball).

    For l1 the nearest point in both at once, as :func:`project_l1` says.

    Of NumPy or JAX arrays, as is :func:`ascent_direction`; in the dtype of x.
    """
    if norm == "l1":
        return project_l1(x, centre, radius)  # type: ignore[no-any-return]
    xp = x.__array_namespace__()
    step = x - centre
    if norm == "linf":
        step = xp.clip(step, -radius, radius)
    else:
        sizes = xp.linalg.norm(step.reshape(len(x), -1).astype(xp.float64), axis=1)
        factor = xp.minimum(1.0, radius / xp.maximum(sizes, float(np.finfo(np.float64).tiny)))
        step = step * per_image(factor, step)
    return xp.clip(centre + step, LOW, HIGH).astype(x.dtype)  # type: ignore[no-any-return]


def ascent_direction(gradient: AnyImages, norm: Norm, at: AnyImages | None = None, entries: Any = None) -> AnyImages:
    """The steepest direction of unit size in the norm; 0 where the gradient is 0.

    For l1 :func:`sparse_direction`, which takes ``at`` and ``entries``; by default along a hundredth of the entries.
    """
    if norm == "l1":
        few = max(1, int(np.ceil(SHARE * np.prod(gradient.shape[1:]))))
        return sparse_direction(gradient, few if entries is None else entries, at)  # type: ignore[no-any-return]
    xp = gradient.__array_namespace__()
    if norm == "linf":
        return xp.sign(gradient)  # type: ignore[no-any-return]
    # The largest entry is divided out first: the squares of tiny gradients would vanish.
    largest = xp.abs(gradient).reshape(len(gradient), -1).max(axis=1)
    scaled = gradient / per_image(xp.where(largest > 0, largest, 1.0), gradient)
    sizes = xp.linalg.norm(scaled.reshape(len(scaled), -1), axis=1)
    return scaled / per_image(xp.where(sizes > 0, sizes, 1.0), gradient)  # type: ignore[no-any-return]


def per_image(values: Any, like: Any) -> Any:
    """One number an image, (m,), in the dtype of images (m, H, W, C) and of a shape that multiplies them."""
    return values.reshape(-1, *([1] * (like.ndim - 1))).astype(like.dtype)


SHARE = 0.01
"""Share of the pixels that a step of PGD changes (Tramer & Boneh 2019)."""


def project_l1(x: Any, centre: Any, radius: Any) -> Any:
    """The nearest point to x, (m, ...), in the l1 ball around ``centre`` and in the pixel range at once.

    The projection is delta_i = clip(sign(u_i) max(|u_i| - lambda, 0), LOW - c_i, HIGH - c_i) with u = x - c and the
    smallest lambda >= 0 that makes the size at most ``radius`` (Croce & Hein 2021, proposition 2.1). The size falls
    piecewise linearly in lambda, so that lambda comes from sorting the 2 d points where its slope changes. In
    float64; the result is rounded towards the centre to the dtype of x, so that it does not leave the ball.
    ``centre`` must lie in the pixel range.
    """
    xp = x.__array_namespace__()
    c = centre.reshape(len(x), -1).astype(xp.float64)
    u = x.reshape(len(x), -1).astype(xp.float64) - c
    room = xp.where(u > 0, HIGH - c, c - LOW)
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
    ends = xp.where(step < room, c + xp.sign(u) * step, xp.where(u > 0, HIGH, LOW))
    moved = xp.clip(ends.astype(x.dtype), LOW, HIGH).astype(x.dtype)
    middle = c.astype(x.dtype)
    too_far = xp.abs(moved.astype(xp.float64) - c) > step
    return xp.where(too_far, xp.nextafter(moved, middle), moved).reshape(x.shape)


def sparse_direction(gradient: Any, entries: Any, at: Any) -> Any:
    """A direction of unit l1 size: equal steps along the ``entries`` largest entries of a gradient (m, ...).

    The steepest direction changes one pixel; a few at once are the field's choice, for that one soon meets the edge
    of its range. Pixels that a step could only push out of their range are left alone. 0 where no entry is left.

    Parameters
    ----------
    gradient
        (m, ...).
    entries
        Number of entries, (m,) integers from 1 to the size of an image, or one for all images.
    at
        Where the step starts, shaped as ``gradient``, or None if all pixels are free.
    """
    xp = gradient.__array_namespace__()
    g = gradient.reshape(len(gradient), -1)
    if at is not None:
        here = at.reshape(g.shape)
        g = xp.where(((here >= HIGH) & (g > 0)) | ((here <= LOW) & (g < 0)), 0.0, g)
    size = xp.abs(g)
    place = xp.zeros((len(g), 1), dtype=int) + g.shape[1] - xp.asarray(entries).reshape(-1, 1)
    least = xp.take_along_axis(xp.sort(size, axis=1), place, axis=1)
    chosen = xp.sign(g) * ((size >= least) & (size > 0))
    count = xp.maximum(xp.abs(chosen).sum(axis=1), 1.0)
    return (chosen / count[:, None]).astype(gradient.dtype).reshape(gradient.shape)

"""Balls around images: sizes of perturbations, random starts, projections and directions of steepest ascent."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import HIGH, LOW, AnyImages, Images, Norm
from advntk_dist.attacks.l1 import pgd_entries, project_l1, sparse_direction, uniform_l1
from advntk_dist.errors import RequestError


def perturbation_size(adversarial: Images, clean: Images, norm: Norm) -> NDArray[np.float64]:
    """Size (m,) of each perturbation, in float64, in units of the pixel range."""
    flat = (np.asarray(adversarial, np.float64) - np.asarray(clean, np.float64)).reshape(len(clean), -1)
    if norm == "l1":
        return np.asarray(np.abs(flat).sum(axis=1))
    return np.asarray(np.abs(flat).max(axis=1) if norm == "linf" else np.linalg.norm(flat, axis=1))


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
            step = uniform_l1(rng, image.shape, radius)
        elif norm == "linf":
            step = rng.uniform(-radius, radius, image.shape)
        else:
            step = rng.standard_normal(image.shape)
            step *= radius * rng.uniform() ** (1 / image.size) / np.linalg.norm(step)
        start[:] = image + step
    return project(out, x, radius, norm)


def project(x: AnyImages, centre: AnyImages, radius: float, norm: Norm) -> AnyImages:
    """The nearest point in the ball around ``centre``, then cut to the pixel range (which stays in the ball).

    For l1 the nearest point in both at once, as :func:`advntk_dist.attacks.l1.project_l1` says.

    Of NumPy or JAX arrays, as is :func:`ascent_direction`; in the dtype of x.
    """
    if norm == "l1":
        return project_l1(x, centre, radius, LOW, HIGH)
    xp = x.__array_namespace__()
    step = x - centre
    if norm == "linf":
        step = xp.clip(step, -radius, radius)
    else:
        sizes = xp.linalg.norm(step.reshape(len(x), -1).astype(xp.float64), axis=1)
        factor = xp.minimum(1.0, radius / xp.maximum(sizes, float(np.finfo(np.float64).tiny)))
        step = step * _per_image(factor, step)
    return xp.clip(centre + step, LOW, HIGH).astype(x.dtype)  # type: ignore[no-any-return]


def ascent_direction(gradient: AnyImages, norm: Norm, at: AnyImages | None = None) -> AnyImages:
    """The steepest direction of unit size in the norm; 0 where the gradient is 0.

    For l1 a sparse one (:func:`advntk_dist.attacks.l1.sparse_direction`), along pixels that can still move if the
    current iterate is given as ``at``.
    """
    if norm == "l1":
        return sparse_direction(gradient, pgd_entries(int(np.prod(gradient.shape[1:]))), at, LOW, HIGH)
    xp = gradient.__array_namespace__()
    if norm == "linf":
        return xp.sign(gradient)  # type: ignore[no-any-return]
    # The largest entry is divided out first: the squares of tiny gradients would vanish.
    largest = xp.abs(gradient).reshape(len(gradient), -1).max(axis=1)
    scaled = gradient / _per_image(xp.where(largest > 0, largest, 1.0), gradient)
    sizes = xp.linalg.norm(scaled.reshape(len(scaled), -1), axis=1)
    return scaled / _per_image(xp.where(sizes > 0, sizes, 1.0), gradient)  # type: ignore[no-any-return]


def _per_image(values: Any, like: Any) -> Any:
    return values.reshape(-1, *([1] * (like.ndim - 1))).astype(like.dtype)

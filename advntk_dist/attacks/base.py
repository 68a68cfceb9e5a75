"""What attacks share: the predictor they need, norms, random starts and projections.

Pixels span [-0.5, 0.5], a range of 1, so that a radius of 8/255 means what it means in the field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.l1 import pgd_entries, project_l1, sparse_direction, uniform_l1
from advntk_dist.attacks.losses import Loss, check_loss, loss_and_slope
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.errors import RequestError

Norm = Literal["linf", "l2", "l1"]
LOW, HIGH = -0.5, 0.5
Images = NDArray[Any]
BoundAttack = Callable[..., Images]
"""An attack with everything but (predictor, x, y, seed, indices) filled in."""
AnyImages = TypeVar("AnyImages", NDArray[Any], jax.Array)


class DifferentiablePredictor(Protocol):
    """A predictor with exact input gradients."""

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        """Outputs (m, k) of images (m, H, W, C)."""
        ...

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> Images:
        """d sum(cotangent * predict(x)) / d x, shaped as x."""
        ...


@runtime_checkable
class FusedPredictor(Protocol):
    """A predictor that gives outputs, losses and input gradients in one pass."""

    @property
    def outputs(self) -> int:
        """Numbers that it predicts for an image."""
        ...

    def value_and_slope(
        self, x: ArrayLike, wanted: NDArray[np.float64], *, loss: Loss, towards: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Images]:
        """f (m, k), losses (m,) and their gradients, shaped as x; arguments as for :func:`value_and_slope`."""
        ...


class Attack(Protocol):
    """Adversarial examples within a radius.

    Steps, step sizes, losses and restarts mean what each attack says; what has a default may be left out, and what an
    attack cannot do it refuses with a RequestError.
    """

    def __call__(
        self,
        predictor: DifferentiablePredictor,
        x: ArrayLike,
        y: ArrayLike,
        *,
        radius: float,
        steps: int = ...,
        step_size: float | None = None,
        norm: Norm = "linf",
        seed: int = 0,
        indices: ArrayLike | None = None,
        loss: Loss = ...,
        restarts: int = 1,
    ) -> Images:
        """Perturbed images, shaped as x, in the dtype of ``to_unit_range(x)``."""
        ...


def check_request(x: ArrayLike, radius: float, steps: int, step_size: float, norm: str) -> Images:
    """Images as floats, once the other arguments are seen to be possible.

    Raises
    ------
    RequestError
        If they are not.
    """
    if norm not in get_args(Norm):
        raise RequestError(f"attack.norm: no norm {norm!r}; there are {', '.join(get_args(Norm))}")
    if not (0 <= radius < np.inf and 0 <= step_size < np.inf and steps >= 0):
        raise RequestError(
            f"attack: radius, steps and step_size must be finite and >= 0, got {radius}, {steps} and {step_size}"
        )
    return to_unit_range(np.asarray(x))


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

    Each image draws from a stream of its own, keyed by its index, so that a result does not depend on how
    images were batched.
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


def targets_of(y: ArrayLike, images: int, outputs: int) -> NDArray[np.float64]:
    """:func:`targets`, one row an image.

    Raises
    ------
    RequestError
        If there is not one label an image, or :func:`targets` does not understand them.
    """
    rows = targets(y, outputs)
    if len(rows) != images:
        raise RequestError(f"attack: {images} images, but {len(rows)} labels")
    return rows


def targets(y: ArrayLike, outputs: int) -> NDArray[np.float64]:
    """Labels (m,) as one-hot rows (m, outputs); rows that are given already pass through.

    Raises
    ------
    RequestError
        If y is neither labels in 0..outputs-1 nor rows of that many numbers.
    """
    array = np.asarray(y)
    if array.ndim == 1 and array.dtype.kind in "iu" and (array < outputs).all() and (array >= 0).all():
        return np.asarray(np.eye(outputs)[array])
    if array.ndim == 2 and array.shape[1] == outputs:
        return array.astype(np.float64)
    raise RequestError(
        f"attack: labels must be integers from 0 to {outputs - 1}, or rows of {outputs} targets; "
        f"got {array.dtype} of shape {array.shape}"
    )


def loss_gradient(predictor: DifferentiablePredictor, x: Images, y: ArrayLike) -> Images:
    """Gradient in x of the squared error 1/2 || f(x) - y ||^2, the loss of the paper's attacks."""
    f = predictor.predict(x)
    return predictor.vjp(x, f - targets_of(y, len(x), f.shape[1]))


def value_and_slope(
    predictor: DifferentiablePredictor,
    x: Images,
    wanted: NDArray[np.float64],
    *,
    loss: Loss = "squared-error",
    towards: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], Images]:
    """Outputs, losses, and the gradients of the losses in the images; fused where the predictor can.

    Parameters
    ----------
    predictor
        A kernel predictor, or anything with values and gradients.
    x
        Images (m, H, W, C).
    wanted
        Targets (m, k), from :func:`targets_of`.
    loss, towards
        As :func:`advntk_dist.attacks.losses.loss_and_slope` takes them; ``towards`` may be left out where there is
        none.

    Returns
    -------
    f, value, gradient
        (m, k) and (m,) float64, and an array shaped as x.
    """
    if isinstance(predictor, FusedPredictor):
        return predictor.value_and_slope(x, wanted, loss=loss, towards=towards)
    f = predictor.predict(x)
    value, slope = loss_and_slope(loss, f, wanted, towards)
    return f, value, predictor.vjp(x, slope)


def labels_of(
    predictor: DifferentiablePredictor, x: Images, y: ArrayLike, loss: Loss, towards: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Targets (m, k), true classes (m,) and classes to move towards (m,), once they fit loss and predictor.

    Raises
    ------
    RequestError
        If they do not.
    """
    outputs = getattr(predictor, "outputs", None) or predictor.predict(x[:1]).shape[1]
    wanted = targets_of(y, len(x), outputs)
    classes = wanted.argmax(axis=1)
    return wanted, classes, check_loss(loss, outputs, classes, towards)

"""What an attack asks of a predictor, and how every attack is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypedDict, Unpack, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.geometry import Images, ascent_direction, project
from advntk_dist.attacks.losses import loss_and_slope
from advntk_dist.spec import Loss, Norm

Values = NDArray[np.float64]
BoundAttack = Callable[..., Images]
"""An attack with everything but (predictor, x, y, seed, indices) filled in."""


class Ascent(TypedDict):
    """How projected gradient ascent goes.

    Attributes
    ----------
    radius, norm
        Radius of the balls, and the norm of balls and steps.
    steps, step_size
        Number of steps, and the length of one in units of the pixel range.
    loss, towards
        As for :meth:`DifferentiablePredictor.value_and_slope`.
    """

    radius: float
    steps: int
    step_size: float
    norm: Norm
    loss: Loss
    towards: NDArray[np.int64]


@runtime_checkable
class DifferentiablePredictor(Protocol):
    """A predictor with exact input gradients.

    A class that inherits from it defines :meth:`predict` and :meth:`vjp`; the other methods follow from these two, and
    are overridden where a predictor has a faster way. Predictors that have the two methods alone are taken by every
    attack, as :func:`completed` says.
    """

    @property
    def outputs(self) -> int | None:
        """The number of outputs k; None where only a prediction tells."""
        return None

    def predict(self, x: ArrayLike) -> Values:
        """Outputs (m, k), float64, of images (m, H, W, C)."""
        ...

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> Images:
        """The gradient d sum(cotangent * predict(x)) / d x, shaped as x, for a cotangent (m, k)."""
        ...

    def value_and_slope(
        self,
        x: Images,
        wanted: Values,
        *,
        loss: Loss = "squared-error",
        towards: NDArray[np.int64] | None = None,
    ) -> tuple[Values, Values, Images]:
        """Outputs, the loss of each image, and the gradients of the losses in the images.

        Parameters
        ----------
        x
            Images (m, H, W, C), floats in [-0.5, 0.5].
        wanted
            Targets (m, k), float64: one-hot rows of the true classes, or any rows for the squared error.
        loss, towards
            Name of the loss and, for targeted losses, the classes (m,) to move towards, as
            :func:`advntk_dist.attacks.losses.loss_and_slope` takes them.

        Returns
        -------
        outputs, losses, gradients
            (m, k) and (m,) float64, and an array shaped as x.
        """
        f = self.predict(x)
        value, slope = loss_and_slope(loss, f, wanted, towards)
        return f, value, self.vjp(x, slope)

    @property
    def shares_gradients(self) -> bool:
        """Whether :meth:`value_and_jacobian` takes about as long as the gradient of one output."""
        return False

    @property
    def samples_pixels(self) -> bool:
        """Whether :meth:`value_and_jacobian` of some pixels takes less than that of all of them."""
        return False

    def value_and_jacobian(self, x: Images, entries: NDArray[np.int64] | None = None) -> tuple[Values, Images]:
        """Outputs (m, k) in float64, and their derivatives in the images, (m, k, H, W, C), for images (m, H, W, C).

        With ``entries`` (p,), indices of pixels of a flat image, the derivatives in these alone, (m, k, p).
        """
        f = self.predict(x)
        slopes = np.stack([self.vjp(x, np.broadcast_to(row, f.shape)) for row in np.eye(f.shape[1])], axis=1)
        return f, slopes if entries is None else slopes.reshape(*f.shape, -1)[..., entries]

    def ascend(self, start: Images, clean: Images, wanted: Values, **how: Unpack[Ascent]) -> Images:
        """The last iterates (m, H, W, C) of projected gradient ascent of a loss.

        Each step moves along the steepest direction of unit size, and projects onto the ball around the clean image and
        onto the pixel range.

        Parameters
        ----------
        start, clean
            First iterates and centres of the balls, (m, H, W, C) of one dtype.
        wanted
            As for :meth:`value_and_slope`.
        how
            The balls, the steps and the loss.
        """
        current = start
        for _ in range(how["steps"]):
            _, _, gradient = self.value_and_slope(current, wanted, loss=how["loss"], towards=how["towards"])
            moved = current + how["step_size"] * ascent_direction(gradient, how["norm"], current).astype(clean.dtype)
            current = project(moved, clean, how["radius"], how["norm"])
        return current


class _Completed(DifferentiablePredictor):
    """A predictor of which values and gradients alone are known."""

    def __init__(self, given: Any) -> None:
        self._given = given

    def predict(self, x: ArrayLike) -> Values:
        return np.asarray(self._given.predict(x), np.float64)

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> Images:
        return np.asarray(self._given.vjp(x, cotangent))


def completed(predictor: Any) -> DifferentiablePredictor:
    """The predictor itself or, where it has ``predict`` and ``vjp`` alone, one that takes steps by asking these."""
    return predictor if isinstance(predictor, DifferentiablePredictor) else _Completed(predictor)


class Attack(Protocol):
    """The function that finds adversarial examples within a radius.

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

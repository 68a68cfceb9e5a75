"""The interface of attacks: the predictor that they need, and how each is called.

Pixels span [-0.5, 0.5], a range of 1, so that a radius of 8/255 means what it means in the field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.losses import Loss

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

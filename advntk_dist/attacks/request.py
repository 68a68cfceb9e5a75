"""What an attack is asked for, checked and in one form; and the worst of several tries, image by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import Attack, DifferentiablePredictor, Values, completed
from advntk_dist.attacks.geometry import HIGH, Images, keys_of, perturbation_size, random_start, rounding_of
from advntk_dist.attacks.losses import check_loss, loss_and_slope
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.errors import RequestError
from advntk_dist.spec import NORMS, Loss, Norm

Rows = NDArray[np.int64]


def targets(y: ArrayLike, outputs: int, images: int | None = None) -> Values:
    """Labels (m,) as one-hot rows (m, outputs); rows that are given already pass through.

    Raises
    ------
    RequestError
        If y is neither labels in 0..outputs-1 nor rows of that many numbers, or not one of them for each of ``images``.
    """
    array = np.asarray(y)
    if array.ndim == 1 and array.dtype.kind in "iu" and (array < outputs).all() and (array >= 0).all():
        rows = np.asarray(np.eye(outputs)[array])
    elif array.ndim == 2 and array.shape[1] == outputs:
        rows = array.astype(np.float64)
    else:
        raise RequestError(
            f"attack: labels must be integers from 0 to {outputs - 1}, or rows of {outputs} targets; "
            f"got {array.dtype} of shape {array.shape}"
        )
    if len(rows) != (len(rows) if images is None else images):
        raise RequestError(f"attack: {images} images, but {len(rows)} labels")
    return rows


@dataclass(frozen=True, eq=False)
class AttackRequest:
    """Images under attack, with everything that all attacks are told of them.

    Attributes
    ----------
    predictor
        The predictor under attack.
    clean
        Clean images (m, H, W, C), floats in [-0.5, 0.5].
    wanted, classes
        Targets (m, k), float64, and true classes (m,).
    towards
        Classes (m,) that a targeted loss moves towards; zeros where the loss has none.
    keys
        Indices (m,) that key the random numbers of each image, together with the seed.
    radius, norm, loss, seed
        The ball, the loss that is maximised, and the seed of all random numbers.
    """

    predictor: DifferentiablePredictor
    clean: Images
    wanted: Values
    classes: Rows
    towards: Rows
    keys: Rows
    radius: float
    norm: Norm
    loss: Loss
    seed: int

    @classmethod
    def of(
        cls,
        predictor: DifferentiablePredictor,
        x: ArrayLike,
        y: ArrayLike,
        *,
        radius: float,
        steps: int,
        norm: Norm,
        loss: Loss,
        step_size: float = 0.0,
        seed: int = 0,
        indices: ArrayLike | None = None,
        restarts: int = 1,
        towards: ArrayLike | None = None,
    ) -> AttackRequest:
        """A request whose arguments are possible, as :func:`advntk_dist.attacks.pgd.pgd` describes them.

        Raises
        ------
        RequestError
            If they are not.
        """
        if norm not in NORMS:
            raise RequestError(f"attack.norm: no norm {norm!r}; there are {', '.join(NORMS)}")
        if not (0 <= radius < np.inf and 0 <= step_size < np.inf and steps >= 0):
            raise RequestError(
                f"attack: radius, steps and step_size must be finite and >= 0, got {radius}, {steps} and {step_size}"
            )
        clean = to_unit_range(np.asarray(x))
        if restarts < 1:
            raise RequestError(f"attack.restarts: must be at least 1, got {restarts}")
        keys = keys_of(indices, len(clean))
        whole = completed(predictor)
        outputs = whole.outputs or whole.predict(clean[:1]).shape[1]
        wanted = targets(y, outputs, len(clean))
        classes = wanted.argmax(axis=1)
        aims = check_loss(loss, outputs, classes, towards)
        return cls(whole, clean, wanted, classes, aims, keys, radius, norm, loss, seed)

    def only(self, rows: Rows) -> AttackRequest:
        """The request for some of its images."""
        return replace(
            self,
            clean=self.clean[rows],
            wanted=self.wanted[rows],
            classes=self.classes[rows],
            towards=self.towards[rows],
            keys=self.keys[rows],
        )

    def random_start(self, restart: int) -> Images:
        """A point drawn uniformly from the ball around each image, shaped as the images."""
        return random_start(self.clean, self.radius, self.norm, self.seed, self.keys, restart)

    def ascend(self, start: Images, steps: int, step_size: float) -> Images:
        """The last iterates of projected gradient ascent of the loss from ``start``, shaped as the images."""
        return self.predictor.ascend(
            start, self.clean, self.wanted, radius=self.radius, steps=steps, step_size=step_size, norm=self.norm,
            loss=self.loss, towards=self.towards,
        )  # fmt: skip

    def examine(self, images: Images) -> tuple[NDArray[np.bool_], Values]:
        """Whether each perturbed image is misclassified, (m,), and its loss, (m,)."""
        f = self.predictor.predict(images)
        return f.argmax(axis=1) != self.classes, loss_and_slope(self.loss, f, self.wanted, self.towards)[0]

    def worst_of(self, attempt: Callable[[AttackRequest, Rows, int], Images], tries: int) -> Images:
        """The worst result of each image over several tries: misclassified first, then of larger loss.

        Images that are misclassified are not tried again; with one try nothing is compared.

        Parameters
        ----------
        attempt
            Called as attempt(request, rows, i): the result of try i, (r, H, W, C), for the images of these rows (r,),
            which the request holds.
        tries
            Number of tries.
        """
        all_rows = np.arange(len(self.clean))
        found = attempt(self, all_rows, 0)
        if tries == 1:
            return found
        wrong, losses = self.examine(found)
        for i in range(1, tries):
            rows = np.flatnonzero(~wrong)
            if not len(rows):
                break
            part = self.only(rows)
            others = attempt(part, rows, i)
            other_wrong, other_losses = part.examine(others)
            worse = other_wrong | (other_losses > losses[rows])
            found[rows[worse]], wrong[rows], losses[rows[worse]] = others[worse], other_wrong, other_losses[worse]
        return found


def held_to_ball(
    attack: Attack,
    predictor: DifferentiablePredictor,
    x: ArrayLike,
    y: ArrayLike,
    *,
    radius: float,
    norm: Norm,
    **options: Any,
) -> Images:
    """The result of an attack of the user's own, once it is seen to be perturbed images within the radius.

    Raises
    ------
    RequestError
        If the result has another shape, is not finite, or leaves the ball or the pixel range by more than rounding.
    """
    clean = to_unit_range(np.asarray(x))
    found = np.asarray(attack(predictor, x, y, radius=radius, norm=norm, **options))
    if found.shape != clean.shape:
        raise RequestError(f"attack.name: the attack returned shape {found.shape} for images of shape {clean.shape}")
    rounding = rounding_of(clean, norm)
    over = perturbation_size(found, clean, norm).max(initial=0.0) - radius
    outside = np.abs(found).max(initial=0.0) - HIGH
    if not (over <= rounding and outside <= 0):
        raise RequestError(
            f"attack.name: the attack returned images {max(over, 0.0):.3g} over the radius {radius:g} and "
            f"{max(outside, 0.0):.3g} over the pixel range; it must keep to both"
        )
    return found.astype(clean.dtype)

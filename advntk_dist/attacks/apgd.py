"""Auto-PGD (Croce & Hein 2020; for l1 Croce & Hein 2021): PGD that sets its own step sizes, untargeted and targeted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import Images, ascent_direction, per_image, project
from advntk_dist.attacks.losses import check_loss
from advntk_dist.attacks.registry import AIMED
from advntk_dist.attacks.request import AttackRequest, Rows
from advntk_dist.errors import RequestError
from advntk_dist.spec import Loss, Norm


def apgd(
    predictor: DifferentiablePredictor,
    x: ArrayLike,
    y: ArrayLike,
    *,
    radius: float,
    steps: int = 100,
    step_size: float | None = None,  # noqa: ARG001 -- as all attacks take it
    norm: Norm = "linf",
    seed: int = 0,
    indices: ArrayLike | None = None,
    loss: Loss = "dlr",
    restarts: int = 1,
    towards: ArrayLike | None = None,
) -> Images:
    """Ascend a loss with momentum, halve the step where it no longer helps, and keep the best point.

    An image that is misclassified takes no more steps and no more starts, so that a step costs no more than the images
    that are still robust. The result is the first misclassified point, or that of largest loss. Its form, the errors
    and the other parameters are those of :func:`advntk_dist.attacks.pgd.pgd`.

    Parameters
    ----------
    steps
        Gradient steps a start; each takes a value and a gradient, and the start one more.
    step_size
        Not used: steps begin at twice the radius (l1: the radius).
    """
    request = AttackRequest.of(
        predictor, x, y, radius=radius, steps=steps, norm=norm, seed=seed, indices=indices, loss=loss,
        restarts=restarts, towards=towards,
    )  # fmt: skip

    def attempt(part: AttackRequest, _rows: Rows, restart: int) -> Images:
        return ApgdState(part, part.random_start(restart)).run(steps)

    return request.worst_of(attempt, restarts)


def apgd_targeted(
    predictor: DifferentiablePredictor,
    x: ArrayLike,
    y: ArrayLike,
    *,
    radius: float,
    steps: int = 100,
    step_size: float | None = None,  # noqa: ARG001 -- as all attacks take it
    norm: Norm = "linf",
    seed: int = 0,
    indices: ArrayLike | None = None,
    loss: Loss = "dlr-targeted",
    restarts: int = 1,
    targets: int = 9,
) -> Images:
    """:func:`apgd` towards each of the likeliest other classes in turn, until an image is misclassified.

    The result is the first misclassified point, or that of largest margin. Its form, the errors and the other
    parameters are those of :func:`apgd`.

    Parameters
    ----------
    loss
        "dlr-targeted" or "margin-targeted".
    restarts
        Starts for each class.
    targets
        Classes to move towards, those of largest output on the clean image; all others if there are fewer.
    """
    request = AttackRequest.of(
        predictor, x, y, radius=radius, steps=steps, norm=norm, seed=seed, indices=indices, loss="margin",
        restarts=restarts,
    )  # fmt: skip
    AIMED.require_possible(norm=norm, loss=loss, restarts=restarts)
    if targets < 1:
        raise RequestError(f"attack.targets: must be at least 1, got {targets}")
    f, classes = request.predictor.predict(request.clean), request.classes
    others = np.argsort(-np.where(np.arange(f.shape[1]) == classes[:, None], -np.inf, f), axis=1, kind="stable")
    check_loss(loss, f.shape[1], classes, others[:, 0])
    count = min(targets, f.shape[1] - 1)

    def attempt(part: AttackRequest, rows: Rows, number: int) -> Images:
        aimed = replace(part, loss=loss, towards=others[rows, number % count])
        return ApgdState(aimed, part.random_start(number)).run(steps)

    return request.worst_of(attempt, count * restarts)


MOMENTUM = 0.75
RISING = 0.75
"""Share of steps that must raise the loss between two checkpoints, or the step is halved."""
L1_PERIOD, L1_SHARE, L1_SHRINK, L1_LEAST_STEP = 0.04, 0.2, 1.5, 0.1
"""For l1: steps between checkpoints as a share of all; share of pixels that the first steps change; factor by which
sparsity and step shrink; smallest step as a share of the radius."""


def checkpoints(steps: int) -> list[int]:
    """Steps after which step sizes are looked at: ceil(p_j steps), p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)."""
    p, before, found = 0.22, 0.0, []
    while p <= 1:
        found.append(int(np.ceil(round(p * steps, 9))))
        p, before = p + max(p - before - 0.03, 0.06), p
    return sorted(set(found))


class ApgdState:
    """The iterates of all images of a request; those that are misclassified take no further steps.

    Parameters
    ----------
    request
        The images, their classes, the ball and the loss.
    start
        First iterates (m, H, W, C), in the dtype of the clean images.

    Attributes
    ----------
    best, best_loss
        The best points (m, H, W, C), and their losses (m,).
    """

    def __init__(self, request: AttackRequest, start: Images) -> None:
        clean, norm, radius = request.clean, request.norm, request.radius
        self._request, self._clean, self._norm, self._radius = request, clean, norm, radius
        self._active = np.arange(len(clean))
        m, pixels = len(clean), int(np.prod(clean.shape[1:]))
        self._now, self._before = start.copy(), start.copy()
        self._slope, self._best_slope = np.zeros_like(clean), np.zeros_like(clean)
        self._step = np.full(m, radius if norm == "l1" else 2 * radius)
        self._entries = np.full(m, max(1, int(L1_SHARE * pixels)))
        self._moved_pixels = np.full(m, pixels)
        self._rises, self._halved = np.zeros(m, np.int64), np.zeros(m, bool)
        self.best, self.best_loss = start.copy(), np.full(m, -np.inf)
        self._last_loss, self._loss_at_checkpoint = np.full(m, -np.inf), np.full(m, -np.inf)

    def run(self, steps: int) -> Images:
        """Take all steps; returns :attr:`best`, with the misclassified point of images that have one."""
        self._look()
        self._rises[:] = 0
        if self._norm == "l1":
            period = max(1, int(L1_PERIOD * steps))
            looks = list(range(period, steps + 1, period))
        else:
            looks = checkpoints(steps)
        self._loss_at_checkpoint[:] = self.best_loss
        previous = 0
        for done in range(1, steps + 1):
            if not len(self._active):
                break
            self._advance(first=done == 1)
            self._look()
            if done in looks:
                if self._norm == "l1":
                    self._adapt_l1()
                else:
                    self._adapt(done - previous)
                previous = done
        return self.best

    def _advance(self, *, first: bool) -> None:
        rows = self._active
        now, clean = self._now[rows], self._clean[rows]
        direction = ascent_direction(self._slope[rows], self._norm, now, self._entries[rows])
        aimed = project(now + per_image(self._step[rows], now) * direction, clean, self._radius, self._norm)
        if self._norm != "l1" and not first:
            moved = (
                now
                + now.dtype.type(MOMENTUM) * (aimed - now)
                + now.dtype.type(1 - MOMENTUM) * (now - self._before[rows])
            )
            aimed = project(moved, clean, self._radius, self._norm)
        self._before[rows] = now
        self._now[rows] = aimed

    def _look(self) -> None:
        """Evaluate the current points, keep the best ones, and stop the images that are misclassified."""
        rows = self._active
        asked = self._request
        f, loss, slope = asked.predictor.value_and_slope(
            self._now[rows], asked.wanted[rows], loss=asked.loss, towards=asked.towards[rows]
        )
        wrong = f.argmax(axis=1) != asked.classes[rows]
        self._slope[rows] = slope
        self._rises[rows] += loss > self._last_loss[rows]
        self._last_loss[rows] = loss
        better = (loss > self.best_loss[rows]) | wrong
        found = rows[better]
        self.best[found], self._best_slope[found] = self._now[found], slope[better]
        self.best_loss[found] = loss[better]
        self._active = rows[~wrong]

    def _adapt(self, taken: int) -> None:
        """Halve steps that rarely help, or have led nowhere since the last checkpoint, and go on from the best."""
        rows = self._active
        few = self._rises[rows] < RISING * taken
        stuck = ~self._halved[rows] & (self.best_loss[rows] <= self._loss_at_checkpoint[rows])
        halve = few | stuck
        self._step[rows[halve]] /= 2
        self._back_to_best(rows[halve])
        self._halved[rows], self._rises[rows] = halve, 0
        self._loss_at_checkpoint[rows] = self.best_loss[rows]

    def _adapt_l1(self) -> None:
        """Aim at two thirds of the pixels that the best point changes; shrink the step unless they got fewer."""
        rows = self._active
        axes = tuple(range(1, self.best.ndim))
        moved = (self.best[rows] != self._clean[rows]).sum(axis=axes)
        sparser = moved < 0.95 * self._moved_pixels[rows]
        shrunk = np.maximum(self._step[rows] / L1_SHRINK, L1_LEAST_STEP * self._radius)
        self._step[rows] = np.where(sparser, self._radius, shrunk)
        self._entries[rows] = np.maximum(1, (moved / L1_SHRINK).astype(np.int64))
        self._moved_pixels[rows] = moved
        self._back_to_best(rows[sparser])

    def _back_to_best(self, rows: NDArray[np.int64]) -> None:
        self._now[rows], self._slope[rows] = self.best[rows], self._best_slope[rows]
        self._last_loss[rows] = self.best_loss[rows]

"""The attack on the linearised margin: a gradient at the clean image, and more only where the margin is not linear.

A kernel predictor of an infinitely wide network is nearly linear within the radii in use, so that the worst point of
its linearisation (as DeepFool and FAB take it; Moosavi-Dezfooli et al. 2016, Croce & Hein 2020) is the worst point but
for a small error. The error is measured for each image by the exact predictor, and decides what the image still meets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import DifferentiablePredictor, Values
from advntk_dist.attacks.geometry import Images
from advntk_dist.attacks.linearisation import largest_gain, radius_to_gain, room_along, steepest_point
from advntk_dist.attacks.registry import LINEAR
from advntk_dist.attacks.request import AttackRequest, Rows
from advntk_dist.grid import spans
from advntk_dist.spec import NORMS, Loss, Norm, step_length

REACH = 4.0
"""A margin counts as out of reach where it is this many times the error of the linearisation or more."""
TOGETHER = 512
"""Images whose derivatives of all outputs are in memory at once."""
ERRORS = 4.0
"""Standard errors that an estimated gain may be too small by."""
SHARE, SMALL = 8, 1024
"""Gains are estimated from one pixel in SHARE, of images with SMALL pixels or more."""


@dataclass(frozen=True, eq=False)
class Linearisation:
    """Outputs of a predictor and their derivatives at clean images.

    Attributes
    ----------
    clean
        Clean images (m, H, W, C).
    classes
        True classes (m,).
    outputs, slopes
        (m, k) in float64, and (m, k, H, W, C).
    """

    clean: Images
    classes: Rows
    outputs: Values
    slopes: Images

    @classmethod
    def at(cls, predictor: DifferentiablePredictor, clean: Images, classes: Rows) -> Linearisation:
        """The linearisation at clean images (m, H, W, C) of these classes (m,), from one pass over the kernel."""
        return cls(clean, classes, *predictor.value_and_jacobian(clean))

    def margins(self, radius: float, norm: Norm) -> Values:
        """The largest linear f_k - f_y within a radius, (m, k); minus infinity for k = y."""
        return self._above + largest_gain(self._directions, self.clean[:, None], radius, norm)

    def worst_points(self, margins: Values, radius: float, norm: Norm) -> tuple[Images, Rows]:
        """For each image the point where the largest of its :meth:`margins` is reached, and the class k (m,)."""
        towards, rows = margins.argmax(axis=1), np.arange(len(self.clean))
        return steepest_point(self._directions[rows, towards], self.clean, radius, norm), towards

    def radii(self) -> Values:
        """The linear robust radius in each norm of NORMS, (m, 3): below it no class overtakes the true one.

        Without the pixel range a class needs what the margin lacks over the dual norm of its gradient. That is never
        more than with it, so that few classes of an image are looked at exactly.
        """
        needed, size = -self._above, np.abs(self._directions).reshape(*self.outputs.shape, -1)
        largest = size.max(axis=2)  # divided out first: the squares of tiny gradients would vanish
        largest = np.where(largest > 0, largest, 1.0)
        size = size / largest[:, :, None]
        duals = {"linf": size.sum(axis=2), "l2": np.linalg.norm(size, axis=2), "l1": size.max(axis=2)}
        found = np.full((len(needed), len(NORMS)), np.inf)
        for column, norm in enumerate(NORMS):
            dual = largest * duals[norm].astype(np.float64) * (1 + 1e-4)  # below any rounding of the sums
            least = np.divide(needed, dual, out=np.where(needed > 0, np.inf, 0.0), where=dual > 0)
            order = np.argsort(least, axis=1)
            for k in order.T[:-1]:
                rows = np.flatnonzero(least[np.arange(len(k)), k] < found[:, column])
                if not len(rows):
                    break
                at = rows, k[rows]
                exact = radius_to_gain(self._directions[at], self.clean[rows], needed[at], norm)
                found[rows, column] = np.minimum(found[rows, column], exact)
        return found

    @cached_property
    def _directions(self) -> Images:
        rows = np.arange(len(self.clean))
        return np.asarray(self.slopes - self.slopes[rows, self.classes][:, None])

    @cached_property
    def _above(self) -> Values:
        return _above(self.outputs, self.classes)


@dataclass(eq=False)
class LinearAttack:
    """What became of images under the attack.

    Attributes
    ----------
    images
        The worst point found of each image, (m, H, W, C).
    margins
        The largest f_k - f_y there, (m,): positive where the image is misclassified.
    expected, errors
        The margin that the linearisation at the clean image expects at the point that it named, (m,), and
        |expected - true one| there, (m,).
    towards
        The class whose linear margin named it, (m,).
    """

    images: Images
    margins: Values
    expected: Values
    errors: Values
    towards: Rows

    def uncertain(self, rows: Rows, errors: Values) -> Rows:
        """Those of some rows (r,) that are classified correctly with a margin below REACH times an error (r,)."""
        margins = self.margins[rows]
        return rows[(margins < 0) & (-margins < REACH * errors)]

    def keep_worse(self, rows: Rows, images: Images, margins: Values) -> None:
        """Take over images (r, H, W, C) of some rows (r,) where their margins (r,) are larger."""
        worse = margins > self.margins[rows]
        self.images[rows[worse]], self.margins[rows[worse]] = images[worse], margins[worse]


def linear(
    predictor: DifferentiablePredictor,
    x: ArrayLike,
    y: ArrayLike,
    *,
    radius: float,
    steps: int = 10,
    step_size: float | None = None,
    norm: Norm = "linf",
    seed: int = 0,
    indices: ArrayLike | None = None,
    loss: Loss = "margin",
    restarts: int = 1,
    proved: bool = True,
) -> Images:
    """Move each image to where its linearised margin is worst within the ball, as far as the margin is linear.

    What is not named here, the result and the errors are those of :func:`advntk_dist.attacks.pgd.pgd`; nothing is
    random, and the loss is the margin.

    1. To the worst point of the linearised margin to the runner-up: the exact maximum over ball and pixel range.
    2. What is still classified correctly: to the worst point over all classes, where one may come within reach. Where
       a predictor differentiates all outputs at once (convolutions) this comes first.
    3. Where the margin there is within REACH times what the linearisation missed: linearised anew at that point, and
       then ``steps`` steps of PGD towards the same class.

    Of all points that an image met, the one with the largest true margin is returned.

    Parameters
    ----------
    steps, step_size
        Of the steps of PGD; the step size is by default a fifth of the radius.
    proved
        Whether the result is judged, and followed by 2 and 3. Training needs an attacked image, no more, and takes 1.
    """
    size = step_length(radius, step_size)
    request = AttackRequest.of(
        predictor, x, y, radius=radius, steps=steps, step_size=size, norm=norm, seed=seed, indices=indices, loss=loss,
        restarts=restarts,
    )  # fmt: skip
    LINEAR.require_possible(norm=norm, loss=loss, restarts=restarts)
    if not proved:
        return _runner_up(request)[0]
    parts = [request.only(np.arange(s.start, s.stop)) for s in spans(len(request.clean), TOGETHER)]
    return np.concatenate([request.clean[:0], *(attack_linear(part, steps, size).images for part in parts)])


def attack_linear(
    request: AttackRequest, steps: int, step_size: float, linearisation: Linearisation | None = None
) -> LinearAttack:
    """:func:`linear`, with what it found out of each image; ``linearisation`` where it is known."""
    predictor = request.predictor
    if linearisation is not None or predictor.shares_gradients:
        found = _towards_worst(request, linearisation)
    else:
        found = _met(request, *_runner_up(request))
        if len(rows := _within_reach(request, found)):
            others = _towards_worst(request.only(rows))
            found.expected[rows], found.errors[rows] = others.expected, others.errors
            found.towards[rows] = others.towards
            found.keep_worse(rows, others.images, others.margins)
    if len(rows := found.uncertain(np.arange(len(found.margins)), found.errors)):
        part = _aimed(request, rows, found.towards)
        here = found.images[rows]
        _, value, slope = predictor.value_and_slope(here, part.wanted, loss=part.loss, towards=part.towards)
        again = steepest_point(slope, part.clean, part.radius, part.norm)
        met = _met(part, again, value + _inner(slope, again - here), part.towards)
        found.keep_worse(rows, again, met.margins)
        rows = found.uncertain(rows, met.errors)
    if steps and len(rows):
        part = _aimed(request, rows, found.towards)
        last = part.ascend(found.images[rows], steps, step_size)
        found.keep_worse(rows, last, _above(predictor.predict(last), part.classes).max(axis=1))
    return found


def _runner_up(request: AttackRequest) -> tuple[Images, Values, Rows]:
    """The worst points of the margins linearised at the clean images, the margins (m,) expected there, the classes."""
    clean = request.clean
    f, value, slope = request.predictor.value_and_slope(clean, request.wanted, loss="margin")
    images = steepest_point(slope, clean, request.radius, request.norm)
    return images, value + _inner(slope, images - clean), _above(f, request.classes).argmax(axis=1)


def _towards_worst(request: AttackRequest, known: Linearisation | None = None) -> LinearAttack:
    at_clean = known or Linearisation.at(request.predictor, request.clean, request.classes)
    expected = at_clean.margins(request.radius, request.norm)
    images, towards = at_clean.worst_points(expected, request.radius, request.norm)
    return _met(request, images, expected.max(axis=1), towards)


def _met(request: AttackRequest, images: Images, expected: Values, towards: Rows) -> LinearAttack:
    """What perturbed images are to the predictor, and how far the margin of their class is from what was expected."""
    above = _above(request.predictor.predict(images), request.classes)
    errors = np.abs(expected - above[np.arange(len(images)), towards])
    return LinearAttack(images, above.max(axis=1), expected, errors, towards)


def _above(f: Values, classes: Rows) -> Values:
    """f_k - f_y of outputs (m, k) and true classes (m,), (m, k); minus infinity for k = y."""
    rows = np.arange(len(f))
    above = f - f[rows, classes][:, None]
    above[rows, classes] = -np.inf
    return above


def _within_reach(request: AttackRequest, found: LinearAttack) -> Rows:
    """Images that the step to the runner-up left robust, and that another class may overtake by the linearised margin.

    Where derivatives in a sample of the pixels cost less than all of them, the gain of each class is estimated from
    one; a class counts where the estimate and ERRORS of its standard errors are within what the linearisation misses.
    """
    pixels = int(np.prod(request.clean.shape[1:]))
    rows, entries = np.flatnonzero(found.margins < 0), _sample(pixels)
    if not (len(rows) and len(entries) and request.predictor.samples_pixels and request.norm in ("linf", "l2")):
        return rows
    part, each = request.only(rows), np.arange(len(rows))
    f, slopes = request.predictor.value_and_jacobian(part.clean, entries)
    steep = slopes - slopes[each, part.classes][:, None]
    if request.norm == "linf":
        sampled = part.clean.reshape(len(rows), -1)[:, None, entries]
        share = np.minimum(room_along(steep, sampled), request.radius) * np.abs(steep)
    else:
        share = steep**2
    whole = share.mean(axis=2) + ERRORS * share.std(axis=2) / len(entries) ** 0.5
    whole = whole.astype(np.float64) * pixels
    gain = whole if request.norm == "linf" else request.radius * np.sqrt(whole)
    most = _above(f, part.classes) + gain
    most[each, found.towards[rows]] = -np.inf
    return rows[most.max(axis=1) > -REACH * found.errors[rows]]


def _sample(pixels: int) -> Rows:
    """Indices of one pixel in SHARE of a flat image, always the same; none of a small image."""
    if pixels < SMALL:
        return np.zeros(0, np.int64)
    return np.sort(np.random.default_rng(0).choice(pixels, pixels // SHARE, replace=False))


def _aimed(request: AttackRequest, rows: Rows, towards: Rows) -> AttackRequest:
    """The request for some rows, with the loss f_k - f_y of the classes that ``towards`` (m,) names."""
    return replace(request.only(rows), loss="margin-targeted", towards=towards[rows])


def _inner(slope: Images, step: Images) -> NDArray[np.float64]:
    return np.asarray((slope * step).reshape(len(slope), -1).sum(axis=1, dtype=np.float64))

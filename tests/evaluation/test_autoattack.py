"""AutoAttack part by part: the same images fall as in one call of it, at the cost that is predicted."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.autoattack import autoattack, output_scale
from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.registry import AUTOATTACK
from advntk_dist.evaluation.evaluate import evaluate_sequence
from advntk_dist.evaluation.evaluator import InProcess, is_right
from advntk_dist.evaluation.tiers import part_price, standard_parts

needed = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "autoattack")),
    reason="needs torch and autoattack; autoattack() says how to get them",
)
SHAPE, K = (6, 6, 1), 10


class Waves(DifferentiablePredictor):
    """Smooth functions of the pixels; counts what goes through."""

    outputs = K

    def __init__(self, size: float) -> None:
        rng = np.random.default_rng(0)
        self.inner, self.outer = rng.standard_normal((36, 40)) / 2, size * rng.standard_normal((40, K))
        self.shift = 0.0 if size > 1e-2 else 5 * np.eye(K)[0]
        self.queries = self.steps = 0

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        flat = np.asarray(x, np.float64).reshape(len(np.asarray(x)), -1)
        self.queries += len(flat)
        return np.asarray(np.sin(flat @ self.inner) @ self.outer + self.shift)

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> NDArray[Any]:
        images = np.asarray(x)
        self.steps += len(images)
        waves = images.reshape(len(images), -1).astype(np.float64) @ self.inner
        slope = (np.cos(waves) * (np.asarray(cotangent) @ self.outer.T)) @ self.inner.T
        return np.asarray(slope.reshape(images.shape).astype(images.dtype))


@needed
@pytest.mark.parametrize("part", AUTOATTACK.parts)
def test_a_part_that_fells_nothing_costs_what_is_predicted(part: str) -> None:
    predictor, x = Waves(1e-3), np.random.default_rng(1).uniform(-0.4, 0.4, (2, *SHAPE)).astype(np.float32)
    found = autoattack(predictor, x, np.zeros(2, np.int64), radius=0.02, attacks=[part], scale=1.0, batch=2)
    is_right(predictor, found, np.zeros(2, np.int64))
    asked, priced = AUTOATTACK.parts[part]["linf"], part_price(part, "linf").passes
    assert predictor.queries / 2 == asked.queries + AUTOATTACK.judged == priced.queries
    assert predictor.steps / 2 == asked.steps == priced.steps


@needed
def test_part_by_part_it_fells_what_it_fells_in_one_call() -> None:
    predictor, x = Waves(1.0), np.random.default_rng(2).uniform(-0.4, 0.4, (16, *SHAPE)).astype(np.float32)
    y = predictor.predict(x).argmax(axis=1)
    flags: list[Any] = []
    parts = standard_parts(x, radius=0.012, norm="linf", seed=3, on_flag=lambda *told: flags.append(told))
    group = zarr.create_group(zarr.storage.MemoryStore(), zarr_format=3)
    evaluator = InProcess(lambda: predictor, x, y)
    result = evaluate_sequence(evaluator, 16, parts, norm="linf", group=group, name="a", batch=16)
    whole = autoattack(predictor, x, y, radius=0.012, seed=3, batch=16, scale=output_scale(predictor, x))
    left = is_right(predictor, whole, y)[:, 0] > 0
    np.testing.assert_array_equal(result.result.robust_right, left)
    assert 2 < left.sum() < 14
    assert flags == []


def test_only_the_first_part_meets_every_image() -> None:
    assert [part_price(part, "l2").meets_all for part in AUTOATTACK.parts] == [True, False, False, False]

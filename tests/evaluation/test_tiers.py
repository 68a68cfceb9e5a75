"""Tiers: which attacks in which order, what they cost, and the whole of one on a small kernel predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.losses import loss_and_slope
from advntk_dist.attacks.registry import JACOBIAN, LINEAR, TIERS, Tier, bind_attack
from advntk_dist.config import AttackConfig
from advntk_dist.evaluation.cost import BatchSeconds, Cost, Priced, Timed, predict_cost
from advntk_dist.evaluation.evaluate import AttackOutcome, SequenceResult, evaluate_sequence
from advntk_dist.evaluation.evaluator import InProcess
from advntk_dist.evaluation.tiers import named, short_name, tier_attacks
from advntk_dist.predictor import KernelPredictor
from tests.evaluation.conftest import Problem

RUN = AttackConfig(radius=0.2, seed=5, steps=7)


class Counted(DifferentiablePredictor):
    """A linear predictor that no small attack moves; counts the images that go through."""

    outputs = 5

    def __init__(self) -> None:
        self.queries = self.steps = 0
        self.weights = 1e-3 * np.random.default_rng(0).standard_normal((16, self.outputs))

    def _values(self, x: ArrayLike) -> NDArray[np.float64]:
        flat = np.asarray(x, np.float64).reshape(len(np.asarray(x)), -1)
        return np.asarray(np.eye(self.outputs)[0] * 5 + flat @ self.weights)

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        self.queries += len(np.asarray(x))
        return self._values(x)

    def vjp(self, *_: Any) -> NDArray[Any]:
        raise AssertionError("values and gradients come together")

    def value_and_slope(self, x: Any, wanted: Any, *, loss: Any = "margin", towards: Any = None) -> Any:
        self.steps += len(x)
        f = self._values(x)
        value, slope = loss_and_slope(loss, f, wanted, towards)
        return f, value, (slope @ self.weights.T).reshape(x.shape).astype(x.dtype)

    def value_and_jacobian(self, x: Any, entries: Any = None) -> Any:  # noqa: ARG002 - of the protocol
        self.steps += JACOBIAN * len(x)
        slopes = np.broadcast_to(self.weights.T.reshape(-1, *x.shape[1:]), (len(x), self.outputs, *x.shape[1:]))
        return self._values(x), slopes.astype(x.dtype)


IMAGES = np.random.default_rng(1).uniform(-0.4, 0.4, (6, 4, 4, 1)).astype(np.float32)


def every_attack() -> list[AttackConfig]:
    some = [a for tier in ("fast", "standard", "full") for a in tier_attacks(tier, RUN, 5)]
    quick = [a.model_copy(update={"steps": 9, "queries": 11}) for a in some]
    return [*quick, AttackConfig(name="pgd", steps=4, restarts=3), AttackConfig(name="square", queries=5, restarts=2)]


@pytest.mark.parametrize("attack", every_attack(), ids=lambda a: a.label)
def test_an_attack_that_breaks_nothing_costs_what_is_predicted(attack: AttackConfig) -> None:
    predictor = Counted()
    adversarial = bind_attack(attack)(predictor, IMAGES, np.zeros(6, np.int64), seed=0, indices=np.arange(6))
    predictor.predict(adversarial)
    passes = attack.spec.cost(attack)
    linearised = attack.spec is LINEAR  # needs no more than the derivatives of a linear predictor
    most = [passes.queries, passes.steps]
    assert not linearised or most == [5, 4 + JACOBIAN + attack.steps]
    assert [predictor.queries / 6, predictor.steps / 6] == ([3, 1 + JACOBIAN] if linearised else most)


def test_the_attacks_of_a_tier() -> None:
    assert tier_attacks("fast", RUN, 10) == (RUN,)
    standard, full = tier_attacks("standard", RUN, 10), tier_attacks("full", RUN, 10)
    order = ["linear", "fgsm", "pgd", "apgd-cross-entropy", "apgd-dlr", "apgd-targeted", "square"]
    for attacks in (standard, full):
        assert [short_name(a) for a in attacks] == order
        assert {(a.radius, a.norm) for a in attacks} == {(0.2, "linf")}
        assert [a.seed for a in attacks] == list(range(5, 12))
    assert [(a.steps, a.restarts) for a in standard[3:5]] == [(100, 1)] * 2
    assert [(a.steps, a.restarts) for a in full[3:5]] == [(100, 5)] * 2
    assert (standard[5].targets, standard[6].queries) == (3, 1000)
    assert (full[5].targets, full[6].queries) == (9, 5000)
    assert set(TIERS) == {"fast", "standard", "full"}
    with pytest.raises(KeyError):
        tier_attacks("best", RUN, 10)


def test_few_classes_and_l1_have_the_attacks_that_exist_for_them() -> None:
    two = [short_name(a) for a in tier_attacks("standard", RUN, 2)]
    assert two == ["linear", "fgsm", "pgd", "apgd-cross-entropy", "apgd-margin", "square"]
    three = tier_attacks("full", RUN, 3)[5]
    assert (three.loss, three.targets) == ("margin-targeted", 2)
    l1 = [short_name(a) for a in tier_attacks("standard", AttackConfig(norm="l1", radius=2.0), 10)]
    assert l1 == ["linear", "fgsm", "pgd", "apgd-cross-entropy", "apgd-dlr", "apgd-targeted"]


def test_cost_adds_up_and_bounds_the_expectation() -> None:
    measured = BatchSeconds(batch=4, query_seconds=1.0, step_seconds=3.0)
    attacks = [Priced.of(a) for a in (AttackConfig(name="pgd", steps=10), AttackConfig(name="square", queries=20))]
    bound = predict_cost(attacks, 10, measured)
    assert (bound.steps, bound.queries) == (100, 10 + 10 + 210)
    assert bound.seconds == 3 * 1.0 + 3 * (30.0 + 1.0) + 3 * 21.0
    expected = predict_cost(attacks, 10, measured, clean=0.5, robust=0.1)
    assert (expected.steps, expected.queries) == (50, 10 + 5 + 21)
    assert expected.seconds == 3 * 1.0 + 2 * (30.0 + 1.0) + 1 * 21.0
    assert predict_cost(attacks, 10, measured, workers=3).seconds == pytest.approx(bound.seconds / 3)
    assert str(bound) == "100 image-steps and 230 queries, 2 min 39 s"
    assert str(expected).endswith("86.0 s")
    assert bound + expected == Cost(150, 230 + 36, bound.seconds + expected.seconds)


@pytest.fixture(scope="module")
def small(problem: Problem) -> tuple[KernelPredictor, NDArray[Any], NDArray[np.int64]]:
    """The last batch is not full."""
    return problem.predictor, problem.more, problem.y_more


def _under(
    predictor: KernelPredictor,
    x: NDArray[Any],
    y: NDArray[np.int64],
    tier: str,
    attack: AttackConfig,
    on_attack: Callable[[AttackOutcome], None] = lambda outcome: None,
) -> SequenceResult:
    return evaluate_sequence(
        InProcess(lambda: predictor, x, y),
        len(x),
        named(tier_attacks(tier, attack, predictor.outputs)),
        norm=attack.norm,
        group=zarr.create_group(zarr.storage.MemoryStore(), zarr_format=3),
        name="predictor",
        batch=predictor.batch,
        on_attack=on_attack,
    )


def test_the_standard_tier_on_a_kernel_predictor(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer steps and queries; how many it has is held to above."""
    monkeypatch.setitem(TIERS, "standard", Tier("quick", 40, 3, 150))
    predictor, x, y = small
    told: list[str] = []
    attack = AttackConfig(radius=0.1, seed=1)
    result = _under(predictor, x, y, "standard", attack, on_attack=lambda o: told.append(o.name))
    fast = _under(predictor, x, y, "fast", attack)
    assert told == [o.name for o in result.attacks]
    assert 0 < result.result.robust.value <= fast.result.robust.value < fast.result.clean.value
    assert (result.result.clean_right == fast.result.clean_right).all()
    assert (result.result.robust_right <= result.result.clean_right).all()
    left = [o.robust.value for o in result.attacks]
    assert left == sorted(left, reverse=True)
    assert [o.attacked for o in result.attacks[1:]] == [o.attacked - o.broken for o in result.attacks[:-1]]
    assert 0.09 < result.result.max_perturbation <= 0.1 + 1e-6
    again = _under(predictor, x, y, "standard", attack)
    assert again.as_dict() == result.as_dict()


def test_other_coefficients_share_the_prepared_training_images(small: Any) -> None:
    predictor, x, y = small
    other = predictor.with_coefficients(np.zeros((predictor.n, 10)))
    before = other._prepared
    result = _under(other, x, y, "fast", RUN)
    assert result.result.clean.value == (y == 0).mean()
    assert other._prepared is before is predictor._prepared


def test_a_batch_is_timed(small: Any) -> None:
    predictor, x, y = small
    rows = Timed(repeats=1)(predictor, x[:40], y[:40], np.arange(40))
    assert rows.shape == (40, 2)
    assert (rows == rows[0]).all()
    assert 0 < rows[0, 0] < 5
    assert 0 < rows[0, 1] < 5

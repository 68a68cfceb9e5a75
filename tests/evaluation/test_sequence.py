"""Sequences of attacks: who is attacked, what is committed, what a resumed call does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advntk_dist.evaluation.evaluate import NamedAttack, SequenceResult, evaluate_sequence
from advntk_dist.evaluation.evaluator import InProcess
from advntk_dist.storage import guarded_group
from tests.evaluation.conftest import Bright

M, BATCH = 13, 4
X = np.linspace(-0.42, 0.42, M).reshape(M, 1, 1, 1).astype(np.float32)
Y = (X.ravel() > 0).astype(np.int64)
Y[0] = 1  # one clean error


class Shift:
    """Moves pixels of one class by so much; notes the images that it met. ``fatal`` ends it at that image."""

    def __init__(self, by: float, of: int, fatal: int | None = None) -> None:
        self.by, self.of, self.fatal = by, of, fatal
        self.met: list[list[int]] = []
        self.seeds: list[int] = []

    def __call__(self, _predictor: Any, x: Any, y: Any, *, seed: int, indices: Any) -> Any:
        if self.fatal in indices:
            raise KeyboardInterrupt
        self.met.append(list(indices))
        self.seeds.append(seed)
        step = np.where(y == self.of, -self.by if self.of else self.by, 0.0)
        return (x + step.reshape(-1, 1, 1, 1)).astype(x.dtype)


def run(folder: Path, attacks: Sequence[NamedAttack], **keywords: Any) -> SequenceResult:
    group = guarded_group(folder, {"attack": "toy"})
    evaluator = keywords.pop("evaluator", InProcess(Bright, X, Y))
    return evaluate_sequence(evaluator, M, attacks, norm="linf", group=group, name="a", batch=BATCH, **keywords)


def pair(fatal: int | None = None) -> tuple[Shift, Shift, list[NamedAttack]]:
    first, second = Shift(0.25, 1), Shift(0.15, 0, fatal)
    return first, second, [NamedAttack("up", first, 3), NamedAttack("down", second, 4)]


def test_each_attack_meets_the_images_that_are_left(tmp_path: Path) -> None:
    first, second, attacks = pair()
    result = run(tmp_path / "e", attacks)
    clean = np.flatnonzero(np.arange(M) != 0)
    assert [i for part in first.met for i in part] == clean.tolist()
    left = [i for i in clean if not (Y[i] == 1 and X[i, 0, 0, 0] - 0.25 <= 0)]
    assert [i for part in second.met for i in part] == left
    assert [len(part) for part in second.met[:-1]] == [BATCH] * (len(second.met) - 1), "full batches but the last"
    survivors = [i for i in left if not (Y[i] == 0 and X[i, 0, 0, 0] + 0.15 > 0)]
    assert np.flatnonzero(result.result.robust_right).tolist() == survivors
    assert result.result.robust.value == len(survivors) / M
    assert result.result.clean.value == (M - 1) / M
    assert [(o.name, o.attacked, o.broken) for o in result.attacks] == [
        ("up", 12, 12 - len(left)),
        ("down", len(left), len(left) - len(survivors)),
    ]
    assert result.attacks[0].robust.value > result.attacks[1].robust.value
    assert result.result.max_perturbation == pytest.approx(0.25)
    assert (set(first.seeds), set(second.seeds)) == ({3}, {4})


def test_the_order_of_attacks_does_not_change_the_worst_case(tmp_path: Path) -> None:
    forward, backward = run(tmp_path / "e", pair()[2]), run(tmp_path / "f", pair()[2][::-1])
    assert (forward.result.robust_right == backward.result.robust_right).all()


def test_an_interrupted_sequence_does_only_what_is_missing(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", pair()[2])
    _, _, fatal = pair(fatal=5)  # in the second batch of the second attack
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "e", fatal)
    first, second, attacks = pair()
    seen: list[tuple[str, int, bool]] = []
    resumed = run(tmp_path / "e", attacks, on_batch=lambda *told: seen.append(told))
    assert first.met == []
    assert 0 < sum(map(len, second.met)) < whole.attacks[1].attacked
    assert resumed.as_dict() == whole.as_dict()
    assert [s for s in seen if s[0] != "down"] == [(a, k, False) for a in ("clean", "up") for k in (4, 4, 4, 1)]
    assert sum(k for a, k, fresh in seen if a == "down" and fresh) > 0
    assert sum(k for a, k, _ in seen if a == "down") == M


def test_a_finished_sequence_asks_the_predictor_nothing(tmp_path: Path) -> None:
    whole = run(tmp_path / "e", pair()[2])

    def never() -> Bright:
        raise AssertionError("made a predictor")

    first, second, attacks = pair()
    assert run(tmp_path / "e", attacks, evaluator=InProcess(never, X, Y)).as_dict() == whole.as_dict()
    assert first.met == second.met == []


def test_outcomes_that_are_told_as_they_come(tmp_path: Path) -> None:
    told: list[Any] = []
    result = run(tmp_path / "e", pair()[2], on_attack=told.append)
    assert tuple(told) == result.attacks
    row = result.as_dict()["attacks"][1]
    assert row["robust_interval"][0] <= row["robust"] <= row["robust_interval"][1]
    assert row["attacked"] - row["broken"] == round(row["robust"] * M)


def test_attacks_need_names_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different names"):
        run(tmp_path / "e", [NamedAttack("a", Shift(0.1, 1), 0), NamedAttack("a", Shift(0.2, 1), 0)])


def test_a_sequence_without_attacks_is_clean_accuracy(tmp_path: Path) -> None:
    result = run(tmp_path / "e", [])
    assert result.result.clean == result.result.robust
    assert result.result.max_perturbation == 0.0

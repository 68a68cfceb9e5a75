"""Clean and robust accuracy: what counts as right, what is computed again, and the interval beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from advntk_dist.errors import StoreMismatchError
from advntk_dist.evaluation import Accuracy, MethodResult
from advntk_dist.evaluation.committed import CommittedSeconds
from advntk_dist.evaluation.evaluate import evaluate
from advntk_dist.storage import guarded_group
from tests.evaluation.conftest import Bright

M, BATCH = 11, 4
X = np.linspace(-0.4, 0.4, M).reshape(M, 1, 1, 1).astype(np.float32)
Y = (X.ravel() > 0).astype(np.int64)
Y[0] = 1  # one clean error


class Attack:
    """Moves each pixel across the threshold by as much as the radius allows; notes what it was asked."""

    def __init__(self, radius: float = 0.1) -> None:
        self.radius = radius
        self.asked: list[tuple[int, list[int]]] = []

    def __call__(self, _predictor: Any, x: Any, _y: Any, **told: Any) -> Any:
        self.asked.append((told["seed"], list(told["indices"])))
        return (x - np.sign(x) * self.radius).astype(x.dtype)


def _evaluate(folder: Path, attack: Attack, **keywords: Any) -> MethodResult:
    keywords = {"norm": "linf", "seed": 9, "name": "ntk", "batch": BATCH, **keywords}
    predictor = keywords.pop("predictor", Bright)
    group = guarded_group(folder, {"attack": "toy"})
    return evaluate(predictor, keywords.pop("x", X), Y, attack, group=group, **keywords)


def test_counts_and_intervals(tmp_path: Path) -> None:
    result = _evaluate(tmp_path / "e", Attack())
    # Pixel 0 is a clean error that the attack cannot make right; the grey pixel in the middle counts as class 0.
    assert result.clean.value == pytest.approx(10 / 11)
    far = np.abs(X.ravel()) > 0.1
    assert result.robust.value == pytest.approx((far & (np.arange(M) != 0)).sum() / M, abs=1.01 / M)
    assert result.robust.value < result.clean.value
    assert result.max_perturbation == pytest.approx(0.1, rel=1e-6)
    assert result.clean.n == result.robust.n == M
    assert result.clean.low < result.clean.value < result.clean.high


def test_clean_error_counts_as_robust_error(tmp_path: Path) -> None:
    class Mender(Attack):
        def __call__(self, _predictor: Any, x: Any, _y: Any, **_: Any) -> Any:
            return np.where(np.reshape(_y, (-1, 1, 1, 1)) == 1, 0.3, -0.3).astype(x.dtype)  # makes all right

    result = _evaluate(tmp_path / "e", Mender())
    assert result.clean.value == result.robust.value == pytest.approx(10 / 11)


def test_each_image_has_its_own_index(tmp_path: Path) -> None:
    """Image 0 is misclassified: the others fill the batches."""
    attack = Attack()
    _evaluate(tmp_path / "e", attack)
    assert attack.asked == [(9, [1, 2, 3, 4]), (9, [5, 6, 7, 8]), (9, [9, 10])]


def test_misclassified_images_are_not_attacked_and_change_nothing(tmp_path: Path) -> None:
    class Dark(Bright):
        """Says class 0 of every image: only those are attacked."""

        def predict(self, x: ArrayLike) -> NDArray[np.float64]:
            return np.add(super().predict(x), [9.0, 0.0])

    attack = Attack()
    result = _evaluate(tmp_path / "e", attack, predictor=Dark)
    zeros = np.flatnonzero(Y == 0).tolist()
    assert [i for _, indices in attack.asked for i in indices] == zeros
    assert all(len(indices) == BATCH for _, indices in attack.asked[:-1])
    assert result.clean.value == result.robust.value == pytest.approx(len(zeros) / M)

    class Wrong(Bright):
        def predict(self, x: ArrayLike) -> NDArray[np.float64]:
            wrong = np.asarray(x).ravel() <= 0
            return np.stack([~wrong, wrong], axis=1).astype(float)

    attack, done = Attack(), list[int]()
    result = _evaluate(
        tmp_path / "f", attack, predictor=Wrong, name="other", on_batch=lambda images, _: done.append(images)
    )
    assert [i for _, indices in attack.asked for i in indices] == [0]
    assert sorted(done) == [3, 4, 4]
    assert result.clean.value == result.robust.value == pytest.approx(1 / M)


def test_batches_are_committed_as_soon_as_their_images_are_attacked(tmp_path: Path) -> None:
    """Batch 1 ends with image 7, which the second attack has; the end of the third batch waits for the last."""
    order: list[Any] = []

    class Noting(Attack):
        def __call__(self, _predictor: Any, x: Any, _y: Any, **told: Any) -> Any:
            order.append(list(told["indices"]))
            return super().__call__(_predictor, x, _y, **told)

    _evaluate(tmp_path / "e", Noting(), on_batch=lambda images, fresh: order.append(images))
    assert order == [[1, 2, 3, 4], 4, [5, 6, 7, 8], 4, [9, 10], 3]


def test_only_missing_batches_are_attacked(tmp_path: Path) -> None:
    class Dies(Attack):
        def __call__(self, _predictor: Any, x: Any, _y: Any, **told: Any) -> Any:
            if 10 in told["indices"]:
                raise KeyboardInterrupt
            return super().__call__(_predictor, x, _y, **told)

    whole = _evaluate(tmp_path / "whole", Attack())
    with pytest.raises(KeyboardInterrupt):
        _evaluate(tmp_path / "e", Dies())
    attack, done = Attack(), list[tuple[int, bool]]()
    resumed = _evaluate(tmp_path / "e", attack, on_batch=lambda images, fresh: done.append((images, fresh)))
    assert [indices for _, indices in attack.asked] == [[8, 9, 10]]
    assert done == [(4, False), (4, False), (3, True)]
    assert resumed == whole


def test_finished_evaluation_makes_no_predictor(tmp_path: Path) -> None:
    made: list[Bright] = []

    def predictor() -> Bright:
        made.append(Bright())
        return made[-1]

    first = _evaluate(tmp_path / "e", Attack(), predictor=predictor)
    assert len(made) == 1, "one predictor serves all batches"
    assert _evaluate(tmp_path / "e", Attack(), predictor=predictor) == first
    assert len(made) == 1


def test_a_wrong_batch_in_the_middle_is_found_again(tmp_path: Path) -> None:
    whole = _evaluate(tmp_path / "e", Attack())
    (tmp_path / "e" / "ntk" / "c" / "1" / "0").unlink()
    attack = Attack()
    assert _evaluate(tmp_path / "e", attack) == whole
    assert [indices for _, indices in attack.asked] == [[4, 5, 6, 7]], "the images of that batch, and no others"
    chunk = tmp_path / "e" / "ntk" / "c" / "2" / "0"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    attack = Attack()
    assert _evaluate(tmp_path / "e", attack) == whole
    assert [indices for _, indices in attack.asked] == [[8, 9, 10]]
    attack = Attack()
    assert _evaluate(tmp_path / "e", attack, of=7) == whole
    assert sum(len(indices) for _, indices in attack.asked) == M - 1, "outcomes of other coefficients are met again"


def test_methods_are_kept_apart_and_batches_fixed(tmp_path: Path) -> None:
    _evaluate(tmp_path / "e", Attack())
    assert _evaluate(tmp_path / "e", Attack(0.0), name="adv_ntk").max_perturbation == 0.0
    with pytest.raises(StoreMismatchError, match="rows to a chunk"):
        _evaluate(tmp_path / "e", Attack(), batch=5)


@pytest.mark.parametrize("batch", [1, 11, 100])
def test_batches_do_not_change_the_result(tmp_path: Path, batch: int) -> None:
    assert _evaluate(tmp_path / "e", Attack(), batch=batch) == _evaluate(tmp_path / "f", Attack())


def test_size_of_perturbations_of_uint8_images(tmp_path: Path) -> None:
    raw = np.arange(0, 22 * M, 22).astype(np.uint8).reshape(M, 1, 1, 1)

    class OnFloats(Attack):
        def __call__(self, _predictor: Any, x: Any, _y: Any, **_: Any) -> Any:
            return (x.astype(np.float32) / 255 - 0.5 + 0.01).astype(np.float32)

    result = _evaluate(tmp_path / "e", OnFloats(), x=raw)
    assert result.max_perturbation == pytest.approx(0.01, abs=1e-6)


def test_l2_perturbations(tmp_path: Path) -> None:
    x = np.zeros((M, 2, 1, 1), np.float32) + 0.3

    class Pair(Bright):
        def predict(self, x: ArrayLike) -> NDArray[np.float64]:
            return super().predict(np.asarray(x).mean(axis=(1, 2, 3)))

    result = _evaluate(tmp_path / "e", Attack(), x=x, norm="l2", predictor=Pair)
    assert result.max_perturbation == pytest.approx(0.1 * 2**0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (8, 10, 0.4901625, 0.9433178),
        (0, 10, 0.0, 0.2775328),
        (10, 10, 0.7224672, 1.0),
        (500, 1000, 0.4690696, 0.5309304),
    ],
)
def test_wilson_intervals(hits: int, n: int, low: float, high: float) -> None:
    accuracy = Accuracy.of(np.r_[np.ones(hits), np.zeros(n - hits)])
    assert (accuracy.value, accuracy.n) == (hits / n, n)
    assert accuracy.low == pytest.approx(low, abs=1e-6)
    assert accuracy.high == pytest.approx(high, abs=1e-6)
    z = 1.959963984540054  # the interval's definition: hypotheses p that a score test at 5% does not reject
    for bound in (accuracy.low, accuracy.high):
        if 0 < bound < 1:
            assert abs(hits / n - bound) == pytest.approx(z * (bound * (1 - bound) / n) ** 0.5, rel=1e-6)


def test_result_as_plain_values(tmp_path: Path) -> None:
    values = _evaluate(tmp_path / "e", Attack()).as_dict()
    assert values["n_test"] == M
    assert values["clean_interval"][0] <= values["clean"] <= values["clean_interval"][1]
    assert values["robust_interval"][0] <= values["robust"] <= values["robust_interval"][1]
    assert all(type(v) in (int, float, list) for v in values.values())


def test_seconds_add_up_over_starts_and_lose_what_follows_the_last_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, now = guarded_group(tmp_path / "g", {"of": "toy"}), [100.0]
    monkeypatch.setattr("advntk_dist.evaluation.committed.time.monotonic", lambda: now[0])
    first = CommittedSeconds(group, "a_seconds")
    assert first.total == 0.0
    now[0] += 5
    first.commit()
    now[0] += 2
    first.commit()
    now[0] += 1000  # killed here
    second = CommittedSeconds(guarded_group(tmp_path / "g", {"of": "toy"}), "a_seconds")
    assert second.total == 7.0
    now[0] += 3
    second.commit()
    assert second.total == CommittedSeconds(group, "a_seconds").total == 10.0
    assert CommittedSeconds(group, "b_seconds").total == 0.0


def test_a_damaged_clock_starts_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    group = guarded_group(tmp_path / "g", {"of": "toy"})
    CommittedSeconds(group, "a_seconds").commit()
    chunk = next(p for p in (tmp_path / "g" / "a_seconds").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.write_bytes(bytes(np.frombuffer(chunk.read_bytes(), np.uint8) ^ 1))
    assert CommittedSeconds(group, "a_seconds").total == 0.0
    (said,) = caplog.messages
    assert "a_seconds: rows 0 to 1 do not count as done" in said

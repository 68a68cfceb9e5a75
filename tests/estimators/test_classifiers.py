"""The estimators against the functions that they are made of, with images and with rows, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import advntk_dist as advntk
import advntk_dist.gram
from advntk_dist.errors import AdvNTKError, DatasetError
from advntk_dist.estimators import AdvNTKClassifier, NTKClassifier

OTHER: Any = "best"


def _images(seed: int, n: int = 60) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Bright left halves and bright right halves, with noise, and a third class of grey."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = rng.integers(0, 120, (n, 4, 4, 2), dtype=np.uint8)
    x[labels == 0, :, :2] += 100
    x[labels == 1, :, 2:] += 100
    return x, np.array(["left", "right", "neither"])[labels]


def test_the_limit_is_the_kernel_regressor() -> None:
    x, y = _images(0)
    fitted = NTKClassifier("mlp-3", ridge=0.0, tol=1e-9).fit(x, y)
    unit = x.astype(np.float32) / 255 - 0.5
    net = advntk.network("mlp-3")
    one_hot = (y[:, None] == fitted.classes_).astype(float)
    expected = np.linalg.solve(net.ntk(unit, unit).astype(float), one_hot)
    np.testing.assert_allclose(fitted.dual_coef_, expected, atol=1e-4 * np.abs(expected).max())
    new = _images(1)[0]
    scores = net.ntk(new.astype(np.float32) / 255 - 0.5, unit) @ expected
    np.testing.assert_allclose(fitted.decision_function(new), scores, atol=1e-4)
    assert list(fitted.classes_) == ["left", "neither", "right"]
    assert (fitted.predict(new) == fitted.classes_[scores.argmax(axis=1)]).all()


def test_rows_with_a_shape_are_images() -> None:
    x, y = _images(0)
    rows = x.reshape(len(x), -1)
    shaped = NTKClassifier("cnn-1", image_shape=(4, 4, 2)).fit(rows, y)
    whole = NTKClassifier("cnn-1").fit(x, y)
    np.testing.assert_array_equal(shaped.dual_coef_, whole.dual_coef_)
    np.testing.assert_array_equal(shaped.decision_function(x), whole.decision_function(rows))
    assert whole.n_features_in_ == 32


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255], [7, 9]], dtype=np.uint8), (0.0, 255.0)),
        (np.array([[0.1, 0.9], [0.2, 0.3]]), (0.0, 1.0)),
        (np.array([[-0.4, 0.5], [0.2, 0.3]]), (-0.5, 0.5)),
        (np.array([[-3.0, 8.0], [0.2, 0.3]]), (-3.0, 8.0)),
        (np.array([[0.0, 0.4], [0.2, 0.3]]), (0.0, 1.0)),
    ],
)
def test_the_range_follows_the_data(values: Any, expected: tuple[float, float]) -> None:
    assert NTKClassifier("mlp-2").fit(values, [0, 1]).pixel_range_ == expected


def test_values_outside_the_range_are_clipped() -> None:
    x, y = _images(0)
    fitted = NTKClassifier("mlp-2", pixel_range=(50, 150)).fit(x, y)
    assert fitted.images(x).min() == -0.5
    assert fitted.images(x).max() == 0.5


SCALES: dict[str, Any] = {
    "bytes": lambda x: x,
    "whole numbers": lambda x: x.astype(np.int64),
    "whole floats": lambda x: x.astype(float),
    "[0, 1]": lambda x: (x / 255).astype(np.float32),
    "[-0.5, 0.5]": lambda x: x / 255 - 0.5,
    "[-1, 1]": lambda x: x / 127.5 - 1,
}
WIDE = ("bytes", "whole numbers", "whole floats")
UNIT = ("[0, 1]", "[-0.5, 0.5]", "[-1, 1]")


@pytest.mark.parametrize("fitted", SCALES)
def test_another_scale_of_pixels_than_in_fit_is_refused_or_warned_of(fitted: str) -> None:
    x, y = _images(0)
    x[0, 0, 0] = (0, 255)
    net = NTKClassifier("mlp-2").fit(SCALES[fitted](x), y)
    same = WIDE if fitted in WIDE else (fitted,)
    expected = net.decision_function(SCALES[fitted](x))
    for asked, scaled in SCALES.items():
        if asked in same:
            np.testing.assert_allclose(net.decision_function(scaled(x)), expected, atol=1e-4)
        elif (fitted in WIDE) != (asked in WIDE):
            for ask in (net.decision_function, net.predict, net.images, lambda x: net.score(x, y)):
                with pytest.raises(
                    DatasetError, match="give X on the scale of the training data, or say by pixel_range"
                ):
                    ask(scaled(x))
        elif fitted != "[-1, 1]":  # the other two lie within it
            with pytest.warns(
                UserWarning, match=r"% of the values of X lie outside of .* and are clipped; give X on the"
            ):
                net.predict(scaled(x))


def test_what_looks_like_another_scale_and_is_not_is_answered() -> None:
    x, y = _images(0)
    x[0, 0, 0] = (0, 255)
    wide, unit = NTKClassifier("mlp-2").fit(x, y), NTKClassifier("mlp-2").fit(x / 255, y)
    for black in (np.zeros((1, 4, 4, 2), np.uint8), np.zeros((1, 4, 4, 2))):
        np.testing.assert_allclose(wide.decision_function(black), unit.decision_function(black), atol=1e-4)
    white = np.ones((1, 4, 4, 2), np.uint8)
    np.testing.assert_allclose(unit.decision_function(white), wide.decision_function(255 * white), atol=1e-4)
    features = np.random.default_rng(0).standard_normal((60, 20))
    net = NTKClassifier("mlp-2").fit(features, y)
    net.predict(np.clip(features, -1, 1))
    outlier = features.copy()
    outlier[3, 2] = 99.0
    net.predict(outlier)


def test_a_range_that_is_given_says_what_numbers_mean() -> None:
    x, y = _images(0)
    given = NTKClassifier("mlp-2", pixel_range=(0, 255)).fit(x, y)
    assert given.images(x / 255).max() == pytest.approx(1 / 255 - 0.5, abs=0.01)
    assert given.images(x.astype(float) + 1000).min() == 0.5


def test_channels_that_come_first_are_refused_and_mended_as_is_said() -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8), np.arange(20) % 2
    with pytest.raises(DatasetError, match=r"X has shape \(20, 3, 8, 8\).*give X\.transpose\(0, 2, 3, 1\)"):
        NTKClassifier("cnn-1").fit(x, y)
    mended = NTKClassifier("cnn-1").fit(x.transpose(0, 2, 3, 1), y)
    line = r"give X\.reshape\(-1, 3, 8, 8\)\.transpose\(0, 2, 3, 1\).*, without image_shape"
    rows = x.reshape(20, -1)
    with pytest.raises(DatasetError, match=line):
        NTKClassifier("cnn-1", image_shape=(3, 8, 8)).fit(rows, y)
    again = NTKClassifier("cnn-1").fit(rows.reshape(-1, 3, 8, 8).transpose(0, 2, 3, 1), y)
    np.testing.assert_array_equal(again.dual_coef_, mended.dual_coef_)
    with pytest.raises(
        DatasetError, match=r"shape \(3, 8, 8\), but .* on \(8, 8, 3\); give X\.transpose\(0, 2, 3, 1\)"
    ):
        mended.predict(x)
    with pytest.raises(DatasetError, match=r"shape \(4, 16, 3\), but the classifier was fitted on \(8, 8, 3\)$"):
        mended.predict(x.reshape(20, 4, 16, 3))
    assert mended.predict(x.transpose(0, 2, 3, 1)).shape == (20,)
    NTKClassifier("mlp-2").fit(x, y).predict(x)  # whose kernel does not see the order


def test_adv_ntk_is_more_robust_than_the_regressor() -> None:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    x, y, new, truth = x[:600], y[:600], x[600:800], y[600:800]
    settings: dict[str, Any] = {"radius": 0.2, "recipe": "paper", "steps": 30, "lr": 1.0, "random_state": 0}
    robust, plain = AdvNTKClassifier("mlp-3", **settings).fit(x, y), NTKClassifier("mlp-3").fit(x, y)
    assert robust.score(new, truth) > 0.85

    def under_attack(fitted: Any) -> float:
        attacked = advntk.pgd(fitted.predictor_, fitted.images(new), truth, radius=0.2)
        return float((fitted.predictor_.predict(attacked).argmax(axis=1) == truth).mean())

    assert under_attack(robust) > under_attack(plain) + 0.05
    assert robust.varpi_.shape == (500,)
    assert (robust.varpi_ >= 0).all()
    assert robust.history_[-1].loss < robust.history_[0].loss
    again = AdvNTKClassifier("mlp-3", **settings).fit(x, y)
    np.testing.assert_array_equal(again.varpi_, robust.varpi_)


def test_cross_fit_starts_at_the_best_uniform_time_and_does_better() -> None:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    x, y, new, truth = x[:600], y[:600], x[600:1000], y[600:1000]
    fitted = AdvNTKClassifier("mlp-3", radius=0.2, random_state=0).fit(x, y)
    assert len(fitted.history_) == 30
    stopped = NTKClassifier("mlp-3", t=fitted.t_).fit(x, y)

    def under_attack(classifier: Any) -> float:
        attacked = advntk.pgd(classifier.predictor_, classifier.images(new), truth, radius=0.2, loss="margin")
        return float((classifier.predictor_.predict(attacked).argmax(axis=1) == truth).mean())

    assert under_attack(fitted) > under_attack(stopped)
    assert under_attack(fitted) > under_attack(NTKClassifier("mlp-3").fit(x, y)) + 0.05
    one = AdvNTKClassifier("mlp-3", radius=0.2, random_state=0, times=[0.02], steps=1).fit(x, y)
    assert one.t_ == 0.02
    np.testing.assert_allclose(np.log(one.varpi_ / 0.02).std(), 0.03, rtol=0.2)  # a fold stays as it is


def test_a_store_keeps_the_matrix(tmp_path: Path, ray_cluster: None) -> None:
    x, y = _images(0)
    path = tmp_path / "gram.zarr"
    stored = NTKClassifier("mlp-2", store=path).fit(x, y)
    np.testing.assert_allclose(stored.dual_coef_, NTKClassifier("mlp-2").fit(x, y).dual_coef_, rtol=1e-4, atol=1e-4)
    assert advntk.GramStore.open(path).status().done == 1


def test_small_data_start_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("small data go through Ray")

    monkeypatch.setattr(ray, "init", never)  # which Ray itself calls where it is used without
    monkeypatch.setattr(advntk_dist.gram, "build_gram", never)
    x, y = _images(0)
    NTKClassifier("mlp-2").fit(x, y).predict(x)
    AdvNTKClassifier("mlp-2", steps=1, attack_steps=0).fit(x, y).predict(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NTKClassifier("cnn-3").fit(np.zeros((4, 8)), [0, 1, 0, 1]), r"image_shape: cnn-3 needs images"),
        (lambda: NTKClassifier(image_shape=(2, 2, 1)).fit(np.zeros((4, 8)), [0, 1, 0, 1]), r"\(2, 2, 1\).*8 features"),
        (lambda: NTKClassifier(pixel_range=(1, 0)).fit(np.zeros((4, 8)), [0, 1, 0, 1]), "pixel_range: must be two"),
        (lambda: NTKClassifier(t=0).fit(np.eye(4), [0, 1, 0, 1]), "t: must be > 0"),
        (lambda: NTKClassifier(memory=0).fit(np.eye(4), [0, 1, 0, 1]), "memory: must be a positive"),
        (lambda: NTKClassifier("mlp-zero").fit(np.eye(4), [0, 1, 0, 1]), "network.name"),
        (lambda: NTKClassifier().fit(np.eye(4), [1, 1, 1, 1]), "1 class"),
        (lambda: AdvNTKClassifier(steps=0).fit(np.eye(4), [0, 1, 0, 1]), "steps: must be a whole number >= 1"),
        (lambda: AdvNTKClassifier(lr=-1).fit(np.eye(4), [0, 1, 0, 1]), "lr: must be > 0"),
        (
            lambda: AdvNTKClassifier(recipe=OTHER).fit(np.eye(4), [0, 1, 0, 1]),
            'recipe: must be "cross-fit" or "paper"',
        ),
        (lambda: AdvNTKClassifier(times=[]).fit(np.eye(4), [0, 1, 0, 1]), "times: must be finite times > 0"),
        (lambda: AdvNTKClassifier(times=[1, -1]).fit(np.eye(4), [0, 1, 0, 1]), "times: must be finite times > 0"),
        (lambda: AdvNTKClassifier(validation_fraction=1).fit(np.eye(4), [0, 1, 0, 1]), "validation_fraction"),
        (lambda: AdvNTKClassifier(radius=-1).fit(np.eye(4), [0, 1, 0, 1]), "radius"),
    ],
)
def test_what_is_impossible_is_named(make: Any, message: str) -> None:
    with pytest.raises((AdvNTKError, ValueError), match=message):
        make()

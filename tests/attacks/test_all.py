"""What every attack promises: ball, range, dtype, streams of its own for each image, clear refusals, its strength."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist import apgd, apgd_targeted, fgsm, pgd, pgd_reference, square
from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import perturbation_size, random_start
from advntk_dist.attacks.losses import loss_and_slope
from advntk_dist.attacks.registry import ATTACKS, bind_attack
from advntk_dist.config import AttackConfig
from advntk_dist.errors import RequestError, SolverError
from advntk_dist.kernels.backend import NeuralTangentsBackend
from advntk_dist.networks import Network, network
from advntk_dist.predictor import KernelPredictor

Make = Callable[..., Any]
M, SHAPE, K = 11, (5, 4, 2), 5
_RNG = np.random.default_rng(21)
X = _RNG.uniform(-0.5, 0.5, (M, *SHAPE))
X[0], X[1] = -0.5, 0.5
Y = _RNG.integers(0, K, M)
RADIUS = {"linf": 0.05, "l2": 0.25, "l1": 0.8}
PAIRS = [(name, norm) for name in ATTACKS for norm in RADIUS]
POSSIBLE = [p for p in PAIRS if p[0] != "pgd-reference" and p != ("square", "l1")]


def _starts(name: str, restarts: int) -> int:
    """So many starts, or the only one that an attack has."""
    return 1 if ATTACKS[name].one_start else restarts


def _few(name: str) -> dict[str, Any]:
    """Few steps, and two targets."""
    return {"steps": 40 if name == "square" else 9} | ({"targets": 2} if name == "apgd-targeted" else {})


def _margin(predictor: Any, x: Any, y: Any = Y) -> NDArray[np.float64]:
    f = predictor.predict(x)
    return np.asarray(loss_and_slope("margin", f, np.eye(f.shape[1])[y], y)[0])


@pytest.fixture(scope="module")
def kernel() -> KernelPredictor:
    rng = np.random.default_rng(1)
    x = rng.uniform(-0.5, 0.5, (40, *SHAPE)).astype(np.float32)
    return KernelPredictor(network("mlp-2"), x, 1e-3 * rng.standard_normal((40, K)), batch=8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "norm"), POSSIBLE)
def test_no_image_leaves_the_ball_or_the_pixel_range(quadratic: Make, name: str, norm: Any, dtype: Any) -> None:
    x = X.astype(dtype)
    for scale in (0.0, 0.01, 1.0, 8.0):
        radius = scale * RADIUS[norm]
        found = ATTACKS[name].call(
            quadratic(SHAPE, K), x, Y, radius=radius, norm=norm, seed=2, restarts=_starts(name, 2), **_few(name)
        )
        assert found.shape == x.shape
        assert found.dtype == dtype
        slack = 1e-6 if dtype == np.float32 and norm != "l1" else 1e-12
        assert (perturbation_size(found, x, norm) <= radius + slack).all()
        assert np.abs(found).max() <= 0.5
        if radius == 0:
            np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize(
    ("name", "norm", "restarts"),
    [(*pair, n) for pair in POSSIBLE for n in {1, _starts(pair[0], 3)}] + [("pgd-reference", "linf", 1)],
)
def test_result_depends_on_batching_by_rounding_only(
    kernel: KernelPredictor, name: str, norm: Any, restarts: int
) -> None:
    """Random numbers are those of the image; products of another batch may round the last bit another way."""
    x = X.astype(np.float32)
    keywords: dict[str, Any] = {"radius": RADIUS[norm], "norm": norm, "seed": 4, "restarts": restarts} | _few(name)
    whole = ATTACKS[name].call(kernel, x, Y, **keywords)
    order = np.random.default_rng(0).permutation(M)
    for part in (order[:3], order[3:4], order[4:]):
        found = ATTACKS[name].call(kernel, x[part], Y[part], indices=part, **keywords)
        np.testing.assert_allclose(found, whole[part], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["pgd", "apgd", "apgd-targeted", "square"])
def test_seeds_matter(quadratic: Make, name: str) -> None:
    first, again, other = (
        ATTACKS[name].call(quadratic(SHAPE, K), X, Y, radius=0.05, seed=seed, **_few(name) | {"steps": 1})
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_restarts_are_disjoint_parts_of_a_stream() -> None:
    starts = [random_start(X, 0.1, "linf", 3, None, restart) for restart in range(3)]
    np.testing.assert_array_equal(starts[0], random_start(X, 0.1, "linf", 3, None))
    for norm in ("linf", "l2", "l1"):
        whole, some = random_start(X, 0.1, norm, 3, None), np.array([7, 2, 9])  # type: ignore[arg-type]
        np.testing.assert_array_equal(random_start(X[some], 0.1, norm, 3, some), whole[some])  # type: ignore[arg-type]
    assert len(np.unique(np.concatenate(starts).reshape(3 * M, -1), axis=0)) == 3 * M


@pytest.mark.parametrize(
    ("norm", "loss"),
    [
        ("linf", "margin"),
        ("linf", "cross-entropy"),
        ("l2", "dlr"),
        ("l1", "squared-error"),
        pytest.param("linf", "dlr", marks=pytest.mark.slow),
    ],
)
def test_any_loss_on_the_device_equals_step_by_step(norm: Any, loss: Any) -> None:
    rng = np.random.default_rng(6)
    predictor = KernelPredictor(
        network("mlp-2"), rng.uniform(-0.5, 0.5, (30, *SHAPE)), rng.standard_normal((30, K)), batch=8
    )

    stepwise: Any = SimpleNamespace(predict=predictor.predict, vjp=predictor.vjp)
    keywords: dict[str, Any] = {"radius": RADIUS[norm], "norm": norm, "loss": loss, "steps": 4}
    whole = pgd(predictor, X, Y, **keywords)
    np.testing.assert_allclose(whole, pgd(stepwise, X, Y, **keywords), atol=1e-12)
    if loss == "margin":
        towards = (Y + 1) % K
        aimed = pgd(predictor, X, Y, **keywords | {"loss": "margin-targeted", "towards": towards})
        assert not np.array_equal(aimed, whole)


@pytest.mark.parametrize("loss", ["squared-error", "margin", "dlr", "cross-entropy"])
def test_fused_value_and_slope(kernel: KernelPredictor, loss: Any) -> None:
    x = X.astype(np.float32)
    f, value, gradient = kernel.value_and_slope(x, np.eye(K)[Y], loss=loss)
    np.testing.assert_allclose(f, kernel.predict(x), rtol=1e-6, atol=1e-9)
    expected, slope = loss_and_slope(loss, f, np.eye(K)[Y], Y)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    assert gradient.dtype == np.float32
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(gradient, kernel.vjp(x, slope), atol=1e-5 * scale)


@pytest.mark.parametrize("attack", [apgd, fgsm, pgd])
def test_gradients_that_are_not_finite_are_reported(attack: Any) -> None:
    """Clipping would hide them: on a CPU, XLA's minimum of NaN and a number is the number."""

    def kinked(x1: Any, x2: Any, _kind: str) -> Any:
        return jnp.sqrt(jnp.abs(x1).sum(axis=(1, 2, 3)))[:, None] * jnp.ones(len(x2))

    net = Network(network("mlp-2").spec)
    net.backend = NeuralTangentsBackend(kinked)
    predictor = KernelPredictor(net, X, _RNG.standard_normal((M, K)), batch=4)
    with pytest.raises(SolverError, match=r"mlp-2 \(backend neural-tangents\) is not finite"):
        attack(predictor, np.stack([X[2], np.zeros(SHAPE)]), Y[:2], radius=0.0)
    assert np.isfinite(attack(predictor, X[2:3], Y[:1], radius=0.0)).all()


@pytest.mark.parametrize("name", [n for n, spec in ATTACKS.items() if not spec.one_start])
@pytest.mark.parametrize("seed", [0, 1])
def test_more_restarts_never_help_the_predictor(quadratic: Make, name: str, seed: int) -> None:
    predictor = quadratic(SHAPE, K, seed, 3.0)
    y = predictor.predict(X).argmax(axis=1)
    wrong = []
    for restarts in (1, 2, 4):
        found = ATTACKS[name].call(predictor, X, y, radius=0.02, seed=seed, restarts=restarts, **_few(name))
        wrong.append(predictor.predict(found).argmax(axis=1) != y)
    assert (wrong[0] <= wrong[1]).all()
    assert (wrong[1] <= wrong[2]).all()


def test_images_that_are_misclassified_are_not_started_again(quadratic: Make) -> None:
    predictor = quadratic(SHAPE, K)
    y = predictor.predict(X).argmin(axis=1)
    pgd(predictor, X, y, radius=0.01, steps=3, restarts=5)
    assert predictor.gradient_calls == 3
    predictor.gradient_calls = 0
    apgd(predictor, X, y, radius=0.01, steps=50, restarts=5)
    assert predictor.gradient_calls == 1, "the start is looked at, no step is taken"


def test_a_survivor_is_attacked_alone(quadratic: Make) -> None:
    predictor = quadratic(SHAPE, K)
    f = predictor.predict(X)
    y = f.argmin(axis=1)
    y[3] = f[3].argmax()
    seen: list[int] = []
    asked: list[int] = []
    predict, vjp = predictor.predict, predictor.vjp

    def counting_vjp(x: Any, cotangent: Any) -> Any:
        seen.append(len(x))
        return vjp(x, cotangent)

    def counting_predict(x: Any) -> Any:
        asked.append(len(x))
        return predict(x)

    predictor.vjp = counting_vjp
    apgd(predictor, X, y, radius=1e-4, steps=4)
    assert seen == [M, 1, 1, 1, 1]
    predictor.predict = counting_predict
    square(predictor, X, y, radius=1e-4, steps=4)
    assert asked == [1, M, 1, 1, 1], "one to learn the number of outputs, then the first points of all"


class Linear(DifferentiablePredictor):
    """f = W x + b; its worst points are known."""

    def __init__(self, outputs: int, lead: float) -> None:
        rng = np.random.default_rng(0)
        self.weights, self.bias = rng.standard_normal((outputs, int(np.prod(SHAPE)))), np.zeros(outputs)
        self.bias[0] = lead

    def predict(self, x: Any) -> NDArray[np.float64]:
        return np.asarray(np.asarray(x, np.float64).reshape(len(x), -1) @ self.weights.T + self.bias)

    def vjp(self, x: Any, cotangent: Any) -> Any:
        return (np.asarray(cotangent) @ self.weights).reshape(np.shape(x)).astype(np.asarray(x).dtype)

    def worst_margin(self, x: Any, norm: str, radius: float) -> NDArray[np.float64]:
        """Largest margin of a wrong class over class 0 within the ball and the pixel range."""
        gain = []
        for j in range(1, len(self.bias)):
            w = self.weights[j] - self.weights[0]
            for image in x.reshape(len(x), -1):
                room = np.where(w > 0, 0.5 - image, image + 0.5)
                gain.append(_most(np.abs(w), room, norm, radius))
        margins = self.predict(x)[:, 1:] - self.predict(x)[:, :1]
        return np.asarray((margins + np.reshape(gain, margins.T.shape).T).max(axis=1))


def _most(w: NDArray[np.float64], room: NDArray[np.float64], norm: str, radius: float) -> float:
    if norm == "linf":
        return float(w @ np.minimum(room, radius))
    if norm == "l1":
        order = np.argsort(-w)
        spent = np.concatenate([[0.0], np.minimum(np.cumsum(room[order]), radius)])
        return float(w[order] @ np.diff(spent))
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if np.linalg.norm(np.minimum(middle * w, room)) > radius else (middle, high)
    return float(w @ np.minimum(low * w, room))


def _share_of_worst(name: str, norm: Any, outputs: int, **options: Any) -> NDArray[np.float64]:
    """How much of the possible rise of the margin an attack on a linear predictor finds, image by image."""
    predictor, x, y = Linear(outputs, 30.0), 0.4 * X, np.zeros(M, np.int64)
    radius = 2 * RADIUS[norm]
    found = ATTACKS[name].call(predictor, x, y, radius=radius, norm=norm, **options)
    before = _margin(predictor, x, y)
    return (_margin(predictor, found, y) - before) / (predictor.worst_margin(x, norm, radius) - before)


@pytest.mark.parametrize(
    ("name", "norm", "outputs", "least"),
    [
        ("pgd", "linf", 2, 1 - 1e-9),
        ("pgd", "l2", 2, 0.999),
        ("pgd", "l1", 2, 0.999),
        ("apgd", "linf", 2, 1 - 1e-9),
        ("apgd", "l2", 2, 0.999),
        ("apgd", "l1", 2, 0.99),
        ("apgd-targeted", "linf", K, 1 - 1e-9),
        ("apgd-targeted", "l2", K, 0.999),
        ("apgd-targeted", "l1", K, 0.9),
    ],
)
def test_the_worst_case_of_a_linear_predictor_is_found(name: str, norm: Any, outputs: int, least: float) -> None:
    options = {"loss": "margin-targeted", "targets": K} if name == "apgd-targeted" else {"loss": "margin"}
    share = _share_of_worst(name, norm, outputs, steps=400 if name == "pgd" else 100, **options)
    assert (share <= 1 + 1e-9).all()
    assert (share >= least).all(), share


@pytest.mark.parametrize(("norm", "least"), [("linf", 0.99), ("l2", 0.6)])
def test_square_comes_near_the_worst_case_of_a_linear_predictor(norm: Any, least: float) -> None:
    shares = [_share_of_worst("square", norm, K, steps=queries).mean() for queries in (1, 100, 1000)]
    assert shares[0] < shares[1] < shares[2] <= 1 + 1e-9
    assert shares[2] > least, shares


@pytest.mark.parametrize("norm", list(RADIUS))
def test_fgsm_is_one_step(quadratic: Make, norm: Any) -> None:
    predictor = quadratic(SHAPE, K)
    found = fgsm(predictor, X, Y, radius=RADIUS[norm], norm=norm, loss="squared-error")
    assert predictor.gradient_calls == 1
    if norm == "linf":
        sign = np.sign(predictor.vjp(X, predictor.predict(X) - np.eye(K)[Y]))
        np.testing.assert_allclose(found, np.clip(X + 0.05 * sign, -0.5, 0.5), atol=1e-12)
    elsewhere = fgsm(predictor, X, Y, radius=RADIUS[norm], norm=norm, random=True, step_size=1.25 * RADIUS[norm])
    assert not np.array_equal(found, elsewhere)


def test_targets_are_the_likeliest_other_classes(quadratic: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, seen = quadratic(SHAPE, K), []

    class Spy:
        def __init__(self, request: Any, start: Any) -> None:
            self.start = start
            seen.append(request.towards)

        def run(self, _steps: int) -> Any:
            return self.start

    monkeypatch.setattr(importlib.import_module("advntk_dist.attacks.apgd"), "ApgdState", Spy)
    f = predictor.predict(X)
    y = f.argmax(axis=1)
    apgd_targeted(predictor, X, y, radius=0.0, targets=3)
    np.testing.assert_array_equal(np.column_stack(seen), np.argsort(-f, axis=1)[:, 1:4])
    seen.clear()
    apgd_targeted(predictor, X, y, radius=0.0, targets=99)
    assert len(seen) == K - 1


@pytest.mark.parametrize("name", list(ATTACKS))
def test_a_configured_attack_runs(quadratic: Make, name: str) -> None:
    config = AttackConfig.model_validate({"name": name, "radius": 0.05, "steps": 3, "targets": 2, "queries": 7})
    found = bind_attack(config)(quadratic(SHAPE, K), X, Y, seed=5, indices=np.arange(M))
    expected = ATTACKS[name].call(
        quadratic(SHAPE, K), X, Y, radius=0.05, seed=5, **_few(name) | {"steps": 7 if name == "square" else 3}
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", list(ATTACKS))
@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"radius": -0.1}, "radius"),
        ({"radius": np.nan}, "radius"),
        ({"radius": np.inf}, "radius"),
        ({"restarts": 0}, "attack.restarts"),
        ({"norm": "l3"}, "linf, l2|linf and l2"),
        ({"indices": np.arange(3)}, "attack.indices.*shorter"),
        ({"indices": np.arange(99)}, "attack.indices.*longer"),
    ],
)
def test_requests_that_are_possible_for_no_attack(
    quadratic: Make, name: str, keywords: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        ATTACKS[name].call(quadratic(SHAPE, K), X, Y, **{"radius": 0.1} | keywords)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("attack", "keywords", "words"),
    [
        *((attack, {"step_size": size}, "step_size") for attack in (pgd, pgd_reference) for size in (-0.1, np.nan)),
        *((attack, {"steps": -1}, "steps") for attack in (pgd, pgd_reference, apgd)),
        (pgd_reference, {"norm": "l2"}, 'norm = "linf"'),
        (pgd_reference, {"restarts": 2}, "squared-error"),
        (pgd_reference, {"loss": "margin"}, "squared-error"),
        (apgd_targeted, {"targets": 0}, "attack.targets"),
        (apgd_targeted, {"loss": "dlr"}, '"margin-targeted" or "dlr-targeted" only'),
        (square, {"steps": 0}, "attack.queries"),
        (square, {"norm": "l1"}, 'norm = "linf" or "l2"'),
        (square, {"loss": "dlr"}, 'loss = "margin"'),
        (pgd, {"loss": "margin-targeted"}, "one class an image"),
        (apgd, {"loss": "hinge"}, "no loss 'hinge'"),
    ],
)
def test_impossible_requests(quadratic: Make, attack: Any, keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        attack(quadratic(SHAPE, K), X, Y, **{"radius": 0.1} | keywords)


def test_too_few_outputs_for_dlr(quadratic: Make) -> None:
    with pytest.raises(RequestError, match=r"dlr-targeted needs at least 4 outputs.*choose margin-targeted"):
        apgd_targeted(quadratic(SHAPE, 3), X, Y % 3, radius=0.1)

"""PGD keeps its promises on every image: the ball, the pixel range, the stream of each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from advntk_dist import pgd, pgd_reference
from advntk_dist.attacks import on_device
from advntk_dist.attacks.geometry import ascent_direction, perturbation_size, project, random_start
from advntk_dist.errors import AdvNTKError
from advntk_dist.networks import network
from advntk_dist.predictor import KernelPredictor
from advntk_dist.spec import Norm
from tests.kernels.unoptimised import unoptimised

Array = NDArray[np.float64]
Make = Callable[..., Any]

_RNG = np.random.default_rng(8)
M, SHAPE = 23, (4, 4, 1)
NORMS: tuple[Norm, ...] = ("linf", "l2")
X = _RNG.uniform(-0.5, 0.5, (M, *SHAPE))
X[0], X[1] = -0.5, 0.5
Y = _RNG.integers(0, 3, M)


def _loss(predictor: Any, x: Array, y: NDArray[Any] = Y) -> Array:
    return np.asarray(0.5 * ((predictor.predict(x) - np.eye(3)[y]) ** 2).sum(axis=1))


@pytest.fixture(scope="module", autouse=True)
def _quickly_compiled() -> Iterator[None]:
    with unoptimised():
        yield


@pytest.fixture(scope="module")
def kernel_predictor(_quickly_compiled: None) -> KernelPredictor:
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (40, *SHAPE))
    return KernelPredictor(network("mlp-2"), x, np.random.default_rng(2).standard_normal((40, 3)), batch=16)


def test_uint8_images(quadratic: Make) -> None:
    raw = _RNG.integers(0, 256, (5, *SHAPE)).astype(np.uint8)
    adversarial = pgd(quadratic(), raw, Y[:5], radius=8 / 255)
    assert adversarial.dtype == np.float32
    assert (np.abs(adversarial - (raw / 255 - 0.5)) <= 8 / 255 + 1e-6).all()


def _stepwise(predictor: KernelPredictor) -> Any:
    """A kernel predictor of which only values and gradients are known."""
    return SimpleNamespace(predict=predictor.predict, vjp=predictor.vjp)


class Case(NamedTuple):
    name: str
    shape: tuple[int, int, int] = SHAPE
    backend: str = "auto"
    activation: str = "relu"


ONE, SEVERAL = 2**29, 1
"""Bytes that let all training images into one block, or do not."""
MLP, CNN, ERF = Case("mlp-2"), Case("cnn-1", (3, 3, 1)), Case("mlp-2", SHAPE, "neural-tangents", "erf")
PAIRED: list[tuple[Case, int, Norm]] = [
    (MLP, ONE, "linf"),
    (MLP, ONE, "l2"),
    (MLP, SEVERAL, "l2"),
    (CNN, SEVERAL, "linf"),
    (ERF, SEVERAL, "l2"),
]
OTHERS: list[tuple[Case, int, Norm]] = [
    (MLP, SEVERAL, "linf"),
    (CNN, SEVERAL, "l2"),
    (ERF, SEVERAL, "linf"),
    (Case("cnn-2", (3, 3, 1)), SEVERAL, "linf"),
    (Case("cnn-2", (3, 3, 1)), SEVERAL, "l2"),
]


@cache
def _attacked(case: Case, memory: int) -> KernelPredictor:
    rng = np.random.default_rng(11)
    net = network(case.name, backend=case.backend, activation=case.activation)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("advntk_dist.predictor.MEMORY", memory)
        x, c = rng.uniform(-0.5, 0.5, (40, *case.shape)), rng.standard_normal((40, 3))
        return KernelPredictor(net, x, c, batch=16)  # of one block, it shares what kernel_predictor compiles


@pytest.mark.parametrize(
    ("case", "memory", "norm"),
    [*PAIRED, *(pytest.param(*other, marks=pytest.mark.slow) for other in OTHERS)],
    ids=lambda c: getattr(c, "name", None),
)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    images=st.integers(1, 36),
    steps=st.integers(0, 4),
    radius=st.sampled_from([0.0, 8 / 255, 0.3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_attack_on_the_device_equals_one_step_by_step(
    case: Case, memory: int, norm: Norm, images: int, steps: int, radius: float, seed: int
) -> None:
    predictor, rng = _attacked(case, memory), np.random.default_rng(seed)
    x, y = rng.uniform(-0.5, 0.5, (images, *case.shape)), rng.integers(0, 3, images)
    keywords: dict[str, Any] = {"radius": radius, "steps": steps, "norm": norm, "seed": seed}
    whole = pgd(predictor, x, y, **keywords)
    np.testing.assert_allclose(whole, pgd(_stepwise(predictor), x, y, **keywords), rtol=0, atol=1e-12)
    assert whole.dtype == x.dtype


@pytest.mark.parametrize("norm", ["linf", pytest.param("l2", marks=pytest.mark.slow)])
def test_a_float32_attack_on_the_device_equals_one_step_by_step(norm: Norm) -> None:
    rng = np.random.default_rng(5)
    train, c = rng.uniform(-0.5, 0.5, (50, 4, 4, 3)).astype(np.float32), rng.standard_normal((50, 3))
    predictor = KernelPredictor(network("mlp-3"), train, c, batch=8)
    x, y = rng.uniform(-0.5, 0.5, (13, 4, 4, 3)).astype(np.float32), rng.integers(0, 3, 13)
    whole = pgd(predictor, x, y, radius=0.1, norm=norm)
    assert whole.dtype == np.float32
    # Where a gradient is a unit of rounding its sign may differ.
    assert (np.abs(whole - pgd(_stepwise(predictor), x, y, radius=0.1, norm=norm)) > 1e-6).mean() < 1e-3


def test_images_of_another_dtype_are_attacked_step_by_step(kernel_predictor: KernelPredictor) -> None:
    x = X.astype(np.float32)
    attacked = pgd(kernel_predictor, x, Y, radius=0.1)
    assert attacked.dtype == np.float32
    np.testing.assert_array_equal(attacked, pgd(_stepwise(kernel_predictor), x, Y, radius=0.1))


def test_all_steps_of_a_batch_are_one_call_and_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = KernelPredictor(network("mlp-2", W_std=1.3), X[:9], _RNG.standard_normal((9, 3)), batch=8)
    calls = []
    inner: Any = on_device.compiled_ascent()

    def counting(*args: Any, **keywords: Any) -> Any:
        calls.append(1)
        return inner(*args, **keywords)

    monkeypatch.setattr("advntk_dist.predictor.compiled_ascent", lambda: counting)
    monkeypatch.setattr(predictor, "vjp", None)
    before = inner._cache_size()
    for m, steps, radius in ((3, 5, 0.1), (8, 2, 0.2), (23, 10, 0.3)):
        pgd(predictor, X[:m], Y[:m], radius=radius, steps=steps)
    assert len(calls) == 1 + 1 + 3
    assert inner._cache_size() == before + 1
    pgd(predictor.with_coefficients(np.ones((9, 3))), X, Y, radius=0.1)
    assert inner._cache_size() == before + 1


def _naive_linf(
    predictor: Any, x: Array, y: NDArray[Any], start: Array, radius: float, steps: int, size: float
) -> Array:
    """PGD image by image with numerical gradients, as Madry et al. write it."""
    out = []
    for image, label, current in zip(x, y, start, strict=True):
        low, high = np.maximum(image - radius, -0.5), np.minimum(image + radius, 0.5)
        for _ in range(steps):
            gradient = np.zeros(image.size)
            for i in range(image.size):
                e = np.zeros(image.size)
                e[i] = 1e-5
                shift = e.reshape(image.shape)
                up, down = (_loss(predictor, (current + s * shift)[None], np.array([label]))[0] for s in (1, -1))
                gradient[i] = (up - down) / 2e-5
            current = np.clip(current + size * np.sign(gradient.reshape(image.shape)), low, high)
        out.append(current)
    return np.array(out)


def test_equals_a_straightforward_implementation(quadratic: Make) -> None:
    predictor = quadratic(curvature=3.0)
    start = random_start(X[:6], 0.2, "linf", 5, None)
    expected = _naive_linf(predictor, X[:6], Y[:6], start, 0.2, 4, 0.07)
    adversarial = pgd(predictor, X[:6], Y[:6], radius=0.2, steps=4, step_size=0.07, seed=5, loss="squared-error")
    np.testing.assert_allclose(adversarial, expected, atol=1e-12)


def test_linear_predictor_is_driven_to_the_corner(quadratic: Make) -> None:
    predictor = quadratic(outputs=1, curvature=0.0)
    x = np.zeros((1, *SHAPE))
    for target, sign in ((100.0, -1.0), (-100.0, 1.0)):  # far from the target is away from it
        adversarial = pgd(predictor, x, np.array([[target]]), radius=0.1, steps=10, loss="squared-error")
        np.testing.assert_allclose(adversarial, sign * 0.1 * np.sign(predictor.linear.reshape(1, *SHAPE)), atol=1e-15)


def test_seeds_and_indices_give_streams_of_their_own() -> None:
    x = np.zeros((4, *SHAPE))

    def draw(seed: int, indices: list[int] | None = None) -> Array:
        return random_start(x, 0.1, "linf", seed, indices)

    np.testing.assert_array_equal(draw(3), draw(3))
    assert len(np.unique(draw(3).reshape(4, -1), axis=0)) == 4
    assert not np.array_equal(draw(3), draw(4))
    assert not np.array_equal(draw(3), draw(3, [4, 5, 6, 7]))
    large = 2**64 - 2**10
    assert not np.array_equal(draw(large), draw(large + 1)), "seeds above 2^53 keep all their bits"


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_start_fills_the_ball(norm: Any, d: int) -> None:
    x = np.zeros((400, d, 1, 1))
    start = random_start(x, 0.3, norm, 0, None)
    sizes = perturbation_size(start, x, norm)
    assert sizes.max() <= 0.3 * (1 + 1e-12)
    share = 0.5**d  # uniform in a ball: how often the size is below half of the radius
    assert abs((sizes < 0.15).mean() - share) < 4 * (share * (1 - share) / 400) ** 0.5
    np.testing.assert_allclose(start.mean(axis=0), 0.0, atol=4 * 0.3 / 400**0.5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_steps_do_not_lower_the_loss(kernel_predictor: KernelPredictor, norm: Any) -> None:
    radius = 0.1 if norm == "linf" else 0.4
    found = [
        pgd(kernel_predictor, X, Y, radius=radius, steps=s, step_size=radius / 10, norm=norm) for s in (0, 1, 5, 20, 20)
    ]
    np.testing.assert_array_equal(found[-1], found[-2])
    sizes = perturbation_size(found[-1], X, norm)
    assert 0.9 * radius < sizes.max() <= radius + 1e-6
    losses = [_loss(kernel_predictor, images).mean() for images in found]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(losses))
    assert losses[-1] > losses[0]


def test_labels_and_targets_mean_the_same(quadratic: Make) -> None:
    a = pgd(quadratic(), X, Y, radius=0.1)
    np.testing.assert_array_equal(a, pgd(quadratic(), X, np.eye(3)[Y], radius=0.1))


@settings(max_examples=50)
@given(
    hnp.arrays(np.float64, (3, 2, 2, 1), elements=st.floats(-3, 3)),
    hnp.arrays(np.float64, (3, 2, 2, 1), elements=st.floats(-0.5, 0.5)),
    st.floats(0, 2),
    st.sampled_from(["linf", "l2"]),
)
def test_projection(x: Array, centre: Array, radius: float, norm: Any) -> None:
    projected = project(x, centre, radius, norm)
    assert (perturbation_size(projected, centre, norm) <= radius * (1 + 1e-12) + 1e-15).all()
    assert np.abs(projected).max() <= 0.5
    np.testing.assert_allclose(project(projected, centre, radius, norm), projected, atol=1e-12)


def test_direction_of_tiny_and_zero_gradients() -> None:
    gradient = np.zeros((2, 2, 2, 1), np.float32)
    gradient[0, 0, 0, 0], gradient[0, 1, 1, 0] = 3e-30, -4e-30
    np.testing.assert_allclose(ascent_direction(gradient, "l2")[0].ravel(), [0.6, 0, 0, -0.8], rtol=1e-6)
    np.testing.assert_array_equal(ascent_direction(gradient, "linf")[0].ravel(), [1, 0, 0, -1])
    for norm in NORMS:
        np.testing.assert_array_equal(ascent_direction(gradient, norm)[1], 0.0)


def test_size_of_perturbations() -> None:
    clean = np.zeros((2, 2, 1, 1), np.float32)
    other = clean.copy()
    other[1, :, 0, 0] = [0.3, -0.4]
    np.testing.assert_allclose(perturbation_size(other, clean, "linf"), [0.0, 0.4], rtol=1e-6)
    np.testing.assert_allclose(perturbation_size(other, clean, "l2"), [0.0, 0.5], rtol=1e-6)


@pytest.mark.parametrize("y", [Y[:5], Y[:1], np.where(Y == 2, 3, Y), np.where(Y == 2, -1, Y), np.eye(4)[Y], Y + 0.5])
def test_labels_that_do_not_fit(quadratic: Make, y: NDArray[Any]) -> None:
    with pytest.raises(AdvNTKError, match="labels"):
        pgd(quadratic(), X, y, radius=0.1)


@pytest.mark.parametrize("x", [X[0], X + 1, X.astype(np.int64)])
def test_images_that_are_none(quadratic: Make, x: NDArray[Any]) -> None:
    with pytest.raises(AdvNTKError, match="images"):
        pgd(quadratic(), x, Y, radius=0.1)


INNER = _RNG.uniform(-0.3, 0.3, (12, *SHAPE))
"""Images that no step of the attack of the paper's code takes out of the pixel range."""


def test_reaches_beyond_the_radius_but_not_beyond_twice(quadratic: Make) -> None:
    sizes = perturbation_size(pgd_reference(quadratic(), INNER, Y[:12], radius=0.1), INNER, "linf")
    assert (sizes > 0.1).all()
    assert (sizes <= 0.2 + 1e-12).all()
    assert (perturbation_size(pgd(quadratic(), INNER, Y[:12], radius=0.1), INNER, "linf") <= 0.1 + 1e-12).all()


@pytest.mark.parametrize("steps", [0, 1, 10])
def test_takes_one_gradient(quadratic: Make, steps: int) -> None:
    predictor = quadratic()
    pgd_reference(predictor, INNER, Y[:12], radius=0.1, steps=steps)
    assert predictor.gradient_calls == min(steps, 1)
    pgd(predictor, INNER, Y[:12], radius=0.1, steps=steps)
    assert predictor.gradient_calls == min(steps, 1) + steps


def test_moves_from_the_start_along_the_sign_of_its_gradient(quadratic: Make) -> None:
    predictor = quadratic(curvature=2.0)
    start = random_start(INNER, 0.1, "linf", 3, None)
    sign = np.sign(predictor.vjp(start, predictor.predict(start) - np.eye(3)[Y[:12]]))
    for steps, reach in ((0, 0.0), (1, 0.03), (2, 0.06), (5, 0.1)):
        expected = np.clip(start + reach * sign, -0.5, 0.5)
        adversarial = pgd_reference(predictor, INNER, Y[:12], radius=0.1, steps=steps, step_size=0.03, seed=3)
        np.testing.assert_allclose(adversarial, expected, atol=1e-12)


def test_stays_in_the_pixel_range_and_in_its_dtype(quadratic: Make) -> None:
    x = np.clip(2 * INNER, -0.5, 0.5).astype(np.float32)
    adversarial = pgd_reference(quadratic(), x, Y[:12], radius=0.3)
    assert adversarial.dtype == np.float32
    assert np.abs(adversarial).max() <= 0.5

"""The attack on the linearised margin: exact on linear functions, never weaker than what it starts from, and honest."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advntk_dist import linear, network, pgd
from advntk_dist.attacks.geometry import perturbation_size, project
from advntk_dist.attacks.linear import Linearisation, attack_linear
from advntk_dist.attacks.linearisation import largest_gain, radius_to_gain, steepest_point
from advntk_dist.attacks.losses import loss_and_slope
from advntk_dist.attacks.registry import ATTACKS
from advntk_dist.attacks.request import AttackRequest
from advntk_dist.predictor import KernelPredictor
from advntk_dist.spec import NORMS, Norm

Make = Callable[..., Any]
SHAPE = (4, 3, 2)
RADII: dict[Norm, tuple[float, ...]] = {"linf": (0.02, 0.3, 1.0), "l2": (0.1, 0.9, 3.5), "l1": (0.1, 2.0, 9.0)}
BALLS = [(norm, radius) for norm, radii in RADII.items() for radius in radii]


def _linear_functions(seed: int, m: int = 6) -> tuple[Any, Any]:
    """Gradients of all sizes, zeros and pixels at the ends of their range among them; images."""
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((m, *SHAPE)) ** 3
    x = np.clip(rng.uniform(-0.6, 0.6, (m, *SHAPE)), -0.5, 0.5)
    g[:, 0, 0] = 0.0
    return g, x


def _gain(g: Any, x: Any, z: Any) -> Any:
    return (g * (z - x)).reshape(len(x), -1).sum(axis=1)


@pytest.mark.parametrize(("norm", "radius"), BALLS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_point_of_ball_and_range_is_above_the_steepest(norm: Any, radius: float, seed: int) -> None:
    g, x = _linear_functions(seed)
    best = steepest_point(g, x, radius, norm)
    assert (perturbation_size(best, x, norm) <= radius * (1 + 1e-12)).all()
    assert np.abs(best).max() <= 0.5
    most = largest_gain(g, x, radius, norm)
    np.testing.assert_allclose(_gain(g, x, best), most, rtol=1e-9)
    rng = np.random.default_rng(seed)
    for spread in (0.3, 1.0, 3.0):
        tried = project(best + spread * radius * rng.standard_normal(x.shape) / x[0].size ** 0.5, x, radius, norm)
        assert (_gain(g, x, tried) <= most * (1 + 1e-9)).all()
    if norm == "linf":  # the plain formula
        np.testing.assert_array_equal(best, np.clip(x + radius * np.sign(g), -0.5, 0.5))


@pytest.mark.parametrize(("norm", "radius"), BALLS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 0.999))
def test_a_gain_is_reached_at_just_the_radius_that_is_said(norm: Any, radius: float, seed: int, share: float) -> None:
    g, x = _linear_functions(seed)
    wanted = share * largest_gain(g, x, radius, norm)
    least = radius_to_gain(g, x, wanted, norm)
    assert (least <= radius * (1 + 1e-9)).all()
    for i in range(len(x)):
        reached, missed = (largest_gain(g[i], x[i], factor * least[i], norm) for factor in (1.0, 0.999))
        np.testing.assert_allclose(reached, wanted[i], rtol=1e-9)
        assert missed < wanted[i]
    everything = largest_gain(g, x, 1e9, norm)
    assert np.isinf(radius_to_gain(g, x, everything * (1 + 1e-6), norm)).all()
    assert (radius_to_gain(g, x, -wanted, norm) == 0).all()


def test_linear_functions_take_any_leading_axes() -> None:
    g, x = _linear_functions(1)
    for norm, radius in BALLS:
        both = np.stack([g, -g], axis=1)
        apart = [largest_gain(h, x, radius, norm) for h in (g, -g)]
        np.testing.assert_array_equal(largest_gain(both, x[:, None], radius, norm), np.stack(apart, axis=1))
        needed = np.stack(apart, axis=1) / 2
        alone = [radius_to_gain(h, x, n, norm) for h, n in ((g, needed[:, 0]), (-g, needed[:, 1]))]
        np.testing.assert_array_equal(radius_to_gain(both, x[:, None], needed, norm), np.stack(alone, axis=1))


def _margins(predictor: Any, x: Any, y: Any) -> Any:
    f = predictor.predict(x)
    return loss_and_slope("margin", f, np.eye(f.shape[1])[y], None)[0]


@pytest.fixture
def labelled(quadratic: Make) -> Callable[[float], tuple[Any, Any, Any]]:
    """A predictor of a curvature, images, and the classes that it says they are of."""

    def make(curvature: float) -> tuple[Any, Any, Any]:
        predictor = quadratic(SHAPE, outputs=4, seed=3, curvature=curvature)
        x = np.random.default_rng(5).uniform(-0.45, 0.45, (24, *SHAPE))
        return predictor, x, predictor.predict(x).argmax(axis=1)

    return make


@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_predictor_is_attacked_exactly(labelled: Any, norm: Any) -> None:
    predictor, x, y = labelled(0.0)
    linearisation = Linearisation.at(predictor, x, y)
    radii = linearisation.radii()[:, NORMS.index(norm)]
    assert np.isfinite(radii).all()
    for radius in np.quantile(radii, (0.2, 0.5, 0.8)):
        found = _margins(predictor, linear(predictor, x, y, radius=radius, norm=norm), y)
        robust, worst = found < 0, linearisation.margins(radius, norm).max(axis=1)
        np.testing.assert_allclose(found[robust], worst[robust], atol=1e-9)
        clear = np.abs(radii - radius) > 1e-6
        np.testing.assert_array_equal((found > 0)[clear], (radii < radius)[clear])
        strong = pgd(predictor, x, y, radius=radius, norm=norm, steps=60, step_size=radius / 10, restarts=3)
        assert (_margins(predictor, strong, y) <= worst + 1e-9).all()
    request = AttackRequest.of(predictor, x, y, radius=float(radius), steps=0, norm=norm, loss="margin")
    assert attack_linear(request, 0, 0.0).errors.max() < 1e-9


def test_what_is_not_linear_is_measured_and_met_by_more(labelled: Any) -> None:
    predictor, x, y = labelled(15.0)
    settings: dict[str, Any] = {"radius": 0.04, "norm": "linf"}
    request = AttackRequest.of(predictor, x, y, steps=0, loss="margin", **settings)
    step = _margins(predictor, linear(predictor, x, y, proved=False, **settings), y)
    anchored = attack_linear(request, 0, 0.0)
    assert np.median(anchored.errors) > 0.03 * np.median(np.abs(anchored.margins))
    np.testing.assert_allclose(anchored.margins, _margins(predictor, anchored.images, y))
    calls = predictor.gradient_calls
    whole = attack_linear(request, 10, 0.008)
    assert predictor.gradient_calls > calls + 10, "no image met the steps of PGD"
    assert (step <= anchored.margins + 1e-12).all()
    assert (anchored.margins <= whole.margins + 1e-12).all()
    assert (whole.margins > anchored.margins + 1e-9).any()
    np.testing.assert_array_equal(whole.errors, anchored.errors)


@pytest.mark.parametrize("name", ["mlp-2", "cnn-1"])
def test_kernel_predictors_are_attacked_at_least_as_well_as_by_pgd(name: str) -> None:
    rng = np.random.default_rng(2)
    x_train, x = (rng.uniform(-0.5, 0.5, (m, *SHAPE)).astype(np.float32) for m in (40, 20))
    predictor = KernelPredictor(network(name), x_train, rng.standard_normal((40, 4)), batch=8)
    y = predictor.predict(x).argmax(axis=1)
    settings: dict[str, Any] = {"radius": 0.02, "norm": "linf"}
    found = _margins(predictor, linear(predictor, x, y, **settings), y)
    other = _margins(predictor, pgd(predictor, x, y, steps=20, step_size=0.004, **settings), y)
    assert (found > 0).sum() >= (other > 0).sum()
    assert np.median(found - other) > -1e-3 * np.median(np.abs(found))


@pytest.mark.parametrize("norm", NORMS)
def test_radii_are_those_of_the_first_class_that_overtakes(labelled: Any, norm: Norm) -> None:
    predictor, x, y = labelled(1.0)
    found = Linearisation.at(predictor, x, y)
    rows = np.arange(len(x))
    directions = found.slopes - found.slopes[rows, y][:, None]
    needed = found.outputs[rows, y][:, None] - found.outputs
    every = radius_to_gain(directions, x[:, None], needed, norm)
    every[rows, y] = np.inf
    np.testing.assert_allclose(found.radii()[:, NORMS.index(norm)], every.min(axis=1), rtol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_sample_of_the_pixels_misses_no_class_within_reach(norm: Norm, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    x_train, x = (rng.uniform(-0.5, 0.5, (m, 20, 20, 3)).astype(np.float32) for m in (60, 48))
    predictor = KernelPredictor(network("mlp-3"), x_train, rng.standard_normal((60, 5)), batch=16)
    f = predictor.predict(x)
    y = f.argmax(axis=1)
    entries = np.array([7, 3, 1100])
    some, whole = (predictor.value_and_jacobian(x[:5], e)[1] for e in (entries, None))
    np.testing.assert_allclose(some, whole.reshape(5, 5, -1)[..., entries], rtol=1e-5, atol=1e-6)
    radii = Linearisation.at(predictor, x, y).radii()[:, NORMS.index(norm)]
    looked_at = []

    def margins(radius: float) -> Any:
        return _margins(predictor, linear(predictor, x, y, radius=radius, norm=norm), y)

    at, whole_jacobian = Linearisation.at, Linearisation.at.__func__  # type: ignore[attr-defined]

    def counted(cls: Any, given: Any, clean: Any, classes: Any) -> Any:
        looked_at.append(len(clean))
        return whole_jacobian(cls, given, clean, classes)

    for radius, fewer in ((0.3 * np.median(radii), True), (np.quantile(radii, 0.4), False)):
        monkeypatch.setattr(Linearisation, "at", classmethod(counted))
        quick, seen = margins(float(radius)), sum(looked_at)
        looked_at.clear()
        monkeypatch.setattr(KernelPredictor, "samples_pixels", False)
        thorough, all_seen = margins(float(radius)), sum(looked_at)
        looked_at.clear()
        monkeypatch.undo()
        np.testing.assert_array_equal(quick > 0, thorough > 0)
        assert seen < all_seen or not fewer
    assert Linearisation.at == at


@pytest.mark.parametrize("norm", NORMS)
def test_tiny_outputs_are_attacked_as_any(labelled: Any, norm: Norm) -> None:
    predictor, x, y = labelled(0.0)
    radii = Linearisation.at(predictor, x, y).radii()
    predictor.linear, predictor.quadratic = 1e-200 * predictor.linear, 1e-200 * predictor.quadratic
    np.testing.assert_allclose(Linearisation.at(predictor, x, y).radii(), radii, rtol=1e-9)


@pytest.mark.parametrize("name", [n for n in ATTACKS if n != "pgd-reference"])
def test_predictions_of_the_users_own_are_not_written_to(name: str) -> None:
    rng = np.random.default_rng(8)
    weights, x = rng.standard_normal((24, 4)).astype(np.float32), rng.uniform(-0.4, 0.4, (6, *SHAPE))

    def predict(images: Any) -> Any:
        return jnp.asarray(np.asarray(images, np.float32).reshape(-1, 24) @ weights)  # cannot be written to

    def vjp(images: Any, cotangent: Any) -> Any:
        return (np.asarray(cotangent) @ weights.T).reshape(np.shape(images))

    given: Any = SimpleNamespace(predict=predict, vjp=vjp)
    y = np.asarray(predict(x)).argmax(axis=1)
    found = ATTACKS[name].call(given, x, y, radius=0.05, steps=2)
    assert perturbation_size(found, x, "linf").max() <= 0.05 + 1e-9
    assert len(ATTACKS[name].call(given, x[:0], y[:0], radius=0.05, steps=2)) == 0

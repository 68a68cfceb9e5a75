"""The kernel predictor against whole-matrix products, and its input gradient against finite differences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.errors import DatasetError
from advntk_dist.networks import Network, network
from advntk_dist.predictor import KernelPredictor
from tests.kernels.unoptimised import unoptimised

_RNG = np.random.default_rng(4)
N, K = 37, 3
X = _RNG.uniform(-0.5, 0.5, (N, 5, 5, 1))
X_TEST = _RNG.uniform(-0.45, 0.45, (11, 5, 5, 1))
C = _RNG.standard_normal((N, K))
COTANGENT = _RNG.standard_normal((len(X_TEST), K))


@pytest.fixture(scope="module", autouse=True)
def _quickly_compiled() -> Iterator[None]:
    with unoptimised():
        yield


@pytest.fixture(scope="module", params=["mlp-3", "cnn-1"])
def net(request: pytest.FixtureRequest, _quickly_compiled: None) -> Network:
    return network(request.param)


@pytest.mark.parametrize("batch", [4, *(pytest.param(b, marks=pytest.mark.slow) for b in (1, 11))])
def test_predict_is_the_kernel_times_coefficients(net: Network, batch: int) -> None:
    predictor = KernelPredictor(net, X, C, batch=batch)
    values = predictor.predict(X_TEST)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, net.ntk(X_TEST, X) @ C, rtol=1e-12, atol=1e-12)


def test_training_images_in_several_blocks(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = KernelPredictor(net, X, C, batch=4).vjp(X_TEST, COTANGENT)
    monkeypatch.setattr("advntk_dist.predictor.MEMORY", 1)
    predictor = KernelPredictor(net, X, C, batch=4)
    np.testing.assert_allclose(predictor.predict(X_TEST), net.ntk(X_TEST, X) @ C, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(predictor.vjp(X_TEST, COTANGENT), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("batch", [4, 64])
def test_gradient_against_finite_differences(net: Network, batch: int) -> None:
    predictor = KernelPredictor(net, X, C, batch=batch)
    gradient = predictor.vjp(X_TEST, COTANGENT)
    assert gradient.shape == X_TEST.shape
    for seed in range(3):
        direction = np.random.default_rng(seed).standard_normal(X_TEST.shape)
        h = 1e-6
        up, down = predictor.predict(X_TEST + h * direction), predictor.predict(X_TEST - h * direction)
        per_image = ((up - down) * COTANGENT).sum(axis=1) / (2 * h)
        expected = (gradient * direction).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(per_image, expected, rtol=1e-6, atol=1e-7)


def test_gradient_at_the_training_images_is_finite(net: Network) -> None:
    for x in (X, X.astype(np.float32)):
        gradient = KernelPredictor(net, x, C, batch=4).vjp(x[:9], np.ones((9, K)))
        assert gradient.dtype == x.dtype
        assert np.isfinite(gradient).all()


def test_float32_stays_float32(net: Network) -> None:
    x = X.astype(np.float32)
    predictor = KernelPredictor(net, x, C, batch=4)
    assert predictor.predict(X_TEST).dtype == np.float64
    assert predictor.vjp(X_TEST, COTANGENT).dtype == np.float32
    np.testing.assert_allclose(predictor.predict(X_TEST), net.ntk(X_TEST, X) @ C, rtol=2e-5, atol=2e-5)


def test_uint8_images(net: Network) -> None:
    raw = _RNG.integers(0, 256, (N, 5, 5, 1)).astype(np.uint8)
    scaled = (raw.astype(np.float64) / 255 - 0.5).astype(np.float32)
    a, b = KernelPredictor(net, raw, C, batch=4), KernelPredictor(net, scaled, C, batch=4)
    np.testing.assert_allclose(a.predict(raw[:5]), b.predict(scaled[:5]), rtol=1e-4, atol=1e-4)


def test_other_coefficients_share_the_images() -> None:
    first = KernelPredictor(network("mlp-3"), X, C, batch=4)
    before = first.predict(X_TEST)
    second = first.with_coefficients(2 * C[:, :2])
    np.testing.assert_allclose(second.predict(X_TEST), 2 * before[:, :2], rtol=1e-13)
    np.testing.assert_array_equal(first.predict(X_TEST), before)
    assert second.outputs == 2
    assert second.vjp(X_TEST, COTANGENT[:, :2]).shape == X_TEST.shape


def test_no_images_give_no_predictions(net: Network) -> None:
    predictor = KernelPredictor(net, X, C, batch=4)
    assert predictor.predict(X_TEST[:0]).shape == (0, K)
    assert predictor.vjp(X_TEST[:0], COTANGENT[:0]).shape == (0, 5, 5, 1)


def test_nothing_compiles_again_for_ragged_batches() -> None:
    net = network("mlp-2", W_std=1.5)
    predictor = KernelPredictor(net, X, C, batch=8)
    compiled: Any = net.compiled
    for m in (8, 3, 11, 1, 2, 9):  # whole batches, and the part of one that is enough for one or two images
        predictor.predict(X_TEST[:m])
        predictor.vjp(X_TEST[:m], COTANGENT[:m])
        shapes = 1 if m in (8, 3, 11) else 2
        assert compiled._predict._cache_size() == compiled._pull_back._cache_size() == shapes


@pytest.mark.parametrize("c", [C[:-1], C[:, 0], np.where(C > 1, np.nan, C)])
def test_impossible_coefficients(net: Network, c: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match=f"must be {N} finite rows"):
        KernelPredictor(net, X, c)
    with pytest.raises(ValueError, match=f"must be {N} finite rows"):
        KernelPredictor(net, X, C).with_coefficients(c)


def test_impossible_images(net: Network) -> None:
    predictor = KernelPredictor(net, X, C, batch=4)
    with pytest.raises(ValueError, match="training images"):
        predictor.predict(X_TEST[:, :4])
    with pytest.raises(DatasetError, match="values from"):
        predictor.predict(X_TEST + 1)
    with pytest.raises(ValueError, match="cotangent has shape"):
        predictor.vjp(X_TEST, COTANGENT[:-1])

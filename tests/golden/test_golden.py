"""The package against golden values: its own small ones, and those of the authors' code where they are at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.dynamics import ATDynamics
from advntk_dist.networks import Network, network
from advntk_dist.predictor import KernelPredictor
from tests.golden import make, make_kernels

Golden = dict[str, NDArray[Any]]

FOLDER = Path(__file__).parent
OWN = {"mlp3_relu": ("mlp-3", "relu"), "cnn2_relu": ("cnn-2", "relu"), "mlp2_erf": ("mlp-2", "erf")}
SHARED = {"mlp3_relu": "mlp-3", "cnn2_relu": "cnn-2"}


def _load(path: Path) -> Golden:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def _images(x: NDArray[np.uint8]) -> NDArray[np.float64]:
    return x / 255 - 0.5


@pytest.mark.parametrize("case", OWN)
def test_golden_files_hold_together(case: str) -> None:
    """All but the kernels follows from the stored kernels, which the package's are held to below."""
    stored = _load(FOLDER / f"{case}.npz")
    given = make.inputs(case)
    made = {**given, **make.dynamics(given, stored["ntk_train"], stored["ntk_val"])}
    assert stored.keys() - made.keys() == {"ntk_train", "ntk_val", "nngp_val", *(f"grad_x_{s}" for s in make.SIZES)}
    for name, values in made.items():
        np.testing.assert_allclose(stored[name], values, rtol=1e-8, atol=1e-12, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("case", OWN)
def test_golden_files_are_what_the_naive_reference_computes(case: str) -> None:
    stored = _load(FOLDER / f"{case}.npz")
    made = {**make.inputs(case), **make.reference(case)}
    assert stored.keys() == made.keys()
    for name, values in made.items():
        np.testing.assert_allclose(stored[name], values, rtol=1e-8, atol=1e-12, err_msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.FanIn. layers assume independent inputs:UserWarning")
def test_golden_kernels_are_what_neural_tangents_computes() -> None:
    made = dict(make_kernels.reference())
    for group, values in made.items():
        stored = make_kernels.golden(group)
        assert stored.keys() == values.keys()
        for name, value in values.items():
            # at coincident directions neural-tangents keeps half the digits, which ones depends on the machine
            rtol, atol = (1e-5, 1e-6) if "degenerate" in group else (1e-9, 1e-12)
            np.testing.assert_allclose(stored[name], value, rtol=rtol, atol=atol, err_msg=f"{group}/{name}")


@pytest.fixture(params=OWN)
def own(request: pytest.FixtureRequest) -> tuple[Network, Golden]:
    name, activation = OWN[request.param]
    return network(name, W_std=1.76, b_std=0.18, activation=activation, classes=4), _load(
        FOLDER / f"{request.param}.npz"
    )


def test_own_kernels(own: tuple[Network, Golden]) -> None:
    net, golden = own
    x_train, x_val = _images(golden["x_train"]), _images(golden["x_val"])
    _close_gram(net.ntk(x_train, x_train), golden["ntk_train"])
    np.testing.assert_allclose(net.ntk(x_val, x_train), golden["ntk_val"], rtol=1e-10)
    np.testing.assert_allclose(net.nngp(x_val, x_train), golden["nngp_val"], rtol=1e-10)


@pytest.mark.parametrize("size", ["small", "large", "zeros"])
def test_own_predictions_losses_and_gradients(own: tuple[Network, Golden], size: str) -> None:
    net, golden = own
    y, y_val = np.eye(4)[golden["y_train"]], np.eye(4)[golden["y_val"]]
    dynamics = ATDynamics(golden["ntk_train"], y)
    varpi = golden[f"varpi_{size}"]
    c = dynamics.coefficients(varpi, tol=1e-12).value
    np.testing.assert_allclose(golden["ntk_val"] @ c, golden[f"f_{size}"], rtol=1e-9, atol=1e-11)
    loss, gradient = dynamics.loss_and_gradient(varpi, golden["ntk_val"], y_val, tol=1e-12)
    np.testing.assert_allclose(loss, golden[f"loss_{size}"], rtol=1e-10)
    np.testing.assert_allclose(gradient, golden[f"grad_varpi_{size}"], rtol=1e-9, atol=1e-11)
    predictor = KernelPredictor(net, _images(golden["x_train"]), c, batch=4)
    x_val = _images(golden["x_val"])
    np.testing.assert_allclose(predictor.predict(x_val), golden[f"f_{size}"], rtol=1e-9, atol=1e-11)
    grad_x = predictor.vjp(x_val, predictor.predict(x_val) - y_val)
    np.testing.assert_allclose(grad_x, golden[f"grad_x_{size}"], rtol=1e-8, atol=1e-11)


def test_own_limit_of_infinite_time(own: tuple[Network, Golden]) -> None:
    _, golden = own
    c = ATDynamics(golden["ntk_train"], np.eye(4)[golden["y_train"]]).coefficients(1.0, np.inf, tol=1e-11).value
    np.testing.assert_allclose(golden["ntk_val"] @ c, golden["f_ntk"], rtol=1e-9, atol=1e-10)


@pytest.fixture(scope="module", params=SHARED)
def published(request: pytest.FixtureRequest, shared_dir: Path) -> tuple[Network, Golden]:
    return network(SHARED[request.param]), _load(shared_dir / "golden" / f"{request.param}.npz")


def test_published_kernels(published: tuple[Network, Golden]) -> None:
    net, golden = published
    x_train, x_val = _images(golden["x_train"]), _images(golden["x_val"])
    _close_gram(net.ntk(x_train, x_train), golden["ntk_train_train"])
    np.testing.assert_allclose(net.ntk(x_val, x_train), golden["ntk_val_train"], rtol=1e-10)
    np.testing.assert_allclose(net.nngp(x_val, x_train), golden["nngp_val_train"], rtol=1e-10)


@pytest.mark.parametrize("size", ["small", "large"])
def test_published_predictions_and_gradients(published: tuple[Network, Golden], size: str) -> None:
    net, golden = published
    y, y_val = np.eye(10)[golden["y_train"]], np.eye(10)[golden["y_val"]]
    dynamics = ATDynamics(golden["ntk_train_train"], y)
    varpi, k_val = golden[f"varpi_{size}"], golden["ntk_val_train"]
    c = dynamics.coefficients(varpi, tol=1e-12).value
    _close(k_val @ c, golden[f"f_val_{size}"], 1e-9)
    loss, gradient = dynamics.loss_and_gradient(varpi, k_val, y_val, tol=1e-12)
    np.testing.assert_allclose(loss, golden[f"loss_{size}"], rtol=1e-9)
    _close(gradient, golden[f"loss_grad_varpi_{size}"], 1e-9)
    predictor = KernelPredictor(net, _images(golden["x_train"]), c, batch=4)
    residual = golden[f"f_val_{size}"][:4] - y_val[:4]
    _close(predictor.vjp(_images(golden["x_val"][:4]), residual), golden[f"loss_grad_x_{size}"], 1e-6)


def test_published_limit_of_infinite_time(published: tuple[Network, Golden]) -> None:
    _, golden = published
    c = ATDynamics(golden["ntk_train_train"], np.eye(10)[golden["y_train"]]).coefficients(1.0, np.inf, tol=1e-11).value
    _close(golden["ntk_val_train"] @ c, golden["f_val_ntk"], 1e-9)


def _close_gram(value: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    """1e-10 off the diagonal; on it the angle between equal images is only known to the root of rounding."""
    equal = np.eye(len(value), dtype=bool)
    np.testing.assert_allclose(value[~equal], expected[~equal], rtol=1e-10)
    np.testing.assert_allclose(value[equal], expected[equal], rtol=5e-8)


def _close(value: NDArray[np.float64], expected: NDArray[np.float64], tolerance: float) -> None:
    """Agreement relative to the size of the whole array."""
    assert value.shape == expected.shape
    assert np.linalg.norm(value - expected) <= tolerance * np.linalg.norm(expected)
    assert np.abs(value - expected).max() <= tolerance * np.abs(expected).max()

"""The pallas backend, interpreted on this machine: exact, finite, and lowered for GPUs; on a GPU, the real programs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh
from numpy.typing import NDArray

from advntk_dist import architectures
from advntk_dist.errors import NetworkError
from advntk_dist.kernels.backend import KernelBackend
from advntk_dist.kernels.pallas import PallasBackend, cnn
from advntk_dist.kernels.reference import NeuralTangentsBackend
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.kernels.xla import XlaBackend
from advntk_dist.networks import network
from advntk_dist.spec import Family, NetworkSpec

pytestmark = pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")

Array = NDArray[Any]
VALUES = {np.float64: 1e-12, np.float32: 2e-6}
GRADIENTS = {np.float64: 1e-9, np.float32: 1e-4}
BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


class Case(NamedTuple):
    """A network, the shape of its images, and how many there are left and right."""

    family: Family
    depth: int
    W_std: float
    b_std: float
    shape: tuple[int, int, int]
    left: int = 5
    right: int = 7


CASES = [
    Case("mlp", 3, 0.7, 0.4, (3, 4, 2)),
    Case("cnn", 1, 1.76, 0.0, (3, 5, 1), left=3),
    Case("cnn", 2, 0.6, 0.5, (1, 8, 5)),
    Case("cnn", 3, 1.76, 0.18, (5, 4, 3)),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.family}-{c.depth}-b{c.b_std}")
dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])
cases_and_dtypes = pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, np.float32) for case in CASES] + [(case, np.float64) for case in CASES if case.shape[0] > 1],
    ids=lambda v: f"{v.family}-{v.depth}-b{v.b_std}" if isinstance(v, Case) else v.__name__,
)
few = settings(max_examples=3, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


class Functions(NamedTuple):
    """Compiled once a case and dtype: value(x1, x2, kind), and tile and gradient (x1, x2, weight)."""

    value: Callable[..., Array]
    vjp: Callable[..., tuple[Array, Array]]


def compiled(backend: KernelBackend) -> Functions:
    """Without optimisation: the tests compile for longer than they compute."""
    options: Any = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    if jax.default_backend() == "gpu":  # where the programs themselves are to be tested as they are used
        options = None

    def value(a: jax.Array, b: jax.Array, kind: Any) -> jax.Array:
        return backend.tile(a, backend.prepare(b), kind)

    def vjp(a: jax.Array, b: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        return backend.tile_vjp(a, backend.prepare(b), w)

    jitted: tuple[Any, Any] = (
        jax.jit(value, static_argnums=2, compiler_options=options),
        jax.jit(vjp, compiler_options=options),
    )

    def scoped(f: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with kernel_scope():
                return jax.tree.map(np.asarray, f(*arguments))

        return call

    return Functions(*map(scoped, jitted))


@cache
def pallas(case: Case) -> Functions:
    return compiled(PallasBackend(case.family, case.depth, case.W_std, case.b_std, interpret=True))


@cache
def xla(case: Case) -> Functions:
    return compiled(XlaBackend(case.family, case.depth, case.W_std, case.b_std))


@cache
def theirs(case: Case) -> Functions:
    f, d, W_std, b_std = case[:4]
    kernel_fn = architectures.build(f, d, classes=1, W_std=W_std, b_std=b_std, activation="relu").kernel_fn
    return compiled(NeuralTangentsBackend(kernel_fn))


def images(seed: int, n: int, case: Case, dtype: Any = np.float64) -> Array:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n, *case.shape)).astype(dtype)


def inputs(seed: int, case: Case, dtype: Any) -> tuple[Array, Array, Array]:
    """Left and right images, and a weight."""
    weight = np.random.default_rng(seed).standard_normal((case.left, case.right)).astype(dtype)
    return images(seed, case.left, case, dtype), images(seed + 1, case.right, case, dtype), weight


def degenerate(case: Case, dtype: Any) -> tuple[Array, Array, Array]:
    """Identical, duplicated, constant, all-zero and nearly identical images."""
    a, b, weight = inputs(0, case, dtype)
    b[0] = a[0]
    a[1], b[1] = a[0], a[0]
    a[2], b[2] = 0.3, 0.3
    b[3], b[4] = 0.2, 0.0
    if len(a) > 3:
        a[3] = 0.0
    if len(a) > 4 and case.family == "cnn":  # a float32 matrix product cannot tell images that differ by 1e-4
        a[4] = b[5] + 1e-4 * images(2, 1, case, dtype)[0]
    return a, b, weight


def exactly(*arrays: Array) -> list[Array]:
    return [a.astype(np.float64) for a in arrays]


def close(got: Array, expected: Array, tolerance: float) -> None:
    """Relative, but an entry that is a difference of larger ones can be as exact as those only."""
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def near(got: Array, expected: Array, tolerance: float) -> None:
    """Relative in norm."""
    assert np.linalg.norm(got - expected) <= tolerance * np.linalg.norm(expected)


@cases_and_dtypes
@few
@given(seeds)
def test_equals_neural_tangents(case: Case, dtype: Any, seed: int) -> None:
    a, b, w = inputs(seed, case, dtype)
    tile, gradient = pallas(case).vjp(a, b, w)
    expected = theirs(case).vjp(*exactly(a, b, w))
    assert tile.dtype == gradient.dtype == dtype
    assert (tile.shape, gradient.shape) == (w.shape, a.shape)
    close(tile, expected[0], VALUES[dtype])
    near(gradient, expected[1], GRADIENTS[dtype])


@cases
def test_values_alone_equal_neural_tangents(case: Case) -> None:
    a, b, w = inputs(3, case, np.float32)
    value = pallas(case).value(a, b, "ntk")
    assert value.shape == w.shape
    assert value.dtype == np.float32
    close(value, theirs(case).vjp(*exactly(a, b, w))[0], VALUES[np.float32])


@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=["mlp", "cnn"])
def test_nngp_equals_neural_tangents(case: Case) -> None:
    a, b, _ = inputs(5, case, np.float32)
    close(pallas(case).value(a, b, "nngp"), theirs(case).value(*exactly(a, b), "nngp"), VALUES[np.float32])


@cases_and_dtypes
def test_degenerate_images(case: Case, dtype: Any) -> None:
    """Equal to our own xla backend, which is tested on them; there neural-tangents keeps half its digits or none."""
    a, b, w = degenerate(case, dtype)
    tile, gradient = pallas(case).vjp(a, b, w)
    assert np.isfinite(tile).all()
    assert np.isfinite(gradient).all()
    expected = xla(case).vjp(*exactly(a, b, w))
    close(tile, expected[0], VALUES[dtype])
    near(gradient, expected[1], GRADIENTS[dtype])


@pytest.mark.parametrize("case", [CASES[1], CASES[3]], ids=["one-relu", "three-relus"])
def test_gradients_equal_finite_differences(case: Case) -> None:
    a, b, w = inputs(7, case, np.float64)
    tile, gradient = pallas(case).vjp(a, b, w)
    close(pallas(case).value(a, b, "ntk"), tile, 1e-14)
    direction, step = images(8, case.left, case), 1e-5
    up, down = (pallas(case).value(a + sign * step * direction, b, "ntk") for sign in (1, -1))
    assert (gradient * direction).sum() == pytest.approx((w * (up - down)).sum() / (2 * step), rel=1e-7)


def test_right_images_shared_out_among_programs_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a program takes one right image, or several and a filled-up rest."""
    case = CASES[1]
    a, b, w = inputs(9, case, np.float64)
    one_each = pallas(case).vjp(a, b, w)
    for programs in (1, 2 * case.left):  # all seven, and four and three
        monkeypatch.setattr(cnn, "PROGRAMS", programs)
        together = compiled(PallasBackend(*case[:4], interpret=True)).vjp(a, b, w)
        for got, expected in zip(together, one_each, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-14)


def test_prepared_images_stack_along_the_image_axis() -> None:
    for family, depth in (("mlp", 3), ("cnn", 2)):
        backend = PallasBackend(family, depth, 1.76, 0.18)  # type: ignore[arg-type]
        with kernel_scope():
            prepared = backend.prepare(jax.numpy.zeros((7, 3, 3, 2), np.float32))
        assert all(leaf.shape[0] == 7 and leaf.dtype == np.float32 for leaf in jax.tree.leaves(prepared))


@pytest.mark.parametrize(
    ("family", "depth", "shape", "dtype"),
    [
        ("mlp", 5, (32, 32, 3), np.float32),
        ("cnn", 1, (28, 28, 1), np.float32),
        ("cnn", 10, (32, 32, 3), np.float32),
        ("mlp", 3, (4, 4, 1), np.float64),
        ("cnn", 3, (64, 48, 3), np.float64),
    ],
)
def test_lowers_for_gpus(
    family: Family, depth: int, shape: tuple[int, int, int], dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To programs in Triton's language, which is as far as a machine without a GPU goes; XLA compiles them there."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    h200 = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="cuda")
    backend = PallasBackend(family, depth, 1.76, 0.18)
    a, b = (jax.ShapeDtypeStruct((n, *shape), dtype) for n in (24, 40))
    w = jax.ShapeDtypeStruct((24, 40), dtype)
    functions: list[tuple[Any, tuple[Any, ...]]] = [
        (lambda a, b: backend.tile(a, backend.prepare(b), "ntk"), (a, b)),
        (lambda a, b: backend.tile(a, backend.prepare(b), "nngp"), (a, b)),
        (lambda a, b, w: backend.tile_vjp(a, backend.prepare(b), w), (a, b, w)),
    ]
    with kernel_scope(), use_abstract_mesh(AbstractMesh((), (), abstract_device=h200)):
        for f, arguments in functions:
            text = jax.jit(f).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
            assert text.count("custom_call @__gpu$xla.gpu.triton") == 1


def test_selection() -> None:
    for name in ("mlp-2", "mlp-65", "cnn-1", "cnn-10"):
        assert network(name, backend="pallas").backend.name == "pallas"
    assert network("cnn-3").backend.name == "xla", "pallas has not been measured on a GPU"
    assert network("cnn-3", backend="pallas").spec == NetworkSpec("cnn-3", backend="pallas")


@pytest.mark.parametrize(
    ("name", "activation", "words"),
    [
        ("cnn-3", "gelu", "pallas computes built-in networks with relu, not cnn-3 with gelu"),
        ("resnet-18", "relu", "no network resnet-18 in pallas.*use backend auto or xla"),
        ("mlp-66", "relu", "no network mlp-66 in pallas: mlp-2 to mlp-65"),
    ],
)
def test_networks_that_pallas_does_not_know(name: str, activation: str, words: str) -> None:
    with pytest.raises(NetworkError, match=f"network.backend: {words}") as caught:
        network(name, activation=activation, backend="pallas")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("W_std", "b_std"), [(0.0, 0.1), (1.0, -0.1)])
def test_impossible_parameters(W_std: float, b_std: float) -> None:
    with pytest.raises(ValueError, match="W_std must be > 0 and b_std >= 0"):
        PallasBackend("cnn", 1, W_std, b_std)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
@pytest.mark.parametrize("name", ["mlp-3", "cnn-2"])
def test_without_a_gpu_tiles_are_refused(name: str) -> None:
    x = np.zeros((2, 4, 4, 1), np.float32)
    net = network(name, backend="pallas")
    for call in (lambda: net.ntk(x, x), lambda: net.ntk_vjp(x, x, np.ones((2, 2)))):
        with pytest.raises(NetworkError, match="pallas needs a GPU, and JAX computes on cpu here; use backend auto"):
            call()


def test_images_that_registers_cannot_hold() -> None:
    backend = PallasBackend("cnn", 1, 1.76, 0.18, interpret=True)
    with pytest.raises(NetworkError, match=r"up to 4096 pixels.*not 65x40; use backend xla"):
        backend.prepare(jax.numpy.zeros((1, 65, 40, 1), np.float32))


def benchmark_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_measures_and_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module: Any = benchmark_module()
    monkeypatch.setattr(module, "IMAGE", (4, 4, 1))
    monkeypatch.setattr(module, "PallasBackend", partial(PallasBackend, interpret=True))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    out = tmp_path / "deep" / "gpu.json"
    options = ["--networks", "mlp-2", "--repeats", "3", "--tile", "4", "6", "--peak", "60", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    module.main()
    result = json.loads(out.read_text())["networks"]["mlp-2"]
    keys = {f"{who} {what}" for who in ("pallas", "xla", "neural-tangents") for what in ("value", "gradient")}
    assert set(result["full_seconds"]) == keys
    assert not result["failed"]
    for key, nanoseconds in result["nanoseconds_a_pair"].items():
        assert result["full_seconds"][key] == pytest.approx(nanoseconds * 1.25)
        assert nanoseconds > 0
    assert max(result["relative_difference_from_pallas"].values()) < 1e-4
    operations, nanoseconds = (
        result[key]["value" if i == 0 else "pallas value"]
        for i, key in enumerate(("operations_a_pair", "nanoseconds_a_pair"))
    )
    assert result["share_of_peak"]["value"] == pytest.approx(operations / nanoseconds / 60e3)
    assert "mlp-2" in capsys.readouterr().out


def test_peaks_of_devices() -> None:
    module: Any = benchmark_module()
    assert module.peak_of("NVIDIA H200") == 66.9
    assert module.peak_of("NVIDIA H100 PCIe") == 51.2
    assert module.peak_of("NVIDIA L40S") == 91.6
    assert module.peak_of("cpu") is None


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_the_benchmark_without_a_gpu_says_so() -> None:
    done = subprocess.run([sys.executable, str(BENCHMARK)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "gpu.py: JAX sees no GPU here, it computes on cpu; not measured\n"


ON_A_GPU = [
    Case("mlp", 5, 1.76, 0.18, (32, 32, 3), left=37, right=90),
    Case("cnn", 1, 1.76, 0.0, (28, 28, 1), left=9, right=11),
    Case("cnn", 10, 1.76, 0.18, (32, 32, 3), left=9, right=11),
    Case("cnn", 3, 0.8, 0.4, (48, 64, 3)),
    Case("cnn", 2, 1.2, 0.1, (1, 7, 2)),
]


@pytest.mark.gpu
@dtypes
@pytest.mark.parametrize("case", ON_A_GPU, ids=lambda c: f"{c.family}-{c.depth}-{c.shape[0]}x{c.shape[1]}")
def test_on_a_gpu(case: Case, dtype: Any) -> None:
    ours = compiled(PallasBackend(*case[:4]))
    a, b, w = inputs(11, case, dtype)
    first, again = ours.vjp(a, b, w), ours.vjp(a, b, w)
    for x, y in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, y, err_msg="threads that do not wait for each other")
    expected = theirs(case).vjp(*exactly(a, b, w))
    close(first[0], expected[0], VALUES[dtype])
    close(ours.value(a, b, "ntk"), expected[0], VALUES[dtype])
    near(first[1], expected[1], GRADIENTS[dtype])
    a, b, w = degenerate(case, dtype)
    tile, gradient = ours.vjp(a, b, w)
    expected = xla(case).vjp(*exactly(a, b, w))
    close(tile, expected[0], VALUES[dtype])
    near(gradient, expected[1], GRADIENTS[dtype])

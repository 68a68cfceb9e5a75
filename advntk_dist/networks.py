"""Networks: a name or an import path in, kernels of infinite width out."""

from __future__ import annotations

import importlib
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.data.dataset import to_unit_range
from advntk_dist.errors import NetworkError
from advntk_dist.kernels.backend import KernelBackend, KernelKind, NeuralTangentsBackend
from advntk_dist.kernels.compiled import CompiledKernel, compiled_kernel
from advntk_dist.kernels.xla import XlaBackend
from advntk_dist.spec import ACTIVATIONS, BACKENDS, Family, NetworkSpec, parse_name

if TYPE_CHECKING:
    from advntk_dist.architectures import Triple


def _user_triple(path: str) -> Triple:
    from advntk_dist.architectures import Triple  # loads the adapter before the user's module loads neural-tangents

    module, _, attribute = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
        made = function() if callable(function) else function
    except (ImportError, AttributeError) as error:
        raise NetworkError(
            f"network.name: cannot import {path!r} ({error}); give package.module:function on the Python path"
        ) from error
    if not (isinstance(made, tuple) and len(made) == 3 and all(map(callable, made))):
        raise NetworkError(
            f"network.name: {path!r} gives {type(made).__name__}; it must be a function that returns a "
            "neural-tangents triple (init_fn, apply_fn, kernel_fn)"
        )
    return Triple(*made)


def _select_backend(spec: NetworkSpec, kernel_fn: Any) -> KernelBackend:
    """The requested backend, or for "auto" the fastest one that is exact for this network.

    No device is touched here: the process that makes a network need not be the one that computes.

    Raises
    ------
    NetworkError
        If the requested backend cannot compute the network.
    """
    known = parse_name(spec.name)
    ours = known is not None and spec.activation == "relu"
    if spec.backend == "xla" and not ours:
        raise NetworkError(
            f"network.backend: xla computes built-in networks with relu, not {spec.name} with "
            f"{spec.activation}; use backend auto or neural-tangents"
        )
    if known is None or not ours or spec.backend == "neural-tangents":
        return NeuralTangentsBackend(kernel_fn)
    return XlaBackend(*known, spec.W_std, spec.b_std)


class Network:
    """An infinitely wide network: its kernels, and neural-tangents' own triple.

    Make one with :func:`network`. Images are uint8 NHWC or floats in [-0.5, 0.5]; uint8 is scaled to
    float32, and kernels are computed in the dtype of the images (float64 in, float64 out).
    """

    def __init__(self, spec: NetworkSpec) -> None:
        known = parse_name(spec.name)
        self.spec = spec
        self.family: Family | None = known[0] if known else None
        if known is None:
            self.triple = _user_triple(spec.name)  # a wrong path fails here, not at the first tile
        self.backend: KernelBackend = _select_backend(spec, self._kernel_fn)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what describes the network; it is made again, and compiled, where it is loaded."""
        return from_spec, (self.spec,)

    @cached_property
    def triple(self) -> Triple:
        """neural-tangents' (init_fn, apply_fn, kernel_fn); made when first used, as its import takes a second."""
        from advntk_dist import architectures

        known = parse_name(self.spec.name)
        assert known is not None
        spec = self.spec
        return architectures.build(
            *known, classes=spec.classes, W_std=spec.W_std, b_std=spec.b_std, activation=spec.activation
        )

    def _kernel_fn(self, *arguments: Any) -> Any:
        return self.triple.kernel_fn(*arguments)

    @property
    def name(self) -> str:
        """The name by which the network was made."""
        return self.spec.name

    @property
    def init_fn(self) -> Any:
        """neural-tangents' ``init_fn(key, input_shape)`` of the finite network."""
        return self.triple.init_fn

    @property
    def apply_fn(self) -> Any:
        """neural-tangents' ``apply_fn(params, x)`` of the finite network."""
        return self.triple.apply_fn

    @property
    def kernel_fn(self) -> Any:
        """neural-tangents' analytic ``kernel_fn(x1, x2, get)``."""
        return self.triple.kernel_fn

    @cached_property
    def compiled(self) -> CompiledKernel:
        """The jitted tile functions, compiled once a shape."""
        return compiled_kernel(self.backend, self.family != "mlp")

    @cached_property
    def tile_kernel(self) -> CompiledKernel:
        """The tile functions for stored tiles, whose bytes do not depend on the number of cores of a machine."""
        return compiled_kernel(self.backend, self.family != "mlp", repeatable=True)

    def ntk(self, x1: ArrayLike, x2: ArrayLike) -> NDArray[Any]:
        """Neural tangent kernel (m, n) of images x1 (m, H, W, C) and x2 (n, H, W, C).

        Raises
        ------
        ValueError
            If the images differ in shape.
        GramBuildError
            If a value is not finite, as with images or a network that are too large; the message names the images.
        """
        return self._values(x1, x2, "ntk")

    def nngp(self, x1: ArrayLike, x2: ArrayLike) -> NDArray[Any]:
        """Kernel (m, n) of the network's outputs at random initialisation (NNGP); raises what :meth:`ntk` raises."""
        return self._values(x1, x2, "nngp")

    def ntk_vjp(self, x1: ArrayLike, x2: ArrayLike, weight: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """The NTK (m, n), and d sum(weight * ntk) / d x1, shaped as x1.

        Raises
        ------
        ValueError
            If ``weight`` is not of shape (m, n), or the images differ in shape.
        GramBuildError
            If a value of the NTK is not finite; the message names the images.
        """
        a, b = _pair(x1, x2)
        w = np.asarray(weight, dtype=a.dtype)
        if w.shape != (len(a), len(b)):
            raise ValueError(f"weight has shape {w.shape}, the kernel {(len(a), len(b))}")
        return self.compiled.matrix_vjp(a, b, w)

    def ark(self, x: ArrayLike) -> NDArray[Any]:
        """Adversarial regularization kernel Theta_x(x, x) = E || d f(x) / d x ||^2 of one output, (n,).

        Exact for built-in networks, by the recursion in :mod:`advntk_dist.kernels.ark`; from differences of the NNGP
        kernel in float64 for user networks (relative error at most 1e-3, usually below 1e-5; one image at a time).

        Parameters
        ----------
        x
            Images (n, H, W, C), uint8 or floats in [-0.5, 0.5]; the result has the dtype of the floats.

        Raises
        ------
        DatasetError
            If x is not images.
        NetworkError
            If a user network has no finite ARK.
        """
        images = to_unit_range(np.asarray(x))
        known = parse_name(self.spec.name)
        if known is None:
            from advntk_dist.kernels.ark import ark_from_differences

            return ark_from_differences(self.name, self.kernel_fn, images).astype(images.dtype)
        from advntk_dist.kernels.ark import ark

        return ark(self.spec, *known, images)

    def _values(self, x1: ArrayLike, x2: ArrayLike, kind: KernelKind) -> NDArray[Any]:
        a, b = _pair(x1, x2)
        return self.compiled.matrix(a, b, kind)

    def __repr__(self) -> str:
        s = self.spec
        return (
            f"Network({s.name!r}, W_std={s.W_std}, b_std={s.b_std}, activation={s.activation!r}, "
            f"backend={self.backend.name!r})"
        )


def _pair(x1: ArrayLike, x2: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    a, b = to_unit_range(np.asarray(x1)), to_unit_range(np.asarray(x2))
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"images differ in shape: {a.shape[1:]} and {b.shape[1:]}")
    dtype = np.promote_types(a.dtype, b.dtype)
    return a.astype(dtype, copy=False), b.astype(dtype, copy=False)


@lru_cache(maxsize=64)
def from_spec(spec: NetworkSpec) -> Network:
    """The network of a spec; the same object for equal specs, so that nothing compiles twice."""
    return Network(spec)


def network(
    name: str,
    *,
    W_std: float = 1.76,
    b_std: float = 0.18,
    activation: str = "relu",
    backend: str = "auto",
    classes: int = 10,
) -> Network:
    """Make an infinitely wide network.

    Parameters
    ----------
    name
        "mlp-x", "cnn-x", "resnet-18", "resnet-34" (Fu & Wang 2024, section 6), or "package.module:function"
        naming a function that returns a neural-tangents triple (the other parameters are then ignored).
    W_std, b_std
        Standard deviations of weights and biases in the NTK parametrisation; W_std > 0, b_std >= 0.
    activation
        "relu", "gelu", "erf" or "sigmoid" (neural-tangents' erf-shaped sigmoid, whose kernel is closed-form).
    backend
        "auto" (the fastest exact one), or the name of one.
    classes
        Outputs of the finite networks drawn by ``init_fn``; kernels do not depend on it.

    Raises
    ------
    NetworkError
        If any of these does not describe a network.
    """
    if activation not in ACTIVATIONS:
        raise NetworkError(f"network.activation: no {activation!r}; there are {', '.join(ACTIVATIONS)}")
    if backend not in BACKENDS:
        raise NetworkError(f"network.backend: no {backend!r}; there are {', '.join(BACKENDS)}")
    if not (np.isfinite(W_std) and W_std > 0 and np.isfinite(b_std) and b_std >= 0):
        raise NetworkError(f"network: W_std must be > 0 and b_std >= 0, got {W_std} and {b_std}")
    if classes < 1:
        raise NetworkError(f"network: classes must be at least 1, got {classes}")
    spec = NetworkSpec(name, float(W_std), float(b_std), activation, backend, classes)  # type: ignore[arg-type]
    return from_spec(spec)

"""Which backend computes which network."""

from __future__ import annotations

from typing import Any

from advntk_dist.errors import NetworkError
from advntk_dist.kernels.backend import KernelBackend
from advntk_dist.kernels.reference import NeuralTangentsBackend
from advntk_dist.kernels.xla import XlaBackend
from advntk_dist.spec import NetworkSpec, parse_name


def select_backend(spec: NetworkSpec, kernel_fn: Any) -> KernelBackend:
    """The asked backend, or for "auto" the fastest one that is exact for this network.

    No device is touched here: the process that asks for a network need not be the one that computes.

    Raises
    ------
    NetworkError
        If the asked backend does not know the network.
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

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

    Raises
    ------
    NetworkError
        If the asked backend does not know the network.
    """
    known = parse_name(spec.name)
    ours = known is not None and spec.activation == "relu"
    if spec.backend == "xla" and not ours:
        raise NetworkError(
            f"network.backend: xla computes built-in networks with relu, not {spec.name} with {spec.activation}; "
            "use backend auto or neural-tangents"
        )
    if known is not None and ours and spec.backend != "neural-tangents":
        return XlaBackend(*known, spec.W_std, spec.b_std)
    return NeuralTangentsBackend(kernel_fn)

"""Which backend computes which network."""

from __future__ import annotations

from typing import Any

from advntk_dist.errors import NetworkError
from advntk_dist.kernels.backend import KernelBackend
from advntk_dist.kernels.mlp import MLPBackend
from advntk_dist.kernels.reference import NeuralTangentsBackend
from advntk_dist.spec import NetworkSpec, parse_name


def select_backend(spec: NetworkSpec, kernel_fn: Any) -> KernelBackend:
    """The asked backend, or for "auto" the fastest one that is exact for this network.

    Raises
    ------
    NetworkError
        If the asked backend does not know the network.
    """
    known = parse_name(spec.name)
    ours = known is not None and known[0] == "mlp" and spec.activation == "relu"
    if spec.backend == "xla" and not ours:
        raise NetworkError(
            f"network.backend: xla computes ReLU mlp-x, not {spec.name} with {spec.activation}; "
            "use backend auto or neural-tangents"
        )
    if ours and spec.backend != "neural-tangents":
        assert known is not None
        return MLPBackend(known[1], spec.W_std, spec.b_std)
    return NeuralTangentsBackend(kernel_fn)

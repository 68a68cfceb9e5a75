"""Which backend computes which network."""

from __future__ import annotations

from typing import Any

from advntk_dist.kernels.backend import KernelBackend
from advntk_dist.kernels.reference import NeuralTangentsBackend
from advntk_dist.spec import BackendChoice


def select_backend(
    choice: BackendChoice,
    known: tuple[str, int] | None,
    activation: str,
    W_std: float,
    b_std: float,
    kernel_fn: Any,
) -> KernelBackend:
    """The asked backend, or for "auto" the fastest one that is exact for this network."""
    return NeuralTangentsBackend(kernel_fn)

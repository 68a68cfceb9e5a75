"""The numerical setting in which every kernel is traced and run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax

MATMUL_PRECISION = "highest"
"""Recorded in every store: NVIDIA GPUs would otherwise multiply float32 in TF32, which kernels do not survive."""


@contextmanager
def kernel_scope() -> Iterator[None]:
    """Allow float64 and demand full-precision matrix products, without touching the caller's JAX settings.

    float32 inputs stay float32; x64 only has to be *allowed* so that float64 vectors can meet float32 tiles.
    """
    with jax.enable_x64(True), jax.default_matmul_precision(MATMUL_PRECISION):
        yield

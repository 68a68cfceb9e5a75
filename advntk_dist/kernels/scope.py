"""The numerical setting in which every kernel is traced and run, and the compiler's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

MATMUL_PRECISION = "highest"
"""Recorded in every store: NVIDIA GPUs would otherwise multiply float32 in TF32, which kernels do not survive."""


@contextmanager
def kernel_scope() -> Iterator[None]:
    """Allow float64 and demand full-precision matrix products, without touching the caller's JAX settings.

    float32 inputs stay float32; x64 only has to be *allowed* so that float64 vectors can meet float32 tiles.
    """
    with jax.enable_x64(True), jax.default_matmul_precision(MATMUL_PRECISION):
        yield


_WIDE_VECTORS = {"xla_cpu_prefer_vector_width": 512}
_ONE_THREAD = {"xla_cpu_multi_thread_eigen": False}


def compiler_options() -> dict[str, Any] | None:
    """Options for ``jax.jit`` of kernels on this machine's default device.

    XLA uses half of the vector registers of a CPU with AVX-512 by default; loops over pairs, which are
    arithmetic in registers, take a third longer then.
    """
    if jax.default_backend() != "cpu" or not _has_avx512():
        return None
    return _known(**_WIDE_VECTORS) or None


def tile_compiler_options() -> dict[str, Any] | None:
    """Options for ``jax.jit`` of what computes the tiles of a store.

    Matrix products in one thread: with several, XLA takes small products another way, with other last bits. So the
    bytes of a tile are the same from every process on one kind of CPU with one release of JAX, whatever cores it has.
    """
    if jax.default_backend() != "cpu":
        return None
    return (compiler_options() or {}) | _known(**_ONE_THREAD)


@cache
def _known(**options: Any) -> dict[str, Any]:
    """The options, or none where the compiler has no such option: they are its own, and releases may drop them."""
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(jnp.zeros(1)).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def _has_avx512(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        return " avx512f " in cpuinfo.read_text()
    except OSError:  # not Linux
        return False

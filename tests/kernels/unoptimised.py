"""Kernels compiled without optimisation: many tests of exact values compile for longer than they compute.

As users compile them they are tested in test_compiled.py, by MLPs of test_xla.py, in tests/golden and test_networks.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import pytest

from advntk_dist.attacks.on_device import compiled_ascent, compiled_value_and_gradient
from advntk_dist.kernels.compiled import compiled_kernel
from advntk_dist.networks import from_spec


def options() -> dict[str, Any] | None:
    """Options for ``jax.jit``."""
    if jax.default_backend() != "cpu":  # there, the programs themselves are to be tested
        return None
    return {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@contextmanager
def unoptimised() -> Iterator[None]:
    """Networks and attacks made within are compiled with these options, and forgotten afterwards."""

    def forget() -> None:
        for made in (from_spec, compiled_kernel, compiled_ascent, compiled_value_and_gradient):
            made.cache_clear()

    with pytest.MonkeyPatch.context() as patch:
        for module in ("kernels.compiled", "attacks.on_device"):
            patch.setattr(f"advntk_dist.{module}.compiler_options", options)
        forget()
        try:
            yield
        finally:
            forget()

"""The machine and the packages that results are computed with."""

from __future__ import annotations

import platform
import resource
import sys
from importlib.metadata import version
from typing import Any

import psutil

_PACKAGES = ("advntk-dist", "jax", "neural-tangents", "ray", "dask", "zarr", "numpy", "scipy", "optax")


def environment() -> dict[str, Any]:
    """Versions and machine, as results.json keeps them."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": usable_cores(),
        **{name: version(name) for name in _PACKAGES},
    }


def usable_cores() -> int:
    """Number of cores that this process may run on, at least 1."""
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # macOS has no such limit
        return len(process.cpu_affinity())
    return psutil.cpu_count() or 1


def peak_memory() -> int:
    """Most memory that this process has had so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

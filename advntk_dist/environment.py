"""What a result was computed with."""

from __future__ import annotations

import platform
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
    """Cores that this process may run on, at least 1."""
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # not on macOS, where a process may run on every core
        return len(process.cpu_affinity() or ()) or 1
    return psutil.cpu_count() or 1

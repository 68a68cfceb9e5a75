"""What a result was computed with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

_PACKAGES = ("advntk-dist", "jax", "neural-tangents", "ray", "dask", "zarr", "numpy", "scipy", "optax")


def environment() -> dict[str, Any]:
    """Versions and machine, as results.json keeps them."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **{name: version(name) for name in _PACKAGES},
    }

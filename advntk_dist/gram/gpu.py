"""Whether a worker computes on the GPU that Ray has reserved for it."""

from __future__ import annotations

import os

FAKE = "ADVNTK_FAKE_GPUS"
"""Set for workers on machines whose GPUs only Ray believes in, as in tests."""


def unused_gpu() -> str | None:
    """What is wrong where this worker holds a GPU and JAX does not compute on it; None where nothing is.

    JAX takes the CPU with no more than a warning where it finds no GPU that it can use: the build would go on, far
    slower, and the GPU would stay idle.
    """
    import jax
    import ray

    held = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    if not held or jax.default_backend() != "cpu" or os.environ.get(FAKE):
        return None
    return (
        f"holds GPU {', '.join(held)}, and JAX computes on the CPU there; install jax[cuda13] on that node, unset "
        "JAX_PLATFORMS and see `nvidia-smi`, or start Ray there with --num-gpus=0 to have its cores compute"
    )

"""Compile what a network runs on images for an NVIDIA H200 that need not be there; prints a line of JSON a program.

    gpu_compile_driver.py NETWORK [CALL...]

The calls are those of users. Whatever they pass to ``jax.jit`` is compiled ahead of time for the GPU, in the shapes in
which it is called, and not run: its results are ones. Needs the plugin of JAX for CUDA and NVIDIA's compiler, no GPU.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "CUDA_VISIBLE_DEVICES": "-1"}
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

import jax  # reads the variables
import numpy as np
from jax.experimental.topologies import get_topology_desc
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from advntk_dist.networks import network
from advntk_dist.predictor import KernelPredictor

H200 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  memory_bandwidth: 4800000000000
  device_memory_size: 151397597184
}
platform_name: "CUDA"
runtime_version { major: 13 }
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""
"""The GPU as XLA's compiler is told of it, a GpuTargetConfigProto as text; bytes, bytes a second."""

IMAGE, OUTPUTS, TILE = (32, 32, 3), 10, 2048
TRAIN = {"mlp": 10_000, "cnn": 2_000, "resnet": 2_000}
"""Training images of the predictor."""
KERNEL = {"mlp": (128, 8192), "cnn": (16, 128), "resnet": (16, 128)}
"""Images of the two sides of a kernel."""


class ForAGpu:
    """Takes the place of ``jax.jit``: compiles each shape for the GPU, prints what that took, and returns ones.

    Bytes are those that XLA asks for: ``held`` of arguments that are on the device before the call, ``asked`` of all
    else, which is the arguments that the call brings, temporary arrays and results. ``open_loops`` are those whose
    number of steps the compiler does not know: a GPU waits in each of their steps for the condition to be read back.
    """

    def __init__(self) -> None:
        self.jit, self.call = jax.jit, ""
        devices = get_topology_desc(platform="cuda", target_config=H200, topology="1x1x1").devices
        self._there = NamedSharding(Mesh(np.array(devices), ("gpu",)), PartitionSpec())

    def __call__(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        jitted, known = self.jit(function, **options), {}

        def call(*arguments: Any, **named: Any) -> Any:
            described = jax.tree.map(self._describe, (arguments, named))
            if (key := str(described)) not in known:
                held = sum(a.nbytes for a in jax.tree.leaves((arguments, named)) if isinstance(a, jax.Array))
                known[key] = self._compile(jitted.lower(*described[0], **described[1]), held)
            return jax.tree.map(lambda a: np.ones(a.shape, a.dtype), known[key])

        return call

    def _describe(self, argument: Any) -> Any:
        if not isinstance(argument, np.ndarray | jax.Array):
            return argument
        return jax.ShapeDtypeStruct(argument.shape, argument.dtype, sharding=self._there)

    def _compile(self, lowered: Any, held: int) -> Any:
        start = time.perf_counter()
        compiled = lowered.compile()
        seconds, size = time.perf_counter() - start, compiled.memory_analysis()
        total = size.temp_size_in_bytes + size.argument_size_in_bytes + size.output_size_in_bytes
        asked = total - size.alias_size_in_bytes - held
        loops = [line for line in compiled.as_text().splitlines() if " while(" in line]
        program = {
            "call": self.call,
            "seconds": round(seconds, 1),
            "temporary": size.temp_size_in_bytes,
            "asked": asked,
            "held": held,
            "open_loops": sum("known_trip_count" not in line for line in loops),
        }
        print(json.dumps(program), flush=True)
        return lowered.out_info


def calls(name: str) -> dict[str, Callable[[], Any]]:
    """What users ask of a network and of a predictor with it, by name; a new function takes a line here."""
    net = network(name, W_std=1.76, b_std=0.18)
    assert net.family is not None
    rng = np.random.default_rng(0)
    train = rng.uniform(-0.5, 0.5, (TRAIN[net.family], *IMAGE)).astype(np.float32)
    rows, columns = KERNEL[net.family]
    few, many, weight = train[:rows], train[:columns], np.ones((rows, columns), np.float32)
    predictor = KernelPredictor(net, train, np.ones((len(train), OUTPUTS)))
    batch = train[: predictor.batch]
    wanted, towards = np.eye(OUTPUTS)[np.zeros(len(batch), int)], np.ones(len(batch), np.int64)

    def ascend(norm: Any) -> Any:
        return predictor.ascend(
            batch, batch, wanted,
            radius=8 / 255, steps=10, step_size=2 / 255, norm=norm, loss="margin", towards=towards,
        )  # fmt: skip

    return {
        "Gram block": lambda: net.tile_kernel.warm_up(train, train, ("ntk", "nngp"), tile=TILE),
        "ntk": lambda: net.ntk(few, many),
        "nngp": lambda: net.nngp(few, many),
        "ntk_vjp": lambda: net.ntk_vjp(few, many, weight),
        "predict": lambda: predictor.predict(batch),
        "vjp": lambda: predictor.vjp(batch, wanted),
        "value_and_slope": lambda: predictor.value_and_slope(batch, wanted, loss="margin", towards=towards),
        "value_and_jacobian": lambda: predictor.value_and_jacobian(batch),
        "ascend linf": lambda: ascend("linf"),
        "ascend l2": lambda: ascend("l2"),
        "ascend l1": lambda: ascend("l1"),
    }


def main(name: str, *chosen: str) -> None:
    """Compile the chosen calls, by default all of them."""
    compiler = ForAGpu()
    jax.jit, jax.default_backend = compiler, lambda: "gpu"  # type: ignore[assignment]
    compiler.call = "prepare"
    for label, call in calls(name).items():
        if not chosen or label in chosen:
            compiler.call = label
            call()


if __name__ == "__main__":
    main(*sys.argv[1:])

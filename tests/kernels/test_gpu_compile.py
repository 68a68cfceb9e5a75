"""Every kernel and every attack compiles for an NVIDIA H200 and keeps to its memory; no GPU is needed to know."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from advntk_dist.kernels.compiled import BLOCK_BYTES
from advntk_dist.predictor import MEMORY
from tests.terminal import ROOT

COMMAND = "uv run --isolated --group gpu-compile pytest -n0 --run-slow tests/kernels/test_gpu_compile.py"

KERNELS = {"Gram block", "ntk", "nngp", "ntk_vjp"}
"""Calls whose programs compute a block; those of the others meet a block of a predictor's training images."""


def missing() -> list[str]:
    """Packages of the dependency group that are not installed, or a plugin that JAX would not load."""
    group = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]["gpu-compile"]
    versions: dict[str, str | None] = {}
    for requirement in group:
        name = re.split("[<>=]", requirement)[0]
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    jaxlib = version("jaxlib")
    return [
        name if found is None else f"{name} {jaxlib} in place of {found}"
        for name, found in versions.items()
        if found is None or (name.startswith("jax") and found != jaxlib)
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["mlp-5", "cnn-3", "cnn-10", "resnet-18"])
def test_what_a_network_runs_compiles_for_an_h200_within_its_memory(name: str) -> None:
    if absent := missing():
        pytest.skip(f"no compiler for NVIDIA GPUs ({', '.join(absent)}): {COMMAND}")
    driver = Path(__file__).with_name("gpu_compile_driver.py")
    done = subprocess.run([sys.executable, str(driver), name], capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-4000:]
    programs = [json.loads(line) for line in done.stdout.splitlines()]
    assert KERNELS | {"predict", "vjp", "value_and_slope", "ascend linf"} <= {program["call"] for program in programs}
    for program in programs:
        budget = BLOCK_BYTES if program["call"] in KERNELS else 2 * MEMORY
        assert 0 < program["temporary"] < program["asked"] <= budget, program
        assert program["open_loops"] == program["call"].startswith("ascend"), "the steps of an attack alone, once"

"""The benchmark for GPUs: what it measures and writes, and its message where there is no GPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import pytest

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


def benchmark_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_measures_and_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARK.parent)  # it imports what lies beside it
    module: Any = benchmark_module()
    monkeypatch.setattr(module, "IMAGE", (4, 4, 1))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    out = tmp_path / "deep" / "gpu.json"
    options = ["--networks", "mlp-2", "--repeats", "3", "--tile", "4", "6", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    module.main()
    result = json.loads(out.read_text())["networks"]["mlp-2"]
    keys = {f"{backend} {what}" for backend in ("xla", "neural-tangents") for what in ("value", "gradient")}
    assert set(result["full_seconds"]) == keys
    assert not result["failed"]
    for key, nanoseconds in result["nanoseconds_a_pair"].items():
        assert result["full_seconds"][key] == pytest.approx(nanoseconds * 1.25)
        assert nanoseconds > 0
    assert set(result["relative_difference"]) == {"value", "gradient"}
    assert max(result["relative_difference"].values()) < 1e-4
    times = result["nanoseconds_a_pair"]
    assert result["ratio_to_neural_tangents"]["value"] == times["neural-tangents value"] / times["xla value"]
    assert "mlp-2" in capsys.readouterr().out


def test_the_benchmark_without_a_gpu_says_so() -> None:
    if jax.default_backend() == "gpu":
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, str(BENCHMARK)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "gpu.py: JAX sees no GPU here, it computes on cpu; not measured\n"

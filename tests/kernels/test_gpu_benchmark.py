"""The benchmark for GPUs, on a CPU and small: what it measures and writes, what a failure or a lack of time leaves."""

from __future__ import annotations

import faulthandler
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script with few small images, which takes this machine for one with a GPU."""
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # it sets it for itself
    monkeypatch.syspath_prepend(BENCHMARK.parent)  # it imports what lies beside it
    spec = importlib.util.spec_from_file_location("gpu_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    small = {
        "IMAGE": (4, 4, 1),
        "CHECKED": {"mlp": (3, 8), "cnn": (3, 8)},
        "TILES": {"mlp": [(4, 6), (2, 8)]},
        "STORED": {"mlp": (20, 8)},
        "TRAINING": {"mlp": 128},
    }
    for name, value in small.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, exit: None)  # pytest has its own
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: None)
    return module


def measured(benchmark: Any, monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON of the script."""
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--networks", "mlp-2", "--repeats", "3", "--out", str(out), *words])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    return int(ended.value.code or 0), json.loads(out.read_text())


@pytest.mark.usefixtures("ray_cluster")
def test_the_benchmark_measures_and_writes(benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status, found = measured(benchmark, monkeypatch, tmp_path / "deep" / "gpu.json")
    assert status == 0
    assert set(found) == {"environment", "goals", "not_measured", *benchmark.SECONDS}
    assert found["not_measured"] == []
    assert set(found["correctness"]["mlp-2"]["relative_difference"]) == set(benchmark.COMPARED)
    assert max(found["correctness"]["mlp-2"]["relative_difference"].values()) < benchmark.LIMIT

    result = found["kernels"]["mlp-2 4 x 6"]
    keys = {f"{backend} {what}" for backend in ("xla", "neural-tangents") for what in ("value", "gradient")}
    times = result["nanoseconds_a_pair"]
    assert set(times) == set(result["compile_seconds"]) == keys
    assert result["full_seconds"] == {key: pytest.approx(1.25 * nanoseconds) for key, nanoseconds in times.items()}
    ratio = times["neural-tangents value"] / times["xla value"]
    assert result["ratio_to_neural_tangents"]["value"] == pytest.approx(ratio)
    alone = found["kernels"]["mlp-2 2 x 8"]
    assert set(alone["nanoseconds_a_pair"]) == {"xla value", "xla gradient"}
    assert alone["ratio_to_neural_tangents"] == {}

    stored = found["gram"]["mlp-2"]
    assert 0 < stored["tile_seconds"] < stored["seconds"]
    assert stored["largest_difference_from_float64"] < 1e-5
    assert stored["workers"]
    attacked = found["attacks"]["mlp-2 pgd"]
    assert attacked["image_steps_a_second"] > 0
    assert 0 < attacked["largest_change"] <= 8 / 255 + 1e-6


def test_a_failure_is_written_down_and_the_rest_is_measured(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(name: str) -> dict[str, Any]:
        raise RuntimeError(f"no result for {name}")

    monkeypatch.setattr(benchmark, "correctness", fails)
    status, found = measured(
        benchmark, monkeypatch, tmp_path / "gpu.json", "--sections", "correctness", "kernels", "attacks"
    )
    assert status == 1
    assert found["correctness"]["mlp-2"]["error"] == "RuntimeError: no result for mlp-2"
    assert found["kernels"]
    assert found["attacks"]


def test_what_convolutions_compute_on_a_gpu_is_right(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for other in ("nngp", "predict", "vjp"):
        monkeypatch.delitem(benchmark.COMPARED, other)
    status, found = measured(
        benchmark, monkeypatch, tmp_path / "gpu.json", "--sections", "correctness", "--networks", "cnn-3"
    )
    assert status == 0, found


def test_results_far_from_float64_fail(benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(benchmark, "LIMIT", 0.0)
    status, found = measured(benchmark, monkeypatch, tmp_path / "gpu.json", "--sections", "correctness")
    assert status == 1
    assert found["correctness"]["mlp-2"]["too_far"] == list(benchmark.COMPARED)


def test_what_there_is_no_time_for_is_named(benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(benchmark, "SECONDS", dict.fromkeys(benchmark.SECONDS, -1.0))
    status, found = measured(benchmark, monkeypatch, tmp_path / "gpu.json")
    assert status == 0
    assert found["not_measured"] == [
        "correctness: mlp-2",
        "kernels: mlp-2 4 x 6",
        "kernels: mlp-2 2 x 8",
        "gram: mlp-2",
        "attacks: mlp-2 pgd",
    ]


def test_it_takes_less_than_eight_minutes(benchmark: Any) -> None:
    assert sum(benchmark.SECONDS.values()) < benchmark.CUT < 480


def test_the_benchmark_without_a_gpu_says_so() -> None:
    if jax.default_backend() == "gpu":
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, str(BENCHMARK)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "gpu.py: JAX sees no GPU here, it computes on cpu; not measured\n"

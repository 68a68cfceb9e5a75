"""The table of sizes and GPUs: shapes of clusters, choice of tiles, and what it says does not fit."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable

import pytest

from advntk_dist.config import RunConfig, load_config
from advntk_dist.planning.calibration import Calibration
from advntk_dist.planning.cluster import ASSUMED, Cluster, Constants
from advntk_dist.planning.counts import Images
from advntk_dist.planning.predict import predict
from advntk_dist.planning.scaling import GpuNodes, ScalingPoint, fastest_tile, on_gpu, predict_point, scaling_table

CIFAR = Images((32, 32, 3), 10)
Made = Callable[..., Calibration]


@pytest.fixture
def config() -> RunConfig:
    return load_config("cifar10-mlp5", ("data.n_val=500", "data.n_test=500"))


@pytest.fixture
def gpu(config: RunConfig, calibrated: Made) -> tuple[Calibration, Constants]:
    made = on_gpu(calibrated(config, images=CIFAR), 128, 2.5e-10, 5e-10, 1e-10)
    return made, Constants.of(made, remote=True)


def test_nodes_are_whole() -> None:
    nodes = GpuNodes(gpus=8, cpus_a_gpu=16, memory_a_gpu=2**30)
    assert nodes.cluster(1) == Cluster(1, 16, 1, 2**30, remote=True)
    assert nodes.cluster(8) == Cluster(1, 128, 8, 2**33, remote=True)
    assert nodes.cluster(512) == Cluster(64, 128, 8, 2**33, remote=True)


def test_a_gpu_replaces_the_kernels_and_nothing_else(config: RunConfig, calibrated: Made) -> None:
    here = calibrated(config, images=CIFAR)
    made = on_gpu(here, 128, 2e-10, 5e-10, 1e-10)
    assert made.platform == "gpu"
    assert made.pair == 2e-10
    assert made.query == pytest.approx(128 * 1000 * 2e-10)
    assert made.step == pytest.approx(128 * 1000 * 5e-10)
    assert made.block == pytest.approx(1024**2 * 6e-10)
    assert (made.entry, made.cores, made.pilot) == (here.entry, here.cores, here.pilot)


def test_the_table_is_what_plan_predicts(config: RunConfig, gpu: tuple[Calibration, Constants]) -> None:
    rows = list(scaling_table(config, (20_000, 100_000), (1, 16), *gpu))
    assert [(p.n, p.gpus) for p in rows] == [(20_000, 1), (20_000, 16), (100_000, 1), (100_000, 16)]
    for p in rows:
        memory = int(0.25 * GpuNodes().cluster(p.gpus).memory)
        words = (f"data.n_train={p.n}", f"gram.tile={p.tile}", f"solver.memory={memory}")
        same = load_config("cifar10-mlp5", ("data.n_val=500", "data.n_test=500", *words))
        _, found = predict(same, GpuNodes().cluster(p.gpus), *gpu)
        assert (p.gram_seconds, p.train_seconds) == (found.seconds["gram"], found.seconds["train"])
        assert p.pass_seconds == sum(found.a_pass.values())
        assert p.bottlenecks["train"] == found.bottlenecks["train"]
        assert p.storage_bytes == pytest.approx(4 * p.n**2 / 2, rel=0.3)
        json.dumps(p.as_dict())


def test_more_gpus_build_faster_until_the_named_bottleneck_is_shared(
    config: RunConfig, gpu: tuple[Calibration, Constants]
) -> None:
    rows = [predict_point(config, 200_000, GpuNodes().cluster(2**k), *gpu) for k in range(8)]
    shared = {"link of a node to the store", "store write bandwidth", "start and stop of Ray", "images to the actors"}
    for before, after in itertools.pairwise(rows):
        if before.bottlenecks["gram"] not in shared:
            assert after.gram_seconds < 0.9 * before.gram_seconds
    assert rows[-1].bottlenecks["gram"] in shared


def test_infinite_bandwidth_leaves_the_kernels(config: RunConfig, gpu: tuple[Calibration, Constants]) -> None:
    calibration, constants = gpu
    free = dict.fromkeys([*ASSUMED, "write_byte", "read_byte", "start", "stop"], 0.0) | {"crowding": 1.0}
    bare = Constants(
        **{f.name: getattr(constants, f.name) for f in dataclasses.fields(constants) if f.name != "sources"} | free,
        sources=constants.sources,
    )
    p = predict_point(config, 100_000, GpuNodes().cluster(1), calibration, bare)
    assert p.gram_seconds == pytest.approx(100_000**2 / 2 * 2.5e-10, rel=0.1)
    assert p.bottlenecks["gram"] == "kernels"


def test_tiles_are_larger_where_there_would_be_too_many_files(
    config: RunConfig, gpu: tuple[Calibration, Constants]
) -> None:
    def tile(n: int, cluster: Cluster) -> int:
        data = config.data.model_copy(update={"n_train": n})
        return fastest_tile(config.model_copy(update={"data": data}), CIFAR, cluster, *gpu)

    assert tile(50_000, GpuNodes().cluster(64)) == 2048
    assert tile(1_000_000, GpuNodes().cluster(64)) >= 8192
    # Actors with little memory take small tiles whatever else there is.
    assert tile(200_000, Cluster(8, 128, 8, 48 * 2**30, remote=True)) <= 8192


def test_what_does_not_fit_is_said(config: RunConfig, gpu: tuple[Calibration, Constants]) -> None:
    def notes(p: ScalingPoint) -> str:
        return " ".join(p.notes)

    large = predict_point(config, 5_000_000, GpuNodes().cluster(1), *gpu)
    assert "the driver needs" in notes(large)
    small = predict_point(config, 20_000, GpuNodes().cluster(1), *gpu)
    assert "the driver needs" not in notes(small)
    calibration, constants = gpu
    many = dataclasses.replace(calibration.pilot.whole, passes=[90.0] * len(calibration.pilot.whole.passes))
    pilot = dataclasses.replace(calibration.pilot, whole=many)
    saturated = predict_point(
        config, 20_000, GpuNodes().cluster(1), dataclasses.replace(calibration, pilot=pilot), constants
    )
    assert "passes are a lower bound" in notes(saturated)


def test_resident_tiles_follow_aggregate_memory(config: RunConfig, gpu: tuple[Calibration, Constants]) -> None:
    rows = [predict_point(config, 500_000, GpuNodes().cluster(gpus), *gpu) for gpus in (1, 8, 64)]
    assert [p.operator for p in rows] == ["threads", "threads", "resident"]
    assert rows[0].bottlenecks["pass"] == "pass read bandwidth"
    assert "loading resident tiles" in rows[2].parts["train"]

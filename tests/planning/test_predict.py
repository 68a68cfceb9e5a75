"""Seconds from round numbers, their growth, and what a real pilot on this machine finds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advntk_dist import network
from advntk_dist.config import RunConfig, load_config
from advntk_dist.errors import DatasetError, RequestError
from advntk_dist.operators import InMemoryOperator
from advntk_dist.pipeline.run import run
from advntk_dist.planning.calibrate import calibrate, pilot_data, run_pilot
from advntk_dist.planning.calibration import Calibration, typical_costs
from advntk_dist.planning.cluster import Cluster, described, operator_plan
from advntk_dist.planning.plan import plan_run
from advntk_dist.planning.predict import STAGES, predict
from advntk_dist.progress import Display
from tests.planning.conftest import HERE, RESULTS

Made = Callable[..., Calibration]


def test_seconds_by_hand(digits: RunConfig, calibrated: Made) -> None:
    measured = calibrated(digits)
    counts, found = predict(digits, HERE, measured)
    # 10 tiles of 256, each in one block, on two workers.
    assert found.parts["gram"]["kernels"] == pytest.approx(10 * 256**2 * 1e-8 / 2)
    assert found.seconds["gram"] == pytest.approx(9.0 + 10 * 256**2 * 1e-8 / 2)
    one = 0.001 + (4 + 5 + 10) * 0.004 + 4 * 0.002  # every step that an image may meet, and the values at four points
    assert found.parts["select"]["attacks"] == pytest.approx(counts.select.attacked_batches * one)
    assert found.parts["select"]["start and compilation"] == 1.75
    # 30 steps of cross-fit attack 200 images (a fold of 1000 in 5) in two batches of 128, and look at them clean too.
    assert found.parts["train"]["attacks"] == pytest.approx(30 * 2 * 0.004)
    assert found.parts["train"]["kernels of attacked images"] == pytest.approx(30 * 2 * 200 * 1000 * 0.002 / 128000)
    # 497 test images in four batches of each of three methods: all are predicted, and if all of them were right, all
    # would be differentiated and meet attacks at four radii.
    most = 3 * 4 * (0.002 + 0.02 + 4 * 0.002)
    assert 3 * 4 * 0.002 < found.parts["evaluate"]["radius curve"] <= most
    assert found.total == pytest.approx(sum(found.seconds.values()))
    assert list(found.seconds) == list(STAGES)
    assert sum(share for _, _, share in found.drivers(100)) == pytest.approx(1.0)


def test_seconds_of_the_papers_recipe_by_hand(calibrated: Made) -> None:
    config = load_config("digits", ("train.recipe=paper",))
    _, found = predict(config, HERE, calibrated(config))
    # 50 steps of 128 images, one batch each, and their kernel values with 1000 images.
    assert found.parts["train"]["attacks"] == pytest.approx(50 * (0.001 + 10 * 0.004))
    assert found.parts["train"]["kernels of attacked images"] == pytest.approx(50 * 0.002)


@pytest.mark.parametrize("name", ["mlp-5", "cnn-3", "cnn-10", "resnet-18"])
def test_typical_costs_are_those_that_were_recorded(name: str) -> None:
    kernels, solver = (json.loads((RESULTS / f"{file}.json").read_text()) for file in ("kernels-cpu", "solver"))
    costs, recorded = typical_costs(name), kernels["networks"][name]["wall_us"]
    assert costs.value == pytest.approx(1e-6 * recorded["ours value"], rel=0.3)
    assert costs.gradient == pytest.approx(1e-6 * recorded["ours gradient"], rel=0.3)
    a_pass = solver["results"]["pass"]
    assert costs.entry == pytest.approx(a_pass["seconds"]["cached"]["pass"]["wall"] / a_pass["n"] ** 2, rel=0.3)
    assert costs.read_byte == pytest.approx(a_pass["seconds"]["from disk"]["read"]["wall"] / a_pass["bytes"], rel=0.3)


def test_a_square_attack_is_priced_by_its_queries(calibrated: Made) -> None:
    config = load_config("digits", ("attack.name=square", "attack.queries=50", "evaluation.tier=none"))
    counts, found = predict(config, HERE, calibrated(config))
    assert counts.select.image_steps == 0
    assert found.parts["select"]["attacks"] == pytest.approx(counts.select.attacked_batches * (0.001 + 50 * 0.004))


def test_more_training_images_take_longer_in_every_stage(calibrated: Made) -> None:
    rows = []
    for n in (1000, 2000, 8000, 32000):
        config = load_config("digits", (f"data.n_train={n}", "gram.tile=1024"))
        _, found = predict(config, HERE, calibrated(load_config("digits")))
        rows.append([found.seconds[stage] for stage in STAGES])
    assert (np.diff(np.array(rows), axis=0) > 0).all()


def test_a_cluster_shares_the_build_and_the_attacks_but_not_training(calibrated: Made) -> None:
    config = load_config("digits", ("data.n_train=40000", "data.n_val=5000", "data.n_test=5000", "gram.tile=2048"))
    measured = calibrated(load_config("digits"))
    few = predict(config, Cluster(2, 4, 0, 2**36, remote=True), measured)[1]
    many = predict(config, Cluster(8, 4, 0, 2**36, remote=True), measured)[1]
    assert few.unknown == many.unknown == ("--node-link", "--shared-store", "--network")
    pace = [sum(p.parts["gram"].values()) - p.parts["gram"]["start and stop of Ray"] for p in (few, many)]
    assert 0.25 <= pace[1] / pace[0] < 0.3
    linked = Cluster(8, 4, 0, 2**36, remote=True, node_link=0.01, shared_store=20.0, network=2.5)
    slower = predict(config, linked, measured)[1]
    assert slower.unknown == ()
    assert slower.bottlenecks["gram"] == "link of a node to the store"
    assert slower.seconds["gram"] > many.seconds["gram"]
    assert slower.seconds["train"] > many.seconds["train"]
    assert many.parts["select"]["attacks"] < 0.6 * few.parts["select"]["attacks"]
    assert many.parts["train"]["attacks"] == few.parts["train"]["attacks"]


def test_reading_the_disk_bounds_a_pass(calibrated: Made) -> None:
    config = load_config("digits", ("data.n_train=60000", "gram.tile=2048"))
    measured = calibrated(load_config("digits"), read_byte=1e-8)
    small, large = (Cluster(1, 2, 0, memory) for memory in (8 * 2**30, 64 * 2**30))
    assert operator_plan(config, small).from_disk
    assert not operator_plan(config, large).from_disk
    slow, fast = (predict(config, cluster, measured)[1].seconds["solve"] for cluster in (small, large))
    assert slow > 3 * fast


def test_operators_are_chosen_as_the_run_does() -> None:
    config = load_config("digits", ("data.n_train=10000",))
    assert operator_plan(config, HERE).name == "memory"
    large = load_config("digits", ("data.n_train=30000",))
    assert operator_plan(large, HERE).name == "threads"
    assert operator_plan(large, Cluster(4, 8, 0, 2**34, remote=True)).name == "resident"
    assert not operator_plan(load_config("digits", ("data.n_train=30000", "solver.operator=memory")), HERE).fits


def test_a_calibration_survives_its_file(digits: RunConfig, calibrated: Made, tmp_path: Path) -> None:
    measured = calibrated(digits)
    measured.write(tmp_path / "node.json")
    assert Calibration.read(tmp_path / "node.json") == measured


def test_a_calibration_serves_other_sizes_of_the_same_kernels(digits: RunConfig, calibrated: Made) -> None:
    other = load_config("digits", ("data.n_train=5000", "attack.steps=20", "gram.tile=512"))
    plan, _ = plan_run(other, HERE, calibration=calibrated(digits))
    assert plan.prediction is not None


def test_times_of_a_cpu_are_none_for_gpus(digits: RunConfig, calibrated: Made) -> None:
    plan, _ = plan_run(digits, Cluster(2, 8, 4, 2**36, remote=True), calibration=calibrated(digits))
    assert plan.prediction is None
    assert plan.counts.gram.workers == 4
    assert "--save-calibration" in plan.remarks[0]
    assert "time" not in {line.split(" ")[0] for line in str(plan).splitlines()}
    gpu = dataclasses.replace(calibrated(digits), platform="gpu")
    assert plan_run(digits, Cluster(2, 8, 4, 2**36, remote=True), calibration=gpu)[0].prediction is not None


def test_a_busy_machine_is_named(digits: RunConfig, calibrated: Made) -> None:
    plan, _ = plan_run(digits, HERE, calibration=calibrated(digits, load=[5.5, 6.0]))
    assert any("load 6.0 on 2 cores" in remark for remark in plan.remarks)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"nodes": 0}, "--nodes is 0"),
        ({"cpus": -1}, "--cpus is -1"),
        ({"gpus": -1}, "--gpus is -1"),
        ({"memory": "lots"}, "--memory lots"),
        ({"memory": "0"}, "--memory 0"),
        ({"network": 0.0}, "--network is 0"),
        ({"node_link": float("inf")}, "--node-link is inf"),
    ],
)
def test_impossible_clusters(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        described(**arguments)


def test_a_pilot_finds_the_passes_of_a_larger_problem() -> None:
    settings = ("data.n_train=600", "data.n_val=200", "evaluation.times=[1e-3, 1e-1]")
    config = load_config("digits", settings)
    large = pilot_data(config, 600)
    small = pilot_data(config, 200)
    net = network("mlp-3")
    theta = net.ntk(large.x, large.x)
    theta = (theta + theta.T) / 2
    found = [run_pilot(config, s, theta[: len(s.x), : len(s.x)], net.ntk(s.x_val, s.x)) for s in (small, large)]
    for strength in (1.0, 30.0):
        few, many = (pilot.passes(strength) for pilot in found)
        assert abs(few - many) <= 2
    # After little training few images say little of many: there their class means alone decide.
    assert found[0].right(30.0, 600, 10) == pytest.approx(found[1].right(30.0, 600, 10), abs=0.12)
    assert found[1].step_ratio > 1.2
    assert InMemoryOperator(theta).n == found[1].whole.n


def test_a_stand_in_is_used_only_for_published_shapes() -> None:
    config = load_config("cifar10-mlp5", ("data.n_train=300", "data.n_val=40"))
    found = pilot_data(config, 100)
    assert found.stand_in
    assert found.x.shape == (100, 32, 32, 3)
    assert found.x.dtype == np.float32
    assert set(found.y) <= set(range(10))
    with pytest.raises(DatasetError, match="/no/such"):
        pilot_data(load_config("cifar10-mlp5", ("data.path=/no/such",)), 100)


@pytest.mark.slow
def test_a_real_calibration_predicts_a_real_run(tmp_path: Path, ray_cluster: None) -> None:
    settings = ("data.n_train=300", "data.n_val=60", "data.n_test=60", "gram.tile=128", "train.steps=5")
    config = load_config("digits", (*settings, "train.batch=32", "evaluation.times=[1e-3, 1e-1]"))
    said: list[str] = []
    measured = calibrate(config, say=said.append)
    assert len(said) == 3
    plan, _ = plan_run(config, HERE, calibration=measured)
    assert plan.prediction is not None
    results = run(config, tmp_path / "run", display=Display(quiet=True)).results
    solves = results["solver"]["solves"]
    longest = plan.prediction.passes["uniform"] + plan.prediction.passes["infinity"]
    assert longest == pytest.approx(solves["uniform"]["passes"], abs=2)
    # Seconds depend on what else the machine does: here only their order of magnitude is held to.
    assert set(plan.prediction.seconds) == set(results["seconds"])
    assert 0.2 < plan.prediction.total / sum(results["seconds"].values()) < 5
    json.dumps(plan.as_dict())

"""Each piece of advice where it applies, and none where nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from advntk_dist.config import RunConfig, load_config
from advntk_dist.planning.calibration import Calibration
from advntk_dist.planning.cluster import Cluster, operator_plan
from advntk_dist.planning.counts import Counts, Images, Outlook, count
from advntk_dist.planning.plan import RunPlan
from advntk_dist.planning.predict import Prediction, predict
from tests.planning.conftest import HERE, PAIRS, all_attacked

CIFAR = Images((32, 32, 3), 10)
GIB = 2**30


def planned(
    config: RunConfig,
    cluster: Cluster,
    counts: Counts,
    free: int | None = None,
    prediction: Prediction | None = None,
) -> list[str]:
    return RunPlan(
        config, CIFAR, cluster, counts, operator_plan(config, cluster), 0, free, prediction, remarks=()
    ).advice


def advice(config: RunConfig, cluster: Cluster = HERE, free: int | None = None) -> list[str]:
    counts = count(config, CIFAR, cluster.workers_of_a_node(config.gram.workers), all_attacked(config))
    return planned(config, cluster, counts, free)


def full(*settings: str) -> RunConfig:
    return load_config("cifar10-mlp5-full", settings)


def test_nothing_is_said_of_what_is_well() -> None:
    assert advice(load_config("cifar10-mlp5")) == []


@pytest.mark.parametrize(
    ("config", "cluster", "free", "words"),
    [
        (full(), HERE, 2**20, "--out on another disk"),
        (full(), Cluster(1, 64, 0, 32 * GIB), None, "a node has 32.00 GiB; set gram.workers=29"),
        (full("gram.tile=64"), HERE, None, "gram.tile: 281,625 tiles"),
        (full("gram.tile=16384"), Cluster(4, 16, 0, 256 * GIB), None, "leave some of them idle; gram.tile="),
        (full("solver.operator=memory"), HERE, None, "set solver.memory=18GiB, or solver.operator=auto"),
        (full("solver.operator=resident"), Cluster(2, 8, 0, 2 * GIB), None, "set solver.operator=auto"),
        (full(), Cluster(1, 8, 0, 256 * GIB), None, "solver.memory=18GiB would hold the matrix"),
        (full(), Cluster(1, 2, 0, 4 * GIB), None, "from disk; 2 such nodes"),
        (full("data.n_val=50"), HERE, None, "set evaluation.batch=50"),
        (full("evaluation.batch=500", "train.recipe=paper"), HERE, None, "train.batch: 128 images fill"),
    ],
)
def test_what_is_wrong_is_said_with_its_setting(
    config: RunConfig, cluster: Cluster, free: int | None, words: str
) -> None:
    found = advice(config, cluster, free)
    assert any(words in sentence for sentence in found), found


def test_smaller_tiles_that_are_advised_fit() -> None:
    cluster = Cluster(1, 64, 0, 60 * GIB)
    (sentence,) = [s for s in advice(full(), cluster) if s.startswith("memory:")]
    tile = int(sentence.split("gram.tile=")[1].split()[0])
    assert not any(s.startswith("memory:") for s in advice(full(f"gram.tile={tile}"), cluster))


def test_padding_of_attacked_batches() -> None:
    config = load_config("cifar10-mlp5", ("data.n_val=140", "data.n_test=140"))
    counts = count(config, CIFAR, 2, Outlook((0.5,) * 9, (0.5,) * 9, 0.5, 0.5))
    found = planned(config, HERE, counts)
    assert any("evaluation.batch: about 45% of attacked batches is padding" in sentence for sentence in found)


def test_where_the_time_goes(calibrated: Callable[..., Calibration]) -> None:
    sizes = ("data.n_test=5000", "data.n_val=5000", "data.n_train=20000")
    config = load_config("digits", (*sizes, "evaluation.tier=none"))
    slow = calibrated(load_config("digits"), step=0.1 / PAIRS)

    def said(config: RunConfig, cluster: Cluster) -> str:
        counts, found = predict(config, cluster, slow)
        return " ".join(planned(config, cluster, counts, prediction=found))

    assert "evaluation.curve=1000" in said(config, HERE)
    assert "to choose among 12 times" in said(config, HERE)
    long = ("data.n_test=10", "data.n_val=200", "data.n_train=20000", "train.steps=500", "attack.name=pgd")
    training = load_config("digits", long)
    assert "which run on one machine" in said(training, Cluster(4, 8, 0, 64 * GIB, remote=True))
    tiny = said(load_config("digits"), Cluster(4, 8, 0, 64 * GIB, remote=True))
    assert "one node is enough" in tiny

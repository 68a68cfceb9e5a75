"""Images that are almost a training image are found from kernel values, counted, named, and said where results are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import advntk_dist as advntk
from advntk_dist.data import Dataset
from advntk_dist.data.duplicates import PART, NearEqual, find_near_equal
from advntk_dist.evaluation.evaluator import FARTHEST, NearestTraining, distances
from advntk_dist.gram import GramStore
from advntk_dist.pipeline.context import Problem
from advntk_dist.pipeline.run import run
from advntk_dist.pipeline.stages import nearest_in_store
from advntk_dist.predictor import KernelPredictor
from advntk_dist.progress import Display
from tests.filled import fill_gram
from tests.pipeline.conftest import Command, results_of, small

QUIET = Display(quiet=True)


def digits(n: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    x, y = load_digits(return_X_y=True)
    return (x.reshape(-1, 8, 8, 1)[:n] * 15.9375).astype(np.uint8), y[:n].astype(np.int64)


def naive(x: NDArray[np.uint8], train: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Nearest training image that is another one, from a dense kernel in float64."""
    net = advntk.network("mlp-2", backend="neural-tangents")
    floats, others = (images.astype(np.float64) / 255 - 0.5 for images in (x, train))
    values = np.array(net.ntk(floats, others))
    own, scale = (np.diag(np.array(net.ntk(images, images))) for images in (floats, others))
    distance = 1 - values / np.sqrt(np.outer(own, scale))
    equal = (x[:, None] == train[None]).all(axis=(2, 3, 4))
    distance[equal] = FARTHEST
    return np.column_stack([distance.min(axis=1), distance.argmin(axis=1)])


def test_nearest_images_of_a_store_are_those_of_the_dense_kernel(tmp_path: Path) -> None:
    config = small()
    fill_gram(config, tmp_path / "run")
    found = nearest_in_store(GramStore.open(tmp_path / "run" / "gram.zarr"))
    train = Problem(config).train.raw
    expected = naive(train, train)
    np.testing.assert_allclose(found[:, 0], expected[:, 0], atol=2e-5)
    differ = found[:, 1] != expected[:, 1]
    assert differ.mean() < 0.02, "but for ties within rounding"


def test_the_task_compares_with_every_training_image() -> None:
    x, _ = digits(120)
    train, others = x[:90], np.concatenate([x[90:], x[:2], np.clip(x[3:5].astype(int) + 3, 0, 255).astype(np.uint8)])
    net = advntk.network("mlp-2")
    predictor = KernelPredictor(net, train.astype(np.float32) / 255 - 0.5, np.zeros((90, 10)))
    own = np.diag(np.asarray(net.ntk(predictor.x_train, predictor.x_train))).astype(np.float64)
    floats = others.astype(np.float32) / 255 - 0.5
    m = len(others)
    found = NearestTraining(own**-0.5)(predictor, floats, np.zeros(m, np.int64), np.arange(m))
    expected = naive(others, train)
    np.testing.assert_allclose(found[:, 0], expected[:, 0], atol=2e-5)
    assert found[-2:, 1].tolist() == [3, 4]


def test_pairs_are_named_once_the_test_images_first() -> None:
    data = advntk.load_dataset("digits")
    parts = {"train": np.array([5, 6, 7]), "val": np.array([8]), "test": np.array([9, 10])}
    nearest = {
        "train": np.array([[0.01, 1.0], [0.01, 0.0], [0.1, 0.0]]),
        "val": np.array([[0.5, 1.0]]),
        "test": np.array([[0.0015, 2.0], [0.4, 2.0]]),
    }
    found = find_near_equal(data, parts, nearest, 0.02)
    assert found.limit == PART * 0.02
    assert not found.close["train"]
    assert found.close["test"] == 1
    (pair,) = found.pairs
    assert (str(pair.first), str(pair.second), pair.first.row, pair.second.row) == ("train 2", "test 0", 7, 9)
    far = {"train": np.array([[0.01, 1.0], [0.01, 0.0], [0.2, 0.0], [0.3, 0.0], [0.3, 0.0]])}
    parts |= {"train": np.arange(5)}
    two = find_near_equal(data, parts, nearest | far, 0.4)
    assert (two.close["train"], two.close["test"]) == (2, 1)
    assert [(p.first.index, p.second.part, p.second.index) for p in two.pairs] == [(2, "test", 0), (0, "train", 1)]
    assert NearEqual.from_dict(json.loads(json.dumps(two.as_dict()))) == two
    (line,) = two.lines()
    assert line.startswith("almost equal images: 2 of 5 training images, 1 of 2 test images lie within 0.04 of")
    assert two.leak == "But 1 of 2 test images almost equal training images."


@pytest.fixture
def near(tmp_path: Path) -> Path:
    """240 digits, 30 of which are there a second time, a little brighter."""
    x, y = digits(240)
    brighter = np.clip(x[:30].astype(int) + 2, 0, 255).astype(np.uint8)
    np.savez(tmp_path / "near.npz", x=np.concatenate([x, brighter]), y=np.concatenate([y, y[:30]]))
    return tmp_path / "near.npz"


def test_a_run_says_which_test_images_are_almost_training_images(
    near: Path, tmp_path: Path, advntk: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = small(f"data.name={near}", "data.n_val=20", "data.n_test=50")
    fill_gram(config, tmp_path / "run")
    results = run(config, tmp_path / "run", display=QUIET).results
    rows = Problem(config).rows

    def copies(part: str) -> int:
        """Images of a part whose other copy is a training image."""
        others = [row - 240 if row >= 240 else row + 240 for row in rows[part]]
        return int(np.isin([o for o in others if 0 <= o < 270], rows["train"]).sum())

    found = results["near_equal"]
    assert copies("test") > 0
    assert found["close"] == {part: copies(part) for part in ("train", "val", "test")}
    for pair in found["pairs"]:
        assert abs(pair["first"]["row"] - pair["second"]["row"]) == 240
        assert pair["same_label"]
    out = advntk("-q", "run", tmp_path / "run" / "config.toml", "--out", tmp_path / "run")[1]
    assert f"{copies('test')} of 50 test images lie within" in out
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"But {copies('test')} of 50 test images" in page.partition("</h1>")[0]

    # What was found is committed: nobody compares again.
    def compared(*_: Any) -> Any:
        raise AssertionError

    (tmp_path / "run" / "results.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(NearestTraining, "__call__", compared)
        assert run(config, tmp_path / "run", display=QUIET).results["near_equal"] == found


def test_what_was_found_and_is_damaged_is_found_again(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    before = results_of(folder)["near_equal"]
    for name in ("nearest_train", "nearest_test"):
        shutil.rmtree(folder / "dynamics.zarr" / name)
    (folder / "results.json").unlink()
    assert run(small(), folder, display=QUIET).results["near_equal"] == before


def test_a_test_set_of_copies_is_found_however_many_there_are() -> None:
    """The limit does not sink where every training image has a twin itself."""
    x, y = digits(40)
    noise = np.random.default_rng(0).normal(0, 2, (240, 8, 8, 1))
    many = np.clip(np.repeat(x, 6, axis=0) + noise, 0, 255).astype(np.uint8)
    net = advntk.network("mlp-2")
    floats = many.astype(np.float32) / 255 - 0.5
    values = np.asarray(net.ntk(floats, floats))
    scale = np.diagonal(values).astype(np.float64) ** -0.5
    every = distances(values, scale, scale)
    np.fill_diagonal(every, FARTHEST)
    order = np.random.default_rng(1).permutation(240)
    train, test = order[:200], order[200:]
    nearest = {}
    for part, rows in (("train", train), ("val", test[:10]), ("test", test)):
        own = every[np.ix_(rows, train)]
        nearest[part] = np.column_stack([own.min(axis=1), own.argmin(axis=1)])
    typical = float(np.median(every[np.ix_(train, train)][np.triu_indices(200, 1)]))
    data = Dataset("copies", many, np.repeat(y, 6), tuple("0123456789"))
    found = find_near_equal(data, {"train": train, "val": test[:10], "test": test}, nearest, typical)
    copies = sum(bool((train // 6 == row // 6).any()) for row in test)
    assert found.close["test"] == copies > 30


@pytest.mark.slow
def test_actors_find_the_same(near: Path, tmp_path: Path, ray_cluster: None) -> None:
    found = []
    for name, more in (("here", ()), ("there", ("evaluation.workers=2",))):
        config = small(f"data.name={near}", "data.n_val=20", "data.n_test=50", *more)
        fill_gram(config, tmp_path / name)
        found.append(run(config, tmp_path / name, display=QUIET).results["near_equal"])
    assert found[0]["close"] == found[1]["close"]

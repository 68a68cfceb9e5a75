"""Counts against what a real run recorded, and against arithmetic by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advntk_dist.config import RunConfig, load_config
from advntk_dist.gram import GramStore
from advntk_dist.pipeline.run import run
from advntk_dist.planning.counts import (
    Outlook,
    count,
    longest,
    step_images,
    total,
)
from advntk_dist.predictor import KernelPredictor
from advntk_dist.progress import Display
from advntk_dist.storage.paths import local
from tests.filled import matrices_filled_here
from tests.planning.conftest import DIGITS, all_attacked


def outlook_of(results: dict[str, Any]) -> Outlook:
    """What a finished run found out."""
    curve, methods = results["curve"], results["methods"]
    return Outlook(
        tuple(row["clean"] for row in curve["validation"]),
        tuple(row["clean"] for row in curve["test"]),
        methods["ntk"]["clean"],
        methods["adv_ntk"]["clean"],
        curve["times"].index(methods["early_stopped"]["t"]),
    )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Path, dict[str, Any]]:
    """A small run, and the batches, image-steps and predicted images that its attacks really asked for."""
    settings = (
        "data.n_train=200",
        "data.n_val=50",
        "data.n_test=70",
        "network.name=mlp-2",
        "gram.tile=80",
        "gram.workers=1",
        "attack.steps=3",
        "train.steps=4",
        "train.batch=24",
        "evaluation.times=[1e-3, 1e-1]",
        "evaluation.batch=40",
        "evaluation.tier=none",
        "attack.name=pgd",
        "evaluation.curve=58",  # on which the early stop is right as often as on all, which is what counts take it for
    )
    config = load_config("digits", settings)
    seen = {"ascents": 0, "image_steps": 0}
    original = KernelPredictor.ascend

    def ascend(self: KernelPredictor, start: Any, *others: Any, steps: int, **named: Any) -> Any:
        if named["loss"] == config.attack.loss:  # that of the radius curve moves towards classes
            seen["ascents"] += 1
            seen["image_steps"] += len(start) * steps
        return original(self, start, *others, steps=steps, **named)

    folder = tmp_path_factory.mktemp("watched") / "run"
    with matrices_filled_here(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(KernelPredictor, "ascend", ascend)
        run(config, folder, display=Display(quiet=True))
    return config, folder, seen


def test_counts_are_those_of_a_finished_run(watched: tuple[RunConfig, Path, dict[str, Any]]) -> None:
    config, folder, seen = watched
    results = json.loads((folder / "results.json").read_text())
    counts = count(config, DIGITS, 2, outlook_of(results))
    stages = (counts.select, counts.train, counts.evaluate)
    examples = 8  # images of the report, attacked once more in one batch
    assert sum(s.image_steps for s in stages) + examples * config.attack.steps == seen["image_steps"]
    assert sum(s.attacked_batches for s in stages) + 1 == seen["ascents"]
    store = GramStore.open(folder / "gram.zarr")
    assert counts.gram.tiles == store.status().total == results["gram"]["tiles"]
    assert counts.gram.pairs == store.grid.pairs
    on_disk = sum(p.stat().st_blocks * 512 for p in local(store.path).rglob("*") if p.is_file())
    assert counts.gram.disk_bytes == pytest.approx(on_disk, rel=0.25)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    images = {
        stage: sum(e["images"] for e in events if e["event"] == "batch" and e["stage"] == stage)
        for stage in ("select", "evaluate")
    }
    assert images == {"select": counts.select.images, "evaluate": counts.evaluate.images}
    assert sum(e["event"] == "tile" for e in events) == counts.gram.tiles


@pytest.mark.parametrize("key", ["data.n_train", "data.n_val", "data.n_test"])
def test_more_images_are_never_less_work(key: str) -> None:
    found = []
    for n in (200, 300, 400, 450):
        config = load_config("digits", ("data.n_train=300", "data.n_val=100", "data.n_test=100", f"{key}={n}"))
        counts = count(config, DIGITS, 2, all_attacked(config))
        work = counts.select + counts.train + counts.evaluate
        found.append((counts.gram.pairs, counts.gram.disk_bytes, work.image_steps, work.queries, work.attacked_batches))
    assert found == sorted(found)
    assert all((np.diff(np.array(found), axis=0) >= 0).ravel())
    assert found[0] < found[-1]


def test_a_curve_of_fewer_images_is_counted_with_the_early_stop_on_all_of_them() -> None:
    config = load_config("digits", ("evaluation.curve=100",))
    whole = load_config("digits")
    times = len(config.evaluation.times)
    counts = count(config, DIGITS, 2, all_attacked(config))
    assert counts.evaluate.images == times * 100 + 3 * 497
    assert count(whole, DIGITS, 2, all_attacked(whole)).evaluate.images == times * 497 + 2 * 497


def test_only_what_is_right_is_attacked() -> None:
    config = load_config("digits", ("evaluation.batch=100",))
    found = total(config, [(300, 0.5), (300, 0.01)])
    assert (found.batches, found.attacked, found.attacked_batches) == (6, 153, 3)
    assert found.image_steps == 153 * config.attack.spec.cost(config.attack).steps


def test_recipes_attack_their_own_images() -> None:
    def of(*settings: str) -> tuple[tuple[int, int], ...]:
        return step_images(load_config("digits", settings))

    assert of("train.recipe=paper") == ((50, 128),)
    assert of("train.recipe=paper", "data.n_val=50") == ((50, 50),)
    assert of("train.recipe=cross-fit") == ((30, 200), (0, 200))
    assert of("train.validation=true") == ((15, 200), (15, 200))
    assert of("train.validation=true", "train.steps=7", "data.n_val=50") == ((3, 200), (4, 50))


@pytest.mark.parametrize(("workers", "expected"), [(1, (6, 5)), (2, (4, 3)), (100, (2, 2))])
def test_workers_share_the_batches_of_one_part_at_a_time(workers: int, expected: tuple[int, int]) -> None:
    assert longest([(300, 1.0), (300, 0.6)], 100, workers) == expected


def test_outlook_bound_attacks_everything(digits: RunConfig, calibrated: Callable[..., Any]) -> None:
    bound = count(digits, DIGITS, 2, all_attacked(digits))
    assert bound.select.attacked == bound.select.images
    assert bound.evaluate.attacked == bound.evaluate.images

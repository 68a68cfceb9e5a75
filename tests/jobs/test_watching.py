"""advntk status, and the metrics: what is counted, what Prometheus is given, what the dashboard asks for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from filelock import FileLock

from advntk_dist import metrics
from advntk_dist.gram.status import GAUGES, BuildWatch
from advntk_dist.pipeline.status import run_status
from advntk_dist.storage.locks import exclusive_lock
from tests.conftest import Command, Refused

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana.json"
CONFIG = """
[data]
n_train = 100
n_val = 20
n_test = 30
[gram]
tile = 40
[train]
steps = 5
[evaluation]
times = [1e-2, 1e-1]
"""


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run that was killed in its training, as far as its files say; the last line is cut short."""
    (tmp_path / "config.toml").write_text(CONFIG)
    now = time.time() - 100
    events = [
        {"time": now, "event": "run begins"},
        {"time": now, "event": "stage begins", "stage": "gram", "seconds": 0},
        {"time": now + 1, "event": "stage ends", "stage": "gram", "seconds": 1},
        {"time": now + 1, "event": "stage begins", "stage": "select", "seconds": 0},
        {"time": now + 2, "event": "batch", "stage": "select", "seconds": 1, "name": "validation_t0", "images": 20},
        {"time": now + 3, "event": "batch", "stage": "select", "seconds": 1, "name": "validation_t1", "images": 20},
        {"time": now + 3, "event": "stage ends", "stage": "select", "seconds": 0},
        {"time": now + 4, "event": "stage begins", "stage": "train", "seconds": 0},
        {"time": now + 6, "event": "step", "stage": "train", "seconds": 2, "step": 1},
        {"time": now + 8, "event": "step", "stage": "train", "seconds": 2, "step": 2},
        {"time": now + 10, "event": "step", "stage": "train", "seconds": 2, "step": 3},
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events) + '{"time": 1')
    return tmp_path


def test_status_of_a_run_that_was_killed(begun: Path) -> None:
    found = run_status(begun)
    assert found.stages == {
        "gram": "done", "solve": "waiting", "select": "done", "train": "interrupted", "evaluate": "waiting",
    }  # fmt: skip
    assert (found.tiles, found.tiles_total) == (0, 6)
    assert (found.steps, found.steps_total) == (3, 5)
    # 2 times x (20 validation + 30 test), and the NTK and Adv-NTK on 30; the early stop is one of the curve's times
    assert (found.images, found.images_total) == (40, 160)
    assert found.held is False
    assert found.holder is None
    assert found.rate is None
    assert found.last_event_age == pytest.approx(90, abs=20)
    assert not found.finished


def test_status_of_a_run_at_work(begun: Path) -> None:
    with exclusive_lock(begun / ".lock", begun, "busy"):
        found = run_status(begun)
        with pytest.raises(Exception, match="could not be acquired"):
            FileLock(begun / ".lock").acquire(timeout=0)
    assert found.held is True
    assert found.stages["train"] == "running"
    assert found.rate == pytest.approx(0.5)
    assert found.unit == "steps"
    assert f": at work (process {os.getpid()} on " in str(found)
    assert "0.5 steps/s" in str(found)
    assert run_status(begun).holder is None, "nobody, once it is given back"


def test_status_of_a_run_at_work_on_another_machine(begun: Path) -> None:
    """A folder that machines share: its lock is in no table of this one, and process 1 of this one is another."""
    beside = begun / ".lock.holder"
    beside.write_text('{"host": "node7", "pid": 1, "word": "x"}')
    found = run_status(begun)
    assert (found.held, found.stages["train"]) == (True, "running")
    assert ": at work (process 1 on node7); last event" in str(found)
    os.utime(beside, (time.time() - 305,) * 2)
    found = run_status(begun)
    assert (found.held, found.stages["train"], found.rate) == (False, "interrupted", None)
    assert ": not at work (process 1 on node7, last seen 5 min 05 s ago); last event" in str(found)


def test_status_command(begun: Path, advntk: Command, refused: Refused) -> None:
    code, out, _ = advntk("status", begun, "--json")
    assert (code, json.loads(out)["steps"]) == (0, 3)
    assert "not a run directory" in refused(2, "status", begun / "nothing")


def test_counters_cost_nothing_without_ray() -> None:
    """In a process of its own, that has never imported Ray."""
    code = "from advntk_dist import metrics; import sys; metrics.count('advntk_tiles'); assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def _found(expression: str, kind: type) -> list[Any]:
    """The parts of a PromQL expression that are of a kind."""
    parts: list[Any] = []

    def look(part: promql_parser.Expr) -> bool:
        if isinstance(part, kind):
            parts.append(part)
        return True

    promql_parser.walk(promql_parser.parse(expression), look)
    return parts


def _expressions() -> list[str]:
    return [target["expr"] for panel in _panels() for target in panel["targets"]]


def test_dashboard_asks_for_what_we_emit() -> None:
    asked = {s.name for e in _expressions() for s in _found(e, promql_parser.VectorSelector)}
    emitted = {f"ray_{name}_total" for name in metrics.COUNTERS} | {f"ray_advntk_gram_{field}" for field in GAUGES}
    assert asked == emitted, "each metric is shown, and nothing else"


def test_dashboard_sums_over_labels_that_there_are() -> None:
    """Counters have none of their own; the gauges of a build have that of its store."""
    grouped = {
        (name.name, label)
        for e in _expressions()
        for total in _found(e, promql_parser.AggregateExpr)
        if total.modifier is not None
        for label in total.modifier.labels
        for name in _found(total.expr.prettify(), promql_parser.VectorSelector)
    }
    assert {label for _, label in grouped} == {"store"}
    assert {name for name, _ in grouped} == {f"ray_advntk_gram_{field}" for field in GAUGES}


@pytest.mark.parametrize("wrong", ["sum(rate(x[5m))", "sum by store (x)", "rate(x)", "x{a=}"])
def test_expression_that_is_wrong_is_found(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        promql_parser.parse(wrong)


@pytest.mark.parametrize("panel", _panels(), ids=lambda panel: panel["title"])
def test_panel_is_whole(panel: dict[str, Any]) -> None:
    """The fields that Grafana needs to draw a panel of one of its own kinds."""
    assert panel["type"] in ("gauge", "stat", "timeseries")
    assert panel["title"]
    assert panel["description"]
    assert panel["id"] > 0
    place = panel["gridPos"]
    assert all(isinstance(place[field], int) for field in "hwxy")
    assert place["h"] > 0
    assert 0 < place["w"] <= 24 - place["x"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["overrides"] == []
    ids = [target["refId"] for target in panel["targets"]]
    assert ids == sorted(set(ids))
    assert ids[0] == "A"
    assert all(target["legendFormat"] for target in panel["targets"])
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_dashboard_is_whole() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["title"]
    assert re.fullmatch(r"[\w-]{1,40}", dashboard["uid"])
    assert dashboard["schemaVersion"] >= 36
    (variable,) = dashboard["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    assert len({panel["id"] for panel in _panels()}) == len(_panels())
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in _panels())
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells), "no panel lies on another"


def test_dashboard_asks_for_counters_as_rates() -> None:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            for name in re.findall(r"(?:rate|increase)\((\w+)\[", target["expr"]):
                assert name.endswith("_total")
            assert target["expr"].count("_total[") == target["expr"].count("_total") - target["expr"].count(
                "gram_total"
            )


def test_tile_that_is_handed_out_again_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    monkeypatch.setattr(metrics, "count", lambda name, amount=1: counted.append(name))
    watch = BuildWatch(tmp_path / "gram.zarr", 0, 6)
    watch.event({"event": "tile_again"})
    watch.event({"event": "worker_lost", "was_ready": True})
    assert counted == ["advntk_retries"]
    assert watch.builder.retries == 1

"""`advntk plan` as people and machines call it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from advntk_dist.config import load_config
from advntk_dist.errors import RequestError
from advntk_dist.planning.calibration import Calibration
from tests.conftest import Command

NUMBER = {"type": "number", "minimum": 0}
WHOLE = {"type": "integer", "minimum": 0}
TEXTS = {"type": "array", "items": {"type": "string"}}


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


SCORED = record(images=WHOLE, batches=WHOLE, attacked=WHOLE, attacked_batches=WHOLE, image_steps=WHOLE, queries=WHOLE)
STAGES = dict.fromkeys(("gram", "solve", "select", "train", "evaluate"), NUMBER)
PREDICTION = record(
    seconds=record(**STAGES),
    parts=record(**{stage: {"type": "object", "additionalProperties": NUMBER} for stage in STAGES}),
    passes=record(uniform=NUMBER, infinity=NUMBER, train=NUMBER),
    a_pass={"type": "object", "additionalProperties": NUMBER},
    bottlenecks=record(**{key: {"type": "string"} for key in (*STAGES, "pass")}),
    total=NUMBER,
    unknown=TEXTS,
)
SCHEMA = record(
    dataset={"type": "string"},
    network={"type": "string"},
    n_train=WHOLE,
    n_val=WHOLE,
    n_test=WHOLE,
    cluster=record(nodes=WHOLE, cpus=WHOLE, gpus=WHOLE, memory=WHOLE, remote={"type": "boolean"}),
    counts=record(
        gram=record(tiles=WHOLE, pairs=WHOLE, disk_bytes=WHOLE, worker_bytes=WHOLE, image_bytes=WHOLE, workers=WHOLE),
        select=SCORED,
        train=SCORED,
        evaluate=SCORED,
    ),
    operator=record(name={"enum": ["memory", "threads", "dask-on-ray", "resident"]}, whole_bytes=WHOLE, fits={}),
    bytes=record(disk=WHOLE, worker=WHOLE, driver=WHOLE),
    prediction={"anyOf": [PREDICTION, {"type": "null"}]},
    advice=TEXTS,
    remarks=TEXTS,
)


@pytest.fixture
def node(calibrated: Callable[..., Calibration], tmp_path: Path) -> Path:
    calibrated(load_config("digits")).write(tmp_path / "node.json")
    return tmp_path / "node.json"


@pytest.mark.parametrize("cluster", [(), ("--nodes", "4", "--cpus", "16"), ("--gpus", "2", "--memory", "64GiB")])
def test_json_follows_its_schema(cluster: tuple[str, ...], node: Path, advntk: Command) -> None:
    code, out, err = advntk("plan", "digits", "--calibration", str(node), "--json", *cluster)
    assert (code, err) == (0, "")
    found = json.loads(out)
    jsonschema.validate(found, SCHEMA)
    assert (found["prediction"] is None) == ("--gpus" in cluster)
    assert found["cluster"]["remote"] == bool(cluster)
    assert "--nodes" not in cluster or found["prediction"]["unknown"] == ["--node-link", "--shared-store", "--network"]


def test_people_get_lines(node: Path, advntk: Command) -> None:
    code, out, err = advntk("plan", "digits", "--calibration", str(node))
    assert (code, err) == (0, "")
    starts = [line.split()[0] for line in out.splitlines()]
    assert starts[:12] == [
        *("digits,", "on", "tiles", "memory", "operator", "passes", "image-steps"),
        *("time", "gram", "solve", "select", "train"),
    ]
    assert "10 of 256 (625,216 pairs)" in out
    assert "most of it" in out
    assert {c for c in out if not c.isprintable()} == {"\n"}


def test_a_cluster_is_bound_by_what_is_given_of_it(node: Path, advntk: Command) -> None:
    words = ("plan", "digits", "--set", "data.n_train=200000", "--set", "gram.tile=2048", "--calibration", str(node))
    cluster = ("--nodes", "4", "--cpus", "16", "--memory", "64GiB")
    _, out, _ = advntk(*words, *cluster)
    (line,) = [line for line in out.splitlines() if line.startswith("time ")]
    assert re.fullmatch(r"time +more than about \d0* (s|min|h): nothing was measured on such a cluster, and .*", line)
    assert line.endswith("give their GB/s as --node-link, --shared-store, --network")
    assert not re.search("^(limits|most of it|  gram) ", out, re.MULTILINE), "what is not known is not split up"
    rates = ("--shared-store", "0.1", "--node-link", "2", "--network", "0.02")
    _, out, _ = advntk(*words, *cluster, *rates)
    assert "limits      gram: store write bandwidth; a pass: partial products to the driver; train:" in out
    for known in ((*cluster, *rates), cluster[2:], ()):
        _, out, _ = advntk(*words, *known)
        assert re.search(r"^  gram +\S", out, re.MULTILINE)
        assert "nothing was measured" not in out
    code, out, err = advntk(*words, "--network", "0")
    assert (code, out, err) == (2, "", "advntk: --network is 0; it must be GB/s, more than 0\n")


def test_a_calibration_of_another_network_is_one_line(node: Path, advntk: Command) -> None:
    code, out, err = advntk("plan", "digits", "--set", "network.name=cnn-2", "--calibration", str(node))
    assert (code, out) == (2, "")
    assert err.startswith("advntk: --calibration: was measured for network.name = 'mlp-3', and this is 'cnn-2'")
    assert err.count("\n") == 1


def test_a_damaged_calibration_names_the_field(node: Path, advntk: Command) -> None:
    values = json.loads(node.read_text())
    values["pilot"]["whole"]["n"] = "many"
    node.write_text(json.dumps(values))
    code, _, err = advntk("plan", "digits", "--calibration", str(node))
    assert code == 2
    assert "pilot.whole.n" in err
    assert err.count("\n") == 1


def test_a_calibration_that_cannot_be_kept_is_one_line(
    calibrated: Callable[..., Calibration], tmp_path: Path, advntk: Command
) -> None:
    place = tmp_path / "no" / "folder.json"
    code, out, err = advntk("plan", "digits", "--save-calibration", str(place))
    assert (code, out) == (2, "")
    assert "there is no folder" in err  # before anything is measured
    assert "calibration:" not in err
    with pytest.raises(RequestError, match="cannot be written"):
        calibrated(load_config("digits")).write(tmp_path)

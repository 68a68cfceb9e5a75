"""What a wrong request says: one line with what, where and how to mend it, no traceback, the right exit code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zarr

from advntk_dist.config import load_config
from advntk_dist.pipeline.directory import RunDirectory
from tests.pipeline.conftest import Refused
from tests.terminal import setting_words


def _set(*pairs: str) -> list[str]:
    return ["run", "digits", *(word for pair in pairs for word in ("--set", pair))]


def _data(name: str) -> list[str]:
    return ["data", "info", name]


WRONG: dict[str, tuple[list[str], int, str]] = {
    # commands and options
    "no such command": (["frobnicate"], 2, "frobnicate"),
    "no such option": (["run", "digits", "--fast"], 2, "--fast"),
    "no source": (["run"], 2, "PRESET"),
    "no such gram command": (["gram", "repair"], 2, "repair"),
    "gram build without --out": (["gram", "build", "digits"], 2, "--out"),
    "images without a tier": (["evaluate", "nowhere", "--images", "10"], 2, "--tier"),
    "tier and attack": (["evaluate", "nowhere", "--tier", "fast", "--attack", "apgd"], 2, "leave out --attack"),
    "no such tier": (["evaluate", "nowhere", "--tier", "brutal"], 2, "fast"),
    "no images to check": (["check", "nowhere", "--images", "0"], 2, "--images"),
    # configurations; tests/test_config.py has those of every key
    "a misspelt preset of the paper": (["run", "paper/cifar10-mlp5-r8"], 2, "did you mean 'paper/cifar10-mlp-5-r8'?"),
    "a preset to print that is none": (["presets", "digit"], 2, "did you mean 'digits'?"),
    "unknown section": (_set("dat.n_train=3"), 2, "sections are data"),
    "not TOML": (["run", "{tmp}/broken.toml"], 2, "broken.toml: not valid TOML: Invalid value (at line 2"),
    "not text": (["run", "{tmp}/noise.toml"], 2, "cannot be read as text"),
    "a folder for a file": (["run", "{tmp}"], 2, "no preset and no file"),
    "too many images": (_set("data.n_train=5000"), 2, "data.n_train"),
    "no such user network": (_set("network.name=no.such:thing"), 2, "no.such:thing"),
    "no such loss": (_set("attack.loss=hinge"), 2, "attack.loss"),
    "a targeted loss untargeted": (_set("attack.loss=dlr-targeted"), 2, "apgd-targeted"),
    "the reference attack in l2": (_set("attack.name=pgd-reference", "attack.norm=l2"), 2, "linf"),
    # data; tests/data has those of every format
    "data that are not there": (["run", "cifar10-mlp5", "--set", "data.path=/no/such/place"], 2, "/no/such/place"),
    "no path and nothing fetched": (["run", "cifar10-mlp5"], 2, "advntk data fetch cifar10"),
    "not an npz": (_data("{tmp}/text.npz"), 2, "text.npz"),
    # places
    "a URL of another kind": (["run", "digits", "--out", "ftp://host/run"], 2, "s3://BUCKET/PATH or gs://BUCKET/PATH"),
    "a URL with credentials": (["status", "s3://key:secret@bucket/run"], 2, "holds credentials"),
    "a grid in an object store": (["reproduce", "--out", "s3://bucket/grid", "--dry-run"], 2, "local path"),
    "a file where the run should be": (["run", "digits", "--out", "{tmp}/broken.toml"], 2, "broken.toml"),
    "status of nothing": (["gram", "status", "nowhere"], 2, "nowhere"),
    "verify of nothing": (["gram", "verify", "nowhere"], 2, "nowhere"),
    "report of nothing": (["report", "nowhere"], 2, "nowhere"),
    "compare with nothing": (["report", "--compare", "nowhere", "elsewhere"], 2, "nowhere"),
    "compare one run": (["report", "--compare", "nowhere"], 2, "two or more"),
    "reports of two runs": (["report", "nowhere", "elsewhere"], 2, "--compare"),
    "evaluate nothing": (["evaluate", "nowhere"], 2, "nowhere"),
    "check nothing": (["check", "nowhere"], 2, "nowhere"),
    "dynamics of nothing": (["dynamics", "nowhere"], 2, "nowhere"),
    "a Zarr group that is no Gram store": (["gram", "verify", "{tmp}/other.zarr"], 3, "other.zarr"),
    # stores
    "a damaged configuration": (["status", "{tmp}/damaged"], 3, "config.toml: damaged"),
    "damaged results": (["report", "{tmp}/torn"], 3, "results.json: not valid JSON"),
    "damaged results of a run to compare": (["report", "--compare", "{tmp}/torn", "{tmp}/damaged"], 3, "results.json"),
    "another configuration": (
        ["run", "digits", "--set", "network.b_std=0.5", "--out", "{tmp}/torn"],
        3,
        "network.b_std differs: the store has 0.18, this request has 0.5",
    ),
    "a matrix of another configuration": (
        ["gram", "build", "digits", "--set", "gram.tile=9", "--out", "{tmp}/torn"],
        3,
        "gram.tile differs",
    ),
    "a busy run": (["run", "digits", "--out", "{tmp}/busy"], 1, "another process is working on this run"),
    "a busy matrix": (["gram", "build", "digits", "--out", "{tmp}/busy"], 1, "another process is working on this run"),
    "a run that is not finished": (["report", "{tmp}/busy"], 2, "the run is not finished; `advntk run"),
    "a matrix that is not there": (["dynamics", "{tmp}/busy"], 2, "gram.zarr"),
    "a matrix whose metadata are damaged": (["gram", "status", "{tmp}/broken.zarr"], 3, "broken.zarr"),
    # finished runs
    "a misspelt key of an attack": (
        ["evaluate", "{run}", "--set", "stepz=3"],
        2,
        "advntk: evaluate: attack.stepz: no such key; did you mean 'steps'?",
    ),
    "a tier of too many images": (["evaluate", "{run}", "--tier", "fast", "--images", "61"], 2, "60 test images"),
    "a tier of no images": (["evaluate", "{run}", "--tier", "fast", "--images", "0"], 2, "--images"),
    "a tier of no such method": (["evaluate", "{run}", "--tier", "fast", "--method", "magic"], 2, "magic"),
    "a tier with settings": (["evaluate", "{run}", "--tier", "fast", "--set", "radius=0.1"], 2, "--set"),
    "a check of no such method": (["check", "{run}", "--method", "magic"], 2, "there are ntk, early_stopped, adv_ntk"),
    "a negative strength": (["dynamics", "{run}", "--strength", "-1"], 2, "--strength"),
    "a strength that is no number": (["dynamics", "{run}", "--strength", "nan"], 2, "--strength"),
    "no duration": (["dynamics", "{run}", "--duration", "0"], 2, "--duration"),
    "no pieces": (["dynamics", "{run}", "--pieces", "0"], 2, "--pieces"),
    "dynamics of no images": (["dynamics", "{run}", "--images", "0"], 2, "--images"),
    "no such rates": (["dynamics", "{run}", "--rates", "all"], 2, "--rates"),
    # plans
    "quiet and verbose": (["-q", "-v", "presets"], 2, "give one of them"),
    "no such shell": (["completion", "tcsh"], 2, "tcsh"),
    "plan of nothing": (["plan", "digit"], 2, "presets are"),
    "plan without data": (["plan", "cifar10-mlp5", "--set", "data.path=/no/such/place"], 2, "/no/such/place"),
    "plan of too many images": (["plan", "digits", "--set", "data.n_train=5000"], 2, "data.n_train"),
    "no calibration": (["plan", "digits", "--calibration", "nowhere.json"], 2, "nowhere.json: cannot be read"),
    "not a calibration": (["plan", "digits", "--calibration", "{tmp}/text.npz"], 2, "--save-calibration FILE"),
    "both calibrations": (
        ["plan", "digits", "--calibration", "a", "--save-calibration", "b"],
        2,
        "leave out --calibration",
    ),
    "no finite preset": (["finite-width", "nothing"], 2, "presets of finite-width are"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files and folders that are not what they should be."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "broken.toml").write_text("[data]\nn_train = = 3\n")
    (folder / "noise.toml").write_bytes(bytes(range(128, 256)))
    (folder / "text.npz").write_text("hello")
    zarr.create_group(folder / "other.zarr")
    zarr.create_group(folder / "broken.zarr")
    (folder / "broken.zarr" / "zarr.json").write_text("{")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "config.toml").write_text("[data]\nn_train = ")
    with RunDirectory.at(folder / "torn").claimed(load_config("digits")):
        (folder / "torn" / "results.json").write_text('{"n_train": 1')
    with RunDirectory.at(folder / "busy").claimed(load_config("digits")):
        yield folder


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_request_is_one_line(
    arguments: list[str],
    code: int,
    words: str,
    places: Path,
    finished: Path,
    refused: Refused,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(places.rglob("*"))
    assert words in refused(code, *(a.format(tmp=places, run=finished) for a in arguments))
    assert not list(tmp_path.rglob("*.zarr"))
    assert sorted(places.rglob("*")) == before


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1' ([Errno 111] Connection refused)"),
        ("ray://127.0.0.1:1", "no Ray cluster answers at 'ray://127.0.0.1:1'"),
        ("no.such.host.invalid:6379", "no Ray cluster answers at 'no.such.host.invalid:6379'"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(
    address: str,
    words: str,
    asks_for_ray: None,
    tmp_path: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is asked of it has begun by then, so that the same command with another address goes on."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests of this process may have one
    settings = setting_words(("data.n_train=20", "data.n_val=5", "data.n_test=5"))
    err = refused(2, "-q", "gram", "build", "digits", "--out", tmp_path / "run", "--address", address, *settings)
    assert words in err
    assert "check --address, or leave it out to start Ray here" in err

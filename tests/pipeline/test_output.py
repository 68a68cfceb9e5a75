"""What goes where: one JSON object for machines, plain logs in a pipe, the libraries' own logs on request alone."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from advntk_dist import library_logs
from tests.pipeline.conftest import SMALL, Command, command_of
from tests.terminal import setting_words

# As the small run, so that little is compiled again.
TINY = setting_words(
    (*SMALL, "data.n_val=20", "data.n_test=20", "gram.tile=160", "train.steps=2", "evaluation.times=[1e-2]")
)
CHATTER = ("ray", "jax", "xla", "warning", "cuda", "pid=", "raylet", "dashboard")
"""Words of libraries' logs, none of which belongs to a line of our own."""


@pytest.fixture
def printed(advntk: Command) -> Callable[..., Any]:
    """The JSON object that a command prints, which must be all of its standard output, on one line."""

    def call(*arguments: object) -> Any:
        code, out, err = advntk(*arguments, "--json")
        assert code == 0, err
        assert out.count("\n") == 1
        return json.loads(out)

    return call


def test_json_of_commands_on_a_finished_run(copy: Path, tmp_path: Path, printed: Callable[..., Any]) -> None:
    run = str(copy)
    found = printed(*command_of(copy))
    assert found["worked"] is False
    assert set(found["methods"]) == {"ntk", "early_stopped", "adv_ntk"}
    assert Path(found["report"]).is_file()
    built = printed("gram", "build", *command_of(copy)[1:])
    assert built["done"] == built["total"] == 6
    assert printed("gram", "status", run)["done"] == 6
    checked = printed("gram", "verify", run)
    assert checked["checked"] == 6
    assert checked["values"]["largest_difference"] < 1e-3
    assert printed("gram", "verify", run, "--tiles", "0")["values"] is None
    assert Path(printed("report", run)["report"]).is_file()
    again = printed("evaluate", run, "--set", "steps=2")
    assert 0 <= again["methods"]["ntk"]["robust"] <= again["methods"]["ntk"]["clean"] <= 1
    assert Path(again["written"]).is_file()
    tier = printed("evaluate", run, "--tier", "fast", "--images", "10", "--method", "ntk")
    assert tier["images"] == 10
    flows = printed("dynamics", run, "--images", "10")
    assert set(flows["flows"]) == {"standard", "adversarial"}
    page = tmp_path / "both.html"
    other = str(shutil.copytree(run, tmp_path / "other"))
    assert printed("report", "--compare", run, other, "--out", str(page)) == {"comparison": str(page)}


def test_writing_a_report_and_a_comparison_is_said_unless_silence_is_asked_for(
    finished: Path, tmp_path: Path, advntk: Command
) -> None:
    runs = [str(shutil.copytree(finished, tmp_path / name)) for name in ("a", "b")]
    compared = ["report", "--compare", *runs, "--out", str(tmp_path / "both.html")]
    for words, last in ((["report", runs[0]], "writing the report"), (compared, "writing the comparison")):
        for quiet in ([], ["-q"]):
            lines = advntk(*quiet, *words)[2].splitlines()
            assert lines == [] if quiet else lines[-1] == last


def test_json_of_commands_without_a_run(printed: Callable[..., Any], tmp_path: Path) -> None:
    presets = printed("presets")
    assert "digits" in presets["run"]
    assert "digits" in presets["finite-width"]
    assert "paper/cifar10-mlp-5-r8" in presets["paper"]
    cells = printed("reproduce", "--dry-run", "--out", str(tmp_path / "grid"), "--network", "mlp-3", "--seeds", "1")
    assert cells["seconds"] == pytest.approx(sum(cells["cells"].values()) + sum(cells["grams"].values()))
    assert printed("data", "info", "digits")["n"] == 1797


@pytest.fixture
def quiet_again() -> Iterator[None]:
    """Put back what the switches change, for the tests that follow."""
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    root = list(logging.getLogger().handlers)
    with warnings.catch_warnings():
        yield
    library_logs.silence()
    logging.getLogger().handlers[:] = root
    for name in library_logs.LIBRARIES:
        logging.getLogger(name).setLevel(logging.NOTSET)
    if level is None:
        os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
    else:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = level


def test_libraries_are_silent_by_default_and_heard_on_request(
    quiet_again: None, monkeypatch: pytest.MonkeyPatch, advntk: Command
) -> None:
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)

    def heard() -> bool:
        with warnings.catch_warnings(record=True) as caught:
            # catch_warnings has its own filters
            (library_logs.show if library_logs.shown() else library_logs.silence)()
            warnings.warn_explicit("old", FutureWarning, "ray/data.py", 1, module="ray.data")
        return bool(caught) and logging.getLogger("jax._src.xla_bridge").isEnabledFor(logging.INFO)

    for flags, expected in (([], False), (["-v"], True), ([], False)):
        advntk(*flags, "presets")
        assert library_logs.shown() is expected
        assert heard() is expected
    assert logging.getLogger("advntk_dist").isEnabledFor(logging.WARNING)


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "advntk_dist", *arguments], capture_output=True, text=True, timeout=280, check=False
    )


def test_logs_in_a_pipe_are_plain_and_our_own(tmp_path: Path) -> None:
    done = process("run", "digits", "--out", str(tmp_path / "run"), *TINY)
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr):
        assert all(c.isprintable() or c == "\n" for c in text)
    lines = done.stderr.replace(str(tmp_path), "").splitlines()
    assert lines[0] == "mlp-2 (W_std 1.76, b_std 0.18, relu) on digits: 200 training images -> /run"
    for said in ("starting Ray", "compiles the kernel", "compiling the attack", "compiling the steps", "the report"):
        assert sum(said in line for line in lines) == 1, said
    assert not any("found done" in line for line in lines)
    assert any(line.startswith("Gram matrix: 3/3 tiles") for line in lines)
    assert any(line.startswith("Adv-NTK: 2/2 steps") for line in lines)
    for line in lines:
        assert line == "starting Ray" or not any(word in line.lower() for word in CHATTER), line
    assert done.stdout.splitlines()[-1].startswith("report: ")


@pytest.mark.slow
def test_verbose_shows_what_ray_says(tmp_path: Path) -> None:
    done = process("-v", "gram", "build", "digits", "--out", str(tmp_path / "run"), "--json", *TINY)
    assert done.returncode == 0, done.stderr
    assert "Started a local Ray instance" in done.stderr
    assert json.loads(done.stdout)["total"] == 3


@pytest.mark.parametrize("verbose", [False, True])
def test_a_plugin_for_gpus_that_does_not_start_is_one_line(tmp_path: Path, verbose: bool) -> None:
    """As JAX's CUDA plugin on a machine without a driver."""
    plugin = tmp_path / "jax_plugins" / "xla_absent"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text("def initialize():\n    raise RuntimeError('Unable to load cuDNN')\n")
    heard = "show" if verbose else "silence"
    code = f"from advntk_dist import library_logs; library_logs.{heard}(); import jax; print(jax.devices())"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert "cpu" in done.stdout.lower()
    assert ("Traceback" in done.stderr) == verbose
    if not verbose:
        assert done.stderr == "JAX's plugin for GPUs does not start (Unable to load cuDNN): no GPU is used here\n"

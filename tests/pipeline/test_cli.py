from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from advntk_dist.gram import GramStore, invalidate
from tests.pipeline.conftest import Command, command_of


@pytest.mark.parametrize("program", ["import advntk_dist", "from advntk_dist.cli import main; main(['--help'])"])
def test_import_and_help_load_nothing_heavy(program: str) -> None:
    """Of what is not Python's own, click alone."""
    others = "{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)"
    script = f"import sys\nbefore = {others}\ntry: {program}\nfinally: print(*({others} - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert {"advntk_dist"} <= set(done.stdout.splitlines()[-1].split()) <= {"advntk_dist", "click"}
    assert "--help" not in program or {"run", "presets", "gram", "evaluate", "report"} <= set(done.stdout.split())


def test_a_run_starts_without_what_only_its_end_needs() -> None:
    script = (
        "import sys, advntk_dist.pipeline.run\n"
        "from advntk_dist.data import load_dataset\n"
        "load_dataset('digits')\n"
        "print({'matplotlib', 'scipy.stats', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "set()\n", done.stderr


def test_presets_are_listed(advntk: Command) -> None:
    code, out, _ = advntk("presets")
    assert code == 0
    runs, _, finite = out.partition("advntk finite-width:")
    assert {line.split()[0] for line in runs.splitlines()} >= {"digits", "cifar10-mlp5", "cifar10-cnn3"}
    assert {line.split()[0] for line in finite.split("\n")[1:-1]} >= {"digits", "cifar10-small"}


def test_a_finished_run_says_so_and_shows_its_table(finished: Path, advntk: Command) -> None:
    code, out, _ = advntk(*command_of(finished))
    assert code == 0
    assert "nothing to do" in out
    for method in ("ntk", "early_stopped", "adv_ntk"):
        assert f"\n{method}" in out


def test_a_finished_run_is_told_without_jax_and_ray(finished: Path) -> None:
    program = (
        "import sys\n"
        "from advntk_dist.config import load_config\n"
        "from advntk_dist.pipeline.finished import finished_results\n"
        "from advntk_dist.pipeline.directory import RunDirectory\n"
        "folder = RunDirectory.at(sys.argv[1])\n"
        "assert finished_results(folder, folder.stored_config())\n"
        "print({'jax', 'ray', 'dask', 'matplotlib'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(finished)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "set()\n", done.stderr


def test_gram_commands_on_a_good_store(finished: Path, advntk: Command) -> None:
    code, out, _ = advntk("gram", "status", str(finished), "--json")
    assert code == 0
    status = json.loads(out)
    assert status["done"] == status["total"] == 6
    assert status["seconds_left"] == 0
    code, out, _ = advntk("gram", "status", str(finished))
    assert code == 0
    assert out.startswith("6 of 6 tiles")
    code, out, _ = advntk("gram", "info", str(finished / "gram.zarr"))
    assert code == 0
    assert json.loads(out)["network.name"] == "mlp-2"
    assert out.count("\n") > 1
    code, one_line, _ = advntk("gram", "info", str(finished), "--json")
    assert one_line.count("\n") == 1
    assert json.loads(one_line) == json.loads(out)
    code, out, _ = advntk("gram", "verify", str(finished))
    assert code == 0
    assert "6 tiles are sound" in out
    assert "4 tiles of ntk computed again in float64 (seed 0): largest relative difference" in out
    assert "above the rounding noise" in out
    for path, words in ((finished, ["--tiles", "0"]), (finished / "gram.zarr", [])):
        code, out, _ = advntk("gram", "verify", str(path), *words)
        assert code == 0
        assert "values not compared with float64" in out


def test_a_flipped_byte_is_found_and_only_its_tile_is_built_again(
    built: Path,
    advntk: Command,
    tmp_path: Path,
    ray_cluster: None,
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    chunks = {p: p.read_bytes() for p in (folder / "gram.zarr" / "ntk" / "c").rglob("*") if p.is_file()}
    assert len(chunks) == 6
    victim = sorted(chunks)[3]
    victim.write_bytes(chunks[victim][:100] + bytes([chunks[victim][100] ^ 4]) + chunks[victim][101:])
    code, _, err = advntk("gram", "verify", str(folder))
    assert code == 3
    assert err.count("\n") == 1
    code, out, err = advntk("gram", "verify", str(folder))  # its record is gone, and the run has used it
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "1 tiles are missing of a matrix that the run has solved with ((" in err
    assert f"--out {folder}` computes just these" in err
    code, out, _ = advntk("status", str(folder))
    assert code == 0
    assert "gram incomplete" in out
    assert "tiles   5 of 6" in out
    times = {p: p.stat().st_mtime_ns for p in chunks if p.exists()}  # the damaged bytes went with their record
    code, out, _ = advntk("--quiet", "gram", "build", *command_of(folder)[1:])
    assert code == 0
    assert "6 of 6 tiles" in out
    assert "gram done" in advntk("status", str(folder))[1]
    assert {p: p.read_bytes() for p in chunks} == chunks
    assert [p for p in chunks if p.stat().st_mtime_ns != times.get(p)] == [victim]


def test_a_matrix_that_is_not_complete_is_sound_as_far_as_it_goes(
    finished: Path, tmp_path: Path, advntk: Command
) -> None:
    folder = tmp_path / "begun"
    folder.mkdir()
    shutil.copy(finished / "config.toml", folder)
    shutil.copytree(finished / "gram.zarr", folder / "gram.zarr")
    invalidate(GramStore.open(folder / "gram.zarr"), [("ntk", 0, 1)])
    code, out, _ = advntk("gram", "verify", str(folder))
    assert code == 0
    assert "5 tiles are sound, 1 not built yet" in out
    assert "missing are (0, 1)" in out

"""`advntk report --compare` on finished runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from advntk_dist.pipeline.compare import compare_runs
from advntk_dist.pipeline.directory import RunDirectory, digest
from advntk_dist.pipeline.finished import read_outcomes
from advntk_dist.results import schema, sealed
from advntk_dist.storage import Records, guarded_group
from advntk_dist.storage.records import read_group
from tests.pipeline.conftest import Command, Refused, results_of

NO_PAIRS = "No differences by image"


def test_the_command_compares_finished_runs(
    finished: Path, tmp_path: Path, advntk: Command, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name / "run").mkdir(parents=True)
        for file in ("config.toml", "results.json"):
            shutil.copy(finished / file, tmp_path / name / "run" / file)
    code, out, _ = advntk("report", "--compare", "one/run", "two/run")
    assert code == 0
    assert "comparison.html" in out
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "one/run: Adv-NTK" in page
    assert "two/run: Adv-NTK" in page
    (tmp_path / "two" / "run" / "results.json").unlink()
    assert "not finished" in refused(2, "report", "--compare", "one/run", "two/run")


@pytest.fixture
def two(finished: Path, tmp_path: Path) -> list[Path]:
    """Two directories with all that a comparison reads of a finished run."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        for group in ("dynamics.zarr", "evaluation.zarr"):
            shutil.copytree(finished / group, folder / group)
        for file in ("config.toml", "results.json"):
            shutil.copy(finished / file, folder / file)
    return folders


def compare(folders: list[Path]) -> str:
    return Path(str(compare_runs(folders, folders[0].parent / "comparison.html"))).read_text(encoding="utf-8")


def relabel(run: Path, **changes: str) -> dict[str, Any]:
    """Commit what a run has solved and met again, as that of another identity; the identity before."""
    (outcomes,) = (run / "evaluation.zarr").iterdir()
    seals: dict[str, int] = {}
    for place in (run / "dynamics.zarr", outcomes):
        group, identity = read_group(place)
        tables = {name: zarr.open_array(place / name, mode="r") for name in group if name != "commits"}
        values = {name: np.asarray(array[:]) for name, array in tables.items()}
        spans = {name: array.chunks[0] for name, array in tables.items()}
        shutil.rmtree(place)
        group = guarded_group(place, identity | changes)
        for name, rows in values.items():
            time = name.partition("_t")[2].partition("_radii")[0]
            of = 0 if name == "examples" else seals.get(f"uniform {time}" if time else "adv_ntk 0", 0)
            table = Records(group, name, len(rows), rows.shape[1:], span=spans[name], of=of)
            for start in range(0, len(rows), spans[name]):
                table.write(start, rows[start : start + spans[name]])
                seals[f"{name} {start}"] = table.seal(start)
    results = results_of(run)
    del results["format"], results["checksum"]
    sealed.write(run / "results.json", schema.RunResults, results | changes)
    return identity


def test_outcomes_are_those_of_the_results(finished: Path) -> None:
    folder = RunDirectory.at(finished)
    config, results = folder.stored_config(), results_of(finished)
    outcomes = read_outcomes(folder, config)
    assert outcomes is not None
    assert config.evaluation.times[outcomes.chosen] == results["methods"]["early_stopped"]["t"]
    assert list(outcomes.methods) == list(results["methods"])
    for method, found in outcomes.methods.items():
        row = results["methods"][method]
        assert found.as_dict() == {key: row[key] for key in found.as_dict()}


def test_runs_on_the_same_images_are_compared_image_by_image(two: list[Path]) -> None:
    page = compare(two)
    assert "two: Adv-NTK − one: Adv-NTK" in page
    assert "two: NTK − one: NTK" in page
    assert "two: NTK − one: Adv-NTK" not in page
    assert NO_PAIRS not in page


def test_runs_that_met_other_images_are_not(two: list[Path]) -> None:
    config = (two[1] / "config.toml").read_text().partition("\n")[2]  # without its checksum: somebody's own
    (two[1] / "config.toml").write_text(config.replace("[data]\n", "[data]\nresize = 8\n"))
    relabel(two[1], configuration=digest(RunDirectory.at(two[1]).stored_config()))
    assert NO_PAIRS in compare(two)


def test_runs_on_other_data_have_no_winner(two: list[Path]) -> None:
    assert "the configurations are the same, and so are the data." in compare(two)
    data = relabel(two[1], data="f" * 64)["data"]
    page = compare(two)
    assert "<h1>No winner: the runs met different data</h1>" in page
    assert f"<code>data fingerprint</code></th><td>{data[:12]}</td><td>{'f' * 12}</td>" in page
    assert NO_PAIRS in page
    assert 'class="best"' not in page


def test_a_run_without_its_outcomes_is_compared_by_its_results(two: list[Path]) -> None:
    shutil.rmtree(next((two[1] / "evaluation.zarr").glob("*/test_adv_ntk")))
    assert NO_PAIRS in compare(two)
    shutil.rmtree(two[0] / "evaluation.zarr")
    assert NO_PAIRS in compare(two)


def test_damaged_outcomes_are_said_to_be_so(two: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    chunk = next(f for f in (two[1] / "evaluation.zarr").glob("*/test_adv_ntk/c/**/*") if f.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    assert NO_PAIRS in compare(two)
    assert any("test_adv_ntk: rows" in line for line in caplog.messages)

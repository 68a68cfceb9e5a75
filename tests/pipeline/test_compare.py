"""`advntk report --compare` on finished runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from advntk_dist.cli import main


def test_the_command_compares_finished_runs(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name / "run").mkdir(parents=True)
        for file in ("config.toml", "results.json"):
            shutil.copy(finished / file, tmp_path / name / "run" / file)
    with pytest.raises(SystemExit) as stopped:
        main(["report", "--compare", "one/run", "two/run"])
    assert not stopped.value.code
    assert "comparison.html" in capsys.readouterr().out
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "one/run: Adv-NTK" in page
    assert "two/run: Adv-NTK" in page
    (tmp_path / "two" / "run" / "results.json").unlink()
    with pytest.raises(SystemExit) as stopped:
        main(["report", "--compare", "one/run", "two/run"])
    assert stopped.value.code == 2
    assert "not finished" in capsys.readouterr().err

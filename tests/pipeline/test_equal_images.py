"""A run of data with equal images says so before it builds the Gram matrix, and in its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from advntk_dist.errors import GramBuildError
from advntk_dist.pipeline import stages
from advntk_dist.pipeline.context import Problem
from tests.pipeline.conftest import Command, results_of, small
from tests.terminal import setting_words

SETTINGS = ("data.n_train=200", "data.n_val=20", "data.n_test=30", "network.name=mlp-2")


def saved(path: Path, contradiction: bool = False) -> Path:
    """125 digits twice; or 250 once, of which the first is there again as another digit."""
    images, labels = load_digits(return_X_y=True)
    x, y = (images.reshape(-1, 8, 8, 1) * 15.9375).astype(np.uint8), labels.astype(np.int64)
    if contradiction:
        x, y = np.concatenate([x[:249], x[:1]]), np.concatenate([y[:249], (y[:1] + 1) % 10])
    else:
        x, y = np.concatenate([x[:125]] * 2), np.concatenate([y[:125]] * 2)
    np.savez(path, x=x, y=y)
    return path


def begun(path: Path, advntk: Command, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a run says before it builds its matrix."""

    def stop(*_: Any, **__: Any) -> Any:
        raise GramBuildError("here the matrix would be built")

    monkeypatch.setattr(stages, "build_gram", stop)
    words = setting_words((f"data.name={path}", *SETTINGS))
    code, _, err = advntk("run", "digits", "--out", str(path.parent / "run"), *words)
    assert code == 1
    assert "here the matrix would be built" in err
    return err.partition("here the matrix would be built")[0]


def test_images_of_both_sets_are_named_before_the_matrix_is_built(
    tmp_path: Path, advntk: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = begun(saved(tmp_path / "dup.npz"), advntk, monkeypatch)
    line = next(line for line in said.splitlines() if line.startswith("equal images: "))
    assert " of 30 test images are also training images" in line
    assert " = test " in line
    assert 'data.duplicates = "drop" keeps the first of each' in line


def test_images_that_contradict_each_other_are_named_before_the_matrix_is_built(
    tmp_path: Path, advntk: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = begun(saved(tmp_path / "pair.npz", contradiction=True), advntk, monkeypatch)
    assert "2 images equal one of another class" in said
    assert "classes '0' and '1'" in said
    assert "(rows 0 and 249" in said or "(rows 249 and 0" in said


def test_results_have_what_was_counted(finished: Path) -> None:
    stored = results_of(finished)["duplicates"]
    assert stored["images"] == {"train": 200, "val": 40, "test": 60}
    assert stored == Problem(small()).duplicates.as_dict() | {"pairs": []}

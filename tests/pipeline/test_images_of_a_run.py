"""The images of a run: found from any folder, and missed or found changed in words."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advntk_dist.config import load_config
from advntk_dist.errors import DatasetError, ImagesChangedError
from advntk_dist.pipeline.directory import RunDirectory, load_images
from tests.filled import fill_gram
from tests.pipeline.conftest import SMALL, Command
from tests.terminal import setting_words

SETTINGS = (*SMALL, "data.name=photos", "data.n_val=20", "data.n_test=30")
CHANGED = "the images of 'photos' changed since this run; put back those that it was made from"


def photos(folder: Path, seed: int = 0) -> None:
    """Ten classes of 25 images of 8 x 8."""
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 25, 8, 8), dtype=np.uint8)
    for label, name in enumerate(("cat", "dog", *"abcdefgh")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(pixels[label]):
            Image.fromarray(image).save(folder / name / f"{i}.png")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with photos/ in it."""
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    return tmp_path


def test_a_run_finds_its_images_from_any_folder_and_says_when_they_changed(
    place: Path, advntk: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_gram(load_config("digits", SETTINGS), place / "run")
    command = ["run", "digits", "--out", str(place / "run"), *setting_words(SETTINGS)]
    code, _, err = advntk(*command)
    assert code == 0, err
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    assert advntk("report", str(place / "run"))[0] == 0
    monkeypatch.chdir(place)
    assert "nothing to do" in advntk(*command)[1]

    (place / "photos").rename(place / "moved")
    code, _, err = advntk(*command)
    assert (code, err.count("\n")) == (2, 1)
    assert "unknown dataset 'photos'" in err
    assert "where its images lie elsewhere now, data.path says where" in err
    os.symlink(place / "moved", place / "elsewhere" / "photos")
    assert advntk(*command, "--set", "data.path=elsewhere/photos")[0] == 0
    assert advntk("report", str(place / "run"))[0] == 0  # it is stored where they lie now

    photos(place / "photos", seed=1)
    (place / "elsewhere" / "photos").unlink()
    photos(place / "elsewhere" / "photos", seed=1)
    for words in (
        command,
        ["report", str(place / "run")],
        ["evaluate", str(place / "run"), "--set", "steps=2"],
        ["dynamics", str(place / "run")],
        ["gram", "verify", str(place / "run")],
        ["gram", "build", *command[1:]],
    ):
        code, out, err = advntk(*words)
        assert (code, out, err.count("\n")) == (3, "", 1), err
        assert CHANGED in err


def test_names_that_tell_runs_apart_stay_as_they_were_given(place: Path) -> None:
    config = load_config("digits", SETTINGS)
    with RunDirectory.at(place / "run").claimed(config):
        stored = RunDirectory.at(place / "run").stored_config()
    assert (stored.data.name, stored.data.path) == ("photos", str(place / "photos"))
    for name, path in (("digits", None), (str(place / "photos"), None)):
        folder = RunDirectory.at(place / f"run-{os.path.basename(name)}")
        with folder.claimed(load_config("digits", [f"data.name={name}"])):
            assert (folder.stored_config().data.name, folder.stored_config().data.path) == (name, path)


def test_a_path_that_the_name_does_not_lead_to_is_refused(place: Path) -> None:
    config = load_config("digits", [*SETTINGS, f"data.path={place / 'others'}"])
    with pytest.raises(DatasetError, match=r"is itself a path: leave out data\.path"):
        load_images(config)


def test_the_error_keeps_both_fingerprints() -> None:
    error = ImagesChangedError("run", "photos", "old", "new")
    assert (error.stored, error.requested, error.exit_code) == ("old", "new", 3)
    assert str(error).startswith(f"run: {CHANGED}")


def test_where_images_lie_is_noted_anew_once_they_have_moved(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = load_config("digits", SETTINGS), RunDirectory.at(place / "run")

    def noted() -> str | None:
        with folder.claimed(config):
            return folder.stored_config().data.path

    assert noted() == str(place / "photos")
    (place / "new").mkdir()
    monkeypatch.chdir(place / "new")
    photos(place / "new" / "photos")
    assert noted() == str(place / "photos")  # still there
    (place / "photos").rename(place / "gone")
    assert noted() == str(place / "new" / "photos")
    monkeypatch.chdir(place)
    assert noted() == str(place / "new" / "photos")
    folder.write_text(folder.config, load_config("digits", SETTINGS).to_toml())  # as runs were stored before
    monkeypatch.chdir(place / "new")
    assert noted() == str(place / "new" / "photos")

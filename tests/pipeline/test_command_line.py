"""The command line as a whole: flags before and after a command, help, and presets with all their keys."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import numpy as np
import pytest

from advntk_dist import cli, library_logs
from advntk_dist.config import load_config, parse_as, parse_config, preset_names, read_config
from advntk_dist.config.finite_width import FiniteWidthConfig
from advntk_dist.config.read import explained
from tests.pipeline.conftest import Command


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group below one, by the words that lead to it."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


@pytest.mark.parametrize("words", [["--json", "data", "info"], ["data", "--json", "info"], ["data", "info", "--json"]])
def test_json_before_and_after_a_command(words: list[str], advntk: Command) -> None:
    code, out, _ = advntk(*words, "digits")
    assert (code, out.count("\n"), json.loads(out)["n"]) == (0, 1, 1797)


@pytest.mark.parametrize("words", [["-v", "presets"], ["presets", "-v"], ["data", "-v", "info", "digits"]])
def test_verbose_before_and_after_a_command(words: list[str], advntk: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(library_logs, "show", lambda: heard.append("all"))
    assert advntk(*words)[0] == 0
    assert heard == ["all"]


@pytest.mark.parametrize("words", [["-q", "presets", "-v"], ["presets", "-q", "-v"], ["-q", "-v", "presets"]])
def test_quiet_and_verbose_contradict_each_other_wherever_they_stand(
    words: list[str], advntk: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_logs, "show", lambda: None)
    code, out, err = advntk(*words)
    assert (code, out) == (2, "")
    assert "give one of them" in err


def test_every_command_has_the_flags() -> None:
    for path, command in commands(cli.advntk):
        known = {name for parameter in command.params for name in parameter.opts}
        assert {"--quiet", "--verbose"} <= known, path
        assert "--json" in known or path == ("completion",)


def test_summaries_in_help_are_whole(advntk: Command) -> None:
    for path in ((), ("gram",), ("data",)):
        _, out, _ = advntk(*path, "--help")
        listed = out.partition("Commands:")[2].splitlines()
        assert len(listed) > 2
        assert not any(line.endswith("...") for line in listed), path


def test_examples_in_help_are_never_wrapped(advntk: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for path, command in [((), cli.advntk), *commands(cli.advntk)]:
        assert command.help is not None
        examples = command.help.partition("\b\nExample")[2].splitlines()[1:]
        assert examples, path
        assert all(example.startswith("  advntk ") for example in examples)
        _, out, _ = advntk(*path, "--help")
        assert all(example.strip() in out for example in examples), path


@pytest.mark.parametrize("name", [*preset_names(), "paper/cifar10-mlp-5-r8"])
def test_a_preset_is_printed_with_every_key_and_its_meaning(name: str, advntk: Command) -> None:
    code, out, _ = advntk("presets", name)
    assert code == 0
    config = load_config(name)
    assert parse_config(out, where="printed") == config
    lines = out.splitlines()
    for section, values in config:
        for key, field in type(values).model_fields.items():
            assert field.description, f"{section}.{key} has no word on what it is"
            place = next(i for i, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{key} "))
            assert lines[place - 1].startswith("# ")
    assert json.loads(advntk("presets", name, "--json")[1]) == config.model_dump(mode="json")


@pytest.mark.parametrize("name", preset_names(FiniteWidthConfig))
def test_presets_of_finite_width_are_printed_too(name: str, advntk: Command) -> None:
    code, out, _ = advntk("presets", f"finite-width/{name}")
    assert code == 0
    assert parse_as(FiniteWidthConfig, out, where="printed") == read_config(FiniteWidthConfig, name)
    assert "# \n" not in out


def test_lists_and_absent_values_are_explained() -> None:
    config = load_config("digits", ['data.class_subset=["3", 5]', "evaluation.times=[0.5]", "evaluation.curve=9"])
    text = explained(config)
    assert 'class_subset = ["3", 5]' in text
    assert "times = [0.5]" in text
    assert "# workers is not given" in text
    assert "\nrestarts = 1\n" in text
    assert parse_config(text, where="printed") == config


def test_info_of_some_classes(advntk: Command) -> None:
    _, out, _ = advntk("data", "info", "digits", "--class-subset", "3, 5", "--json")
    found = json.loads(out)
    assert [row["name"] for row in found["classes"]] == ["3", "5"]
    code, _, err = advntk("data", "info", "digits", "--class-subset", "3,11")
    assert code == 2
    assert "no class 11" in err
    assert "data.class_subset" in advntk("data", "info", "--help")[1]


def test_a_class_by_number_may_be_a_text(tmp_path: object, advntk: Command) -> None:
    np.savez(f"{tmp_path}/a.npz", x=np.zeros((6, 3, 3, 1), np.uint8), y=np.arange(6) % 3, classes=["cat", "dog", "7"])
    _, out, _ = advntk("data", "info", f"{tmp_path}/a.npz", "--class-subset", "7,0", "--json")
    assert [row["name"] for row in json.loads(out)["classes"]] == ["cat", "7"]

"""What the README promises: its Python runs, its commands exist, every command's help has an example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from advntk_dist.cli import advntk

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def _commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = dict(_commands(advntk))


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_python_of_the_readme_runs(
    snippet: str, ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})
    assert 0.0 <= float(capsys.readouterr().out.split()[-1]) <= 1.0


def test_the_readme_has_python_to_run() -> None:
    assert SNIPPETS


def test_commands_and_options_of_the_readme_exist() -> None:
    lines = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    uses = [line[line.index("advntk ") :] for line in lines if "advntk " in line]
    uses += [use for use in re.findall(r"`([^`\n]*)`", README) if use.startswith("advntk ")]
    assert len(uses) > 10
    for use in uses:
        words = use.replace("\\|", "|").split()[1:]
        group = words[0] in advntk.commands and isinstance(advntk.commands[words[0]], click.Group)
        for name in words[1].split("|") if group else [None]:
            path = (words[0], name) if name else (words[0],)
            assert path in COMMANDS, use
            known = {option for parameter in COMMANDS[path].params for option in parameter.opts}
            for option in re.findall(r"(?<![\w-])--[a-z-]+", use):
                assert option in known, (use, option)


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_help_has_an_example(words: tuple[str, ...]) -> None:
    assert re.search(r"Examples?:", COMMANDS[words].help or ""), f"advntk {' '.join(words)} --help has no example"

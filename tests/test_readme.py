"""What the READMEs promise: Python runs, commands exist and parse as written, every command's help has an example."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from pkgutil import resolve_name

import click
import pytest
from pydantic import BaseModel

import advntk_dist
from advntk_dist.cli import advntk
from advntk_dist.cli.reference import FILE, FILES, every_command, fields, reference
from advntk_dist.config import load_config
from advntk_dist.config.finite_width import FiniteWidthConfig

ROOT = Path(__file__).resolve().parents[1]
READMES = {
    name: (ROOT / name).read_text("utf-8")
    for name in ("README.md", "cluster/README.md", "deploy/README.md", "tests/benchmarks/README.md")
}
README = READMES["README.md"]
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


COMMANDS = {tuple(words.split()): command for words, command in every_command()}


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_python_of_the_readme_runs(
    snippet: str, ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})
    assert 0.0 <= float(capsys.readouterr().out.split()[-1]) <= 1.0


def test_the_readme_has_python_to_run() -> None:
    assert SNIPPETS


def _written(text: str) -> list[str]:
    """The advntk commands in the shell blocks of a README, each with what follows it on its lines, comments off.

    Alone on a line, after another command, after the ``--`` or the image that it runs in, or as words for Slurm.
    """
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [re.split(r"\s#", line)[0] for line in blocks.splitlines()]
    start = re.compile(r"(?:^|; |&& |-- |\badvntk-dist\S* |uv run (?:--\S+ )*)advntk (.*)|slurm\.sbatch (.*)")
    return [(found[1] or found[2]).rstrip(" &") for line in lines if (found := start.search(line))]


WRITTEN = [(name, use) for name, text in READMES.items() for use in dict.fromkeys(_written(text))]


def test_commands_are_found_where_there_are_some() -> None:
    counts = [sum(name == readme for name, _ in WRITTEN) for readme in READMES]
    assert all(count >= least for count, least in zip(counts, (6, 6, 2, 0), strict=True)), counts
    assert sum(use.startswith("plan ") for _, use in WRITTEN) >= 2
    block = "```sh\nsbatch -N 2 slurm.sbatch run x --out /a  # y\nkubectl get secret advntk -o x\n```"
    assert _written(block) == ["run x --out /a"]


@pytest.mark.parametrize(("name", "use"), WRITTEN)
def test_commands_parse_as_written(name: str, use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the files that one command writes and the next one reads."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "node.json").write_text("{}")
    words = shlex.split(use)
    path = tuple(words[: 2 if isinstance(advntk.commands.get(words[0]), click.Group) else 1])
    assert path in COMMANDS, use
    parsed = COMMANDS[path].make_context(path[-1], words[len(path) :]).params
    if "overrides" in parsed and "source" in parsed:
        load_config(parsed["source"], parsed["overrides"])


@pytest.mark.parametrize("name", READMES)
def test_commands_and_options_in_the_text_exist(name: str) -> None:
    uses = [use for use in re.findall(r"`([^`\n]*)`", READMES[name]) if use.startswith("advntk ")]
    assert uses or name != "README.md"
    for use in uses:
        words = use.replace("\\|", "|").split()[1:]
        group = words[0] in advntk.commands and isinstance(advntk.commands[words[0]], click.Group)
        for command in words[1].split("|") if group else [None]:
            path = (words[0], command) if command else (words[0],)
            assert path in COMMANDS, use
            known = {option for parameter in COMMANDS[path].params for option in parameter.opts}
            for option in re.findall(r"(?<![\w-])--[a-z-]+", use):
                assert option in known, (use, option)


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_help_has_an_example(words: tuple[str, ...]) -> None:
    assert re.search(r"Examples?:", COMMANDS[words].help or ""), f"advntk {' '.join(words)} --help has no example"


def test_the_reference_is_what_the_code_gives() -> None:
    assert FILE.read_text("utf-8") == reference(), "run `python -m advntk_dist.cli.reference --write`"


@pytest.mark.parametrize("kind", [*FILES, *(field.annotation for field in FiniteWidthConfig.model_fields.values())])
def test_every_key_of_a_file_and_of_a_configuration_is_described(kind: type[BaseModel]) -> None:
    assert not [name for name, field in fields(kind).items() if not field.get("description", "").strip().endswith(".")]


def test_the_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    assert not [line for line in lines if len(line) > 140]


@pytest.mark.parametrize("name", [*READMES, "advntk_dist/cli/README.md"])
def test_links_lead_to_files_and_headings(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text("utf-8")):
        path, _, heading = target.partition("#")
        if "://" in target:
            continue
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        titles = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE) if heading else []
        assert not heading or heading in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]


def test_names_of_the_glossary_exist() -> None:
    names = re.findall(r"``([\w.]+)``", advntk_dist.__doc__ or "")
    assert len(names) > 15
    for name in names:
        resolve_name(f"advntk_dist.{name}")

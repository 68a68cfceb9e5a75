"""The reference of the command line, made from what it describes: click's commands, pydantic's models, errors, files.

    python -m advntk_dist.cli.reference            # prints it
    python -m advntk_dist.cli.reference --write    # writes it beside this file, as README.md

The tests hold README.md against what this makes.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from advntk_dist import errors
from advntk_dist.cli import advntk
from advntk_dist.config import RunConfig
from advntk_dist.config.finite_width import FiniteWidthConfig
from advntk_dist.pipeline.directory import RunDirectory
from advntk_dist.results import schema, sealed

FILE = Path(__file__).with_name("README.md")

INTRODUCTION = """# Commands, configuration, files

Made by `python -m advntk_dist.cli.reference --write`; change the code that it describes, not this page.

[Commands](#commands) · [exit codes](#exit-codes) · [configuration](#configuration) · [run directory](#run-directory)
· [JSON files](#json-files)"""

FILES = (
    schema.RunResults, schema.AttackedAgain, schema.TierResults, schema.CheckResults, schema.DynamicsResults,
    schema.FiniteWidthResults, schema.CellResults, schema.TableResults,
)  # fmt: skip
"""Models of whole files; those of their parts are found in them."""

_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def reference() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION, *_commands(), *_exit_codes(), *_configuration(), *_run_directory(), *_json_files()]
    return "\n\n".join(parts) + "\n"


def _sentence(text: str | None) -> str:
    """A docstring or description on one line, in Markdown."""
    return " ".join((text or "").split()).replace("``", "`").replace("|", "\\|")


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ("---",) * len(titles), *rows))


def every_command(group: click.Group = advntk, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its words after ``advntk``."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from every_command(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


def _commands() -> Iterator[str]:
    yield "## Commands"
    root = click.Context(advntk, info_name="advntk", **advntk.context_settings)
    common = {name for parameter in advntk.get_params(root) for name in parameter.opts}
    yield f"{_summary(advntk)} Before or after every command:"
    yield _options(advntk, root, set())
    for words, command in every_command():
        context = click.Context(command, parent=root, info_name=words)
        usage = " ".join(command.collect_usage_pieces(context)).removeprefix("[OPTIONS]").strip()
        yield f"### advntk {words}"
        yield f"`advntk {words}{f' {usage}' if usage else ''}`"
        yield _summary(command)
        if options := _options(command, context, common):
            yield options
        yield f"```sh\n{_examples(command)}\n```"


def _summary(command: click.Command) -> str:
    """What a command's help says before its examples, one line a paragraph."""
    return "\n\n".join(map(_sentence, (command.help or "").partition("\b")[0].strip().split("\n\n")))


def _examples(command: click.Command) -> str:
    return inspect.cleandoc("\n".join((command.help or "").partition("\b\n")[2].splitlines()[1:]))


def _options(command: click.Command, context: click.Context, without: set[str]) -> str:
    """A list of a command's options, but for those of its own that are common to all commands."""
    lines = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and not without & set(parameter.opts):
            lines.append(f"* `{record[0]}`: {' '.join(record[1].split())}")
    return "\n".join(lines)


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes"
    found = inspect.getmembers(errors, lambda kind: inspect.isclass(kind) and issubclass(kind, errors.AdvNTKError))
    kinds = sorted((kind.exit_code, name, _sentence(kind.__doc__)) for name, kind in found)
    meanings = {0: "Done.", 1: "Anything else.", 2: "The request is wrong.", 3: "Stored data are damaged or foreign."}
    yield "An error is one line on standard error, which says what is wrong and what to do."
    rows = []
    for code, meaning in meanings.items():
        names = "<br>".join(f"`{name}`: {text}" for of, name, text in kinds if of == code)
        rows.append((str(code), meaning, names))
    yield _table(("code", "meaning", "errors of the package"), rows)


def _configuration() -> Iterator[str]:
    yield "## Configuration"
    yield (
        "A configuration is a TOML file with these sections; every key may be left out, and `--set section.key=value` "
        "gives it on the command line. `advntk presets digits` prints a complete one. Distances between images are "
        'parts of the pixel range, 0 to 1, and may be written as fractions (`"8/255"`).'
    )
    for kind, of in ((RunConfig, ""), (FiniteWidthConfig, " of finite-width alone")):
        for name, field in kind.model_fields.items():
            section = field.annotation
            if kind is RunConfig or name not in RunConfig.model_fields:
                assert isinstance(section, type)
                assert issubclass(section, BaseModel)
                yield f"### [{name}]{of}"
                yield _sentence(section.__doc__)
                yield _fields(section, default=True)


def _run_directory() -> Iterator[str]:
    yield "## Run directory"
    folder = RunDirectory(Path("RUN"))
    found = inspect.getmembers(RunDirectory, lambda value: isinstance(value, property))
    places = [(getattr(folder, name), _sentence(member.__doc__)) for name, member in found]
    rows = sorted((f"`{place.name}`", text) for place, text in places if isinstance(place, Path))
    yield "A local folder, or an `s3://` or `gs://` URL. Every command that goes on from a run reads these:"
    yield _table(("file", "what it holds"), rows)


def _json_files() -> Iterator[str]:
    yield "## JSON files"
    yield (
        f"Every file holds `format` (now {sealed.FORMAT}), the number of its format, and `checksum`, the crc32c of "
        "all else. Accuracies are fractions from 0 to 1, times are seconds, sizes are bytes."
    )
    parts = (name for file in FILES for name in (file.__name__, *file.model_json_schema().get("$defs", {})))
    for kind in (getattr(schema, name) for name in dict.fromkeys(parts)):
        yield f"### {kind.__name__}"
        yield _sentence(kind.__doc__)
        yield _fields(kind, default=False)


def fields(kind: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """The JSON schema of each field of a model; its ``description`` is what a reader is told of it."""
    return dict(kind.model_json_schema()["properties"])


def _fields(kind: type[BaseModel], *, default: bool) -> str:
    rows = []
    for name, field in fields(kind).items():
        value = field.get("default")
        shown = (f"`{json.dumps(value)}`" if value is not None else "",) if default else ()
        rows.append((f"`{name}`", _type(field), *shown, _sentence(field.get("description"))))
    return _table(("key", "type", *(("default",) if default else ()), "meaning"), rows)


def _type(field: dict[str, Any]) -> str:
    """What values a field takes, from its JSON schema."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    bounds = " and ".join(f"{sign} {field[key]}" for key, sign in _BOUNDS.items() if key in field)
    words = f"{field.get('type', 'any value')} {bounds}".strip()
    if "prefixItems" in field:
        return f"list of {len(field['prefixItems'])} ({_type(field['prefixItems'][0])})"
    inner = field.get("items", field.get("additionalProperties"))
    within = f" of ({_type(inner)})" if isinstance(inner, dict) and inner.get("type") != "object" and inner else ""
    return words.replace("array", "list") + within


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        FILE.write_text(reference(), encoding="utf-8")
    else:
        sys.stdout.write(reference())

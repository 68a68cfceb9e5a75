"""-q, -v and --json, which are understood before and after a subcommand alike; and help that examples survive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from advntk_dist import chatter

_QUIET, _VERBOSE, _JSON = "advntk.quiet", "advntk.verbose", "advntk.json"
F = TypeVar("F", bound=Callable[..., Any])


def loudness(command: F) -> F:
    """The flags --quiet and --verbose, which every command has and no function sees."""
    for names, key, text in (
        (("-v", "--verbose"), _VERBOSE, "Also show the logs and warnings of Ray, JAX and other libraries."),
        (("-q", "--quiet"), _QUIET, "Print results and errors only."),
    ):
        option = click.option(*names, is_flag=True, expose_value=False, callback=_noted(key), help=text)
        command = option(command)
    return command


def json_option(command: F) -> F:
    """The flag --json, as ``as_json``, with --quiet and --verbose."""
    text = "Print one JSON object; progress goes elsewhere."
    return click.option("--json", "as_json", is_flag=True, callback=_noted(_JSON), help=text)(loudness(command))


def json_before(group: F) -> F:
    """The flags of a group, which hold for its commands."""
    text = "Print one JSON object, of commands that print results."
    return click.option("--json", is_flag=True, expose_value=False, callback=_noted(_JSON), help=text)(loudness(group))


def is_quiet() -> bool:
    """Whether --quiet was given to the command that runs, or to a group of it."""
    return bool(click.get_current_context().meta.get(_QUIET))


def is_verbose() -> bool:
    """Whether --verbose was given to the command that runs, or to a group of it."""
    return bool(click.get_current_context().meta.get(_VERBOSE))


def _noted(key: str) -> Callable[[click.Context, click.Parameter, bool], bool]:
    def note(context: click.Context, parameter: click.Parameter, value: bool) -> bool:  # noqa: ARG001
        meta = context.meta  # one for a command and its groups
        if value:
            meta[key] = True
            if meta.get(_QUIET) and meta.get(_VERBOSE):
                raise click.UsageError("-q and -v contradict each other; give one of them")
            if key == _VERBOSE:
                chatter.show()
        return bool(meta.get(key))

    return note


def lay_out_examples(command: click.Command) -> None:
    """Put the examples in a command's help, and a group's commands', on lines of their own that are never wrapped."""
    words, examples = [], []
    for paragraph in (command.help or "").split("\n\n"):
        line = " ".join(paragraph.split())
        start, _, rest = line.partition(": ")
        if start in ("Example", "Examples"):
            examples.append(rest)
        elif examples and line.startswith("advntk "):
            examples.append(line)
        else:
            words.append(paragraph)
    if examples:
        title = "Examples:" if len(examples) > 1 else "Example:"
        words.append("\n".join(("\b", title, *(f"  {example}" for example in examples))))
        command.help = "\n\n".join(words)
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        lay_out_examples(inner)

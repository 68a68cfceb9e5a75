"""Completion of commands, options, presets and datasets in bash, zsh and fish."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from advntk_dist.cli.talk import loudness

VARIABLE = "_ADVNTK_COMPLETE"
"""The environment variable by which a shell asks for completions."""


class Source(click.ParamType):
    """A preset or a file; completes presets and leaves files to the shell.

    Parameters
    ----------
    of
        Whose presets: "run", or "finite-width".
    """

    name = "source"

    def __init__(self, of: str = "run") -> None:
        self.of = of

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        """The word itself: what it names is for the loader to say."""
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Presets that begin like the word; where there is none, files."""
        if self.of == "run":
            from advntk_dist.config import paper, preset_names

            # The experiments of the paper are many: they come once the word goes into their folder.
            every = [*preset_names(), *(paper.names() if incomplete.startswith(paper.PREFIX) else [paper.PREFIX])]
        else:
            from advntk_dist.config.finite_width import preset_names as finite_names

            every = finite_names()
        found = [CompletionItem(name) for name in every if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]


class Published(click.ParamType):
    """The name of a dataset that can be fetched."""

    name = "dataset"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        """The word itself: whether there is such a dataset is for the downloader to say."""
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Names that begin like the word."""
        from advntk_dist.data.sources import SOURCES

        return [CompletionItem(name) for name in SOURCES if name.startswith(incomplete)]


@click.command(short_help="Print the script that completes with the Tab key.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@loudness
def completion(shell: str) -> None:
    """Print the script that completes commands, options and presets with the Tab key.

    For bash put `source <(advntk completion bash)` into ~/.bashrc, for zsh `source <(advntk completion zsh)` into
    ~/.zshrc, for fish `advntk completion fish | source` into ~/.config/fish/config.fish.

    Example: advntk completion bash
    """
    made = get_completion_class(shell)
    assert made is not None  # the choice names those that click has
    click.echo(made(click.get_current_context().find_root().command, {}, "advntk", VARIABLE).source())

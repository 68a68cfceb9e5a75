"""What several commands share: options and their completion, the display, what goes where, the table of results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click
from click.shell_completion import CompletionItem, get_completion_class

from advntk_dist import library_logs
from advntk_dist.storage.paths import location

if TYPE_CHECKING:
    from advntk_dist.progress import Display
    from advntk_dist.results.schema import Attacked, MethodRow, PairRow


class PlaceParameter(click.Path):
    """A local path, or the URL of an object store."""

    def __init__(self, *, dir_okay: bool = True) -> None:
        super().__init__(path_type=Path, dir_okay=dir_okay)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """The place as a Path or an ObjectPath."""
        found = location(value) if isinstance(value, str) else value
        return super().convert(value, parameter, context) if isinstance(found, Path) else found


class Word(click.ParamType):
    """A word that the Tab key completes; what it names is for the command to say.

    Parameters
    ----------
    name
        What the word is.
    known
        The words to choose from, given how the word begins.
    or_file
        Whether it may also be a file, which the shell completes where no word begins so.
    """

    def __init__(self, name: str, known: Callable[[str], Iterable[str]], *, or_file: bool = False) -> None:
        self.name, self._known, self._or_file = name, known, or_file

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Words that begin like this one; where there is none, files if it may be one."""
        found = [CompletionItem(word) for word in self._known(incomplete) if word.startswith(incomplete)]
        return found or ([CompletionItem(incomplete, type="file")] if self._or_file else [])


def _presets(begun: str) -> list[str]:
    """Presets of `run`; the experiments of the paper are many: they come once the word goes into their folder."""
    from advntk_dist.config import paper, preset_names

    return [*preset_names(), *(paper.names() if begun.startswith(paper.PREFIX) else [paper.PREFIX])]


def _finite_width_presets(_: str) -> Iterable[str]:
    from advntk_dist.config import preset_names
    from advntk_dist.config.finite_width import FiniteWidthConfig

    return preset_names(FiniteWidthConfig)


def _published(_: str) -> Iterable[str]:
    from advntk_dist.data.sources import SOURCES

    return SOURCES


SOURCE = Word("source", _presets, or_file=True)
FINITE_WIDTH_SOURCE = Word("source", _finite_width_presets, or_file=True)
PUBLISHED = Word("dataset", _published)


F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")


SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override one configuration key; `advntk presets digits` shows them all.",
)
WORKERS = click.option("--workers", type=click.IntRange(min=1), help="Ray actors that share the batches.")
ADDRESS = click.option("--address", help="Ray cluster to use, e.g. ray://head:10001. [default: this machine]")


def configured(default_out: bool, source: click.ParamType | None = None) -> Callable[[F], F]:
    """The arguments of a command that takes a configuration: PRESET|FILE.toml, --out, --set and --address."""

    def decorate(command: F) -> F:
        out_help = "Run directory, a path or an s3:// or gs:// URL." + (" [default: runs/NAME]" if default_out else "")
        command = click.option("--out", required=not default_out, help=out_help)(SET(ADDRESS(command)))
        return click.argument("source", metavar="PRESET|FILE.toml", type=source or SOURCE)(command)

    return decorate


@dataclass(frozen=True)
class Answer:
    """What a command has found.

    Attributes
    ----------
    found
        The object that --json prints, on one line of standard output.
    lines
        The same for reading; what makes them is not run for --json.
    code
        Exit code.
    """

    found: Any
    lines: Iterable[str]
    code: int = 0

    def show(self) -> int:
        """Print it as --json has it; returns the exit code."""
        for line in [json.dumps(self.found, default=str)] if is_json() else self.lines:
            click.echo(line)
        return self.code


def display() -> Display:
    """Where the command shows its progress; --quiet silences it."""
    from advntk_dist.progress import Display

    return Display(quiet=is_quiet())


def results_lines(results: Attacked, run: object = "RUN") -> Iterator[str]:
    """The table of the methods of a run, under the worst of all attacks that they have met."""
    from advntk_dist.report.attacks import alone_words, attack_words, attacks_words, under_attack
    from advntk_dist.report.sentences import ALONE, image_warnings, tier_words
    from advntk_dist.results.schema import RunResults

    met = results.met
    yield (
        f"{results.dataset}, {results.network}, {results.n_train} training images; under {under_attack(met, {})}, "
        f"largest perturbation {max(row.max_perturbation for row in met.methods.values()):.4g}"
    )
    if len(met.attacks) > 1:
        yield from (f"  {words}" for words in attacks_words(met.attacks, {}))
    yield from methods_lines(met.methods, met.paired)
    yield from alone_words(met, {})
    if not isinstance(results, RunResults):
        return
    if len(met.attacks) > 1:
        yield f"under the run's own attack alone, {attack_words(results.attack, {})}:"
        yield from methods_lines(results.methods, results.paired)
    else:
        yield f"{ALONE} {tier_words(results, str(run))}"
    yield from image_warnings(results)[0]


def methods_lines(methods: Mapping[str, MethodRow], pairs: Sequence[PairRow]) -> Iterator[str]:
    """A line for each method, and their differences on the same images where there are some."""
    from advntk_dist.text import signed_with_interval

    yield f"{'method':<15}{'clean':>7}  {'95% interval':<15}{'robust':>7}  {'95% interval':<15}{'images':>7}"
    for name, row in methods.items():
        accuracies = ((row.clean, row.clean_interval), (row.robust, row.robust_interval))
        cells = (f"{100 * at:>6.1f}%  {f'{100 * low:.1f} to {100 * high:.1f}':<15}" for at, (low, high) in accuracies)
        yield f"{name:<15}{''.join(cells)}{row.n_test:>7}"
    for pair in pairs:
        clean = signed_with_interval(pair.clean, pair.clean_interval)
        robust = signed_with_interval(pair.robust, pair.robust_interval)
        yield f"{pair.method} - {pair.against}, the same images: clean {clean}, robust {robust} points"


_QUIET, _VERBOSE, _JSON = "advntk.quiet", "advntk.verbose", "advntk.json"


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
    """The flag --json with --quiet and --verbose; :func:`is_json` tells it."""
    return _json_flag(command, "Print one JSON object; progress goes elsewhere.")


def json_before(group: F) -> F:
    """The flags of a group, which hold for its commands."""
    return _json_flag(group, "Print one JSON object, of commands that print results.")


def _json_flag(command: F, text: str) -> F:
    option = click.option("--json", is_flag=True, expose_value=False, callback=_noted(_JSON), help=text)
    return option(loudness(command))


def answers(command: Callable[P, Answer]) -> Callable[P, int]:
    """The flags of :func:`json_option`, and the print of what the command returns."""

    @wraps(command)
    def show(*values: P.args, **options: P.kwargs) -> int:
        return command(*values, **options).show()

    return json_option(show)


def is_json() -> bool:
    """Whether --json was given to the command that runs, or to a group of it."""
    return bool(click.get_current_context().meta.get(_JSON))


def is_quiet() -> bool:
    """Whether --quiet was given to the command that runs, or to a group of it."""
    return bool(click.get_current_context().meta.get(_QUIET))


def is_verbose() -> bool:
    """Whether --verbose was given to the command that runs, or to a group of it."""
    return bool(click.get_current_context().meta.get(_VERBOSE))


def _noted(key: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def note(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001
        meta = context.meta  # one for a command and its groups
        if value:
            meta[key] = True
            if meta.get(_QUIET) and meta.get(_VERBOSE):
                raise click.UsageError("-q and -v contradict each other; give one of them")
            if key == _VERBOSE:
                library_logs.show()

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


VARIABLE = "_ADVNTK_COMPLETE"
"""The environment variable by which a shell asks for completions."""


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

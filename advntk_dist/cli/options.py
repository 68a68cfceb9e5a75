"""What several commands share: options, the display, the table of results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from advntk_dist.cli.completion import Source
from advntk_dist.cli.talk import is_quiet
from advntk_dist.cli.talk import json_option as json_option
from advntk_dist.storage.location import location

if TYPE_CHECKING:
    from advntk_dist.progress import Display


class Place(click.Path):
    """A local path, or the URL of an object store."""

    def __init__(self, *, dir_okay: bool = True) -> None:
        super().__init__(path_type=Path, dir_okay=dir_okay)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """The place as a Path or an ObjectPath."""
        found = location(value) if isinstance(value, str) else value
        return super().convert(value, parameter, context) if isinstance(found, Path) else found


F = TypeVar("F", bound=Callable[..., Any])


def configured(default_out: bool, source: click.ParamType | None = None) -> Callable[[F], F]:
    """The arguments of a command that takes a configuration: PRESET|FILE.toml, --out, --set and --address."""

    def decorate(command: F) -> F:
        out_help = "Run directory, a path or an s3:// or gs:// URL." + (" [default: runs/NAME]" if default_out else "")
        for decorator in (
            click.option("--address", help="Ray cluster to use, e.g. ray://head:10001. [default: this machine]"),
            click.option(
                "--set",
                "overrides",
                multiple=True,
                metavar="SECTION.KEY=VALUE",
                help="Override one configuration key; `advntk presets digits` shows them all.",
            ),
            click.option("--out", required=not default_out, help=out_help),
            click.argument("source", metavar="PRESET|FILE.toml", type=source or Source()),
        ):
            command = decorator(command)
        return command

    return decorate


def print_json(found: Any) -> None:
    """One JSON object on standard output, on one line."""
    click.echo(json.dumps(found, default=str))


def display() -> Display:
    """Where the command shows its progress; --quiet silences it."""
    from advntk_dist.progress import Display

    return Display(quiet=is_quiet())


def print_results(results: dict[str, Any]) -> None:
    """Print the table of the methods, under the worst of all attacks that they have met."""
    from advntk_dist.report.attacks import (
        alone_words,
        attack_words,
        attacks_met,
        attacks_words,
        under_attack,
        worst_results,
    )
    from advntk_dist.report.summary import ALONE, tier_words

    worst, met = worst_results(results), attacks_met(results)
    click.echo(
        f"{results['dataset']}, {results['network']}, {results['n_train']} training images; under "
        f"{under_attack(results, {})}, largest perturbation "
        f"{max(row['max_perturbation'] for row in worst['methods'].values()):.4g}"
    )
    if len(met) > 1:
        for words in attacks_words(met, {}):
            click.echo(f"  {words}")
    print_methods(worst)
    for line in alone_words(results):
        click.echo(line)
    if len(met) > 1:
        click.echo(f"under the run's own attack alone, {attack_words(met[0], {})}:")
        print_methods(results)
    elif "tier" in results:
        click.echo(f"{ALONE} {tier_words(results)}")
    from advntk_dist.data.duplicates import Duplicates
    from advntk_dist.data.near_equal import NearEqual

    for kind, found in ((Duplicates, results.get("duplicates")), (NearEqual, results.get("near_equal"))):
        for line in () if found is None else kind.from_dict(found).lines():
            click.echo(line)


def print_methods(results: dict[str, Any]) -> None:
    """Print a line for each method, and their differences."""
    click.echo(f"{'method':<15}{'clean':>7}  {'95% interval':<15}{'robust':>7}  {'95% interval':<15}{'images':>7}")
    for name, row in results["methods"].items():
        click.echo(f"{method_row(name, row):<54}{row['n_test']:>7}")
    print_pairs(results)


def method_row(name: str, row: dict[str, Any]) -> str:
    """One method's line of such a table."""
    cells = []
    for key in ("clean", "robust"):
        low, high = row[f"{key}_interval"]
        cells.append(f"{100 * row[key]:>6.1f}%  {f'{100 * low:.1f} to {100 * high:.1f}':<15}")
    return f"{name:<15}{''.join(cells)}".rstrip()


def print_pairs(results: dict[str, Any]) -> None:
    """Print the differences between methods on the same images, where the results have them."""
    from advntk_dist.report.paired import pairs_of

    for pair in pairs_of(results):
        click.echo(f"{pair.method} - {pair.against}, the same images: clean {pair.clean}, robust {pair.robust} points")

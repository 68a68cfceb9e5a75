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
    """Print the table of the methods."""
    attack = results["attack"]
    click.echo(
        f"{results['dataset']}, {results['network']}, {results['n_train']} training images, "
        f"{_attack(attack)}, largest perturbation {attack['max_perturbation']:.4g}"
    )
    click.echo(f"{'method':<15}{'clean':>7}  {'95% interval':<15}{'robust':>7}  95% interval")
    for name, row in results["methods"].items():
        click.echo(method_row(name, row))
    print_pairs(results)
    if results.get("duplicates"):
        from advntk_dist.data.duplicates import Duplicates

        for line in Duplicates.from_dict(results["duplicates"]).lines():
            click.echo(line)


def _attack(attack: dict[str, Any]) -> str:
    """An attack in full: name, loss, norm and radius, steps or queries, random starts."""
    length = f"{attack['queries']} queries" if "queries" in attack else f"{attack['steps']} steps"
    starts = "" if attack["restarts"] == 1 else f", {attack['restarts']} random starts"
    return f"{attack['name']} on {attack['loss']}, {attack['norm']} radius {attack['radius']:.4g} ({length}{starts})"


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

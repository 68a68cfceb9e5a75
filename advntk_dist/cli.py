"""The command line: parse, call the package, print; no logic.

Heavy imports (JAX, Ray) wait inside the commands, so that help and wrong requests answer at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from advntk_dist.errors import AdvNTKError

if TYPE_CHECKING:
    from advntk_dist.config import RunConfig
    from advntk_dist.pipeline.rundir import RunDirectory
    from advntk_dist.progress import Display

F = TypeVar("F", bound=Callable[..., Any])


def _configured(default_out: bool) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        out_help = "Run directory." + (" [default: runs/NAME]" if default_out else "")
        for decorator in (
            click.option("--address", help="Ray cluster to use, e.g. ray://head:10001. [default: this machine]"),
            click.option(
                "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one configuration key."
            ),
            click.option("--out", required=not default_out, help=out_help),
            click.argument("source", metavar="PRESET|FILE.toml"),
        ):
            command = decorator(command)
        return command

    return decorate


def _display() -> Display:
    from advntk_dist.progress import Display

    return Display(quiet=bool(click.get_current_context().find_root().params.get("quiet")))


def _out(source: str, out: str | None) -> str:
    return out if out is not None else str(Path("runs") / Path(source).stem)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="advntk-dist", prog_name="advntk")
@click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")
def advntk(quiet: bool) -> None:
    """Adversarial training in the infinite-width limit: NTK dynamics and Adv-NTK at full dataset scale."""


@advntk.command()
@_configured(default_out=True)
def run(source: str, out: str | None, overrides: Sequence[str], address: str | None) -> None:
    """Do the whole job: Gram matrix, training, evaluation, report. The same command resumes.

    Example: advntk run digits --set attack.radius=0.15
    """
    from advntk_dist.config import load_config
    from advntk_dist.pipeline.rundir import RunDirectory

    config = load_config(source, overrides)
    folder = RunDirectory.at(_out(source, out))
    results = _finished(folder, config)
    if results is not None:
        click.echo(f"{folder.root}: finished before, nothing to do")
    else:
        from advntk_dist.pipeline.run import run as run_job

        results = run_job(config, folder.root, address=address, display=_display()).results
    _print_results(results)
    click.echo(f"report: {folder.report}")


@advntk.command()
def presets() -> None:
    """List the built-in configurations.

    Example: advntk presets
    """
    from advntk_dist.config import preset_names, preset_text

    for name in preset_names():
        click.echo(f"{name:<16}{preset_text(name).splitlines()[0].removeprefix('# ')}")


@advntk.group()
def gram() -> None:
    """Build and look after Gram matrices."""


@gram.command("build")
@_configured(default_out=False)
def gram_build(source: str, out: str, overrides: Sequence[str], address: str | None) -> None:
    """Build DIR/gram.zarr, the store that `run` would build, or what is missing of it.

    Example: advntk gram build digits --out runs/digits
    """
    from advntk_dist.config import load_config
    from advntk_dist.pipeline.gram import build_gram_only

    store = build_gram_only(load_config(source, overrides), out, address=address, display=_display())
    click.echo(f"{store.path}: {store.status().done} of {len(store.grid)} tiles")


@gram.command("status")
@click.argument("path", type=click.Path(path_type=Path), metavar="RUN|GRAM.zarr")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def gram_status(path: Path, as_json: bool) -> None:
    """Say how far a build has got: tiles, rate, time left, workers; any terminal may ask while it runs.

    Example: advntk gram status runs/digits
    """
    from advntk_dist.pipeline.gram import open_store

    status = open_store(path).status()
    click.echo(json.dumps(status.as_dict()) if as_json else str(status))


@gram.command("info")
@click.argument("path", type=click.Path(path_type=Path), metavar="RUN|GRAM.zarr")
def gram_info(path: Path) -> None:
    """Print what a store belongs to, as JSON.

    Example: advntk gram info runs/digits
    """
    from advntk_dist.pipeline.gram import open_store

    click.echo(json.dumps(open_store(path).fingerprint, indent=2))


@gram.command("verify")
@click.argument("path", type=click.Path(path_type=Path), metavar="RUN|GRAM.zarr")
@click.option("--tiles", default=4, show_default=True, help="Tiles to compute again in float64; 0 for none.")
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@click.option("--passes", default=20, show_default=True, help="Lanczos steps, each one pass over the store.")
def gram_verify(path: Path, tiles: int, seed: int, passes: int) -> None:
    """Check every stored byte, and a sample of values against float64; exit 3 if a tile is damaged.

    A damaged tile loses its commit record, so that `advntk gram build` computes just that tile again. Values are
    compared where RUN is a run directory, which knows the images.

    Example: advntk gram verify runs/digits
    """
    from advntk_dist.pipeline.gram import verify

    found = verify(path, tiles=tiles, seed=seed, passes=passes)
    click.echo(f"{found.store.path}: {found.bytes.checked} tiles are sound, {found.bytes.missing} not built yet")
    click.echo(str(found.values) if found.values else f"values not compared with float64: {found.why_not}")


@advntk.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.option("--attack", "name", default="pgd", show_default=True, help="Name of the attack.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="radius, steps, step_size, norm or seed.")
def evaluate(folder: Path, name: str, overrides: Sequence[str]) -> None:
    """Attack the three methods of a finished run again, with another attack or another strength.

    Example: advntk evaluate runs/digits --attack pgd --set steps=50 --set radius=0.1
    """
    from advntk_dist.pipeline.run import evaluate_again

    path, results = evaluate_again(folder, name, overrides, display=_display())
    _print_results(results)
    click.echo(f"written: {path}")


@advntk.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
def report(folder: Path) -> None:
    """Write the report of a finished run again.

    Example: advntk report runs/digits
    """
    from advntk_dist.pipeline.run import rebuild_report

    click.echo(f"report: {rebuild_report(folder)}")


def _finished(folder: RunDirectory, config: RunConfig) -> dict[str, Any] | None:
    """The results of a finished run, found without loading JAX or Ray."""
    if not folder.config.exists():
        return None
    with folder.claimed(config):
        return folder.finished()


def _print_results(results: dict[str, Any]) -> None:
    attack = results["attack"]
    click.echo(
        f"{results['dataset']}, {results['network']}, {results['n_train']} training images, "
        f"{attack['name']} {attack['norm']} radius {attack['radius']:.4g} ({attack['steps']} steps), "
        f"largest perturbation {attack['max_perturbation']:.4g}"
    )
    click.echo(f"{'method':<15}{'clean':>7}  {'95% interval':<15}{'robust':>7}  95% interval")
    for name, row in results["methods"].items():
        cells = []
        for key in ("clean", "robust"):
            low, high = row[f"{key}_interval"]
            cells.append(f"{100 * row[key]:>6.1f}%  {f'{100 * low:.1f} to {100 * high:.1f}':<15}")
        click.echo(f"{name:<15}{''.join(cells)}".rstrip())


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors become one line and an exit code (0 done, 2 request, 3 stored data, 1 anything else)."""
    try:
        status = advntk.main(args=arguments, prog_name="advntk", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.ClickException as error:
        click.echo(f"advntk: {error.format_message()}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("advntk: interrupted; nothing is lost, the same command goes on from here", err=True)
        sys.exit(1)
    except AdvNTKError as error:
        click.echo(f"advntk: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(status if isinstance(status, int) else 0)

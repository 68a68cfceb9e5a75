"""`advntk finite-width`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from advntk_dist.cli.completion import Source
from advntk_dist.cli.options import configured, display, json_option, print_json, print_results


@click.command("finite-width", short_help="Train networks of finite width beside the limit.")
@configured(default_out=True, source=Source("finite-width"))
@click.option(
    "--infinite",
    metavar="RUN",
    help="A finished `advntk run` of the same data, network, attack and recipe. [default: that job, in OUT/infinite]",
)
@json_option
def finite_width(
    source: str, out: str | None, overrides: Sequence[str], address: str | None, infinite: str | None, as_json: bool
) -> None:
    """Train networks of finite width: the theorem's flow against width, and the paper's adversarial training.

    Presets: digits (minutes), cifar10-small (CIFAR-10, 2,000 images, tens of minutes), cifar10-mlp5 and cifar10-cnn5
    (the paper's settings, for GPUs). The same command resumes.

    Example: advntk finite-width digits --set flow.seeds=8
    """
    from advntk_dist.config.finite_width import load_config
    from advntk_dist.pipeline.finite_width import FiniteRunDirectory, run_finite_width

    config = load_config(source, overrides)
    folder = FiniteRunDirectory.at(out if out is not None else str(Path("runs") / f"finite-{Path(source).stem}"))
    outcome = run_finite_width(config, folder.root, infinite=infinite, address=address, display=display())
    if not outcome.worked and not as_json:
        click.echo(f"{folder.root}: finished before, nothing to do")
    results = outcome.results
    if as_json:
        print_json(results | {"run": str(folder.root), "report": str(folder.report), "worked": outcome.worked})
        return
    print_results(results)
    click.echo(f"{'power of width':<15}{'slope':>7}  95% interval")
    for name, line in results["flow"]["slopes"].items():
        click.echo(f"{name:<15}{line['slope']:>7.3f}  {line['low']:.3f} to {line['high']:.3f}")
    click.echo(f"report: {folder.report}")

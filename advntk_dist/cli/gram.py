"""`advntk gram`: build and look after Gram matrices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from advntk_dist.cli.options import configured, display


@click.group()
def gram() -> None:
    """Build and look after Gram matrices."""


@gram.command("build")
@configured(default_out=False)
def gram_build(source: str, out: str, overrides: Sequence[str], address: str | None) -> None:
    """Build DIR/gram.zarr, the store that `run` would build, or what is missing of it.

    Example: advntk gram build digits --out runs/digits
    """
    from advntk_dist.config import load_config
    from advntk_dist.pipeline.gram import build_gram_only

    store = build_gram_only(load_config(source, overrides), out, address=address, display=display())
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

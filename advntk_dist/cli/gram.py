"""`advntk gram`: build and look after Gram matrices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import click

from advntk_dist.cli.options import Answer, PlaceParameter, answers, configured, display, json_before, json_option
from advntk_dist.storage.paths import Location


@click.group()
@json_before
def gram() -> None:
    """Build and look after Gram matrices.

    Examples: advntk gram build digits --out runs/digits

    advntk gram status runs/digits

    advntk gram verify runs/digits
    """


@gram.command("build", short_help="Build a run's Gram matrix, or what is missing of it.")
@configured(default_out=False)
@answers
def gram_build(source: str, out: str, overrides: Sequence[str], address: str | None) -> Answer:
    """Build DIR/gram.zarr, the store that `run` would build, or what is missing of it.

    Example: advntk gram build digits --out runs/digits
    """
    from advntk_dist.config import load_config
    from advntk_dist.pipeline.gram import build_gram_only

    store = build_gram_only(load_config(source, overrides), out, address=address, display=display())
    status = store.status()
    text = f"{store.path}: {status.done} of {len(store.grid)} tiles"
    return Answer({"path": str(store.path)} | status.as_dict(), [text])


@gram.command("status", short_help="Say how far a build has got.")
@click.argument("path", type=PlaceParameter(), metavar="RUN|GRAM.zarr")
@answers
def gram_status(path: Location) -> Answer:
    """Say how far a build has got: tiles, rate, time left, workers; any terminal may ask while it runs.

    Example: advntk gram status runs/digits
    """
    from advntk_dist.pipeline.gram import open_store

    status = open_store(path).status()
    return Answer(status.as_dict(), [str(status)])


@gram.command("info", short_help="Print what a store belongs to.")
@click.argument("path", type=PlaceParameter(), metavar="RUN|GRAM.zarr")
@answers
def gram_info(path: Location) -> Answer:
    """Print what a store belongs to, as JSON.

    Example: advntk gram info runs/digits
    """
    from advntk_dist.pipeline.gram import open_store

    fingerprint = open_store(path).fingerprint
    return Answer(fingerprint, [json.dumps(fingerprint, indent=2)])


@gram.command("verify", short_help="Check every byte, and values against float64.")
@click.argument("path", type=PlaceParameter(), metavar="RUN|GRAM.zarr")
@click.option("--tiles", default=4, show_default=True, help="Tiles to compute again in float64; 0 for none.")
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@click.option("--passes", default=20, show_default=True, help="Lanczos steps, each one pass over the store.")
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    help="Largest relative difference that passes for rounding.  [default: 1e-3 in float32, 1e-6 in float64]",
)
@json_option
def gram_verify(path: Location, tiles: int, seed: int, passes: int, limit: float | None) -> None:
    """Check every stored byte, and a sample of values against float64.

    Exit 3 if a tile is damaged, or missing of a matrix that a run was done with, or if a value differs from float64 by
    more than the limit; 0 if all that is there is sound.

    A damaged tile loses its commit record, so that `advntk gram build` computes just that tile again. Values are
    compared where RUN is a run directory, which knows the images.

    Example: advntk gram verify runs/digits
    """
    from advntk_dist.pipeline.gram import verify

    found = verify(path, tiles=tiles, seed=seed, passes=passes, limit=limit)
    values = None if found.values is None else asdict(found.values) | {"within_limit": found.values.within_limit}
    Answer(
        {"path": str(found.store.path)} | asdict(found.bytes) | {"values": values, "why_not": found.why_not},
        (
            f"{found.store.path}: {found.bytes.checked} tiles are sound, {found.bytes.missing} not built yet",
            str(found.values) if found.values else f"values not compared with float64: {found.why_not}",
        ),
    ).show()
    if found.values is not None:
        found.values.raise_if_wrong(found.store.path)

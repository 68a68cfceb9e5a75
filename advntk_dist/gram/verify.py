"""Checking every stored byte of a store and a sample of its values; what is damaged is taken out, to be computed."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from advntk_dist.environment import usable_cores
from advntk_dist.errors import StoreDamagedError, StoreIncompleteError
from advntk_dist.gram.commits import REQUESTS
from advntk_dist.gram.layout import wrong_descriptions
from advntk_dist.gram.store import GramStore
from advntk_dist.grid import Tile
from advntk_dist.storage import durable


class DamagedTile(NamedTuple):
    """A tile whose chunk or commit record is damaged, and why."""

    kind: str
    i: int
    j: int
    reason: str


@dataclass(frozen=True)
class VerifyReport:
    """What a check of all bytes found.

    Attributes
    ----------
    checked
        Committed tiles that were read.
    missing
        Tiles not committed yet, over all kinds.
    damaged
        Tiles whose chunk or commit record is damaged.
    bytes
        Bytes of tiles read.
    descriptions
        Paths of the zarr.json files that are missing or not as they were written.
    """

    checked: int
    missing: int
    damaged: tuple[DamagedTile, ...]
    bytes: int
    descriptions: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the store is complete and undamaged."""
        return not self.damaged and not self.missing and not self.descriptions

    def raise_if_damaged(self, where: object) -> None:
        """Raise StoreDamagedError naming what is damaged, if there is anything (exit 3)."""
        if self.descriptions:
            raise StoreDamagedError(
                f"{where}: {', '.join(self.descriptions)}: not the description of this matrix; `advntk gram build` "
                "writes it anew"
            )
        if self.damaged:
            shown = ", ".join(f"({d.i}, {d.j}) of {d.kind}: {d.reason}" for d in self.damaged[:5])
            more = f" and {len(self.damaged) - 5} more" if len(self.damaged) > 5 else ""
            raise StoreDamagedError(
                f"{where}: {len(self.damaged)} damaged of {self.checked} tiles checked: {shown}{more}; "
                "`advntk gram build` computes just these again"
            )


def verify_gram(store: GramStore, *, threads: int | None = None) -> VerifyReport:
    """Read every committed tile and compare it with its checksum and its commit record.

    Parameters
    ----------
    store
        The store, complete or not.
    threads
        Tiles read at once; by default the number of usable cores, or of requests to an object store.
    """
    usual = usable_cores() if isinstance(store.path, Path) else REQUESTS
    workers = threads or usual
    places = [(kind, tile) for kind in store.kinds for tile in store.grid]
    with ThreadPoolExecutor(workers, thread_name_prefix="gram-verify") as pool:
        found = list(pool.map(lambda place: _check(store, *place), places))
    damaged = tuple(f for f in found if isinstance(f, DamagedTile))
    sizes = [f for f in found if isinstance(f, int)]
    return VerifyReport(
        checked=len(sizes) + len(damaged),
        missing=sum(f == "missing" for f in found),
        damaged=damaged,
        bytes=sum(sizes),
        descriptions=tuple(wrong_descriptions(store.path, store.fingerprint, store.network)),
    )


def _check(store: GramStore, kind: str, tile: Tile) -> DamagedTile | int | Literal["missing"]:
    try:
        store.commits[kind].read(tile.i, tile.j)
        values = store.read_tile(kind, tile.i, tile.j)
    except durable.ChunkDamagedError as error:
        return DamagedTile(kind, tile.i, tile.j, f"commit record: {error}")
    except StoreIncompleteError:
        return "missing"
    except StoreDamagedError as error:
        return DamagedTile(kind, tile.i, tile.j, str(error.__cause__ or error))
    return store.tile**2 * values.itemsize + durable.CRC_BYTES


def invalidate(store: GramStore, tiles: Iterable[tuple[str, int, int]]) -> None:
    """Take tiles (kind, i, j) out, so that the next build computes just these. The caller holds the builder's lock."""
    for tile in tiles:
        store.take_back(*tile)

"""Tiles resident in Ray actors, spread over the nodes: no pass reads anything but the vectors."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import ActorUnschedulableError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from advntk_dist.errors import RequestError, SolverError
from advntk_dist.gram import lost
from advntk_dist.gram.worker import worker_environment
from advntk_dist.grid import Tile, TileGrid, spans
from advntk_dist.operators.base import GramOperator
from advntk_dist.operators.placement import alive_nodes, other_seat, seating
from advntk_dist.operators.tiled import NARROW, Rows, Run, Vectors, runs_of, threaded_product
from advntk_dist.operators.tiles import Failure, StoreHandle, StoreTiles, diagonal_mean

if TYPE_CHECKING:
    from advntk_dist.gram.store import GramStore

log = logging.getLogger(__name__)

LOST = (*lost.LOST, ActorUnschedulableError)
"""Errors that mean "the holder is gone": another one reads its tiles. Everything else ends the product."""

MAX_LOSSES = 3
"""Times in a row that one holder may be lost."""

START_PATIENCE = 300.0
SLOWEST_READ = 20e6
"""Seconds for a holder to start, and bytes a second at which it loads; a slower one is taken for dead."""


class ResidentOperator(GramOperator):
    """Products by actors that keep their tiles in memory, each with its share of the stored half.

    A holder that dies, or does not answer, is replaced by one that reads the same tiles again: on its own node, or,
    where that is lost, on the one that has most room left. Sums are taken in the order of the holders, so that a
    replacement changes no bit. The holders reserve memory, and no cores: between passes they do nothing.

    Parameters
    ----------
    store
        A complete Gram store, at a path that all nodes see.
    kind
        Which kernel of the store.
    holders
        Number of actors; by default one for every four cores of each node.
    patience
        Seconds to wait for a holder that has its tiles to answer; starting and loading get longer.

    Raises
    ------
    RequestError
        If Ray is not running, or the cluster's memory does not hold the tiles.
    SolverError
        If a holder is lost again and again, or its node is lost and no other has room.
    StoreDamagedError, StoreIncompleteError
        If a tile cannot be read.
    """

    def __init__(
        self, store: GramStore, *, kind: str = "ntk", holders: int | None = None, patience: float = 300.0
    ) -> None:
        super().__init__(store.n)
        if not ray.is_initialized():
            raise RequestError("solver.operator: resident needs a running Ray; give --address, or call ray.init()")
        self.tiles, self.place = StoreTiles(store, kind), StoreHandle.of(store, kind)
        self._seats = seating(store, holders)
        self._shares = shares(store.grid, len(self._seats))
        self._rows = [Rows.touched(t for run in part for t in run.tiles) for part in self._shares]
        share = max(sum(len(run.tiles) for run in part) for part in self._shares) * store.tile**2 * store.dtype.itemsize
        self._share_bytes, self.patience = share, patience
        self._actors: dict[int, Any] = {}
        self._loaded: set[int] = set()
        self._losses = dict.fromkeys(range(len(self._seats)), 0)
        self.replaced = 0
        """Holders that were lost and replaced since the operator was made."""
        try:
            self.holdings: dict[int, Holding] = self._ask("load")
        except BaseException:
            self.close()
            raise

    def _multiply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        product = np.zeros_like(v)
        # Wide blocks go in pieces: what the holders send back is here all at once, and passes from memory are cheap.
        for piece in spans(v.shape[1], NARROW):
            answers = self._ask("product", ray.put(Vectors.of(v[:, piece])))
            for number in sorted(answers):
                self._rows[number].add(answers[number], product[:, piece])
        return product

    def _ask(self, method: str, *arguments: Any) -> dict[int, Any]:
        """Call a method of every holder, replacing those that are lost on the way."""
        answers: dict[int, Any] = {}
        waiting: dict[Any, int] = {}
        deadlines: dict[int, float] = {}

        def call(number: int) -> None:
            if number not in self._actors:
                self._actors[number] = self._start(number)
            allowed = self.patience if number in self._loaded else START_PATIENCE + self._share_bytes / SLOWEST_READ
            deadlines[number] = time.monotonic() + allowed
            waiting[getattr(self._actors[number], method).remote(*arguments)] = number

        for number in range(len(self._seats)):
            call(number)
        while waiting:
            first = min(deadlines[number] for number in waiting.values())
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=max(0.0, first - time.monotonic()))
            now = time.monotonic()
            late = [] if done else [r for r, number in waiting.items() if deadlines[number] <= now]
            for reference in done or late:
                number = waiting.pop(reference)
                try:
                    if not done:
                        raise TimeoutError("it did not answer in time")
                    answer = ray.get(reference)
                except (*LOST, TimeoutError) as error:
                    self._lose(number, error)
                    call(number)
                    continue
                except RayTaskError as error:
                    raise SolverError(f"resident tiles: a holder failed: {error.cause or error}") from error
                except RayError as error:
                    raise SolverError(
                        f"resident tiles: Ray failed a holder ({lost.reason(error)}); run the same command again"
                    ) from error
                if isinstance(answer, Failure):
                    answer.reraise()
                answers[number], self._losses[number] = answer, 0
                self._loaded.add(number)
        return answers

    def _start(self, number: int) -> Any:
        seat = self._seats[number]
        actor: Any = ray.remote(TileHolder)
        # Not soft: where the node is gone, room elsewhere is looked for here, and its lack said at once.
        place = NodeAffinitySchedulingStrategy(seat.node, soft=False)
        return actor.options(
            num_cpus=0,
            memory=self._share_bytes,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=place,
            runtime_env={"env_vars": worker_environment(seat.threads, False)},
        ).remote(self.place, self._shares[number], seat.threads)

    def _lose(self, number: int, error: Exception) -> None:
        reason = lost.reason(error)
        started = number in self._loaded
        self._losses[number] += 1
        self.replaced += 1
        self._kill(number)
        if self._losses[number] >= MAX_LOSSES:
            raise SolverError(
                f"resident tiles: holder {number} of {len(self._seats)} was lost {MAX_LOSSES} times in a row, at last "
                f"with: {reason}; check the memory and the state of the nodes with `ray status`, or use another "
                "solver.operator"
            ) from error
        seat = self._seats[number]
        if not started or seat.node not in {str(node["NodeID"]) for node in alive_nodes()}:
            others = [other for k, other in enumerate(self._seats) if k != number]
            self._seats[number] = other_seat(others, self._share_bytes, avoid=seat.node)
        log.warning("holder %d of the Gram matrix is lost (%s); another one reads its tiles", number, reason)

    def _kill(self, number: int) -> None:
        self._loaded.discard(number)
        actor = self._actors.pop(number, None)
        if actor is not None and ray.is_initialized():
            with contextlib.suppress(*LOST, ValueError):
                ray.kill(actor, no_restart=True)

    def close(self) -> None:
        """Let the holders go."""
        for number in list(self._actors):
            self._kill(number)
        super().close()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        return self.tiles.dtype

    def diagonal_mean(self) -> float:
        """Mean of the diagonal, read from the store."""
        return diagonal_mean(self.tiles)

    @property
    def description(self) -> str:
        """One line for logs."""
        held = sum(h.nbytes for h in self.holdings.values()) / 1e9
        nodes = len({h.node for h in self.holdings.values()})
        return f"resident ({self.n} x {self.n}, {held:.2f} GB in {len(self._seats)} Ray actors on {nodes} nodes)"


@dataclass(frozen=True)
class Holding:
    """What a holder has in memory, and where it is."""

    tiles: int
    nbytes: int
    node: str
    host: str
    pid: int


class HeldTiles:
    """Some tiles of a matrix, in memory."""

    def __init__(self, grid: TileGrid, dtype: np.dtype[Any]) -> None:
        self.grid, self.dtype = grid, dtype
        self.values: dict[tuple[int, int], NDArray[Any]] = {}

    def expect(self, t: Tile) -> None:
        """Nothing: it is in memory."""

    def panels(self, t: Tile, rows: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Views into a tile that is held."""
        values = self.values[t.i, t.j]
        for panel in spans(t.shape[0], rows):
            yield panel, values[panel]


class TileHolder:
    """Reads its runs of tiles from the store when it is first asked, and multiplies with them from then on.

    Parameters
    ----------
    place
        The store.
    parts
        The runs of tiles to hold.
    threads
        Threads of a product.
    """

    def __init__(self, place: StoreHandle, parts: tuple[Run, ...], threads: int) -> None:
        self.place, self.parts, self.threads = place, parts, threads
        self.rows = Rows.touched(t for run in parts for t in run.tiles)
        self.held: HeldTiles | None = None

    def load(self) -> Holding | Failure:
        """Read and verify the tiles, unless they are there already."""
        import ray

        try:
            held = self._tiles()
        except Exception as error:
            return Failure.of(error)
        node = ray.get_runtime_context().get_node_id()
        total = sum(int(values.nbytes) for values in held.values.values())
        return Holding(len(held.values), total, node, socket.gethostname(), os.getpid())

    def product(self, vectors: Vectors) -> NDArray[np.float64] | Failure:
        """What the held tiles add to Theta v: of the rows that they touch, (len(self.rows), k)."""
        try:
            return threaded_product(self._tiles(), self.parts, self.rows, vectors, self.threads)
        except Exception as error:
            return Failure.of(error)

    def _tiles(self) -> HeldTiles:
        if self.held is None:
            source = self.place.open()
            held = HeldTiles(source.grid, source.dtype)
            held.values = {(t.i, t.j): source.whole(t) for run in self.parts for t in run.tiles}
            self.held = held
        return self.held


def shares(grid: TileGrid, count: int) -> list[tuple[Run, ...]]:
    """Deal the stored tiles of a symmetric grid out to so many holders.

    The tiles are halved across their longer side, and each half again, until there is one part a holder. So all have
    equally many tiles, give or take one a halving, and a part of 1 / count of the tiles touches about
    n sqrt(2 / count) rows: what all holders send back grows as the square root of their number.

    Parameters
    ----------
    grid
        Symmetric.
    count
        Of holders, at most one a tile.
    """
    return [tuple(runs_of(sorted(part))) for part in _halved(list(grid), count)]


@lru_cache(maxsize=256)
def rows_sent(grid: TileGrid, count: int) -> int:
    """Rows of a product that so many holders send back together."""
    return sum(len(Rows.touched(part)) for part in _halved(list(grid), count))


def _halved(tiles: Sequence[Tile], count: int) -> list[Sequence[Tile]]:
    if count == 1:
        return [tiles]
    tall = len({t.i for t in tiles}) >= len({t.j for t in tiles})
    ordered = sorted(tiles, key=lambda t: (t.i, t.j) if tall else (t.j, t.i))
    first = count // 2
    cut = round(len(tiles) * first / count)
    return [*_halved(ordered[:cut], first), *_halved(ordered[cut:], count - first)]

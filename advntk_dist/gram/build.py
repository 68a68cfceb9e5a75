"""Building a Gram store, or enlarging it: what is missing is computed by Ray actors; what is there stays."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import ArrayLike, NDArray

from advntk_dist import metrics
from advntk_dist.data.dataset import fingerprint_images
from advntk_dist.distributed.autoscaling import Autoscaling, WorkerTarget
from advntk_dist.distributed.pool import Call
from advntk_dist.distributed.scheduler import EventSink, run_tasks
from advntk_dist.distributed.task_queue import TaskQueue
from advntk_dist.environment import usable_cores
from advntk_dist.errors import GramBuildError, RequestError, StoreMismatchError
from advntk_dist.gram.fingerprint import SIZES, Fingerprint, make_fingerprint, require_same
from advntk_dist.gram.layout import CREATING, descriptions, is_absent, mend_layout
from advntk_dist.gram.plan import GramPlan, plan_gram
from advntk_dist.gram.status import BuildWatch
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.verify import invalidate, verify_gram
from advntk_dist.gram.view import StoreHandle
from advntk_dist.gram.worker import Receipt, WorkerPool
from advntk_dist.grid import TileGrid
from advntk_dist.kernels.nonfinite import compute_images
from advntk_dist.spec import parse_name
from advntk_dist.storage import durable
from advntk_dist.storage.locks import builder_lock
from advntk_dist.storage.paths import Location, location
from advntk_dist.storage.retry import retry_seconds

if TYPE_CHECKING:
    from advntk_dist.networks import Network

ProgressSink = Callable[[int, int, Receipt | None], None]
PlanSink = Callable[[GramPlan], None]

DEPTH = 2
"""Tiles that a worker has at once: one is computed while the one before is written."""


def build_gram(
    net: Network,
    x: ArrayLike,
    *,
    store: str | Location,
    tile: int = 2048,
    dtype: str = "float32",
    kinds: tuple[str, ...] = ("ntk",),
    workers: int | None = None,
    address: str | None = None,
    pool: WorkerPool | None = None,
    on_progress: ProgressSink | None = None,
    on_event: EventSink | None = None,
    on_plan: PlanSink | None = None,
    columns: ArrayLike | None = None,
    deadline: float | None = None,
) -> GramStore:
    """Build the Gram matrix of images, or finish one that was interrupted.

    Parameters
    ----------
    net
        Infinitely wide network whose kernels are stored.
    x
        Images (n, H, W, C): uint8, or floats in [-0.5, 0.5].
    store
        Folder of the store, a path or an ``s3://`` or ``gs://`` URL. One that is there must be of the same
        configuration; only tiles that are missing or damaged are computed, and a complete one comes back without Ray.
        A store of the first images of x is enlarged: its whole tiles stay.
    tile
        Edge of a tile in images; reduced to n where it is larger.
    dtype
        "float32" or "float64": what kernels are computed and stored in.
    kinds
        "ntk", "nngp" or both, computed in one pass.
    workers
        Ray actors; by default one a GPU of the cluster, or one a CPU core while it has none, and more where there is
        work for minutes: they wait for the nodes of an autoscaler. A cluster of neither is waited for.
    address
        Address of a Ray cluster; by default the Ray that is already in use, or a new one on this machine.
    pool
        Workers that earlier builds have started and that stay for the next one, in place of new ones; give no address
        with it, as it has one.
    on_progress
        Called as (tiles done, tiles in all, receipt of the last one or None at the start).
    on_event
        Called with a dict {"event": name, ...} for workers started, ready, lost, and tiles handed out again.
    on_plan
        Called once, when the first worker has measured its speed and before the first tile, with the
        :class:`advntk_dist.gram.plan.GramPlan`.
    columns
        Images (m, H, W, C) of the columns of a rectangular kernel k(x, columns) (n, m); by default the matrix is
        the symmetric k(x, x).
    deadline
        Seconds without a result after which a worker is replaced; by default from the time tiles take.

    Raises
    ------
    RequestError
        If a parameter or the images are not possible, disk or memory are too small, or no cluster answers.
    StoreMismatchError
        If the store belongs to another configuration; the message names the field.
    StoreBusyError
        If another process is building this store.
    GramBuildError
        If a tile cannot be computed (the message names tile and images), too many workers are lost, a GPU is reserved
        that JAX does not use, or no node comes that has a GPU or a core.
    """
    if workers is not None and workers < 1:
        raise RequestError(f"workers is {workers}; it must be at least 1")
    if pool is not None and address is not None:
        raise RequestError("address: give it to the pool, whose cluster is used")
    workers_pool = WorkerPool(address) if pool is None else pool
    images, others = np.asarray(x), None if columns is None else np.asarray(columns)
    fingerprint = make_fingerprint(net, images, tile=tile, dtype=dtype, kinds=kinds, columns=others)
    floats = [compute_images(part, tile, dtype) for part in (images, others) if part is not None]
    path = location(store).resolve()
    with builder_lock(path):
        opened = open_for_build(path, fingerprint, net.spec.as_dict(), images, others)
        durable.remove_partials(path)
        invalidate(opened, [(d.kind, d.i, d.j) for d in verify_gram(opened).damaged])
        done = opened.committed()
        missing = [t for t in opened.grid if not done[t.i, t.j]]
        report = on_progress or _ignore
        report(len(opened.grid) - len(missing), len(opened.grid), None)
        if missing:
            cores = usable_cores()
            plan = plan_gram(opened.fingerprint, workers=min(workers or cores, cores), missing=missing)
            if isinstance(path, Path):
                plan.check_disk(path)
            if workers_pool.address is None:
                plan.check_memory()
            # A worker that waits for an object store to come back is not taken for one that hangs.
            grace = 0.0 if isinstance(path, Path) else 2 * retry_seconds()
            queue = TaskQueue(
                [(t.i, t.j) for t in missing],
                "tile",
                GramBuildError,
                depth=DEPTH,
                duplicates=True,
                deadline=deadline,
                grace=grace,
            )
            with ExitStack() as cleanup:
                if pool is None:
                    cleanup.callback(workers_pool.close)
                workers_pool.connect(sum(part.nbytes for part in floats))
                autoscaling = Autoscaling(workers, grows=workers_pool.grows, error=GramBuildError)
                job = _Job(opened, plan, report, on_plan or _ignore, on_event or _ignore)
                job.run(net, floats, queue, autoscaling, workers_pool)
    return opened


class _Job:
    """One run of workers over the missing tiles, and the functions that are called as it progresses."""

    def __init__(
        self, store: GramStore, plan: GramPlan, on_progress: ProgressSink, on_plan: PlanSink, on_event: EventSink
    ) -> None:
        self.store, self.plan, self.done = store, plan, plan.tiles_total - plan.tiles
        self.on_progress, self.on_plan, self.on_event = on_progress, on_plan, on_event
        self.watch = BuildWatch(store.path, self.done, plan.tiles_total)

    def run(
        self,
        net: Network,
        images: list[NDArray[Any]],
        queue: TaskQueue,
        autoscaling: Autoscaling,
        pool: WorkerPool,
    ) -> None:
        references = [ray.put(part) for part in images]
        images.clear()  # from here on only the shared copy is needed
        rows, columns = references[0], references[1] if len(references) > 1 else None

        def target(work: float) -> WorkerTarget:
            self.wanted = autoscaling.now(work)
            return self.wanted

        def call(place: tuple[int, int], attempt: int) -> Call:
            return Call("tile", f"tile {place}", (*place, attempt))

        job = pool.job(
            net.spec,
            rows,
            columns,
            StoreHandle.of(self.store),
            keep=parse_name(net.spec.name) is not None,  # no module of a user's own is imported twice
        )
        tiles = run_tasks(queue, pool, call, target=target, on_event=self._event)
        with job, self.watch, closing(tiles):
            for _, receipt in tiles:
                self._tile(receipt)

    def _tile(self, receipt: Receipt) -> None:
        self.done += 1
        self.watch.tile(self.done)
        metrics.count("advntk_tiles")
        metrics.count("advntk_tile_bytes", receipt.bytes)
        self.on_progress(self.done, self.plan.tiles_total, receipt)

    def _event(self, event: dict[str, Any]) -> None:
        if event["event"] == "worker_ready" and self.plan.seconds is None:
            seconds = self.plan.pairs * event["pair_seconds"] / self.wanted.planned
            self.plan = replace(self.plan, workers=self.wanted.planned, seconds=seconds)
            self.on_plan(self.plan)
        if event["event"] == "task_again":
            event |= {"event": "tile_again", "tile": list(event.pop("task"))}
        elif event["event"] == "worker_lost":
            event["tiles"] = [list(place) for place in event.pop("tasks")]
        self.watch.event(event)
        self.on_event(event)


def _ignore(*_: object) -> None:
    """Does nothing, in place of a function that was not given."""


def open_for_build(
    path: Location,
    fingerprint: Fingerprint,
    network: dict[str, Any],
    x: NDArray[Any],
    columns: NDArray[Any] | None = None,
) -> GramStore:
    """Open the store at ``path`` for the images x (and columns), made or enlarged as need be.

    A store of the first n images is enlarged in place: whole tiles stay, ragged ones at its old edge are
    taken out. The caller holds the builder's lock; a process that dies anywhere in here leaves a store that the next
    call finishes.

    Raises
    ------
    StoreMismatchError
        If the store is of another configuration, or its images are not the first of x.
    StoreError
        If something else is at ``path``.
    """
    if not is_absent(path):
        stored = GramStore.open(path)
        mend_layout(path, stored.fingerprint, stored.network)
        if _is_larger(stored.fingerprint, fingerprint):
            _require_prefix(stored, fingerprint, x, columns)
            _enlarge(stored, fingerprint)
    store = GramStore.create_or_open(path, fingerprint, network)
    mend_layout(path, fingerprint, network, grown=True)
    return store


def _is_larger(stored: Fingerprint, requested: Fingerprint) -> bool:
    sizes = [(stored[s], requested[s]) for s in ("n", "n_columns")]
    return all(old <= new for old, new in sizes) and any(old < new for old, new in sizes)


def _require_prefix(store: GramStore, requested: Fingerprint, x: NDArray[Any], columns: NDArray[Any] | None) -> None:
    where, stored = str(store.path), store.fingerprint
    ours = {k: v for k, v in requested.items() if k not in SIZES}
    require_same(where, stored, ours)
    if (stored["columns"] is None) != (columns is None):
        raise StoreMismatchError(where, "columns", stored["columns"], requested["columns"])
    if stored["gram.tile"] != requested["gram.tile"] and not _one_reduced_tile(stored, requested):
        raise StoreMismatchError(where, "gram.tile", stored["gram.tile"], requested["gram.tile"])
    for field, images in (
        ("images", x[: store.n]),
        ("columns", None if columns is None else columns[: store.n_columns]),
    ):
        if images is not None and fingerprint_images(images) != stored[field]:
            raise StoreMismatchError(where, field, stored[field], requested[field])


def _one_reduced_tile(stored: Fingerprint, requested: Fingerprint) -> bool:
    """Whether the store is one tile, smaller than requested only because there were so few images."""
    return bool(max(stored["n"], stored["n_columns"]) == stored["gram.tile"] < requested["gram.tile"])


def _enlarge(store: GramStore, fingerprint: Fingerprint) -> None:
    if store.tile != fingerprint["gram.tile"]:
        # Its one tile is ragged under the new tile size, so nothing of it can stay.
        if isinstance(store.path, Path):
            aside = store.path.with_name(f"{store.path.name}.{uuid.uuid4().hex}{CREATING}")
            durable.move_folder(store.path, aside)
        else:
            (store.path / "zarr.json").unlink()  # with it the store; a new one clears what is left
        return
    larger = TileGrid(fingerprint["n"], fingerprint["n_columns"], store.tile, symmetric=store.symmetric)
    for t in store.grid:
        if larger.at(t.i, t.j).shape != t.shape:
            for kind in store.kinds:
                store.take_back(kind, t.i, t.j)
    # The description of the group decides; those of the arrays lag behind until the store is opened.
    durable.write_durable(store.path / "zarr.json", descriptions(fingerprint, store.network)["zarr.json"])

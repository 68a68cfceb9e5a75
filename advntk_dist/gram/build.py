"""Building a Gram store: what is missing is computed by Ray actors; what is there stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import ArrayLike, NDArray

from advntk_dist.data.dataset import to_unit_range
from advntk_dist.errors import GramBuildError, RequestError
from advntk_dist.gram import chunks
from advntk_dist.gram.cluster import cluster_workers, ray_session
from advntk_dist.gram.fingerprint import make_fingerprint
from advntk_dist.gram.finite import some
from advntk_dist.gram.ledger import TileLedger
from advntk_dist.gram.lock import builder_lock
from advntk_dist.gram.pool import WorkerPool
from advntk_dist.gram.schedule import EventSink, run_tiles
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.verify import invalidate, verify_gram
from advntk_dist.gram.worker import Receipt

if TYPE_CHECKING:
    from advntk_dist.networks import Network

ProgressSink = Callable[[int, int, Receipt | None], None]


def build_gram(
    net: Network,
    x: ArrayLike,
    *,
    store: str | Path,
    tile: int = 2048,
    dtype: str = "float32",
    kinds: tuple[str, ...] = ("ntk",),
    workers: int | None = None,
    address: str | None = None,
    on_progress: ProgressSink | None = None,
    on_event: EventSink | None = None,
    deadline: float | None = None,
) -> GramStore:
    """Build the Gram matrix of images, or finish one that was interrupted.

    Parameters
    ----------
    net
        The network.
    x
        Images (n, H, W, C): uint8, or floats in [-0.5, 0.5].
    store
        Folder of the store. One that is there must be of the same configuration; only tiles that are missing or
        damaged are computed, and a complete one comes back without Ray.
    tile
        Edge of a tile in images; reduced to n where it is larger.
    dtype
        "float32" or "float64": what kernels are computed and stored in.
    kinds
        "ntk", "nngp" or both, computed in one pass.
    workers
        Ray actors; by default one a GPU of the cluster, or one a CPU core where it has none.
    address
        Address of a Ray cluster; by default the Ray that is already in use, or a new one on this machine.
    on_progress
        Called as (tiles done, tiles in all, receipt of the last one or None at the start).
    on_event
        Called with a dict {"event": name, ...} for workers started, ready, lost, and tiles handed out again.
    deadline
        Seconds without a result after which a worker is replaced; by default from the time tiles take.

    Raises
    ------
    RequestError
        If a parameter or the images are not possible, or no cluster answers.
    StoreMismatchError
        If the store belongs to another configuration; the message names the field.
    StoreBusyError
        If another process is building this store.
    GramBuildError
        If a tile cannot be computed (the message names tile and images), or too many workers are lost.
    """
    if workers is not None and workers < 1:
        raise RequestError(f"workers is {workers}; it must be at least 1")
    images = np.asarray(x)
    fingerprint = make_fingerprint(net, images, tile=tile, dtype=dtype, kinds=kinds)
    floats = compute_images(images, fingerprint["gram.tile"], dtype)
    path = Path(store).resolve()
    with builder_lock(path):
        opened = GramStore.create_or_open(path, fingerprint, net.spec.as_dict())
        chunks.remove_partials(path)
        damaged = verify_gram(opened).damaged
        invalidate(opened, [(d.kind, d.i, d.j) for d in damaged])
        done = opened.committed()
        missing = [(t.i, t.j) for t in opened.grid if not done[t.i, t.j]]
        total = len(opened.grid)
        report = on_progress or _ignore_progress
        report(total - len(missing), total, None)
        if missing:
            ledger = TileLedger(missing, deadline=deadline)
            with ray_session(address, image_bytes=floats.nbytes):
                _compute(opened, net, floats, ledger, workers, report, on_event or _ignore_event)
    return opened


def _compute(
    store: GramStore,
    net: Network,
    images: NDArray[Any],
    ledger: TileLedger,
    workers: int | None,
    report: ProgressSink,
    on_event: EventSink,
) -> None:
    gpus, _ = cluster_workers()
    arguments = (net.spec, ray.put(images), None, str(store.path), store.fingerprint)
    pool = WorkerPool(arguments, gpus=1 if gpus else 0)
    total = len(store.grid)
    before = total - ledger.total
    try:
        run_tiles(
            ledger,
            pool,
            target=lambda: workers or (cluster_workers()[0] if gpus else cluster_workers()[1]),
            on_receipt=lambda receipt: report(before + len(ledger.finished), total, receipt),
            on_event=on_event,
        )
    finally:
        pool.close()


def compute_images(images: NDArray[Any], tile: int, dtype: str) -> NDArray[Any]:
    """Images as floats in [-0.5, 0.5] of the dtype that kernels are computed in; uint8 is scaled in that dtype.

    Raises
    ------
    GramBuildError
        If an image holds values that are not finite; the message names images and tiles.
    DatasetError
        If the images are of another dtype or out of range.
    """
    if np.issubdtype(images.dtype, np.floating):
        bad = [k for k, image in enumerate(images) if not np.isfinite(image).all()]
        if bad:
            tiles = sorted({k // tile for k in bad})
            raise GramBuildError(
                f"image {some([str(k) for k in bad])}: not finite, which would spoil the tiles of row and column "
                f"{some([str(t) for t in tiles])}; mend or drop it"
            )
    elif images.dtype == np.uint8 and dtype == "float64":
        return images.astype(np.float64) / 255.0 - 0.5
    return to_unit_range(images).astype(dtype, copy=False)


def _ignore_progress(done: int, total: int, receipt: Receipt | None) -> None:
    """Nobody watches."""


def _ignore_event(event: dict[str, Any]) -> None:
    """Nobody listens."""

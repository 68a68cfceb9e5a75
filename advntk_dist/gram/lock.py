"""One builder a store: a lock beside it, which dies with the process that holds it; in an object store, soon after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from advntk_dist.storage.location import Location
from advntk_dist.storage.lock import sole


def lock_path(store: Location) -> Location:
    """Where the lock of a store lies: beside it, so that the store itself can be moved into place whole."""
    return store.with_name(store.name + ".lock")


@contextmanager
def builder_lock(store: Location) -> Iterator[None]:
    """Hold the lock of the store at ``store``.

    Raises
    ------
    StoreBusyError
        At once, if another builder holds it.
    """
    store.parent.mkdir(parents=True, exist_ok=True)
    busy = f"{store}: another process is building this store; wait until it ends, or watch it with `advntk gram status`"
    with sole(lock_path(store), store, busy):
        yield

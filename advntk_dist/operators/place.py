"""A Gram store as other processes find it, and errors that come back from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from advntk_dist import errors
from advntk_dist.errors import AdvNTKError, StoreError
from advntk_dist.operators.tiles import StoreTiles

if TYPE_CHECKING:
    from advntk_dist.gram.store import GramStore


@dataclass(frozen=True)
class Place:
    """Path, kernel and fingerprint of a store: enough to open it elsewhere, and to see that it is the same."""

    path: str
    kind: str
    fingerprint: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, store: GramStore, kind: str) -> Place:
        """The place of a store that is open here."""
        flat = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in store.fingerprint.items())
        return cls(str(store.path.resolve()), kind, flat)

    def open(self) -> StoreTiles:
        """The tiles, opened anew.

        Raises
        ------
        StoreMismatchError
            If another store has taken the place.
        StoreIncompleteError, StoreError
            If there is none, or it is damaged.
        """
        from advntk_dist.gram.fingerprint import require_same
        from advntk_dist.gram.store import GramStore

        store = GramStore.open(self.path)
        ours = {k: list(v) if isinstance(v, tuple) else v for k, v in self.fingerprint}
        require_same(self.path, store.fingerprint, ours)
        return StoreTiles(store, self.kind)


@lru_cache(maxsize=8)
def open_once(place: Place) -> StoreTiles:
    """The tiles of a place, opened once a process, so that each tile is verified once a process."""
    return place.open()


@dataclass(frozen=True)
class Failure:
    """An error of another process, as text: not every exception survives the journey."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """What there is to say of an error."""
        name = type(error).__name__
        return cls(name, str(error) if isinstance(error, AdvNTKError) else f"{name}: {error}")

    def reraise(self) -> None:
        """Raise it here, as the same class where that is one of ours."""
        known = getattr(errors, self.kind, None)
        if isinstance(known, type) and issubclass(known, AdvNTKError) and known is not errors.StoreMismatchError:
            raise known(self.message)
        raise StoreError(self.message)

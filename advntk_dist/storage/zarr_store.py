"""Zarr's own stores, on a disk with files that survive a power cut, in an object store with our retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarr.storage import LocalStore, ObjectStore

from advntk_dist.storage.durable import write_durable
from advntk_dist.storage.paths import Location, ObjectPath, refuse_if_lost
from advntk_dist.storage.retry import no_bucket, with_retries_async

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


def zarr_at(path: Location) -> dict[str, Any]:
    """The arguments by which zarr opens the group at a place."""
    return {"store": DurableStore(path) if isinstance(path, Path) else ObjectGroupStore(path)}


class DurableStore(LocalStore):
    """A folder as zarr sees it, in which every file is flushed to disk before it has its name."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write a file, whole or not at all."""
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write a file, whole or not at all."""
        self._ensure_open_sync()
        self._check_writable()
        write_durable(self.root / key, value.to_bytes())

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a file unless there is one."""
        await self._ensure_open()
        self._check_writable()
        await asyncio.to_thread(write_durable, self.root / key, value.to_bytes(), new=True)


class ObjectGroupStore(ObjectStore[Any]):
    """What lies below a path, as zarr sees it."""

    def __init__(self, path: ObjectPath, *, read_only: bool = False) -> None:
        self._root = path
        super().__init__(path.store_below, read_only=read_only)

    def with_read_only(self, read_only: bool = False) -> ObjectGroupStore:
        """The same, to be read, or to be written."""
        return ObjectGroupStore(self._root, read_only=read_only)

    def __str__(self) -> str:
        return str(self._root)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectGroupStore) and (self._root, self.read_only) == (other._root, other.read_only)

    def __getstate__(self) -> dict[Any, Any]:
        return {"_root": self._root, "read_only": self.read_only}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self.__init__(state["_root"], read_only=state["read_only"])  # type: ignore[misc]

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The object, or None."""
        return await with_retries_async(
            f"{self}/{key}", lambda: super(ObjectGroupStore, self).get(key, prototype, byte_range)
        )

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of objects."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is an object."""
        return await with_retries_async(f"{self}/{key}", lambda: super(ObjectGroupStore, self).exists(key))

    async def set(self, key: str, value: Buffer) -> None:
        """Put an object, whole or not at all."""
        refuse_if_lost(f"{self}/{key}")
        try:
            await with_retries_async(f"{self}/{key}", lambda: super(ObjectGroupStore, self).set(key, value))
        except FileNotFoundError:
            raise no_bucket(f"{self}/{key}") from None

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Put an object unless there is one."""
        if not await self.exists(key):
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        """Delete an object."""
        refuse_if_lost(f"{self}/{key}")
        await with_retries_async(f"{self}/{key}", lambda: super(ObjectGroupStore, self).delete(key))

    async def delete_dir(self, prefix: str) -> None:
        """Delete everything below."""
        await with_retries_async(f"{self}/{prefix}", lambda: super(ObjectGroupStore, self).delete_dir(prefix))

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names one level below."""

        async def names() -> list[str]:
            return [name async for name in super(ObjectGroupStore, self).list_dir(prefix)]

        for name in await with_retries_async(f"{self}/{prefix}", names):
            yield name

"""Checkpoints in Zarr: groups that know whose they are, arrays in which each chunk is one committed record.

A record counts only once its commit, written after it, says so. The commit is a checksum of the values and of what they
belong to: the identity of the group, the name of the table, the place in it and, where they are derived from other
records, those. So a record that is missing, torn, damaged, or of another place is *not committed*: it reads as None,
with one line in the log, and is computed again when it is needed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from advntk_dist.errors import StoreDamagedError, StoreError, StoreMismatchError
from advntk_dist.storage.durable import DAMAGE, PARTIAL, json_checksum, read_again
from advntk_dist.storage.paths import Location
from advntk_dist.storage.zarr_store import zarr_at

log = logging.getLogger(__name__)

_IDENTITY = "identity"
_CHECKSUM = "crc32c"
"""Attribute of a group: checksum of its identity. Of an array: of its shape and of the rows to a chunk."""

_COMMITS = "commits"


def guarded_group(path: Location, identity: Mapping[str, Any]) -> zarr.Group:
    """The Zarr group at ``path``, made if it is not there, for this identity only.

    A damaged description is written anew: each record tells for itself whether it belongs to this identity.

    Raises
    ------
    StoreMismatchError
        If the group was made for another identity; names the first field that differs.
    StoreError
        If there is something else at the path.
    """
    identity = _plain(identity)
    if path.exists() and (path / "zarr.json").exists():
        try:
            group, stored = read_again(lambda: _open(path, "r+"))
        except DAMAGE as error:
            _require_ours(path, error)
            _say_once(f"{path}: its description is damaged ({_first_line(error)}) and is written anew")
            (path / "zarr.json").unlink(missing_ok=True)
        else:
            for field, value in identity.items():
                if stored.get(field) != value:
                    raise StoreMismatchError(str(path), field, stored.get(field), value)
            return group
    elif path.exists():
        _require_ours(path, "it has no zarr.json")
    attributes = {_IDENTITY: identity, _CHECKSUM: json_checksum(identity)}
    return zarr.create_group(**zarr_at(path), zarr_format=3, attributes=attributes)


def read_group(path: Location) -> tuple[zarr.Group, dict[str, Any]]:
    """The group at ``path``, to be read, and the identity for which it was made.

    Raises
    ------
    StoreDamagedError
        If its description is missing or damaged.
    StoreError
        If there is something else at the path.
    """
    try:
        return read_again(lambda: _open(path, "r"))
    except DAMAGE as error:
        _require_ours(path, error)
        raise StoreDamagedError(
            f"{path}: its description is damaged ({_first_line(error)}); `advntk run` with the same configuration and "
            "--out mends it"
        ) from error


def holds_nothing(path: Location) -> bool:
    """Whether there is no group at ``path``, or a sound one of ours in which no record is committed."""
    if not path.exists():
        return True
    try:
        group, _ = read_group(path)
        commits = group.get(_COMMITS)
        tables = [table for _, table in commits.arrays()] if isinstance(commits, zarr.Group) else []
        return all((np.asarray(table[:]) < 0).all() for table in tables)
    except (StoreError, *DAMAGE):
        return False


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as JSON stores it, in which tuples are lists."""
    return dict(json.loads(json.dumps(dict(identity))))


@lru_cache(maxsize=1024)
def _say_once(text: str) -> None:
    log.warning("%s", text)


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _open(path: Location, mode: Literal["r", "r+"]) -> tuple[zarr.Group, dict[str, Any]]:
    """The group and its identity; raises one of DAMAGE where they do not fit each other."""
    group = zarr.open_group(**zarr_at(path), mode=mode, zarr_format=3)
    attributes: dict[str, Any] = group.attrs.asdict()
    identity = dict(attributes[_IDENTITY])
    if attributes[_CHECKSUM] != json_checksum(identity):
        raise ValueError("the checksum of its identity does not match")
    return group, identity


def _require_ours(path: Location, why: object) -> None:
    """Raise StoreError unless everything at ``path`` may be what a group of ours consists of."""
    if path.is_file():
        raise StoreError(f"{path}: not a checkpoint of this program (a file); move it away")
    for entry in path.iterdir():
        ours = entry.name.endswith(PARTIAL) or entry.name in ("zarr.json", _COMMITS) or _is_table(entry)
        if not ours or (entry.name == "zarr.json" and _is_foreign(entry)):
            raise StoreError(f"{path}: not a checkpoint of this program ({_first_line(why)}); move it away")


def _is_table(entry: Location) -> bool:
    """Whether an entry of a group may be an array: a folder with one, or with nothing but what was never finished."""
    if not entry.is_dir():
        return False
    names = {below.name for below in entry.iterdir() if not below.name.endswith(PARTIAL)}
    return not names or not names.isdisjoint(("zarr.json", "c"))


def _is_foreign(description: Location) -> bool:
    """Whether a zarr.json is sound, and of something that we have not made."""
    try:
        attributes = json.loads(description.read_bytes())["attributes"]
        return _IDENTITY not in attributes and _CHECKSUM not in attributes
    except DAMAGE:
        return False


class Records:
    """A table of rows in a Zarr array; a row, or a span of rows, is written as one chunk and so at once.

    Parameters
    ----------
    group
        Where the array lives.
    name
        Its name.
    rows
        Number of rows.
    shape
        Shape of one row, numbers in float64.
    span
        Rows to a chunk.
    of
        What the rows are derived from: the :meth:`seal` of other records. Rows that were derived from anything else
        are not committed.

    Raises
    ------
    StoreMismatchError
        If the table there has another shape.
    """

    def __init__(
        self, group: zarr.Group, name: str, rows: int, shape: tuple[int, ...], *, span: int = 1, of: int = 0
    ) -> None:
        self.where = f"{group.store_path}/{name}"
        self.rows, self.span = rows, span
        identity: Any = group.attrs.asdict().get(_IDENTITY)
        self._owner = [identity, name, of]
        self._array = _table(group, name, (rows, *shape), span, "float64")
        self._commits = _table(group, f"{_COMMITS}/{name}", (-(-rows // span),), 1, "int64")

    @classmethod
    def stored(cls, group: zarr.Group, name: str, *, of: int = 0) -> Records | None:
        """The table of this name in the shape that it has; None without one, or where its description is damaged."""
        try:
            array = group.get(name)
        except DAMAGE:
            return None
        if not isinstance(array, zarr.Array) or array.attrs.get(_CHECKSUM) != _layout(array.shape, array.chunks[0]):
            return None
        return cls(group, name, array.shape[0], array.shape[1:], span=array.chunks[0], of=of)

    def write(self, start: int, values: NDArray[np.float64]) -> None:
        """Write the chunk that begins at row ``start``, then its commit; values must be finite.

        Raises
        ------
        ValueError
            If the rows are not exactly one chunk, or not finite.
        OSError, StoreError
            If they cannot be written.
        """
        stop = min(start + self.span, self.rows)
        if start % self.span or len(values) != stop - start or not np.isfinite(values).all():
            raise ValueError(f"{self.where}: rows {start} to {start + len(values)} are not one finite chunk")
        assert self._array is not None
        assert self._commits is not None
        self._array[start:stop] = values
        self._commits[start // self.span] = self._sum(start, values)

    def _sum(self, start: int, values: NDArray[np.float64]) -> int:
        return json_checksum([*self._owner, start], np.ascontiguousarray(values, "<f8").tobytes())

    def read(self, start: int) -> NDArray[np.float64] | None:
        """The chunk that begins at row ``start``, or None where none is committed.

        Raises
        ------
        StoreError
            If an object store does not answer.
        """
        try:
            return read_again(lambda: self._committed(start))
        except DAMAGE as error:
            stop = min(start + self.span, self.rows)
            _say_once(f"{self.where}: rows {start} to {stop} do not count as done ({_first_line(error)})")
            return None

    def _committed(self, start: int) -> NDArray[np.float64] | None:
        """A chunk that is committed, None where none is; raises one of DAMAGE."""
        if self._array is None or self._commits is None:
            return None
        commit = int(np.asarray(self._commits[start // self.span]))
        if commit < 0:
            return None
        values = np.asarray(self._array[start : min(start + self.span, self.rows)], dtype=np.float64)
        if np.isnan(values).any():
            raise ValueError("committed, but missing")
        if commit != self._sum(start, values):
            raise ValueError("it was changed, or derived from something else")
        return values

    def read_all(self) -> NDArray[np.float64] | None:
        """All rows, or None where one is missing."""
        chunks = [self.read(start) for start in range(0, self.rows, self.span)]
        return None if any(c is None for c in chunks) else np.concatenate([c for c in chunks if c is not None])

    def seal(self, start: int) -> int:
        """Checksum of the chunk that begins at row ``start``, for what is derived from it; -1 where none is committed.

        Raises
        ------
        StoreError
            If an object store does not answer.
        """
        return _seal_at(self._commits, start // self.span)


def read_seal(group: zarr.Group, name: str, rows: int, start: int) -> int:
    """:meth:`Records.seal` of a row of a table whose rows are committed one by one, without knowing their shape."""
    return _seal_at(_table(group, f"{_COMMITS}/{name}", (rows,), 1, "int64"), start)


def _seal_at(commits: zarr.Array[Any] | None, place: int) -> int:
    """A committed checksum; -1 where there is none, or it is damaged."""
    if commits is None:
        return -1
    try:
        return read_again(lambda: int(np.asarray(commits[place])))
    except DAMAGE as error:
        _say_once(f"{commits.store_path}: the commit at {place} does not count ({_first_line(error)})")
        return -1


def _table(group: zarr.Group, name: str, shape: tuple[int, ...], span: int, dtype: str) -> zarr.Array[Any] | None:
    """The array of a table, made if it is not there; a damaged description is written anew. None: it cannot be made."""
    try:
        found = read_again(lambda: _whole(group, name, shape, span, dtype))
    except DAMAGE as error:
        _say_once(f"{group.store_path}/{name}: its description is damaged ({_first_line(error)})")
        if group.read_only:
            return None
        sync(group.store.delete(_key(group, name)))
        return _create(group, name, shape, span, dtype)
    return found if found is not None or group.read_only else _create(group, name, shape, span, dtype)


def _key(group: zarr.Group, name: str) -> str:
    return "/".join(filter(None, (group.path, name, "zarr.json")))


def _whole(group: zarr.Group, name: str, shape: tuple[int, ...], span: int, dtype: str) -> zarr.Array[Any] | None:
    """The array as it should be, None where there is none; raises one of DAMAGE where its description is damaged."""
    found = group.get(name)
    if found is None and not sync(group.store.exists(_key(group, name))):
        return None
    if not isinstance(found, zarr.Array):
        raise ValueError("it is not that of an array")
    if _text_of(found) == _description(shape, span, dtype):
        return found
    if found.attrs.get(_CHECKSUM) != _layout(found.shape, found.chunks[0]):
        raise ValueError("it is not as it was written")
    if found.shape != shape:
        raise StoreMismatchError(f"{group.store_path}/{name}", "shape", [*found.shape], [*shape])
    if found.chunks[0] != span:
        raise StoreMismatchError(f"{group.store_path}/{name}", "rows to a chunk", found.chunks[0], span)
    raise ValueError("it is not as it was written")


def _layout(shape: tuple[int, ...], span: int) -> int:
    return json_checksum([*shape, span])


def _create(group: zarr.Group, name: str, shape: tuple[int, ...], span: int, dtype: str) -> zarr.Array[Any]:
    """Make the array; groups between it and ``group`` whose description is damaged are described anew."""
    *parents, _ = name.split("/")
    for place in ("/".join(parents[: i + 1]) for i in range(len(parents))):
        try:
            read_again(partial(group.get, place))
        except DAMAGE:
            sync(group.store.delete(_key(group, place)))
    return group.create_array(
        name,
        shape=shape,
        chunks=(span, *(max(1, s) for s in shape[1:])),
        dtype=dtype,
        fill_value=float("nan") if dtype == "float64" else -1,
        filters=None,
        serializer=BytesCodec(),
        compressors=Crc32cCodec(),
        attributes={_CHECKSUM: _layout(shape, span)},
        config={"write_empty_chunks": True},
    )


@lru_cache(maxsize=256)
def _description(shape: tuple[int, ...], span: int, dtype: str) -> bytes:
    """What zarr stores of such an array."""
    return _text_of(_create(zarr.create_group(MemoryStore(), zarr_format=3), "table", shape, span, dtype))


def _text_of(array: zarr.Array[Any]) -> bytes:
    """The zarr.json of an array as this release of zarr writes it."""
    return array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()

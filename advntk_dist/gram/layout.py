"""Making a store: the Zarr metadata, complete before the store appears under its name."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from advntk_dist.gram import chunks
from advntk_dist.gram.commits import FIELDS
from advntk_dist.gram.fingerprint import Fingerprint
from advntk_dist.grid import TileGrid
from advntk_dist.storage.location import Location

ATTRIBUTE = "advntk_gram"
"""Attribute of the Zarr group that holds the description of the store."""

CREATING = ".creating"


def create_layout(root: Location, fingerprint: Fingerprint, network: dict[str, Any]) -> None:
    """Create an empty store at ``root``, which must be absent or an empty folder.

    It is made beside ``root`` and renamed into place, so that a store is there whole or not at all. In an object
    store, which knows no renaming, the description of the group is written last: without it there is no store.
    """
    if not isinstance(root, Path):
        root.remove_tree()
        with TemporaryDirectory(prefix="advntk-gram-") as folder:
            made = Path(folder) / root.name
            _create_group(made, fingerprint, network)
            files = [path.relative_to(made) for path in made.rglob("zarr.json")]
            for file in sorted(files, key=lambda file: -len(file.parts)):
                root.joinpath(*file.parts).write_bytes((made / file).read_bytes())
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    for left in root.parent.glob(f"{root.name}.*{CREATING}"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = root.with_name(f"{root.name}.{uuid.uuid4().hex}{CREATING}")
    _create_group(temporary, fingerprint, network)
    for path in temporary.rglob("zarr.json"):
        chunks.write_durable(path, path.read_bytes())
    temporary.rename(root)
    chunks.flush_folder(root.parent)


def is_absent(root: Location) -> bool:
    """Whether a store may be made here: there is nothing, or in an object store what a death in the making left."""
    if isinstance(root, Path):
        return not root.exists() or (root.is_dir() and not any(root.iterdir()))
    return not root.is_file() and {path.name for path in root.iterdir()} <= {"ntk", "nngp", "commits"}


def _create_group(folder: Path, fingerprint: Fingerprint, network: dict[str, Any]) -> None:
    attributes: dict[str, Any] = {ATTRIBUTE: {"fingerprint": fingerprint, "network": network}}
    group = zarr.open_group(folder, mode="w-", zarr_format=3, attributes=attributes)
    tile, shape = fingerprint["gram.tile"], (fingerprint["n"], fingerprint["n_columns"])
    for kind in fingerprint["kinds"]:
        _create_array(group, kind, shape, (tile, tile), fingerprint["gram.dtype"], float("nan"), {})
        down_across = TileGrid(*shape, tile).shape
        _create_array(
            group, f"commits/{kind}", (*down_across, len(FIELDS)), (1, 1, len(FIELDS)), "int64", -1, {"fields": FIELDS}
        )


def _create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    dtype: str,
    fill_value: float,
    attributes: dict[str, Any],
) -> None:
    group.create_array(
        name,
        shape=shape,
        chunks=chunk,
        dtype=dtype,
        fill_value=fill_value,
        filters=None,
        serializer=BytesCodec(endian="little"),
        compressors=[Crc32cCodec()],
        attributes=attributes,
        config={"write_empty_chunks": True},
    )

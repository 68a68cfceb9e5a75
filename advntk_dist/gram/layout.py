"""Making a store: the Zarr descriptions, complete before the store appears under its name, and mended where damaged."""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from advntk_dist.gram.commits import FIELDS
from advntk_dist.gram.fingerprint import Fingerprint
from advntk_dist.grid import TileGrid
from advntk_dist.storage import durable
from advntk_dist.storage.paths import Location

log = logging.getLogger(__name__)

ATTRIBUTE = "advntk_gram"
"""Attribute of the Zarr group that holds the description of the store."""

CREATING = ".creating"


def create_layout(root: Location, fingerprint: Fingerprint, network: dict[str, Any]) -> None:
    """Create an empty store at ``root``, which must be absent or an empty folder.

    It is made beside ``root`` and renamed into place, so that a store is there whole or not at all. In an object
    store, which has no renaming, the description of the group is written last: without it there is no store.
    """
    files = sorted(descriptions(fingerprint, network).items(), key=lambda item: -item[0].count("/"))
    if not isinstance(root, Path):
        root.remove_tree()
        for name, content in files:
            durable.write_durable(root.joinpath(*name.split("/")), content)
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    for left in root.parent.glob(f"{root.name}.*{CREATING}"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = root.with_name(f"{root.name}.{uuid.uuid4().hex}{CREATING}")
    for name, content in files:
        durable.write_durable(temporary / name, content)
    durable.move_folder(temporary, root)


def mend_layout(root: Location, fingerprint: Fingerprint, network: dict[str, Any], *, grown: bool = False) -> None:
    """Write every description anew that is not as it should be; ``grown``: as the store was enlarged."""
    wrong, right = wrong_descriptions(root, fingerprint, network), descriptions(fingerprint, network)
    for name in wrong:
        durable.write_durable(root.joinpath(*name.split("/")), right[name])
    if wrong and not grown:
        log.warning("%s: the description of %s is not as it was written, and is written anew", root, ", ".join(wrong))


def wrong_descriptions(root: Location, fingerprint: Fingerprint, network: dict[str, Any]) -> list[str]:
    """Paths below ``root`` of the zarr.json files that are missing, or say something else than they should."""
    wrong = []
    for name, content in descriptions(fingerprint, network).items():
        try:
            same = json.loads(root.joinpath(*name.split("/")).read_bytes()) == json.loads(content)
        except (ValueError, OSError):
            same = False
        if not same:
            wrong.append(name)
    return wrong


def is_absent(root: Location) -> bool:
    """Whether a store may be made here: there is nothing, or in an object store what a death in the making left."""
    if isinstance(root, Path):
        return not root.exists() or (root.is_dir() and not any(root.iterdir()))
    return not root.is_file() and {path.name for path in root.iterdir()} <= {"ntk", "nngp", "commits"}


def checksum(fingerprint: Fingerprint, network: dict[str, Any]) -> int:
    """The crc32c by which the description of a store shows that it is as it was written."""
    return durable.json_checksum([fingerprint, network])


def descriptions(fingerprint: Fingerprint, network: dict[str, Any]) -> dict[str, bytes]:
    """Every zarr.json of a store, by its path below the store's folder."""
    made: dict[str, Buffer] = {}
    about = {"fingerprint": fingerprint, "network": network, "crc32c": checksum(fingerprint, network)}
    group = zarr.create_group(MemoryStore(made), zarr_format=3, attributes={ATTRIBUTE: about})
    tile, shape = fingerprint["gram.tile"], (fingerprint["n"], fingerprint["n_columns"])
    for kind in fingerprint["kinds"]:
        _create_array(group, kind, shape, (tile, tile), fingerprint["gram.dtype"], float("nan"), {})
        down_across = TileGrid(*shape, tile).shape
        _create_array(
            group, f"commits/{kind}", (*down_across, len(FIELDS)), (1, 1, len(FIELDS)), "int64", -1, {"fields": FIELDS}
        )
    return {name: content.to_bytes() for name, content in made.items()}


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

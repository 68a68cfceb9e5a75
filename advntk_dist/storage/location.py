"""A place for files: a path on a disk, or a URL of an object store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TypeAlias

from advntk_dist.errors import RequestError
from advntk_dist.storage.objects import EXTRAS, ObjectPath

Location: TypeAlias = Path | ObjectPath
"""Both have the methods of ``pathlib.Path`` that this package uses."""


def location(place: str | Location) -> Location:
    """The place that a path or a URL names; nothing is opened.

    Raises
    ------
    RequestError
        If it is a URL of another kind than ``s3://bucket/...`` and ``gs://bucket/...``, or holds credentials.
    """
    if not isinstance(place, str):
        return place
    if "://" not in place:
        return Path(place)
    refuse_credentials("the URL", place)
    scheme, _, rest = place.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in EXTRAS or not bucket or "#" in rest:
        shown = "" if "#" in rest else f"{place}: "
        raise RequestError(f"{shown}not a place for files; give a local path, s3://BUCKET/PATH or gs://BUCKET/PATH")
    parts = [part for part in key.split("/") if part]
    if {".", ".."} & set(parts):
        raise RequestError(f"{place}: an object store has no '.' and no '..'; write the path out")
    return ObjectPath(scheme, bucket, "/".join(parts))


def local(place: Location) -> Path:
    """A place that is on a disk.

    Raises
    ------
    RequestError
        If it is in an object store.
    """
    if not isinstance(place, Path):
        raise RequestError(f"{place}: this works on a disk only; give a local path")
    return place


def remove_tree(place: Location) -> None:
    """Delete a folder and everything in it, or what there is of it."""
    if isinstance(place, Path):
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.remove_tree()


def refuse_credentials(option: str, url: str) -> None:
    """Raise RequestError if a URL holds a user or a password; the message does not repeat them.

    A secret may hold a slash, which ends what a URL's grammar takes for the host.
    """
    scheme, mark, rest = url.partition("://")
    authority = rest.partition("/")[0]
    port_of_bucket = scheme in EXTRAS and ":" in authority
    if mark and ("@" in authority or "?" in rest or port_of_bucket or (":" in authority and "@" in rest)):
        raise _credentials(option)


def refuse_credentials_in_address(option: str, address: str) -> None:
    """:func:`refuse_credentials` for the address of a server, with a scheme or without: no part of it has an "@"."""
    if set(address) & set("@?#"):
        raise _credentials(option)


def _credentials(option: str) -> RequestError:
    return RequestError(
        f"{option}: holds credentials, which a command line shows to everyone; leave them out and let the environment "
        f"hold them"
    )

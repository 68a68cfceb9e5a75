"""Places for files: a path on a disk, or a URL of an object store with the methods of ``pathlib.Path`` in use here.

A put is atomic: readers see the object before or after it. There are no folders: a folder is there while something is
in it. Credentials and endpoints come from the environment or this machine's identity, as obstore finds them, and are
never part of a path.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from advntk_dist.errors import RequestError, StoreBusyError
from advntk_dist.storage.retry import TIMEOUT, no_bucket, seconds_of, with_retries

EXTRAS = {"s3": "s3", "gs": "gcs"}
"""URL schemes, and the extra of this package that serves each."""

_MULTIPART = 64 * 2**20
"""Larger objects go in parts, which may be sent at once but leave invisible remains where an upload is cut short."""

_PART = 16 * 2**20

T = TypeVar("T")

_lost: dict[str, str] = {}
"""URLs below which this process must not write any more, and why."""


@dataclass(frozen=True, order=True)
class ObjectPath:
    """One key, or folder of keys, in a bucket; make it with :func:`advntk_dist.storage.paths.location`.

    It pickles as its three strings: every process opens the store for itself.
    """

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")

    def __truediv__(self, other: str) -> ObjectPath:
        return self.joinpath(other)

    def joinpath(self, *parts: str) -> ObjectPath:
        """The path below this one."""
        return ObjectPath(self.scheme, self.bucket, "/".join(p for p in (self.key, *parts) if p))

    @property
    def name(self) -> str:
        """Its last part."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> ObjectPath:
        """The folder that it is in."""
        return ObjectPath(self.scheme, self.bucket, self.key.rpartition("/")[0])

    @property
    def parts(self) -> tuple[str, ...]:
        """Bucket and parts of the key."""
        return (f"{self.scheme}://{self.bucket}", *filter(None, self.key.split("/")))

    def with_name(self, name: str) -> ObjectPath:
        """Another one in the same folder."""
        return self.parent / name

    def resolve(self) -> ObjectPath:
        """Itself: it means the same everywhere."""
        return self

    @property
    def store(self) -> Any:
        """The bucket, as obstore opens it."""
        return _opened(self.scheme, self.bucket, "", hash(_environment()))

    @property
    def store_below(self) -> Any:
        """What lies below this path, as obstore opens it."""
        return _opened(self.scheme, self.bucket, self.key, hash(_environment()))

    def ask(self, operation: Callable[[Any, Any], T]) -> T:
        """The result of ``operation(obstore, store)``; errors as :func:`~advntk_dist.storage.retry.with_retries`."""
        store = self.store
        import obstore

        return with_retries(str(self), lambda: operation(obstore, store))

    def read_bytes(self) -> bytes:
        """The object.

        Raises
        ------
        FileNotFoundError
            If there is none.
        StoreError
            If the store refuses, or does not answer.
        """
        return self.ask(lambda obstore, store: bytes(obstore.get(store, self.key).bytes()))

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object as text; errors as :meth:`read_bytes`."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes, *, new: bool = False) -> bool:
        """Put the object, whole or not at all; with ``new`` only where there is none. Whether it was put.

        A put whose answer was lost is tried again, so that ``new`` may say False of what this call has put.

        Raises
        ------
        StoreError
            If the store refuses, does not answer, or knows no conditional writes.
        StoreBusyError
            If another process has taken the place over.
        """
        refuse_if_lost(str(self))
        large, mode = len(content) > _MULTIPART and not new, "create" if new else "overwrite"

        def put(obstore: Any, store: Any) -> bool:
            try:
                obstore.put(store, self.key, content, mode=mode, use_multipart=large, chunk_size=_PART)
            except obstore.exceptions.AlreadyExistsError:
                if not new:
                    raise
                return False
            return True

        try:
            return self.ask(put)
        except FileNotFoundError:
            raise no_bucket(str(self)) from None

    def head(self) -> dict[str, Any] | None:
        """Size, e_tag, version and last_modified (the store's clock) of the object; None where there is none."""
        try:
            return self.ask(lambda obstore, store: dict(obstore.head(store, self.key)))
        except FileNotFoundError:
            return None

    def is_file(self) -> bool:
        """Whether there is an object."""
        return bool(self.key) and self.head() is not None

    def is_dir(self) -> bool:
        """Whether there is anything below."""
        return any(True for _ in self.iterdir())

    def exists(self) -> bool:
        """Whether there is an object, or anything below."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[ObjectPath]:
        """Objects and folders one level below."""
        found = self.ask(lambda obstore, store: obstore.list_with_delimiter(store, self.key or None))
        for key in (*found["common_prefixes"], *(entry["path"] for entry in found["objects"])):
            yield ObjectPath(self.scheme, self.bucket, key.rstrip("/"))

    def mkdir(self, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Nothing: there are no folders to make."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object; unlike a file, one that is missing is no error on every store."""
        refuse_if_lost(str(self))
        try:
            self.ask(lambda obstore, store: obstore.delete(store, self.key))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Delete everything below."""
        entries = self.ask(lambda obstore, store: obstore.list(store, f"{self.key}/").collect())
        for entry in entries:
            ObjectPath(self.scheme, self.bucket, entry["path"]).unlink(missing_ok=True)


def refuse_if_lost(url: str) -> None:
    """Raise StoreBusyError if the lease of a folder above was lost to another process."""
    for folder, why in _lost.items():
        if url == folder or url.startswith(f"{folder}/"):
            raise StoreBusyError(why)


def forwarded() -> dict[str, str]:
    """Settings of stores, none of them secret, that worker processes take over from the one that starts them."""
    amazon = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ALLOW_HTTP", "AWS_SKIP_SIGNATURE")
    # A key file of the driver's machine may be another one, or none, on a worker's: its path stays here.
    names = (*amazon, "GOOGLE_BASE_URL")
    ours = {name: value for name, value in os.environ.items() if name in names or name.startswith("ADVNTK_STORE_")}
    return {name: value for name, value in ours.items() if "@" not in value and "?" not in value}


def _environment() -> tuple[tuple[str, str], ...]:
    """What obstore reads of the environment: a bucket is opened anew when it changes."""
    return tuple(sorted(v for v in os.environ.items() if v[0].startswith(("AWS_", "GOOGLE_", "ADVNTK_STORE_"))))


@lru_cache(maxsize=128)
def _opened(scheme: str, bucket: str, prefix: str, _environment: int) -> Any:
    try:
        from obstore.store import GCSStore, S3Store
    except ImportError:
        raise RequestError(
            f"{scheme}://{bucket}: object stores need the package obstore; "
            f"pip install 'advntk-dist[{EXTRAS[scheme]}]', on every node"
        ) from None
    from obstore.exceptions import BaseError

    client: dict[str, Any] = {"timeout": f"{round(1e3 * seconds_of(TIMEOUT, 60.0))}ms", "connect_timeout": "5s"}
    if _is_plain_http("AWS_ENDPOINT_URL" if scheme == "s3" else "GOOGLE_BASE_URL"):
        client["allow_http"] = True
    kind: Any = S3Store if scheme == "s3" else GCSStore
    try:
        return kind(bucket, prefix=prefix or None, client_options=client, retry_config={"max_retries": 0})
    except (BaseError, ValueError) as error:
        why = type(error).__name__
    raise RequestError(
        f"{scheme}://{bucket}: the settings of the object store in the environment are not usable ({why}); see "
        "deploy/README.md for what there is to set"
    )


def _is_plain_http(variable: str) -> bool:
    """Whether the endpoint in the environment is reached without encryption: on this machine, or by permission.

    Raises
    ------
    RequestError
        If it is no URL, or without encryption and without permission; the message does not repeat it.
    """
    endpoint = os.environ.get(variable)
    if endpoint is None:
        return False
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise RequestError(f"{variable}: not a URL; give http(s)://HOST:PORT, or unset it")
    if url.scheme == "https":
        return False
    if url.hostname not in ("127.0.0.1", "localhost", "::1") and os.environ.get("AWS_ALLOW_HTTP") != "true":
        raise RequestError(
            f"{variable}: sends everything unencrypted; give an https:// URL, or set AWS_ALLOW_HTTP=true"
        )
    return True


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

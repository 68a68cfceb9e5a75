"""One error tree; each message is one line that says what is wrong, where, and how to mend it.

The command line turns ``exit_code`` into the process's exit status (2: the request is wrong; 3: stored
data are damaged or belong to another configuration; 1: anything else) and prints the message alone.
"""

from __future__ import annotations


class AdvNTKError(Exception):
    """Root of the errors this package raises on purpose."""

    exit_code = 1


class RequestError(AdvNTKError, ValueError):
    """What the caller asked for cannot be done as asked."""

    exit_code = 2


class ConfigError(RequestError):
    """A configuration key is unknown, has the wrong type, or an impossible value."""


class DatasetError(RequestError):
    """A dataset file is missing, truncated, foreign, or holds impossible values."""


class NetworkError(RequestError):
    """A network name, activation or import path does not describe a network."""


class StoreIncompleteError(RequestError):
    """A Gram store is asked for data that has not been computed yet."""


class StoreError(AdvNTKError):
    """Something is wrong with stored data."""

    exit_code = 3


class StoreUnreachableError(StoreError):
    """An object store did not answer for longer than is waited for; the same command goes on later."""


class StoreDamagedError(StoreError, OSError):
    """Stored bytes do not match their checksum or their commit record."""


class StoreMismatchError(StoreError):
    """A store belongs to another configuration; the message names the field that differs."""

    def __init__(self, where: str, field: str, stored: object, requested: object, also: str = "") -> None:
        super().__init__(
            f"{where}: {field} differs: the store has {stored!r}, this request has {requested!r}; "
            f"use another --out{also}, or ask for the stored {field}"
        )
        self.field, self.stored, self.requested = field, stored, requested


class ImagesChangedError(StoreMismatchError):
    """A run was made from other images than its dataset has now."""

    def __init__(self, where: object, dataset: str, stored: object, requested: object) -> None:
        super().__init__(str(where), "images", stored, requested)
        self.args = (
            f"{where}: the images of {dataset!r} changed since this run; put back those that it was made from "
            "(--set data.path=PLACE where they lie elsewhere), or start anew with another --out",
        )


class OtherFormatError(StoreMismatchError):
    """A file or a store was written in another format than this release has."""

    def __init__(self, where: object, stored: object, requested: object) -> None:
        super().__init__(str(where), "format", stored, requested)
        self.args = (
            f"{where}: has format {stored!r}, and this release reads format {requested!r} alone; start anew with "
            "another --out, or use the release that wrote it",
        )


class StoreBusyError(AdvNTKError):
    """Another process holds the lock of the store."""


class GramBuildError(AdvNTKError, RuntimeError):
    """A tile could not be computed, or too many workers were lost."""


class EvaluationError(AdvNTKError, RuntimeError):
    """A batch of images could not be judged, or too many workers were lost."""


class FetchError(AdvNTKError, OSError):
    """A file could not be had from its server, or is not the file that was published."""


class SolverError(AdvNTKError, ArithmeticError):
    """A solve missed its tolerance, or met numbers that are not finite."""

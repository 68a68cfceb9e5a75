"""How long an object store is waited for: a failure that may pass is met by another try, within bounds.

The tries are made here and not by obstore, which does not say how many it made, gives up on a conditional write whose
answer was lost, and shows the server's own words, which may hold an access key.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from advntk_dist import metrics
from advntk_dist.errors import RequestError, StoreError, StoreUnreachableError

log = logging.getLogger(__name__)

PATIENCE = "ADVNTK_STORE_PATIENCE"
"""Environment variable: seconds for which one operation is tried again; 180 by default."""

TIMEOUT = "ADVNTK_STORE_TIMEOUT"
"""Environment variable: seconds for one request, its body included; 60 by default."""

_PASSING = {408, 409, 425, 429}
"""Client errors that pass; of the others none does, and of the server errors all may."""

_SIGN_IN_TRIES = 3
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0

_limit: ContextVar[float | None] = ContextVar("store_patience", default=None)

T = TypeVar("T")


def seconds_of(variable: str, default: float) -> float:
    """A positive number of seconds from the environment.

    Raises
    ------
    RequestError
        If it is something else.
    """
    text = os.environ.get(variable, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise RequestError(f"{variable}: must be a number of seconds > 0")
    return seconds


def retry_seconds() -> float:
    """Seconds for which an operation of this thread is tried again."""
    limit = _limit.get()
    whole = seconds_of(PATIENCE, 180.0)
    return whole if limit is None else min(limit, whole)


@contextmanager
def short_timeout(seconds: float = 3.0) -> Iterator[None]:
    """Fewer seconds of retries in this thread, for what may fail without harm."""
    token = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(token)


def reason(error: BaseException) -> str:
    """What went wrong, in words of our own: status, S3's code for it, and the kind of failure; never the answer."""
    text = str(error)
    status = re.search(r"status code: (\d{3})\b", text)
    if status is not None:
        code = re.search(r"<Code>(\w{1,40})</Code>", text)
        return f"HTTP {status[1]}" + (f" {code[1]}" if code else "")
    kind = re.search(r"\bkind: (\w+)", text)
    words = {
        "Connect": "no connection",
        "Timeout": "no answer in time",
        "Interrupted": "the answer broke off",
        "Decode": "the answer broke off",
    }
    return words.get(kind[1] if kind else "", "the request failed")


class RetryPolicy:
    """How often, and with which pauses, one operation is tried.

    Parameters
    ----------
    where
        What is read or written, a URL without credentials.
    """

    def __init__(self, where: str) -> None:
        self.where, self.tries = where, 0
        self.started, self.allowed = time.monotonic(), retry_seconds()

    def pause(self, error: Exception) -> float:
        """Seconds to wait before the next try.

        Raises
        ------
        StoreError
            If another try would not help.
        StoreUnreachableError
            If the time is up.
        """
        self.tries += 1
        why, text = reason(error), str(error)
        if "<Code>NoSuchBucket</Code>" in text:
            raise no_bucket(self.where)
        passing = _may_pass(error, text)
        if _signs_in(text) and (not passing or self.tries >= _SIGN_IN_TRIES):
            raise StoreError(
                f"{self.where}: no credentials for the object store, neither in the environment nor from this "
                "machine's identity; give them, then run the same command again"
            )
        if not passing:
            raise StoreError(
                f"{self.where}: refused by the object store ({type(error).__name__}: {why}); check the bucket, the "
                "endpoint and the credentials in the environment, then run the same command again"
            )
        waited = time.monotonic() - self.started
        pause = random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self.tries)
        if waited + pause > self.allowed:
            raise StoreUnreachableError(
                f"{self.where}: the object store does not answer as it should ({why}; {self.tries} tries in "
                f"{waited:.0f} s); nothing that was committed is lost: run the same command again to go on"
            )
        metrics.count("advntk_store_retries")
        if self.tries == 5:
            log.warning("%s: %s; trying again for up to %.0f s", self.where, why, self.allowed - waited)
        return pause


def _signs_in(text: str) -> bool:
    """Whether an error comes from the search for credentials, not from the store."""
    return any(sign in text for sign in ("//169.254.", "//metadata.google", "//sts.", "//oauth2."))


def _may_pass(error: Exception, text: str) -> bool:
    if type(error).__name__ != "GenericError":
        # Conflicts of conditional writes are their callers' business; 409 is S3's word for two writers at once.
        return type(error).__name__ == "AlreadyExistsError"
    status = re.search(r"status code: (\d{3})\b", text)
    if status is None:
        return "kind: Builder" not in text
    passing = re.search(r"<Code>(RequestTimeout|SlowDown|InternalError)</Code>", text)
    return int(status[1]) >= 500 or int(status[1]) in _PASSING or passing is not None


def no_bucket(where: str) -> StoreError:
    """The error where a store says that there is no such bucket."""
    return StoreError(f"{where}: there is no such bucket; make it, or give another one")


def with_retries(where: str, operation: Callable[[], T]) -> T:
    """The result of an operation on an object store, tried again while its failures may pass.

    Parameters
    ----------
    where
        For messages.
    operation
        Does the same however often it is called. A conditional write catches the error of its condition itself.

    Raises
    ------
    FileNotFoundError
        If there is no such object.
    StoreError, StoreUnreachableError
        As :meth:`RetryPolicy.pause`.
    """
    from obstore.exceptions import BaseError

    tries = RetryPolicy(where)
    while True:
        try:
            return operation()
        except FileNotFoundError:
            break
        except BaseError as error:
            failure = error  # raised outside of here, what this says must not trail behind the error that is raised
        time.sleep(tries.pause(failure))
    raise FileNotFoundError(errno.ENOENT, "no such object", where)


async def with_retries_async(where: str, operation: Callable[[], Awaitable[T]]) -> T:
    """:func:`with_retries` for the event loop of Zarr."""
    from obstore.exceptions import BaseError

    tries = RetryPolicy(where)
    while True:
        try:
            return await operation()
        except BaseError as error:
            failure = error
        await asyncio.sleep(tries.pause(failure))

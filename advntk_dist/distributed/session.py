"""The Ray that this process uses: the one it has, a cluster that it joins, or one that it starts and stops."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import ray

from advntk_dist import library_logs
from advntk_dist.distributed.watch import RayWatch
from advntk_dist.environment import usable_cores
from advntk_dist.errors import RequestError
from advntk_dist.storage.paths import refuse_credentials_in_address

MIN_OBJECT_STORE = 200 * 2**20
"""Bytes of shared memory that a Ray of our own gets at least."""


_watches: list[RayWatch] = []
"""Of the Ray that this process has started or joined, at most one."""


_listener: ContextVar[Callable[[str], None]] = ContextVar("_listener", default=lambda text: None)


@contextmanager
def ray_announced(say: Callable[[str], None]) -> Iterator[None]:
    """Have ``say`` told that Ray is being started or joined, which takes seconds, by whatever does so inside."""
    token = _listener.set(say)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def ray_session(address: str | None = None, num_cpus: int | None = None, image_bytes: int = 0) -> Iterator[None]:
    """Have Ray initialised; shut it down at the end only if it was started here. Parameters as of :func:`have_ray`."""
    ours = have_ray(address, num_cpus, image_bytes)
    try:
        yield
    finally:
        if ours:
            stop_ray()


def have_ray(address: str | None = None, num_cpus: int | None = None, image_bytes: int = 0) -> bool:
    """Have Ray initialised; says whether it was not before, so that the caller has to :func:`stop_ray` it.

    Parameters
    ----------
    address
        Address of a running cluster; None for the Ray that this process already uses, or else a new one on this
        machine.
    num_cpus
        Cores of a new local Ray; all usable ones by default.
    image_bytes
        Bytes of images that the shared memory of a new local Ray must hold.

    Raises
    ------
    RequestError
        If no cluster answers at ``address``, or it holds credentials.
    """
    if ray.is_initialized():
        return False
    if address is not None:
        refuse_credentials_in_address("--address", address)  # before anything repeats it
    unused = "; RAY_ADDRESS is set and not used, --address joins a cluster" if "RAY_ADDRESS" in os.environ else ""
    _listener.get()(f"starting Ray{unused}" if address is None else f"joining the Ray cluster at {address}")
    if address is not None:
        _require_listener(address)
    try:
        with warnings.catch_warnings():
            # Ray starts its processes by fork and exec; JAX warns of forks that go on as Python.
            warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
            with _own_handler_of_termination():
                _start_ray(address, num_cpus, image_bytes)
    except Exception as error:  # where a node comes up too slowly, Ray raises a bare Exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if address is not None:
            raise RequestError(
                f"no Ray cluster answers at {address!r} ({reason}); check --address, or leave it out to start Ray here"
            ) from error
        long = "AF_UNIX path length" in reason
        remedy = "set RAY_TMPDIR to a folder with a short name, such as /tmp" if long else "run the same command again"
        raise RequestError(f"Ray does not start on this machine ({reason}); {remedy}") from error
    except BaseException as error:  # an interruption: what has started of Ray must not outlive it
        stop_ray()
        if isinstance(error, SystemExit):  # Ray's own handler of SIGTERM, before the program's is put back
            raise KeyboardInterrupt from error
        raise
    _watches.append(RayWatch())
    return True


def stop_ray() -> None:
    """Shut Ray down, or leave the cluster; the program's handler of SIGTERM stays."""
    while _watches:
        _watches.pop().stop()
    with _own_handler_of_termination():
        ray.shutdown()


@contextmanager
def _own_handler_of_termination() -> Iterator[None]:
    """Put the program's handler of SIGTERM back: Ray replaces it as it starts, and takes all away as it stops."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _start_ray(address: str | None, num_cpus: int | None, image_bytes: int) -> None:
    says = library_logs.shown()
    level = logging.INFO if says else logging.ERROR
    if address is not None:
        ray.init(address=address, log_to_driver=says, logging_level=level)
        return
    ray.init(
        "local",  # without it Ray joins whatever cluster runs on this machine, and takes no num_cpus
        num_cpus=num_cpus or usable_cores(),
        include_dashboard=False,
        log_to_driver=says,
        logging_level=level,
        object_store_memory=max(MIN_OBJECT_STORE, int(2.5 * image_bytes)),
    )


def _require_listener(address: str) -> None:
    """Raise RequestError unless something listens at host:port; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto", "local": Ray knows at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise RequestError(
            f"no Ray cluster answers at {address!r} ({error}); check --address, or leave it out to start Ray here"
        ) from error


def cluster_workers() -> tuple[int, int]:
    """How many actors the cluster carries: (one a GPU, one a CPU core), from its resources now."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("GPU", 0)), int(resources.get("CPU", 0))

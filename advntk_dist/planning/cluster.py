"""The machines that a plan is made for: this one, or a cluster that is described, with what is assumed of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import ByteSize, TypeAdapter, ValidationError

from advntk_dist.config import RunConfig
from advntk_dist.errors import RequestError
from advntk_dist.planning.calibration import Calibration


@dataclass(frozen=True)
class Cluster:
    """Equal machines.

    Attributes
    ----------
    nodes
        How many.
    cpus, gpus, memory
        Of each one: cores, GPUs, bytes.
    remote
        Whether it is reached by --address, so that evaluation also goes to Ray actors.
    """

    nodes: int
    cpus: int
    gpus: int
    memory: int
    remote: bool = False

    @property
    def actors(self) -> int:
        """Ray actors that a build starts: one a GPU, or one a core where there is none."""
        return self.nodes * (self.gpus or self.cpus)

    def workers(self, asked: int | None) -> int:
        """Actors of a stage for which so many are asked."""
        return asked or self.actors

    def evaluators(self, config: RunConfig) -> int:
        """Actors that share attacked batches; 0 where the driver attacks them itself, with all its cores."""
        if config.evaluation.workers is not None:
            return config.evaluation.workers
        return self.actors if self.remote or self.gpus > 1 else 0

    def __str__(self) -> str:
        each = f"{self.cpus} cores, {f'{self.gpus} GPUs, ' if self.gpus else ''}{self.memory / 2**30:.0f} GiB"
        return f"{self.nodes} x ({each})" if self.remote else f"this machine ({each})"


def described(
    nodes: int | None = None, cpus: int | None = None, gpus: int | None = None, memory: str | None = None
) -> Cluster:
    """The cluster of the options that are given; what is left out is as on this machine, and none of them is this one.

    Raises
    ------
    RequestError
        If a number is impossible, or the memory cannot be read.
    """
    for option, value, least in (("--nodes", nodes, 1), ("--cpus", cpus, 1), ("--gpus", gpus, 0)):
        if value is not None and value < least:
            raise RequestError(f"{option} is {value}; it must be at least {least}")
    return Cluster(
        nodes or 1,
        cpus or len(os.sched_getaffinity(0)),
        gpus or 0,
        memory_of_this_machine() if memory is None else _bytes(memory),
        remote=any(value is not None for value in (nodes, cpus, gpus, memory)),
    )


def memory_of_this_machine() -> int:
    """Bytes of memory, whoever uses them."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _bytes(text: str) -> int:
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size < 1:
        raise RequestError(f"--memory {text}: give the memory of a node, such as 64GiB")
    return size


ASSUMED = {
    "crowding": (1.0, "assumed: cores do not slow each other down"),
    "copy_byte": (0.0, "assumed: kernels write to the memory of the actor"),
    "write_share": (0.0, "assumed: the time of a pair was measured beside writing"),
    "write_tile": (0.01, "assumed: two small files flushed in 10 ms"),
    "node_byte": (1 / 2e9, "assumed: 2 GB/s between a node and the store"),
    "store_byte": (1 / 20e9, "assumed: 20 GB/s of the store for all nodes together"),
    "network_byte": (1 / 2.5e9, "assumed: 2.5 GB/s into or out of a node"),
    "worker_start": (0.0, "assumed: part of start"),
    "image_byte": (4e-9, "measured on 2 CPU cores: tests/benchmarks/scaling.py"),
    "dispatch": (1.1e-3, "measured on 2 CPU cores: tests/benchmarks/scaling.py"),
    "call": (1.5e-4, "measured on 2 CPU cores: tests/benchmarks/scaling.py"),
    "add_byte": (6.2e-11, "measured on 2 CPU cores: tests/benchmarks/scaling.py"),
}
"""Value and source of what the calibration of one node cannot know."""

LOCAL = {"node_byte": 0.0, "store_byte": 0.0, "network_byte": 0.0, "write_tile": 0.0}
"""On one machine: its disk is in what was measured for writing, and there is no network."""

LINKS = {
    "node_byte": ("--node-link", "between a node and the store"),
    "store_byte": ("--shared-store", "of the store for all nodes together"),
    "network_byte": ("--network", "into or out of a node"),
}
"""What a user may know of a cluster: the option that gives it, in GB/s, and its meaning."""


def links(how: str, rates: Mapping[str, float | None]) -> dict[str, tuple[float, str]]:
    """Values and sources of the constants of :data:`LINKS` whose rates, in GB/s, are known.

    Raises
    ------
    RequestError
        If a rate is not positive; the message names the option.
    """
    found = {}
    for name, rate in rates.items():
        option, what = LINKS[name]
        if rate is None:
            continue
        if not 0 < rate < float("inf"):
            raise RequestError(f"{option} is {rate:g}; it must be GB/s, more than 0")
        found[name] = 1 / (1e9 * rate), f"{how}: {rate:g} GB/s {what}"
    return found


@dataclass(frozen=True)
class Constants:
    """Seconds; halving any of them makes that resource twice as fast.

    Attributes
    ----------
    start, worker_start, stop
        Until the workers of a build are ready (the second is multiplied where actors share cores while they import and
        compile), and from its last tile to its end.
    image_byte
        A byte of float images that the driver prepares: fingerprint, floats, Ray's shared memory.
    pair
        A pair of images in an actor; of a core that works alone, where ``crowding`` says what the others cost.
    crowding
        Factor of ``pair`` when all cores of a node work.
    copy_byte
        A byte of a tile that comes from the device.
    write_byte, write_tile
        A byte of a tile checked, written and read back in the actor, and a tile's fixed time there.
    write_share
        Share of the last two that needs the core which computes kernels, where an actor has no other.
    node_byte, store_byte
        A byte that moves between a node and the store, and in the store for all nodes; a tile moves twice, as it is
        read back.
    dispatch
        A tile in the driver: handed out, and its receipt taken.
    network_byte
        A byte into or out of a node.
    read_byte
        A byte of the store that one process reads, past the cache.
    entry
        An entry of the matrix in a pass, on one core.
    call, add_byte
        A holder of resident tiles that is asked in a pass, and a byte of what it sends back that is added up.
    sources
        Where each number comes from.
    """

    start: float
    stop: float
    pair: float
    write_byte: float
    read_byte: float
    entry: float
    worker_start: float
    image_byte: float
    crowding: float
    copy_byte: float
    write_tile: float
    write_share: float
    node_byte: float
    store_byte: float
    dispatch: float
    network_byte: float
    call: float
    add_byte: float
    sources: Mapping[str, str] = field(hash=False)

    def __post_init__(self) -> None:
        names = {f.name for f in fields(self)} - {"sources"}
        if missing := sorted(names - set(self.sources)):
            raise ValueError(f"constants without a source: {', '.join(missing)}")
        if wrong := sorted(name for name in names if not 0 <= getattr(self, name) < float("inf")):
            raise ValueError(f"constants must be finite and >= 0: {', '.join(wrong)}")

    @classmethod
    def of(cls, calibration: Calibration, *, remote: bool, given: Mapping[str, tuple[float, str]] = {}) -> Constants:
        """What a calibration measured, and for the rest what is given or assumed.

        Parameters
        ----------
        calibration
            Of a node.
        remote
            Whether several nodes share a store; otherwise disk and network cost nothing beside what was measured.
        given
            Value and source by name.
        """
        measured = "measured: calibration"
        from_node = {
            "start": calibration.start,
            "stop": calibration.stop,
            "pair": calibration.pair,
            "write_byte": calibration.write_byte,
            "read_byte": calibration.read_byte,
            "entry": calibration.entry * calibration.cores,
        }
        pairs = {name: (value, measured) for name, value in from_node.items()} | ASSUMED
        if not remote:
            pairs |= {name: (value, "one machine") for name, value in LOCAL.items()}
        pairs |= given
        if remote and pairs["node_byte"][0] > pairs["read_byte"][0]:
            pairs["read_byte"] = pairs["node_byte"]
        values: dict[str, Any] = {name: value for name, (value, _) in pairs.items()}
        return cls(**values, sources={name: source for name, (_, source) in pairs.items()})

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Value and source by name, for JSON."""
        return {name: {"seconds": getattr(self, name), "source": source} for name, source in self.sources.items()}

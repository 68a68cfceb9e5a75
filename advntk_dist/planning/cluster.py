"""The machines that a plan is made for: this one, or a cluster that is described."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pydantic import ByteSize, TypeAdapter, ValidationError

from advntk_dist.config import RunConfig
from advntk_dist.errors import RequestError


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

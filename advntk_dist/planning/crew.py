"""Stages by what they are spent on, the actors of a build, and events whose latest chain is the critical path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Seconds, and what they are spent on."""

    parts: dict[str, float]

    @property
    def seconds(self) -> float:
        """All parts together."""
        return sum(self.parts.values())

    @property
    def bottleneck(self) -> str:
        """The largest part."""
        return max(self.parts, key=lambda name: self.parts[name])


@dataclass(frozen=True)
class Crew:
    """Actors of a build, spread evenly.

    Attributes
    ----------
    actors, nodes
        How many.
    cores
        Of a node.
    gpus
        Whether actors compute on GPUs; otherwise on the cores.
    """

    actors: int
    nodes: int
    cores: int
    gpus: bool = False

    @property
    def on_node(self) -> int:
        """Actors of the fullest node."""
        return -(-self.actors // self.nodes)

    @property
    def shared(self) -> float:
        """Actors that share a core, at least 1; at most 1 with GPUs."""
        return 1.0 if self.gpus else max(1.0, self.on_node / self.cores)

    @property
    def full(self) -> bool:
        """Whether an actor has no core beside the one that computes."""
        return not self.gpus and self.on_node >= self.cores

    def crowding(self, most: float) -> float:
        """Factor of the kernels' time with so many cores at work."""
        if self.gpus or self.cores < 2:
            return 1.0
        return 1 + (most - 1) * min(1.0, (self.on_node - 1) / (self.cores - 1))


class Events:
    """Moments, each with the one it waited for and what it then did."""

    def __init__(self) -> None:
        self.time, self.before, self.what, self.seconds = [0.0], [0], [""], [0.0]

    def after(self, first: int, second: int, what: str, seconds: float) -> int:
        """The end of something that begins when both others are past."""
        latest = first if self.time[first] >= self.time[second] else second
        self.time.append(self.time[latest] + seconds)
        self.before.append(latest)
        self.what.append(what)
        self.seconds.append(seconds)
        return len(self.time) - 1

    def path(self) -> Iterator[tuple[str, float]]:
        """The critical path, from its end."""
        event = max(range(len(self.time)), key=self.time.__getitem__)
        while event:
            yield self.what[event], self.seconds[event]
            event = self.before[event]

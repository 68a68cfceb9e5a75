"""Names that configurations use: of networks, norms and losses, so that one is read without loading JAX."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from advntk_dist.errors import NetworkError
from advntk_dist.text import did_you_mean

Activation = Literal["relu", "gelu", "erf", "sigmoid"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)
Family = Literal["mlp", "cnn", "resnet"]
RESNET_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Basic blocks in each of the four stages."""

BackendChoice = Literal["auto", "neural-tangents", "xla"]
BACKENDS: tuple[str, ...] = get_args(BackendChoice)

Norm = Literal["linf", "l2", "l1"]
"""Norms that a perturbation is measured in."""
NORMS: tuple[Norm, ...] = get_args(Norm)
Loss = Literal["squared-error", "margin", "dlr", "cross-entropy", "margin-targeted", "dlr-targeted"]
"""Losses that an attack maximises, as :func:`advntk_dist.attacks.losses.loss_and_slope` defines them."""
LOSSES: tuple[Loss, ...] = get_args(Loss)
TARGETED: tuple[Loss, ...] = ("margin-targeted", "dlr-targeted")
"""Losses that ask for a class to move towards."""


def step_length(radius: float, given: float | None) -> float:
    """The length of a step of an attack, by default a fifth of the radius."""
    return radius / 5 if given is None else given


IMPORT_PATH = r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*"
"""What ``package.module:name`` matches, the name of something of the user's own."""

KNOWN = ("mlp-2 and deeper", "cnn-1 and deeper", "resnet-18", "resnet-34", "package.module:function")


@dataclass(frozen=True)
class NetworkSpec:
    """Enough to rebuild a network in another process, and to name it in a store."""

    name: str
    W_std: float = 1.76
    b_std: float = 0.18
    activation: Activation = "relu"
    backend: BackendChoice = "auto"
    classes: int = 10

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def parse_name(name: str) -> tuple[Family, int] | None:
    """Split "mlp-5" into ("mlp", 5); None for an import path.

    Raises
    ------
    NetworkError
        If the name is neither a known network nor of the form ``package.module:function``.
    """
    if re.fullmatch(IMPORT_PATH, name):
        return None
    match = re.fullmatch(r"(mlp|cnn|resnet)-([0-9]{1,3})", name)
    if match:
        family: Family = match[1]  # type: ignore[assignment]
        depth = int(match[2])
        possible = {"mlp": depth >= 2, "cnn": depth >= 1, "resnet": depth in RESNET_STAGES}
        if possible[family]:
            return family, depth
    usual = [*(f"{kind}-{depth}" for kind in ("mlp", "cnn") for depth in range(2, 11)), "resnet-18", "resnet-34"]
    raise NetworkError(f"network.name: no network {name!r}{did_you_mean(name, usual)}; there are {', '.join(KNOWN)}")

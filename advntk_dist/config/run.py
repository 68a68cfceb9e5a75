"""All sections together, and what tells one run from another."""

from __future__ import annotations

from typing import Any

import tomli_w
from pydantic import model_validator

from advntk_dist.config.attack import AttackConfig
from advntk_dist.config.problem import DataConfig, GramConfig, NetworkConfig, SolverConfig
from advntk_dist.config.train import EvaluationConfig, TrainConfig
from advntk_dist.config.values import Section


class RunConfig(Section):
    """Everything that a run needs to know."""

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    gram: GramConfig = GramConfig()
    solver: SolverConfig = SolverConfig()
    attack: AttackConfig = AttackConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _curve_is_of_test_images(self) -> RunConfig:
        if self.evaluation.curve is not None and self.evaluation.curve > self.data.n_test:
            raise ValueError(
                f"evaluation.curve is {self.evaluation.curve}, more than data.n_test = {self.data.n_test}; "
                "leave it out for all test images"
            )
        return self

    def to_toml(self) -> str:
        """The resolved configuration; reading it back gives an equal one."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


IDENTITY_FREE = {
    ("gram", "workers"),
    ("evaluation", "workers"),
    ("solver", "memory"),
    ("solver", "max_passes"),
    ("solver", "operator"),
    ("data", "path"),
}
"""Keys that may change between two starts of one run: they say how it is computed, not what."""


def difference(ours: RunConfig, stored: RunConfig) -> tuple[str, Any, Any] | None:
    """The first key that tells two runs apart: (section.key, stored value, our value)."""
    a, b = ours.model_dump(), stored.model_dump()
    for section, keys in a.items():
        for key, value in keys.items():
            if (section, key) not in IDENTITY_FREE and value != b[section][key]:
                return f"{section}.{key}", b[section][key], value
    return None

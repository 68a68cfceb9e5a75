"""All sections together, and what tells one run from another."""

from __future__ import annotations

from collections.abc import Mapping
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

    @model_validator(mode="before")
    @classmethod
    def _loss_of_the_recipe(cls, values: Any) -> Any:
        """The paper's recipe attacks the squared error, unless another loss is given."""
        if not isinstance(values, Mapping) or cls._usual_loss(values.get("train")) is None:
            return values
        attack = values.get("attack", {})
        if not isinstance(attack, Mapping) or attack.get("loss") is not None or attack.get("name", "pgd") != "pgd":
            return values
        return {**values, "attack": {**attack, "loss": cls._usual_loss(values.get("train"))}}

    @classmethod
    def _usual_loss(cls, train: Any) -> str | None:
        """Loss of PGD where none is given; None: as AttackConfig has it."""
        return "squared-error" if isinstance(train, Mapping) and train.get("recipe") == "paper" else None

    @model_validator(mode="after")
    def _curve_is_of_test_images(self) -> RunConfig:
        if self.evaluation.curve is not None and self.evaluation.curve > self.data.n_test:
            raise ValueError(
                f"evaluation.curve is {self.evaluation.curve}, more than data.n_test = {self.data.n_test}; "
                "leave it out for all test images"
            )
        return self

    @property
    def final_tier(self) -> tuple[str, int] | None:
        """The tier that ends the run, if its cost allows it, and the number of test images; None: none is wanted."""
        e = self.evaluation
        if e.tier == "none":
            return None
        return "standard" if e.tier == "auto" else e.tier, min(e.tier_images, self.data.n_test)

    def to_toml(self) -> str:
        """The resolved configuration; reading it back gives an equal one."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


IDENTITY_FREE = {
    ("gram", "workers"),
    ("evaluation", "workers"),
    ("evaluation", "tier"),
    ("evaluation", "tier_images"),
    ("solver", "memory"),
    ("solver", "max_passes"),
    ("solver", "operator"),
    ("data", "path"),
}
"""Keys that may change between two starts of one run: they say how it is computed, or what follows its own results."""


def difference(ours: RunConfig, stored: RunConfig) -> tuple[str, Any, Any] | None:
    """The first key that tells two runs apart: (section.key, stored value, our value)."""
    a, b = ours.model_dump(), stored.model_dump()
    for section, keys in a.items():
        for key, value in keys.items():
            if (section, key) not in IDENTITY_FREE and value != b[section][key]:
                return f"{section}.{key}", b[section][key], value
    return None

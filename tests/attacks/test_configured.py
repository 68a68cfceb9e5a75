"""The [attack] section: newer keys change nothing for runs made before there were any."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from advntk_dist.attacks import ATTACKS
from advntk_dist.attacks.base import Norm
from advntk_dist.attacks.losses import Loss
from advntk_dist.config import AttackConfig, RunConfig, difference, parse_config
from advntk_dist.errors import ConfigError

OLD = {"name": "pgd", "radius": 0.2, "steps": 10, "step_size": 0.04, "norm": "linf", "seed": 0}


def _parsed(**values: Any) -> RunConfig:
    return parse_config("", where="test", overrides=[f"attack.{key}={value}" for key, value in values.items()])


def test_configuration_and_registry_know_the_same_names() -> None:
    fields = AttackConfig.model_fields
    assert set(get_args(fields["name"].annotation)) == set(ATTACKS)
    assert set(get_args(fields["norm"].annotation)) == set(get_args(Norm))
    assert set(get_args(fields["loss"].annotation)) == set(get_args(Loss))


def test_older_attacks_are_written_as_they_were() -> None:
    assert AttackConfig().model_dump(mode="json") == OLD
    assert AttackConfig().label == "pgd_linf_r0.2_s0.04_n10_seed0"
    reference = AttackConfig(name="pgd-reference", radius=8 / 255)
    assert set(reference.model_dump(mode="json")) == set(OLD)
    assert reference.label == "pgd-reference_linf_r0.0313725_s0.00627451_n10_seed0"
    assert "loss" not in RunConfig().to_toml()


@pytest.mark.parametrize(
    ("values", "loss", "label"),
    [
        ({"name": "pgd", "loss": "margin"}, "margin", "pgd_linf_r0.2_s0.04_n10_seed0_margin"),
        ({"name": "pgd", "restarts": 5}, "squared-error", "pgd_linf_r0.2_s0.04_n10_seed0_x5"),
        ({"name": "fgsm"}, "squared-error", "fgsm_linf_r0.2_s0.04_n10_seed0_squared-error"),
        ({"name": "apgd", "norm": "l1"}, "dlr", "apgd_l1_r0.2_s0.04_n10_seed0_dlr"),
        ({"name": "apgd-targeted", "targets": 3}, "dlr-targeted", "apgd-targeted_linf_r0.2_s0.04_n10_seed0_dlr-targeted_t3"),  # noqa: E501
        ({"name": "square", "norm": "l2"}, "margin", "square_l2_r0.2_s0.04_n10_seed0_q5000"),
    ],
)  # fmt: skip
def test_losses_by_default_names_of_files_and_the_way_back(values: dict[str, Any], loss: str, label: str) -> None:
    config = _parsed(**values)
    assert config.attack.loss == loss
    assert config.attack.label == label
    assert parse_config(config.to_toml(), where="test") == config


@pytest.mark.parametrize(
    ("key", "value"), [("loss", "dlr"), ("restarts", 2), ("targets", 3), ("queries", 9), ("norm", "l1")]
)
def test_other_attacks_are_other_runs(key: str, value: Any) -> None:
    found = difference(_parsed(**{key: value}), RunConfig())
    assert found is not None
    assert found[0] == f"attack.{key}"
    assert difference(RunConfig(), _parsed(**{key: value})) is not None
    labels = {_parsed(**{key: value}).attack.label, RunConfig().attack.label}
    assert len(labels) == 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "pgd-reference", "loss": "margin"}, "pgd-reference exists"),
        ({"name": "pgd-reference", "restarts": 2}, "pgd-reference exists"),
        ({"name": "pgd", "loss": "margin-targeted"}, "apgd-targeted"),
        ({"name": "apgd-targeted", "loss": "dlr"}, "margin-targeted"),
        ({"name": "square", "norm": "l1"}, "square exists"),
        ({"name": "square", "loss": "dlr"}, "square exists"),
        ({"loss": "hinge"}, "attack.loss"),
        ({"restarts": 0}, "attack.restarts"),
        ({"targets": 0}, "attack.targets"),
        ({"queries": 0}, "attack.queries"),
        ({"name": "deepfool"}, "attack.name"),
    ],
)
def test_refusals(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _parsed(**values)

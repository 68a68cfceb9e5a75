"""The [attack] section: the usual loss of each attack, names of files, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from advntk_dist.attacks.registry import ATTACKS
from advntk_dist.config import AttackConfig, RunConfig, difference, load_config, parse_config
from advntk_dist.errors import ConfigError


def _parsed(**values: Any) -> RunConfig:
    return parse_config("", where="test", overrides=[f"attack.{key}={value}" for key, value in values.items()])


def test_the_papers_recipe_and_its_own_attack_keep_the_papers_loss() -> None:
    def loss(text: str) -> str:
        return parse_config(text, where="test").attack.loss

    assert loss("") == AttackConfig().loss == "margin"
    assert loss('[train]\nrecipe = "paper"\n') == "squared-error"
    assert loss('[train]\nrecipe = "paper"\n[attack]\nradius = 0.1\n') == "squared-error"
    assert loss('[train]\nrecipe = "paper"\n[attack]\nloss = "margin"\n') == "margin"
    assert loss('[train]\nrecipe = "paper"\n[attack]\nname = "apgd"\n') == "dlr"
    assert loss('[attack]\nname = "pgd-reference"\n') == "squared-error"
    assert load_config("digits", ["train.recipe=paper"]).attack.loss == "squared-error"
    assert load_config("paper/cifar10-mlp-5-r8").attack.loss == "squared-error"


@pytest.mark.parametrize("name", list(ATTACKS))
def test_what_describes_an_attack_has_only_what_it_does(name: str) -> None:
    found = _parsed(name=name, steps=7).attack.described()
    steps = {"fgsm": 1, "square": None}.get(name, 7)
    assert found.get("steps") == steps
    assert ("step_size" in found) == name.startswith("pgd")
    assert ("queries" in found) == (name == "square")
    assert ("targets" in found) == (name == "apgd-targeted")
    assert {"name", "loss", "radius", "norm", "restarts", "seed"} <= found.keys()


@pytest.mark.parametrize(
    ("values", "loss", "label"),
    [
        ({"name": "pgd", "loss": "margin"}, "margin", "pgd_linf_r0.2_s0.04_n10_seed0_margin"),
        ({"name": "pgd", "restarts": 5}, "margin", "pgd_linf_r0.2_s0.04_n10_seed0_margin_x5"),
        ({"name": "fgsm"}, "margin", "fgsm_linf_r0.2_s0.04_n10_seed0_margin"),
        ({"name": "apgd", "norm": "l1"}, "dlr", "apgd_l1_r0.2_s0.04_n10_seed0_dlr"),
        ({"name": "apgd-targeted", "targets": 3}, "dlr-targeted", "apgd-targeted_linf_r0.2_s0.04_n10_seed0_dlr-targeted_t3"),  # noqa: E501
        ({"name": "square", "norm": "l2"}, "margin", "square_l2_r0.2_s0.04_n10_seed0_margin_q5000"),
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
    attack = {"targets": "apgd-targeted", "queries": "square"}.get(key, "pgd")
    labels = {_parsed(name=attack, **more).attack.label for more in ({}, {key: value})}
    assert len(labels) == 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "pgd-reference", "loss": "margin"}, "pgd-reference exists"),
        ({"name": "pgd-reference", "restarts": 2}, "pgd-reference exists"),
        ({"name": "pgd-reference", "norm": "l2"}, "pgd-reference exists for .*linf"),
        ({"name": "pgd", "loss": "margin-targeted"}, "apgd-targeted"),
        ({"name": "apgd-targeted", "loss": "dlr"}, "margin-targeted"),
        ({"name": "square", "norm": "l1"}, "square exists"),
        ({"name": "square", "loss": "dlr"}, "square exists"),
        ({"loss": "hinge"}, "attack.loss"),
        ({"restarts": 0}, "attack.restarts"),
        ({"targets": 0}, "attack.targets"),
        ({"queries": 0}, "attack.queries"),
    ],
)
def test_refusals(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _parsed(**values)

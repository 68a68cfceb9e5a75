"""The registry is the one place that knows an attack's name, and the section [attack] reads and refuses by it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import advntk_dist
from advntk_dist import pgd
from advntk_dist.attacks import registry
from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.registry import ATTACKS, AUTOATTACK, bind_attack
from advntk_dist.config import AttackConfig, RunConfig, difference, load_config, parse_config
from advntk_dist.config.read import explained
from advntk_dist.errors import ConfigError, RequestError

PACKAGE = Path(advntk_dist.__file__).parent
PUBLIC = ("__all__", "_HOMES")
"""Lists of Python names that the package exports, among them functions called as their attacks are."""
Make = Callable[..., Any]
X = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 4, 4, 1)).astype(np.float32)
Y = np.array([0, 1, 2, 0])


def known_names() -> set[str]:
    """Every name of an attack that the package knows."""
    return {*ATTACKS, AUTOATTACK.name, *AUTOATTACK.parts}


def names_spelled(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each string of a module that is the name of an attack, lists of exported names left out."""
    tree = ast.parse(source)
    exported = {
        id(inner)
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id in PUBLIC for t in node.targets)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in known_names() and id(node) not in exported:
            yield node.lineno, str(node.value)


def test_no_other_module_knows_an_attack_by_name() -> None:
    home = Path(registry.__file__)
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {name!r}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != home
        for line, name in names_spelled(path.read_text(encoding="utf-8"))
    ]
    assert found == []
    assert {name for _, name in names_spelled(home.read_text(encoding="utf-8"))} == known_names()


def test_the_rule_sees_names_and_nothing_else() -> None:
    source = '__all__ = ["pgd"]\n"""pgd"""\nif attack == "fgsm":\n    say("PGD or pgd")\nkeys = {"square": 1}\n'
    assert sorted(name for _, name in names_spelled(source)) == ["fgsm", "pgd", "square"]


@pytest.mark.parametrize("name", list(ATTACKS))
def test_what_a_specification_says_is_so(name: str) -> None:
    spec = ATTACKS[name]
    assert spec.name == name
    assert callable(spec.call)
    assert spec.description.endswith(".")
    assert spec.usual_loss in spec.losses
    assert (spec.repeated is None) or spec.uses(spec.repeated)
    assert set(spec.options.values()) <= set(AttackConfig.model_fields)
    config = AttackConfig(name=name)
    assert config.loss == spec.usual_loss
    assert config.spec is spec
    assert name in explained(parse_config("", where="test"))


def test_an_attack_added_to_the_registry_is_known_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    added = registry.AttackSpec(
        "tangent",
        "the tangent attack",
        "advntk_dist.attacks.pgd:fgsm",
        "One gradient.",
        start=lambda options: registry.Passes(0, 1),
        tier_keys=lambda tier, classes: [{}],
    )
    monkeypatch.setitem(ATTACKS, "tangent", added)
    config = AttackConfig.model_validate({"name": "tangent", "loss": "dlr"})
    assert config.described()["steps"] == 1
    assert config.label == "tangent_linf_r0.2_s0.04_n10_seed0_dlr"
    assert config.spec.cost(config) == registry.Passes(1, 1)
    names = [keys["name"] for keys in registry.tier(registry.TIERS["standard"], "linf", 10)]
    assert names[-1] == "tangent"
    with pytest.raises(ConfigError, match=r"no attack 'tangen'; did you mean 'tangent'\?"):
        parse_config('[attack]\nname = "tangen"', where="test")


def further(predictor: Any, x: Any, y: Any, *, radius: float, **options: Any) -> Any:
    """An attack of the user's own: PGD of another radius, seen from where it is called."""
    return pgd(predictor, x, y, radius=FACTOR * radius, **options)


FACTOR = 1.0


def test_an_attack_of_the_users_own(quadratic: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "my_attacks", sys.modules[__name__])
    config = parse_config('[attack]\nname = "my_attacks:further"\nsteps = 4\n', where="test").attack
    assert config.loss == "margin"
    assert config.label == "my_attacks.further_linf_r0.2_s0.04_n4_seed0_margin"
    assert config.spec.cost(config) == registry.Passes(1, 5)
    found = bind_attack(config)(quadratic(), X, Y, seed=3, indices=np.arange(4))
    np.testing.assert_array_equal(found, pgd(quadratic(), X, Y, radius=0.2, steps=4, seed=3))
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 1.5)
    with pytest.raises(RequestError, match=r"over the radius 0\.2"):
        bind_attack(config)(quadratic(), X, Y, seed=3, indices=np.arange(4))


@pytest.mark.parametrize("name", ["no_such_module:attack", "advntk_dist.attacks.pgd:nothing"])
def test_an_attack_that_cannot_be_imported(quadratic: Make, name: str) -> None:
    with pytest.raises(RequestError, match=r"attack\.name: cannot import"):
        bind_attack(AttackConfig(name=name))


def test_a_configuration_loads_nothing_heavy() -> None:
    code = "import sys, advntk_dist.config; print(sorted({'jax', 'numpy', 'ray', 'zarr'} & sys.modules.keys()))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"


def test_what_autoattack_costs_is_known_for_every_part() -> None:
    for part, costs in AUTOATTACK.parts.items():
        assert costs.keys() == {"linf", "l2", "l1"}
        assert AUTOATTACK.part_cost(part, "linf").queries == costs["linf"].queries + AUTOATTACK.judged
    assert registry.keeps_ball(AUTOATTACK.name)
    assert [name for name in ATTACKS if not registry.keeps_ball(name)] == [registry.PAPER.name]


def test_a_predictor_of_two_methods_has_the_others() -> None:
    class Steps(DifferentiablePredictor):
        def predict(self, x: Any) -> Any:
            return np.asarray(x, np.float64).reshape(len(x), -1)[:, :3]

        def vjp(self, x: Any, cotangent: Any) -> Any:
            out = np.zeros((len(x), x[0].size))
            out[:, :3] = cotangent
            return out.reshape(np.shape(x)).astype(x.dtype)

    predictor = Steps()
    f, losses, gradient = predictor.value_and_slope(X, np.eye(3)[Y], loss="margin")
    assert (f.shape, losses.shape, gradient.shape) == ((4, 3), (4,), X.shape)
    assert isinstance(predictor, DifferentiablePredictor)
    assert predictor.outputs is None


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
    assert ("step_size" in found) == (name == "linear" or name.startswith("pgd"))
    assert ("queries" in found) == (name == "square")
    assert ("targets" in found) == (name == "apgd-targeted")
    assert {"name", "loss", "radius", "norm", "restarts", "seed"} <= found.keys()


@pytest.mark.parametrize(
    ("values", "loss", "label"),
    [
        ({}, "margin", "linear_linf_r0.2_s0.04_n10_seed0_margin"),
        ({"restarts": 2}, "margin", "pgd_linf_r0.2_s0.04_n10_seed0_margin_x2"),
        ({"loss": "dlr"}, "dlr", "pgd_linf_r0.2_s0.04_n10_seed0_dlr"),
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
    attack = {"targets": "apgd-targeted", "queries": "square"}.get(key, "pgd")
    there, here = _parsed(name=attack), _parsed(name=attack, **{key: value})
    found = difference(here, there)
    assert found is not None
    assert found[0] == f"attack.{key}"
    assert difference(there, here) is not None
    labels = {_parsed(name=attack, **more).attack.label for more in ({}, {key: value})}
    assert len(labels) == 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "pgd-reference", "loss": "margin"}, "pgd-reference exists"),
        ({"name": "pgd-reference", "restarts": 2}, "pgd-reference exists"),
        ({"name": "pgd-reference", "norm": "l2"}, "pgd-reference exists for .*linf"),
        ({"name": "linear", "loss": "dlr"}, "linear exists for .*margin"),
        ({"name": "linear", "restarts": 2}, "linear exists for .*restarts = 1"),
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

"""The registry is the one place that knows an attack's name, and an attack of the user's own enters by it."""

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
from advntk_dist.config import AttackConfig, parse_config
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
        "linear",
        "the linear attack",
        "advntk_dist.attacks.pgd:fgsm",
        "One gradient.",
        start=lambda options: registry.Passes(0, 1),
        tier_keys=lambda tier, classes: [{}],
    )
    monkeypatch.setitem(ATTACKS, "linear", added)
    config = AttackConfig.model_validate({"name": "linear", "loss": "dlr"})
    assert config.described()["steps"] == 1
    assert config.label == "linear_linf_r0.2_s0.04_n10_seed0_dlr"
    assert config.spec.cost(config) == registry.Passes(1, 1)
    names = [keys["name"] for keys in registry.tier(registry.TIERS["standard"], "linf", 10)]
    assert names[-1] == "linear"
    with pytest.raises(ConfigError, match=r"no attack 'liner'; did you mean 'linear'\?"):
        parse_config('[attack]\nname = "liner"', where="test")


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

"""The configuration: what is read, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from advntk_dist.config import RunConfig, TrainConfig, difference, load_config, parse_config, preset_names, preset_text
from advntk_dist.errors import ConfigError


def _with(*overrides: str) -> RunConfig:
    return load_config("digits", overrides)


def test_presets_of_the_contract_exist() -> None:
    assert {"digits", "cifar10-mlp5", "cifar10-cnn3"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_presets_load_and_round_trip(name: str) -> None:
    config = load_config(name)
    assert parse_config(config.to_toml(), where="resolved") == config
    assert difference(config, parse_config(config.to_toml(), where="resolved")) is None
    assert preset_text(name).startswith("# ")


@given(
    n_train=st.integers(2, 10**6),
    radius=st.floats(0, 10),
    times=st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=5, unique=True).map(sorted),
    memory=st.integers(1, 2**50),
    path=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=10),
)
def test_any_configuration_round_trips(
    n_train: int, radius: float, times: list[float], memory: int, path: str | None
) -> None:
    config = RunConfig.model_validate(
        {
            "data": {"n_train": n_train, "path": path},
            "attack": {"radius": radius},
            "solver": {"memory": memory},
            "evaluation": {"times": times},
        }
    )
    assert parse_config(config.to_toml(), where="resolved") == config


def test_defaults_are_the_digits_preset() -> None:
    config = _with()
    assert (config.data.name, config.network.name, config.attack.radius) == ("digits", "mlp-3", 0.2)
    assert config.attack.step_size == pytest.approx(0.04)


def test_toml_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[data]\nn_train = 50\n[attack]\nradius = "8/255"\n')
    config = load_config(file, ["data.n_val=7"])
    assert (config.data.n_train, config.data.n_val) == (50, 7)
    assert config.attack.radius == pytest.approx(8 / 255)
    assert load_config(str(file)).data.n_train == 50


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("data.n_train=2_000", "data", "n_train", 2000),
        ("data.name=cifar10", "data", "name", "cifar10"),
        ('data.name="cifar10"', "data", "name", "cifar10"),
        ("data.path=/some/where=odd", "data", "path", "/some/where=odd"),
        (" data.n_train = 50", "data", "n_train", 50),
        ("network.name=resnet-18", "network", "name", "resnet-18"),
        ("network.name=package.module:function", "network", "name", "package.module:function"),
        ("network.W_std=2", "network", "W_std", 2.0),
        ("attack.radius=8/255", "attack", "radius", 8 / 255),
        ("attack.step_size=1.6/255", "attack", "step_size", 1.6 / 255),
        ("attack.norm=l2", "attack", "norm", "l2"),
        ("solver.memory=3MiB", "solver", "memory", 3 * 2**20),
        ("solver.memory=1000", "solver", "memory", 1000),
        ("train.lr=1e-6", "train", "lr", 1e-6),
        ("evaluation.times=[0.5, 2]", "evaluation", "times", (0.5, 2.0)),
        ("gram.workers=3", "gram", "workers", 3),
    ],
)
def test_overrides(override: str, section: str, key: str, value: object) -> None:
    assert getattr(getattr(_with(override), section), key) == value


def test_the_last_override_wins_and_the_step_follows_the_radius() -> None:
    config = _with("attack.radius=0.3", "attack.radius=1/10")
    assert config.attack.radius == pytest.approx(0.1)
    assert config.attack.step_size == pytest.approx(0.02)
    assert _with("attack.radius=0").attack.step_size == 0.0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        # unknown keys
        ("data.n_trian=5", ["data.n_trian", "no such key", "did you mean 'n_train'?"]),
        ("atack.radius=0.1", ["atack: no such key; did you mean 'attack'?"]),
        ("network.name=mlp5", ["no network 'mlp5'; did you mean 'mlp-5'?"]),
        ("network.name=ResNet18", ["did you mean 'resnet-18'?"]),
        ("attack.name=pdg", ["attack.name", "did you mean 'pgd'?"]),
        ("nosuch.key=1", ["nosuch", "no such key", "sections are", "attack"]),
        # wrong types
        ("data.n_train=many", ["data.n_train", "integer", "many"]),
        ('data.n_train="1000"', ["data.n_train", "integer"]),
        ("data.n_train=10.5", ["data.n_train", "integer"]),
        ("data.n_val=true", ["data.n_val", "integer"]),
        ("evaluation.curve=498", ["evaluation.curve is 498", "data.n_test = 497"]),
        ("data.name=5", ["data.name", "string"]),
        ("network.W_std=true", ["network.W_std", "number"]),
        ("network.name=[1]", ["network.name", "string"]),
        ("attack.radius=true", ["attack.radius", "number"]),
        ("attack.radius=wide", ["attack.radius", "number", "wide"]),
        ("solver.memory=true", ["solver.memory"]),
        ("solver.memory=lots", ["solver.memory", "lots"]),
        ("evaluation.times=3", ["evaluation.times: must be a list such as [0.1, 1.0], got 3"]),
        ("data.class_subset=cat", ["data.class_subset: must be a list of classes", "cat"]),
        ("data.duplicates=keep", ["data.duplicates", "'warn', 'drop' or 'refuse'", "keep"]),
        ('evaluation.times=["a"]', ["evaluation.times.0", "number"]),
        # impossible values
        ("data.n_train=1", ["data.n_train", "2"]),
        ("data.n_val=0", ["data.n_val", "1"]),
        ("data.n_test=0", ["data.n_test", "1"]),
        ("data.seed=-1", ["data.seed", "0"]),
        ("attack.seed=18446744073709551616", ["attack.seed"]),
        ("network.name=mlp-1", ["network.name", "mlp-1", "resnet-18"]),
        ("network.name=vgg", ["network.name", "vgg"]),
        ("network.W_std=0", ["network.W_std", "greater than 0"]),
        ("network.b_std=-0.1", ["network.b_std"]),
        ("network.activation=tanh", ["network.activation", "relu", "tanh"]),
        ("network.backend=torch", ["network.backend"]),
        ("gram.tile=0", ["gram.tile", "1"]),
        ("gram.dtype=float16", ["gram.dtype", "float64"]),
        ("gram.workers=0", ["gram.workers"]),
        ("solver.tolerance=0", ["solver.tolerance"]),
        ("solver.tolerance=1", ["solver.tolerance"]),
        ("solver.memory=0", ["solver.memory"]),
        ("solver.memory=-5", ["solver.memory"]),
        ("solver.ridge=-1", ["solver.ridge"]),
        ("solver.ridge=inf", ["solver.ridge"]),
        ("solver.max_passes=0", ["solver.max_passes"]),
        ("attack.radius=-0.1", ["attack.radius", "0"]),
        ("attack.radius=-8/255", ["attack.radius", "0"]),
        ("attack.radius=1/0", ["attack.radius", "1/0"]),
        ("attack.radius=1/2/3", ["attack.radius", "1/2/3"]),
        ("attack.radius=50", ["attack.radius is 50", "give a fraction of the pixel range, such as 8/255"]),
        ("attack.radius=nan", ["attack.radius", "finite"]),
        ("attack.radius=inf", ["attack.radius", "finite"]),
        ("attack.steps=-1", ["attack.steps"]),
        ("attack.step_size=-1", ["attack.step_size"]),
        ("attack.norm=l3", ["attack.norm", "linf"]),
        ("attack.name=deepfool", ["attack.name", "pgd"]),
        ("train.steps=0", ["train.steps"]),
        ("train.lr=0", ["train.lr"]),
        ("train.lr=nan", ["train.lr"]),
        ("train.batch=0", ["train.batch"]),
        ("train.recipe=magic", ["train.recipe", "'cross-fit' or 'paper'"]),
        ("train.folds=1", ["train.folds"]),
        ("train.clean_weight=-1", ["train.clean_weight"]),
        ("train.recipe=mine", ["train.recipe", "paper"]),
        ("evaluation.times=[]", ["evaluation.times", "ascending"]),
        ("evaluation.times=[2, 1]", ["evaluation.times", "ascending"]),
        ("evaluation.times=[1, 1]", ["evaluation.times", "none twice"]),
        ("evaluation.times=[0]", ["evaluation.times.0", "greater than 0"]),
        ("evaluation.times=[inf]", ["evaluation.times.0", "finite"]),
        ("evaluation.batch=0", ["evaluation.batch"]),
        # images
        ("data.resize=0", ["data.resize"]),
        ("data.resize=true", ["data.resize"]),
        ("data.resize=8.5", ["data.resize"]),
        ("data.resize=5000", ["4096"]),
        ("data.class_subset=[1]", ["at least two classes"]),
        ("data.class_subset=[1, 1]", ["names a class twice"]),
        ("data.class_subset=[-1, 1]", ["data.class_subset"]),
        ("data.class_subset=[true, 1]", ["data.class_subset"]),
        ("data.duplicates=drpo", ["data.duplicates: ", "did you mean 'drop'"]),
        # malformed overrides
        ("data.n_train", ["data.n_train", "section.key=value"]),
        ("n_train=5", ["n_train=5", "section.key=value"]),
        ("=5", ["section.key=value"]),
        ("data.=5", ["section.key=value"]),
        ("data.n_train.x=5", ["section.key=value"]),
    ],
)
def test_refusals_are_one_line_that_names_the_key(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        _with(override)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert caught.value.exit_code == 2


def test_several_mistakes_come_in_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        _with("data.n_val=0", "gram.tile=0")
    assert "data.n_val" in str(caught.value)
    assert "gram.tile" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data = 5", "run.toml: data"),
        ("[data]\nn_train = ", "run.toml: not valid TOML"),
        ("[data]\nn_train = 5\nn_train = 6", "run.toml: not valid TOML"),
        ("[extra]\na = 1", "run.toml: extra: no such key"),
        ("top = 1", "run.toml: top: no such key"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_override_of_a_section_that_is_a_number() -> None:
    with pytest.raises(ConfigError, match="must be a section"):
        parse_config("data = 5", where="text", overrides=["data.n_train=3"])


def test_a_stored_radius_is_read_whatever_it_is_and_other_norms_have_other_sizes() -> None:
    assert parse_config("[attack]\nradius = 50", where="a stored run").attack.radius == 50
    assert _with("attack.radius=50", "attack.norm=l1").attack.radius == 50
    with pytest.raises(ConfigError, match=r"^a file: attack\.radius is 2,"):
        parse_config("", where="a file", overrides=["attack.radius=2"])


@pytest.mark.parametrize(("word", "meant"), [("digit", "digits"), ("cifar10-mlp-5", "cifar10-mlp5")])
def test_a_misspelt_preset_is_recognised(word: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"no file '{word}'; did you mean '{meant}'\\?"):
        load_config(word)
    with pytest.raises(ConfigError, match="no file 'zzz'; presets are"):
        load_config("zzz")


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    for source in ("no-such-preset", tmp_path, tmp_path / "none.toml"):
        with pytest.raises(ConfigError, match="presets are"):
            load_config(source)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load_config(binary)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.n_train=999", "data.n_train"),
        ("data.seed=1", "data.seed"),
        ("network.W_std=1.5", "network.W_std"),
        ("gram.tile=128", "gram.tile"),
        ("gram.dtype=float64", "gram.dtype"),
        ("solver.tolerance=1e-7", "solver.tolerance"),
        ("attack.radius=0.1", "attack.radius"),
        ("train.lr=2.0", "train.lr"),
        ("evaluation.times=[1.0]", "evaluation.times"),
    ],
)
def test_difference_names_the_first_key(override: str, key: str) -> None:
    found = difference(_with(override), _with())
    assert found is not None
    assert found[0] == key
    section, _, name = key.partition(".")
    assert found[1] == getattr(getattr(_with(), section), name)
    assert found[2] == getattr(getattr(_with(override), section), name)


@pytest.mark.parametrize(
    "override", ["gram.workers=3", "solver.memory=1GiB", "solver.max_passes=7", "data.path=/elsewhere"]
)
def test_keys_that_may_change_between_two_starts(override: str) -> None:
    assert difference(_with(override), _with()) is None


def test_configuration_is_frozen() -> None:
    config = _with()
    with pytest.raises(ValidationError, match="frozen"):
        config.data = config.data
    with pytest.raises(ValidationError, match="frozen"):
        config.data.n_train = 5


def test_recipes_bring_their_own_numbers() -> None:
    def numbers(recipe: str, **given: Any) -> tuple[int, float, int]:
        train = TrainConfig(recipe=recipe, **given)  # type: ignore[arg-type]
        return train.steps, train.lr, train.batch

    assert numbers("paper") == (50, 1.0, 128)
    assert numbers("cross-fit") == (30, 0.03, 1000)
    assert numbers("cross-fit", steps=7) == (7, 0.03, 1000)
    assert numbers("paper", lr=0.1) == (50, 0.1, 128)


@pytest.mark.parametrize("key", ["folds = 4", "clean_weight = 0.1", "validation = true"])
def test_keys_of_cross_fit_are_refused_by_the_papers_recipe(key: str) -> None:
    with pytest.raises(ConfigError, match="folds, clean_weight and validation belong to recipe"):
        parse_config(f'[train]\nrecipe = "paper"\n{key}\n', where="f.toml")


def test_cross_fit_survives_being_written() -> None:
    text = '[train]\nrecipe = "cross-fit"\nfolds = 3\nclean_weight = 0.0\nvalidation = true\n'
    config = parse_config(text, where="f.toml")
    assert parse_config(config.to_toml(), where="again") == config

"""From a preset or TOML, with ``--set section.key=value`` on top, to a configuration or one line of what is wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from tomli_w import dumps

from advntk_dist.config import paper
from advntk_dist.config.sections import RunConfig
from advntk_dist.errors import ConfigError
from advntk_dist.text import did_you_mean

T = TypeVar("T", bound=RunConfig)


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run; see :func:`read_config`."""
    return read_config(RunConfig, source, overrides)


def read_config(kind: type[T], source: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a preset or a TOML file, and apply ``section.key=value`` on top.

    Parameters
    ----------
    kind
        Class of the configuration, which has presets of its own.
    source
        Name of a preset, or path of a file.
    overrides
        Texts "section.key=value".

    Raises
    ------
    ConfigError
        In one line: the file or the key, what is wrong with it, and what would be right.
    """
    name, made = str(source), kind is RunConfig
    if name in preset_names(kind):
        text, where = preset_text(name, kind), f"preset {name}"
    elif made and name.startswith(paper.PREFIX):
        text, where = paper.preset(name), f"preset {name}"
    elif (path := Path(source)).is_file():
        text, where = read_text(path), name
    else:
        known = [*preset_names(kind), *(paper.names() if made else [])]
        there = ", ".join(preset_names(kind)) + (f" and {paper.summary()}" if made else "")
        of = "" if made else f" of {kind.presets.rpartition('/')[2]}"
        raise ConfigError(f"no preset and no file {name!r}{did_you_mean(name, known)}; presets{of} are {there}")
    config = parse_as(kind, text, where=where, overrides=overrides)
    require_possible_radius(config, where)
    return config


def parse_config(text: str, *, where: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run from TOML text; see :func:`parse_as`."""
    return parse_as(RunConfig, text, where=where, overrides=overrides)


def parse_as(kind: type[T], text: str, *, where: str, overrides: Sequence[str] = ()) -> T:
    """Like :func:`read_config`, from TOML text; ``where`` names it in messages.

    What is stored is read as it is; only keys that are asked for on top have to make sense today.
    """
    values = read_values(text, where=where, overrides=overrides)
    try:
        config = kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_one_line(kind, error)}") from error
    if overrides:
        require_possible_radius(config, where)
    return config


def require_possible_radius(config: RunConfig, where: str) -> None:
    """Raise ConfigError for a radius that leaves nothing of an image, as one in units of 1/255 would."""
    attack = config.attack
    if attack.norm == "linf" and attack.radius > 1:
        raise ConfigError(
            f"{where}: attack.radius is {attack.radius:g}, more than all pixels' range, which is 1; "
            "give a fraction of the pixel range, such as 8/255"
        )


def read_values(text: str, *, where: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The sections of TOML text with overrides applied, not checked; ConfigError if the text is not TOML."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error
    for override in overrides:
        _apply_override(values, override)
    return values


def read_text(path: Path) -> str:
    """The text of a configuration file; ConfigError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from error


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, raw = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name) or "." in name:
        raise ConfigError(f"--set {override!r}: write section.key=value, for example --set data.n_train=2000")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()  # a bare word: a string without its quotes
    if not isinstance(values.setdefault(section, {}), dict):
        raise ConfigError(f"{section}: must be a section, [{section}]")
    values[section][name] = value


def _one_line(kind: type[RunConfig], error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            parts.append(f"{key}: no such key{_alternatives(kind, item['loc'])}")
        elif item["type"] == "literal_error":
            known = re.findall(r"'([^']*)'", str(item.get("ctx", {}).get("expected", "")))
            parts.append(f"{key}: {item['msg']}, got {item['input']!r}{did_you_mean(str(item['input']), known)}")
        else:
            message = _in_words(item)
            shown = "" if isinstance(item["input"], dict | RunConfig) else f", got {item['input']!r}"
            parts.append(f"{key}: {message}{shown}" if key else f"{message}{shown}")  # of several keys: it names them
    return "; ".join(parts)


def _in_words(item: Any) -> str:
    """What is wrong, in words for those who write TOML."""
    if item["type"] == "tuple_type":
        return "must be a list " + ("of classes" if item["loc"][-1] == "class_subset" else "such as [0.1, 1.0]")
    return str(item["msg"]).removeprefix("Value error, ")


def _alternatives(kind: type[RunConfig], loc: tuple[int | str, ...]) -> str:
    word = str(loc[-1])
    if len(loc) == 1:
        return f"{did_you_mean(word, kind.model_fields)}; sections are {', '.join(kind.model_fields)}"
    section = kind.model_fields.get(str(loc[0]))
    fields = getattr(section.annotation, "model_fields", {}) if section else {}
    return f"{did_you_mean(word, fields)}; {loc[0]} has {', '.join(fields)}"


def preset_names(kind: type[RunConfig] = RunConfig) -> list[str]:
    """Names of the built-in presets of a kind of configuration."""
    return sorted(p.name.removesuffix(".toml") for p in _folder(kind).iterdir() if p.name.endswith(".toml"))


def preset_text(name: str, kind: type[RunConfig] = RunConfig) -> str:
    """The TOML of a built-in preset; its first line is a comment that says what it is."""
    return str((_folder(kind) / f"{name}.toml").read_text(encoding="utf-8"))


def _folder(kind: type[RunConfig]) -> Any:
    return resources.files("advntk_dist").joinpath(kind.presets)


def explained(config: BaseModel) -> str:
    """Every section and key of a configuration, each below a line of what it means; keys without a value commented out.

    Reading it back gives an equal configuration.
    """
    blocks = []
    for name, section in type(config).model_fields.items():
        values, kind = getattr(config, name), section.annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        given = values.model_dump(mode="json", exclude_none=True)
        lines = [f"# {' '.join((kind.__doc__ or '').split())}", f"[{name}]"]
        for key, field in kind.model_fields.items():
            lines.append(f"# {' '.join((field.description or '').split())}")
            lines.append(_line(key, given[key]) if key in given else f"# {key} is not given")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _line(key: str, value: object) -> str:
    """One key; a short list stays on the line."""
    if isinstance(value, list):
        return f"{key} = [{', '.join(dumps({'x': item}).partition(' = ')[2].strip() for item in value)}]"
    return dumps({key: value}).strip()

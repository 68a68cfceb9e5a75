"""The configurations that come with the package; those of the paper's grid are made by reproduce."""

from __future__ import annotations

from importlib import resources
from typing import Any


def preset_names() -> list[str]:
    """Names of the built-in presets."""
    return sorted(p.name.removesuffix(".toml") for p in _preset_folder().iterdir() if p.name.endswith(".toml"))


def preset_text(name: str) -> str:
    """The TOML of a built-in preset; its first line is a comment that says what it is."""
    return str((_preset_folder() / f"{name}.toml").read_text(encoding="utf-8"))


def _preset_folder() -> Any:
    return resources.files("advntk_dist") / "presets"

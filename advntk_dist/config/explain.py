"""A configuration as TOML in which every key says what it is."""

from __future__ import annotations

from pydantic import BaseModel
from tomli_w import dumps


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

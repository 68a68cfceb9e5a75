"""What every section is made of: its base class, and the kinds of numbers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def fraction(value: Any) -> Any:
    """Read "8/255" as the number that it is."""
    if isinstance(value, str) and value.count("/") == 1:
        above, below = value.split("/")
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError):
            return value  # pydantic says what is wrong with it
    return value


def no_bool(value: Any) -> Any:
    """Keep pydantic from reading true as 1 byte."""
    return str(value) if isinstance(value, bool) else value


Pixels = Annotated[float, BeforeValidator(fraction), Field(allow_inf_nan=False)]
"""A distance between images whose pixels span a range of 1; a fraction such as "8/255" is understood."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Section(BaseModel):
    """Base of all sections: frozen; unknown keys and other types (true or "3" for a number) are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, strict=True, use_attribute_docstrings=True
    )

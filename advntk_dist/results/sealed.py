"""JSON files with the number of their format and a checksum: written, read back, and held against what is expected.

A reader so tells what was written from what was changed since. :mod:`advntk_dist.results.schema` has what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from advntk_dist.errors import OtherFormatError, StoreDamagedError
from advntk_dist.results.schema import Described
from advntk_dist.storage.durable import json_checksum, write_durable
from advntk_dist.storage.paths import Location

FORMAT = 4
"""Number of the format of every JSON file of a run directory."""

Kind = TypeVar("Kind", bound=BaseModel)
Beside = TypeVar("Beside", bound=Described)


def as_text(kind: type[BaseModel], values: dict[str, Any]) -> str:
    """The text of a file of this kind, its keys in the order of the model; optional keys that are absent stay out.

    Raises
    ------
    pydantic.ValidationError
        If the values are not of this kind, which is an error of the program.
    """
    body = {"format": FORMAT} | plain(kind.model_validate(values))
    return json.dumps(body | {"checksum": checksum(body)}, indent=2, allow_nan=False) + "\n"


def write(path: Location, kind: type[BaseModel], values: dict[str, Any]) -> None:
    """Write a file of this kind, whole or not at all.

    Raises
    ------
    OSError, StoreError
        If it cannot be written.
    """
    write_durable(path, as_text(kind, values).encode())


def read(path: Location, kind: type[Kind], remedy: str) -> Kind | None:
    """What a file of this kind says; None where there is none.

    Parameters
    ----------
    path, kind
        The file, and what it should hold.
    remedy
        How it is written again, which ends the message of an error.

    Raises
    ------
    OtherFormatError
        If it is of another format.
    StoreDamagedError
        If it cannot be parsed, was changed since it was written, or is of another kind.
    """
    found = parsed(path, remedy)
    if found is None:
        return None
    if not is_as_written(found):
        raise StoreDamagedError(f"{path}: was changed after it was written (its checksum differs); {remedy}")
    del found["format"], found["checksum"]
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreDamagedError(f"{path}: {where}: {first['msg']}; {remedy}") from error


def plain(found: BaseModel) -> dict[str, Any]:
    """What a file says as JSON values, without the keys that it leaves out."""
    return found.model_dump(mode="json", exclude_unset=True)


def parsed(path: Location, remedy: str) -> dict[str, Any] | None:
    """A file's JSON object with format number and checksum, whatever else it says; None where there is none.

    Raises
    ------
    OtherFormatError
        If it is of another format.
    StoreDamagedError
        If it cannot be parsed, or is not a file of ours.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreDamagedError(f"{path}: not valid JSON ({error}); {remedy}") from error
    if not isinstance(found, dict) or not {"format", "checksum"} <= found.keys():
        raise StoreDamagedError(f"{path}: lacks its format number or its checksum; {remedy}")
    if found["format"] != FORMAT and is_as_written(found):
        raise OtherFormatError(path, found["format"], FORMAT)
    return found


def read_beside(path: Location, kind: type[Beside], owner: Described, remedy: str) -> Beside | None:
    """As :func:`read`, of a file beside the results of a run; errors as of :func:`require_owner` besides."""
    found = read(path, kind, remedy)
    if found is not None:
        require_owner(path, found, {"configuration": owner.configuration, "data": owner.data}, remedy)
    return found


def require_owner(path: Location, found: Described, owner: Mapping[str, Any], remedy: str) -> None:
    """Raise StoreDamagedError if a file is of another run than the one whose keys these are; ``remedy`` ends it."""
    for key, of in (("configuration", found.configuration), ("data", found.data)):
        if owner.get(key) is not None and of != owner[key]:
            raise StoreDamagedError(f"{path}: is of another run ({key} is {of}, not {owner[key]}); {remedy}")


def is_as_written(found: dict[str, Any]) -> bool:
    """Whether a file's JSON object has the checksum of what it says."""
    return bool(found["checksum"] == checksum({key: value for key, value in found.items() if key != "checksum"}))


def checksum(body: dict[str, Any]) -> str:
    """The crc32c of a JSON object, whatever the order of its keys."""
    return f"{json_checksum(body):08x}"


def first_difference(found: object, expected: object, where: str = "") -> str | None:
    """The first place at which a JSON value differs from what is expected, and both in words; None where none does.

    Keys that are not expected do not count.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        inside = [(found.get(key, "nothing"), value, f"{where}.{key}".lstrip(".")) for key, value in expected.items()]
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        inside = [(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(found, expected, strict=True))]
    else:
        return None if found == expected else f"{where} is {_short(found)} in place of {_short(expected)}"
    return next((place for item in inside if (place := first_difference(*item)) is not None), None)


def _short(value: object) -> str:
    """A value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

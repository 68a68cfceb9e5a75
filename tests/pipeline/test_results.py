"""results.json says what the committed outcomes give: every reader holds it to them, and nothing is read from it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.results import sealed
from tests.pipeline.conftest import Command, Refused, command_of, results_of

EDITS: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "an accuracy": (("methods", "adv_ntk", "robust"), 0.97),
    "the time of early stopping": (("methods", "early_stopped", "t"), 1e-3),
    "an interval": (("methods", "ntk", "clean_interval", 0), 0.5),
    "a paired difference": (("paired", 0, "robust"), 0.125),
    "a point of the curve": (("curve", "test", 1, "robust"), 0.5),
    "the attack's loss": (("attack", "loss"), "dlr"),
    "the largest perturbation": (("attack", "max_perturbation"), 0.1),
    "the number of images": (("n_train",), 20_000),
    "the network": (("network",), "mlp-20"),
    "a value of the environment": (("environment", "jax"), "1.0"),
    "a number of seconds": (("seconds", "gram"), 0.001),
    "the format": (("format",), 2),
    "an accuracy in the worst case": (("worst_case", "methods", "adv_ntk", "robust"), 0.97),
    "the images of the worst case": (("worst_case", "images"), 59),
    "an attack of the worst case": (("worst_case", "attacks", 0, "steps"), 100),
}
DERIVED = [edit for edit in EDITS if edit not in ("a value of the environment", "a number of seconds", "the format")]


def edit(run: Path, place: tuple[str | int, ...], value: Any, *, resealed: bool) -> None:
    path = run / "results.json"
    body = json.loads(path.read_text())
    inner: Any = body
    for key in place[:-1]:
        inner = inner[key]
    assert inner[place[-1]] != value
    inner[place[-1]] = value
    if resealed:
        del body["checksum"]
        body["checksum"] = sealed.checksum(body)
    path.write_text(json.dumps(body))


@pytest.mark.parametrize("resealed", [False, True])
def test_an_edited_value_is_exit_3_and_the_report_puts_all_right(
    copy: Path, advntk: Command, refused: Refused, resealed: bool
) -> None:
    before, whole = results_of(copy), (copy / "results.json").read_bytes()
    names = DERIVED if resealed else list(EDITS)
    for name in names:
        place, value = EDITS[name]
        (copy / "results.json").write_bytes(whole)
        edit(copy, place, value, resealed=resealed)
        err = refused(3, "-q", *command_of(copy))
        if name in DERIVED:
            assert "".join(f".{key}" if isinstance(key, str) else f"[{key}]" for key in place)[1:] in err
            assert repr(value) in err
        assert f"`advntk report {copy}` writes it again" in err
    (copy / "results.json").write_bytes(whole)
    for name in names:
        edit(copy, *EDITS[name], resealed=resealed)
    assert advntk("-q", "report", copy)[0] == 0
    assert advntk("-q", *command_of(copy))[0] == 0
    after = results_of(copy)
    for key in before.keys() - {"checksum", "peak_bytes", "seconds"}:
        assert after[key] == before[key], key


READERS: dict[str, Callable[[str, str], tuple[str, ...]]] = {
    "evaluate": lambda run, _: ("evaluate", run, "--attack", "fgsm"),
    "tier": lambda run, _: ("evaluate", run, "--tier", "fast", "--images", "5"),
    "check": lambda run, _: ("check", run, "--images", "5"),
    "compare": lambda run, other: ("report", "--compare", run, other, "--out", f"{run}/page.html"),
    "json": lambda run, _: ("run", f"{run}/config.toml", "--out", run, "--json"),
}
TIME = (("methods", "early_stopped", "t"), 1e-3, "methods.early_stopped.t is 0.001 in place of 0.1")
OLDER = (("format",), sealed.FORMAT - 1, f"has format {sealed.FORMAT - 1}, and this release reads format")


@pytest.mark.parametrize(
    ("reader", "edited"), [*((reader, edited) for reader in READERS for edited in (TIME, OLDER)), ("report", OLDER)]
)
def test_no_reader_takes_another_time_of_early_stopping_or_an_older_format(
    copy: Path, finished: Path, refused: Refused, reader: str, edited: tuple[tuple[str, ...], float, str]
) -> None:
    place, value, says = edited
    edit(copy, place, value, resealed=True)
    files = {p: p.read_bytes() for p in copy.rglob("*.json") if p.name != "zarr.json"}
    words = ("report", str(copy)) if reader == "report" else READERS[reader](str(copy), str(finished))
    assert says in refused(3, "-q", *words)
    assert {p: p.read_bytes() for p in copy.rglob("*.json") if p.name != "zarr.json"} == files


@pytest.mark.parametrize("content", ["{}", "[]", "null", "0.97", '{"methods": {}}', ""])
def test_what_is_no_result_is_never_served(copy: Path, refused: Refused, content: str) -> None:
    (copy / "results.json").write_text(content)
    refused(3, "-q", "run", copy / "config.toml", "--out", copy, "--json")


def test_no_flipped_bit_is_served(copy: Path, advntk: Command) -> None:
    whole, rng = (copy / "results.json").read_bytes(), random.Random(0)
    for bit in rng.sample(range(8 * len(whole)), 20):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        (copy / "results.json").write_bytes(bytes(data))
        code, out, _ = advntk("-q", "run", copy / "config.toml", "--out", copy, "--json")
        assert (code == 3 and out == "") or _says_the_same(bytes(data), whole), bit


def _says_the_same(content: bytes, whole: bytes) -> bool:
    """Whether a flipped bit has changed nothing but blanks, or a digit beyond the precision of a number."""
    try:
        return bool(json.loads(content) == json.loads(whole))
    except ValueError:
        return False

"""The run directory: whose it is, of which images, what it holds, and how files land in it whole or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import google_crc32c
from pydantic import BaseModel

from advntk_dist.config import IDENTITY_FREE, RunConfig, difference, parse_config
from advntk_dist.data import Dataset, load_dataset
from advntk_dist.data.registry import READERS
from advntk_dist.errors import ConfigError, ImagesChangedError, RequestError, StoreDamagedError, StoreMismatchError
from advntk_dist.results import schema, sealed
from advntk_dist.storage.durable import write_durable
from advntk_dist.storage.locks import exclusive_lock
from advntk_dist.storage.paths import Location, location, remove_tree

log = logging.getLogger(__name__)
Config = TypeVar("Config", bound=RunConfig)
READ_ONLY = "copy the run (cp -r) to a folder that can be written, where the same command writes it again"
"""Remedy for a damaged file of a run that can only be read."""
AFTER_THE_MATRIX = ("solver", "attack", "train", "evaluation")
"""Sections of a configuration that the Gram matrix does not depend on."""
_CHECKSUM_LINE = re.compile(r"# crc32c of the lines below: ([0-9a-f]{8})\n")


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run."""

    root: Location

    kind: ClassVar[type[BaseModel]] = schema.RunResults
    """What results.json holds."""

    @property
    def remedy(self) -> str:
        """How results.json is written again where it is damaged."""
        return f"`advntk report {self.root}` writes it again from the committed outcomes"

    @classmethod
    def at(cls, out: str | Location) -> RunDirectory:
        """The run directory at a path, or at a URL of an object store.

        Raises
        ------
        RequestError
            If it is a URL of another kind, or something that is not a folder is in the way.
        """
        root = location(out)
        if root.is_file():
            raise RequestError(f"--out {out}: there is a file of that name; give a folder")
        return cls(root)

    @property
    def config(self) -> Location:
        """The resolved configuration."""
        return self.root / "config.toml"

    @property
    def gram(self) -> Location:
        """The Gram matrix: tiles, and a commit record of each."""
        return self.root / "gram.zarr"

    @property
    def coefficients(self) -> Location:
        """Solved coefficients of each method, and which images are almost equal."""
        return self.root / "dynamics.zarr"

    @property
    def train(self) -> Location:
        """Adv-NTK: effective training times and random state after each step."""
        return self.root / "train.zarr"

    @property
    def evaluation(self) -> Location:
        """Outcomes of attacked images, each batch committed."""
        return self.root / "evaluation.zarr"

    @property
    def results(self) -> Location:
        """What the run found: sizes, methods with accuracies and intervals, seconds, memory, versions."""
        return self.root / "results.json"

    @property
    def events(self) -> Location:
        """What happened and when, one JSON object a line."""
        return self.root / "events.jsonl"

    @property
    def report(self) -> Location:
        """The page that shows it all; its figures lie beside it."""
        return self.root / "report.html"

    @property
    def is_read_only(self) -> bool:
        """Whether it lies on a file system, or in a folder, that cannot be written."""
        return isinstance(self.root, Path) and self.root.is_dir() and not os.access(self.root, os.W_OK)

    @contextmanager
    def claimed(self, config: RunConfig, *, reading: bool = False) -> Iterator[None]:
        """Hold the directory for this configuration; the first claim writes config.toml.

        A directory in which nothing rests on the Gram matrix yet takes a larger data.n_train, with which the matrix
        grows, and any other solver, attack, training and evaluation.

        Parameters
        ----------
        config
            The configuration.
        reading
            Whether a run on a file system that cannot be written is no obstacle: nobody else can change it either.

        Raises
        ------
        StoreBusyError
            If another process holds it.
        StoreMismatchError
            If it belongs to another configuration; names the key.
        StoreDamagedError
            If config.toml cannot be read.
        """
        if reading and self.is_read_only and self.config.is_file():
            self._require_same(config, self.stored_config())
            yield
            return
        with self.held("run"):
            found = _found_from_anywhere(config)
            known = self._known()
            moved = True
            if known is not None and (difference(config, known) is None or not self._gives_way(config, known)):
                self._require_same(config, known)
                moved = _moved(known.data.path, config.data.path, found.data.path)
                moved |= config.final_tier != known.final_tier
            if moved:  # later commands find the images from any folder, and know which tier was asked for
                self.write_text(self.config, _with_checksum(found.to_toml()))
            yield

    def held(self, what: str) -> ExitStack:
        """Hold the directory, which is made if it is not there, until the context ends; ``what`` names it in errors.

        Raises
        ------
        StoreBusyError
            If another process holds it.
        RequestError
            If it cannot be written.
        """
        lock = ExitStack()
        busy = f"{self.root}: another process is working on this {what}; wait for it"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.enter_context(exclusive_lock(self.root / ".lock", self.root, busy))
        except OSError as error:
            raise RequestError(
                f"--out {self.root}: cannot be written ({error}); give another folder, or copy the {what} "
                "(cp -r) to one that can be"
            ) from error
        return lock

    def _require_same(self, config: RunConfig, stored: RunConfig) -> None:
        """Raise StoreMismatchError naming the first key in which a configuration differs from the stored one."""
        other = difference(config, stored)
        if other is not None:
            kept = other[0].partition(".")[0] in AFTER_THE_MATRIX and self.gram.exists()
            also = f" (a copy of {self.gram.name} in it keeps the matrix)" if kept else ""
            raise StoreMismatchError(str(self.root), *other, also)

    def _known(self) -> RunConfig | None:
        """The stored configuration; None where there is none yet, or where it is damaged, and is written anew.

        What was computed for another configuration is refused all the same: it knows whose it is.
        """
        if not self.config.exists():
            return None
        try:
            return self.stored_config()
        except StoreDamagedError as error:
            log.warning("%s", error)
            return None

    def _gives_way(self, config: RunConfig, stored: RunConfig) -> bool:
        """Whether another configuration can go on from the matrix, on which nothing rests; what is begun is removed."""
        from advntk_dist.storage.records import holds_nothing

        after = {section: getattr(config, section) for section in AFTER_THE_MATRIX}
        larger = {"n_train": max(config.data.n_train, stored.data.n_train)}
        if difference(config, stored.model_copy(update=after | {"data": stored.data.model_copy(update=larger)})):
            return False
        rest = (self.coefficients, self.train, self.evaluation)
        if self.results.exists() or not all(holds_nothing(path) for path in rest):
            return False
        for path in rest:
            remove_tree(path)
        return True

    def stored_config(self) -> RunConfig:
        """The configuration that the directory belongs to.

        Raises
        ------
        RequestError
            If there is none: this is not a run directory.
        StoreDamagedError
            If it cannot be read.
        """
        if not self.config.is_file():
            raise RequestError(f"{self.root}: not a run directory (no config.toml); start one with `advntk run`")
        return parse_stored(self.config, parse_config)

    def read_results(self) -> dict[str, Any] | None:
        """What results.json says, or None where the run is not finished; errors as of :func:`results.sealed.read`."""
        found = sealed.read(self.results, self.kind, self.remedy)
        return None if found is None else sealed.plain(found)

    def unfinished(self) -> RequestError:
        """The error of a command that needs the results of the run, where there are none."""
        return RequestError(f"{self.root}: the run is not finished; `advntk run {self.config} --out {self.root}`")

    def write_text(self, path: Location, text: str) -> None:
        """Write a file whole or not at all."""
        write_durable(path, text.encode("utf-8"))


def parse_stored(path: Location, parse: Callable[..., Config]) -> Config:
    """The configuration in a run directory, whose first line is the checksum of the others.

    One without a checksum is somebody's own, and taken at its word unless it says nothing.

    Raises
    ------
    StoreDamagedError
        If it cannot be read, or was changed since it was written.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        line = _CHECKSUM_LINE.match(text)
        if line is not None and int(line[1], 16) != google_crc32c.value(text[line.end() :].encode()):
            raise ConfigError("its checksum differs")
        if not tomllib.loads(text):
            raise ConfigError("it says nothing")
        return parse(text, where=str(path))
    except (ConfigError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StoreDamagedError(
            f"{path}: damaged ({error}); the command that started the run writes it again, with the same options"
        ) from error


def _with_checksum(text: str) -> str:
    return f"# crc32c of the lines below: {google_crc32c.value(text.encode()):08x}\n{text}"


def _found_from_anywhere(config: RunConfig) -> RunConfig:
    """The same run with an absolute data.path.

    data.name stays as it was given, as it tells runs apart; where it is a relative path, data.path says where it led.
    """
    name, path = config.data.name, config.data.path
    if path is None:
        if name in READERS or os.path.isabs(os.path.expanduser(name)) or not os.path.exists(name):
            return config
        path = name
    absolute = os.path.abspath(os.path.expanduser(path))
    return config.model_copy(update={"data": config.data.model_copy(update={"path": absolute})})


def _moved(stored: str | None, given: str | None, found: str | None) -> bool:
    """Whether the images lie elsewhere than is stored: that is said, or there is nothing where they lay."""
    if found in (None, stored):
        return False
    return given is not None or stored is None or not os.path.exists(stored)


def digest(config: RunConfig) -> str:
    """A short name of what a configuration asks for, the same for runs that differ only in how they compute."""
    values = config.model_dump(mode="json")
    for section, key in IDENTITY_FREE:
        del values[section][key]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def load_images(config: RunConfig) -> Dataset:
    """The dataset that a configuration names; errors as :func:`advntk_dist.data.load_dataset`."""
    d = config.data
    drop = d.duplicates == "drop"
    return load_dataset(d.name, d.path, resize=d.resize, class_subset=d.class_subset, drop_duplicates=drop)


def require_same_images(folder: RunDirectory, dataset: Dataset) -> None:
    """Raise ImagesChangedError if a run has solved with other images than these; fine where it has solved nothing."""
    from advntk_dist.storage.records import read_group

    if (folder.coefficients / "zarr.json").exists():
        try:
            stored = read_group(folder.coefficients)[1].get("data")
        except StoreDamagedError:
            return  # it is written anew, and solutions of other images do not count then
        if stored is not None and stored != dataset.fingerprint:
            raise ImagesChangedError(folder.root, dataset.name, stored, dataset.fingerprint)


@contextmanager
def changed_images_named(root: Location, name: str) -> Iterator[None]:
    """Raise ImagesChangedError, which names the dataset, for a Gram store that has other images."""
    try:
        yield
    except StoreMismatchError as error:
        if error.field != "images":
            raise
        raise ImagesChangedError(root, name, error.stored, error.requested) from error

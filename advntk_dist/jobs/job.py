"""A run as a Ray job: its identity, the command that the cluster executes, the file that travels with it."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from advntk_dist.config import RunConfig, load_config
from advntk_dist.errors import RequestError
from advntk_dist.pipeline.directory import digest
from advntk_dist.storage.paths import location, refuse_credentials

RUNS = "ADVNTK_RUNS"
"""Environment variable of the cluster: the folder below which runs lie for which no place is given."""

_ID = re.compile(r"(?P<identity>advntk-[0-9a-f]{16})-(?P<attempt>[1-9][0-9]*)")


@dataclass(frozen=True)
class Job:
    """One run to be done by a cluster; make it with :meth:`of`.

    Attributes
    ----------
    name
        Of the preset or file, as a file name.
    config
        The resolved configuration; its text travels with the job.
    out
        Run directory as the cluster sees it, None for the cluster's own choice.
    """

    name: str
    config: RunConfig
    out: str | None

    @classmethod
    def of(cls, source: str, overrides: Sequence[str], out: str | None) -> Job:
        """Read the configuration here, so that a wrong request never reaches the cluster.

        Raises
        ------
        ConfigError
            If the configuration is wrong.
        RequestError
            If ``out`` is no absolute path, which means nothing on a cluster, or holds credentials.
        """
        config = load_config(source, overrides)
        name = re.sub(r"[^A-Za-z0-9._-]", "-", Path(source).stem)
        if out is not None:
            refuse_credentials("--out", out)
            if isinstance(location(out), Path) and not out.startswith("/"):
                raise RequestError(
                    f"--out {out}: the nodes do not know this folder; give an absolute path that all of them see, "
                    f"the URL of an object store, or leave it out for ${RUNS}/{name} of the cluster"
                )
            out = str(location(out))  # one name for one place: without slashes at the end, or doubled
        return cls(name, config, out)

    @property
    def identity(self) -> str:
        """The same for every submission of this run, whatever its workers and memory."""
        where = self.out or f"{RUNS}/{self.name}"
        return f"advntk-{hashlib.sha256(f'{digest(self.config)} {where}'.encode()).hexdigest()[:16]}"

    def attempt(self, number: int) -> str:
        """The submission id of the n-th attempt, counted from 1."""
        return f"{self.identity}-{number}"

    @property
    def entrypoint(self) -> str:
        """The shell command that the cluster executes, in a folder that holds the configuration.

        A cluster starts with no datasets: the job fetches a published one that it lacks.
        """
        default = f'"${{{RUNS}:-$HOME/runs}}"/{self.name}'
        out = default if self.out is None else shlex.quote(self.out)
        return f"python -m advntk_dist run {self._file} --out {out} --address auto --fetch"

    @property
    def _file(self) -> str:
        return f"{self.name}.toml"

    @contextmanager
    def folder(self) -> Iterator[str]:
        """A folder with the resolved configuration alone, for the length of a submission."""
        with TemporaryDirectory(prefix="advntk-job-") as folder:
            Path(folder, self._file).write_text(self.config.to_toml(), encoding="utf-8")
            yield folder


def is_submission(text: str) -> bool:
    """Whether this is the id of a submission, and not a preset or a file."""
    return _ID.fullmatch(text) is not None


def attempt_of(submission: str | None, identity: str) -> int | None:
    """Which attempt of this run a submission is; None if it is of another."""
    match = _ID.fullmatch(submission or "")
    return int(match["attempt"]) if match and match["identity"] == identity else None

"""Processes that run programs of ours without importing everything first: forked from one that has, for the tests.

A fresh interpreter takes seconds to import JAX, Ray and Zarr; where that start is not what is tested, this saves it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

RUNS = ("advntk_dist.cli", "advntk_dist.pipeline.run", "advntk_dist.report.write", "advntk_dist.gram.build")
"""Modules that runs and builds import."""


def without_ray() -> dict[str, str]:
    """The variables of this process but for those that would tie another one to its Ray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def setting_words(settings: Iterable[str]) -> list[str]:
    """The words that give settings to a command."""
    return [word for setting in settings for word in ("--set", setting)]


class Process:
    """What :class:`subprocess.Popen` says of a process, of one that a :class:`Terminal` has forked."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid, self._folder = pid, folder
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code once it has ended, negative for a signal."""
        ended = self._folder / "ended"
        if self.returncode is None and ended.exists():
            self.returncode = int(ended.read_text())
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.02)
        return code

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it has printed, once it has ended."""
        self.wait(timeout)
        return (self._folder / "out").read_text(), (self._folder / "err").read_text()

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Terminal:
    """Where programs are started."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server, self._folder, self._count = server, folder, 0
        self.started: list[Process] = []

    def start(
        self, module: str, *words: str, environment: Mapping[str, str] | None = None, undrawn: bool = False
    ) -> Process:
        """Run ``module``'s main() with these words in ``sys.argv``, in a session and a process group of its own.

        Parameters
        ----------
        module
            Dotted name of a module, or path of one.
        environment
            Variables of the process; by default those of this one, without Ray's.
        undrawn
            Whether figures of reports are left out.
        """
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        asked = {"module": module, "words": words, "folder": str(folder), "undrawn": undrawn}
        asked["environment"] = dict(without_ray() if environment is None else environment)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        self.started.append(Process(int(self._server.stdout.readline()), folder))
        return self.started[-1]


@contextmanager
def terminal(*modules: str, **environment: str) -> Iterator[Terminal]:
    """A terminal whose programs find these modules imported; what still runs at the end is killed.

    Ray and others read some variables as they are imported: those that are given here.
    """
    with TemporaryDirectory(prefix="terminal", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, str(Path(__file__).resolve()), *modules]
        variables = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"} | environment
        # To a file, what JAX has to say of forks: it need not, as none of its threads has begun.
        with Path(folder, "server").open("w") as said:
            server = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, env=variables,
            )  # fmt: skip
        found = Terminal(server, Path(folder))
        try:
            yield found
        finally:
            for process in found.started:
                process.kill()
            assert server.stdin is not None
            server.stdin.close()
            server.wait(60)


def _serve() -> None:
    """Fork a child for each line of standard input, and note how each ends."""
    before = dict(os.environ)
    for module in sys.argv[1:]:
        import_module(module)
    imported = {k: v for k, v in os.environ.items() if before.get(k) != v}
    folders: dict[int, Path] = {}

    def ended(*_: Any) -> None:
        while folders:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            folder = folders.pop(pid)
            (folder / "ending").write_text(str(os.waitstatus_to_exitcode(status)))
            (folder / "ending").rename(folder / "ended")

    signal.signal(signal.SIGCHLD, ended)
    while line := sys.stdin.readline():
        asked = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # until its folder is known
        pid = os.fork()
        if not pid:
            _child(asked, imported)
            return
        folders[pid] = Path(asked["folder"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        print(pid, flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _child(asked: dict[str, Any], imported: dict[str, str]) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background has ignored
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    folder = Path(asked["folder"])
    for descriptor, path in ((0, Path(os.devnull)), (1, folder / "out"), (2, folder / "err")):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(imported | asked["environment"])  # as if the modules had only now set their variables
    if asked["undrawn"]:
        from undrawn import undrawn  # type: ignore[import-not-found]  # it lies beside this file

        left_out = undrawn()  # held, as what it has replaced comes back when it is collected
        left_out.__enter__()
    module = asked["module"]
    if module.endswith(".py"):
        sys.path.insert(0, str(Path(module).parent))
        module = Path(module).stem
    sys.argv = [module, *asked["words"]]
    sys.exit(import_module(module).main())


if __name__ == "__main__":
    _serve()

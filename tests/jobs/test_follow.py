"""Following a job whose server falls silent: no Ray is needed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web

JOB = f"advntk-{'0' * 16}-1"
FOLLOW = """
import sys
from advntk_dist.cli import main
from advntk_dist.jobs import client, follow
follow._SILENCE = follow._PAUSE = 0.5
follow._TRIES, client._ANSWER_SECONDS = 2, 1
main(["submit", sys.argv[1], "--address", sys.argv[2], "--follow"])
"""


class _SilentServer:
    """Answers as Ray's job server does; its first connections to a log say something, and then nothing for ever."""

    def __init__(self, silent: int, deaf: bool) -> None:
        self.silent, self.deaf, self.tails = silent, deaf, 0

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""})

    async def info(self, _: web.Request) -> web.Response:
        if self.deaf and self.tails:
            await asyncio.sleep(60)
        status = "RUNNING" if self.tails <= self.silent else "SUCCEEDED"
        known = {"type": "SUBMISSION", "submission_id": JOB, "status": status, "entrypoint": "x"}
        return web.json_response(known | {"driver_exit_code": 0 if status == "SUCCEEDED" else None})

    async def log(self, _: web.Request) -> web.Response:
        return web.json_response({"logs": "one\ntwo\n"})

    async def tail(self, request: web.Request) -> web.WebSocketResponse:
        self.tails += 1
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        await answer.send_str("one\n")
        if self.tails <= self.silent:
            await asyncio.sleep(60)
        await answer.send_str("two\n")
        await answer.close()
        return answer


@contextmanager
def _serving(server: _SilentServer) -> Iterator[str]:
    app = web.Application()
    app.router.add_get("/api/version", server.version)
    app.router.add_get(f"/api/jobs/{JOB}", server.info)
    app.router.add_get(f"/api/jobs/{JOB}/logs", server.log)
    app.router.add_get(f"/api/jobs/{JOB}/logs/tail", server.tail)
    loop, addresses = asyncio.new_event_loop(), []
    started, ended = threading.Event(), asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        addresses.append("http://127.0.0.1:{1}".format(*runner.addresses[0]))
        started.set()
        await ended.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(20)
        loop.close()


def _follow(address: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: Ray reads a token once, and this one must not become that of the other tests."""
    words = [sys.executable, "-c", FOLLOW, JOB, address]
    environment = os.environ | {"RAY_AUTH_TOKEN": "planted" * 5}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("silent", [1, 3])
def test_connection_that_falls_silent_is_made_anew(silent: int) -> None:
    server = _SilentServer(silent, deaf=False)
    with _serving(server) as address:
        done = _follow(address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["one", "two", f"{JOB}: succeeded"], "each line once"
    assert server.tails == silent + 1


def test_server_that_falls_silent_for_good_is_given_up() -> None:
    with _serving(_SilentServer(99, deaf=True)) as address:
        done = _follow(address)
    assert done.returncode == 1
    assert done.stdout == "one\n"
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("advntk: ")]
    assert line.startswith(f"advntk: {address} does not answer any more; the job may go on: follow it with")
    assert "planted" not in done.stderr

"""Following a job whose server falls silent: no Ray is needed."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.terminal import Terminal

JOB = f"advntk-{'0' * 16}-1"


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


def _follow(forks: Terminal, address: str) -> tuple[int | None, str, str]:
    """Exit code, output and errors of a process of its own: Ray reads a token once, and this one is not for others."""
    driver, environment = Path(__file__).with_name("follow_driver.py"), os.environ | {"RAY_AUTH_TOKEN": "planted" * 5}
    process = forks.start(str(driver), JOB, address, environment=environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize("silent", [1, 3])
def test_connection_that_falls_silent_is_made_anew(forks: Terminal, silent: int) -> None:
    server = _SilentServer(silent, deaf=False)
    with _serving(server) as address:
        code, out, err = _follow(forks, address)
    assert code == 0, err
    assert out.splitlines() == ["one", "two", f"{JOB}: succeeded"], "each line once"
    assert server.tails == silent + 1


def test_server_that_falls_silent_for_good_is_given_up(forks: Terminal) -> None:
    with _serving(_SilentServer(99, deaf=True)) as address:
        code, out, err = _follow(forks, address)
    assert code == 1
    assert out == "one\n"
    (line,) = [line for line in err.splitlines() if line.startswith("advntk: ")]
    assert line.startswith(f"advntk: {address} does not answer any more; the job may go on: follow it with")
    assert "planted" not in err

"""`advntk submit`: a run as a job of a Ray cluster, from any machine that reaches its dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from advntk_dist.cli.options import SET, SOURCE, Answer, is_json, json_option

if TYPE_CHECKING:
    from advntk_dist.jobs.client import JobServer
    from advntk_dist.jobs.follow import JobState

_START_SECONDS = 20.0
"""How long a new job may take to start before its state is printed."""


@click.command(short_help="Run on a Ray cluster as a job.")
@click.argument("source", metavar="PRESET|FILE.toml|JOB", type=SOURCE)
@click.option("--address", required=True, help="The cluster's dashboard, e.g. http://127.0.0.1:8265.")
@click.option(
    "--out", help="Run directory that all nodes see: an absolute path.  [default: $ADVNTK_RUNS/NAME of the cluster]"
)
@SET
@click.option("--follow", is_flag=True, help="Print the log until the job ends; exit as the run does.")
@click.option("--status", "ask", flag_value="status", help="Submit nothing: where does the last attempt stand?")
@click.option("--logs", "ask", flag_value="logs", help="Submit nothing: print the whole log of the last attempt.")
@click.option("--stop", "ask", flag_value="stop", help="Submit nothing: stop the job; submitted again, it goes on.")
@json_option
def submit(
    source: str,
    address: str,
    out: str | None,
    overrides: Sequence[str],
    follow: bool,
    ask: str | None,
) -> int:
    """Run on a Ray cluster as a job, which needs nothing but this package there; it fetches published datasets.

    Submitted again, the same run is followed while it lasts, and goes on from what is committed if it has ended, or
    the cluster with it. The token is taken from RAY_AUTH_TOKEN or ~/.ray/auth_token.

    Examples: advntk submit digits --address http://127.0.0.1:8265 --out /shared/runs/digits --follow

    advntk submit digits --address http://127.0.0.1:8265 --out /shared/runs/digits --status
    """
    from advntk_dist.jobs.follow import follow as follow_job
    from advntk_dist.jobs.follow import state, wait_for_start

    if follow and ask is not None:
        raise click.UsageError(f"--follow and --{ask} contradict each other; give one of them")
    name, server, new = _found(source, address, out, overrides, ask is not None)
    if ask == "logs":
        click.echo(server.log(name), nl=False)
        return 0
    if ask == "stop":
        server.stop(name)
    elif follow:
        click.echo(f"{name}: {_WORD[new]} {server.address}", err=True)
        ended = follow_job(server, name, lambda text: click.echo(text, nl=False, err=is_json()))
        _answer(ended).show()
        return ended.our_exit_code
    now = wait_for_start(server, name, _START_SECONDS) if new else state(server, name)
    follow_it = f"follow it with: advntk submit {name} --address {server.address} --follow"
    go_on = [follow_it] if ask is None and not now.ended else []
    return _answer(now, go_on, now.our_exit_code if now.ended and ask is None and new else 0).show()


_WORD = {True: "submitted to", False: "followed at"}


def _found(
    source: str, address: str, out: str | None, overrides: Sequence[str], only_ask: bool
) -> tuple[str, JobServer, bool]:
    """The submission that is meant, its server, and whether it was started by this."""
    from advntk_dist.errors import RequestError
    from advntk_dist.jobs.client import JobServer
    from advntk_dist.jobs.job import Job, is_submission

    if is_submission(source):
        if out is not None or overrides:
            raise click.UsageError("--out and --set belong to PRESET|FILE.toml, not to the id of a job")
        return source, JobServer(address), False
    job = Job.of(source, overrides, out)
    server = JobServer(address)
    if not only_ask:
        name, new = server.submit(job)
        return name, server, new
    latest = server.latest(job)
    if latest is None or latest.submission_id is None:
        raise RequestError(
            f"{server.address}: this run was not submitted to this cluster; leave out the question to do so"
        )
    return latest.submission_id, server, False


def _answer(state: JobState, go_on: Sequence[str] = (), code: int = 0) -> Answer:
    return Answer(state.as_dict(), (*(f"  {line}" for line in state.tail), str(state), *go_on), code)

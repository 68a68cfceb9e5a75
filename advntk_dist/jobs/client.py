"""Ray's job server: what we ask of it, every failure as one line that holds no secret."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from advntk_dist import library_logs
from advntk_dist.errors import AdvNTKError, RequestError
from advntk_dist.jobs.job import Job, attempt_of
from advntk_dist.storage.paths import refuse_credentials_in_address

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")

_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 60
_AGENT_SECONDS = 60
"""How long the node that starts jobs may take to appear after the dashboard."""
_PAUSE = 2.0

_OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Ray lets these take precedence over the address that it is given; what the user typed is meant here."""


class JobServer:
    """The job server of one cluster.

    Parameters
    ----------
    address
        Of the cluster's dashboard, such as http://127.0.0.1:8265.

    Raises
    ------
    RequestError
        If the extra `cluster` is missing, there is no answer at the address, or the token is refused.
    """

    def __init__(self, address: str) -> None:
        self.address = _checked(address)
        if importlib.util.find_spec("aiohttp") is None:
            raise RequestError("advntk submit needs the extra `cluster`: install advntk-dist[cluster]")
        # Stays on unless the user says otherwise; read when Ray is first imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        with self.asked():
            self.ray = _connect(self.address)

    def submit(self, job: Job) -> tuple[str, bool]:
        """Have the job done: (id of the submission, whether it is new); one that still runs is not started twice.

        Every submission of a run that has ended gets the next number; the run itself goes on from what is committed.
        """
        latest = self.latest(job)
        if latest is not None and latest.status.value not in ENDED:
            return str(latest.submission_id), False
        number = 1 if latest is None else 1 + (attempt_of(latest.submission_id, job.identity) or 0)
        name = job.attempt(number)
        with self.asked(), job.folder() as folder:
            return name, self._send(job, name, folder)

    def _send(self, job: Job, name: str, folder: str) -> bool:
        """Hand a job over; False if someone else was faster. A cluster that has just started gets time to take it."""
        deadline = time.monotonic() + _AGENT_SECONDS
        while True:
            try:
                self.ray.submit_job(
                    entrypoint=job.entrypoint,
                    submission_id=name,
                    runtime_env={"working_dir": folder},
                    metadata={"advntk_out": job.out or "", "advntk_source": job.name},
                )
                return True
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                if "try again later" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE)

    def latest(self, job: Job) -> JobDetails | None:
        """The last attempt at a run that this cluster knows."""
        with self.asked():
            listed = self.ray.list_jobs()
        found = [(n, d) for d in listed if (n := attempt_of(d.submission_id, job.identity)) is not None]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def info(self, submission: str) -> JobDetails:
        """What the cluster knows of a submission."""
        with self.asked(submission):
            return self.ray.get_job_info(submission)

    def log(self, submission: str) -> str:
        """All that a submission has printed so far; empty before it starts."""
        with self.asked(submission):
            return str(self.ray.get_job_logs(submission) or "")

    def stop(self, submission: str) -> bool:
        """Ask a submission to stop; whether it was running."""
        with self.asked(submission):
            return bool(self.ray.stop_job(submission))

    @contextmanager
    def asked(self, submission: str | None = None) -> Iterator[None]:
        """Turn what goes wrong with a question into one line.

        Raises
        ------
        RequestError
            If the token is missing or refused, there is no answer, or there is no such submission.
        AdvNTKError
            If the cluster answers with another error.
        """
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            found = "refuses the token" if "invalid" in str(error).lower() else "wants a token, and there is none here"
            raise RequestError(
                f"{self.address}: {found}; put the cluster's into RAY_AUTH_TOKEN or ~/.ray/auth_token"
            ) from None
        except (ConnectionError, requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            raise Unreachable(
                f"no Ray dashboard answers at {self.address} ({type(error).__name__}); check --address and that the "
                f"cluster is up"
            ) from None
        except requests.exceptions.RequestException as error:
            raise RequestError(
                f"{self.address}: is no Ray dashboard ({type(error).__name__}); check --address"
            ) from None
        except RuntimeError as error:
            said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if submission is not None and "does not exist" in said:
                raise RequestError(
                    f"{self.address}: knows no job {submission}; a cluster that was started anew has forgotten it: "
                    f"submit the run again, it goes on from what is committed"
                ) from None
            raise AdvNTKError(f"{self.address}: {said[:300]}") from None


class Unreachable(RequestError):
    """There is no answer at the address, now."""


def _checked(address: str) -> str:
    refuse_credentials_in_address("--address", address)
    full = address if "://" in address else f"http://{address}"
    parts = urlsplit(full)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise RequestError(
            f"--address {address}: give the URL of the cluster's dashboard, such as http://127.0.0.1:8265"
        )
    try:
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise Unreachable(
            f"no Ray dashboard answers at {full} ({error}); check --address and that the cluster is up"
        ) from None
    return full.rstrip("/")


def _connect(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    if not library_logs.shown():  # Ray sets these levels when it is imported
        for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.ERROR)

    class Bounded(JobSubmissionClient):
        """Waits a bounded time for each answer; Ray's own waits for ever."""

        def _do_request(self, *args: Any, **kwargs: Any) -> Any:
            return super()._do_request(*args, **({"timeout": (_CONNECT_SECONDS, _ANSWER_SECONDS)} | kwargs))

    hidden = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        return Bounded(address)
    finally:
        os.environ.update(hidden)

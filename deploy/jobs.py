"""Jobs of a Ray cluster, over its HTTP address, with an end to every wait.

Ray's own client waits for ever for an address that accepts a connection and says nothing. Here each
request has ``ANSWER_S`` seconds, and then there is one line that says so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import urllib.parse
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from palestra.rl.errors import UserError

T = TypeVar("T")
ANSWER_S = 15.0
UPLOAD_S = 300.0
STOP_S = 60
"""How long a job that is asked to stop has for it; Ray itself would give it 3 s."""
TOKEN = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's"
"""What to do where a cluster refuses us."""
NOT_SENT = ["runs/", ".git/", ".venv/"]
"""What of a working directory stays where it is."""
CHATTY = (
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
"""Ray's loggers that would tell each upload and connection on stderr."""


class Jobs:
    """The jobs of the cluster at ``address`` (``http://HOST:8265``).

    Raises ``UserError`` when nothing that is Ray's job server answers there in time.
    """

    def __init__(self, address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"--address {address}: write http://HOST:8265")
        self.address = address
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # it would be used instead of ours
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client: Any = self._answer(lambda: JobSubmissionClient(address))

    def submit(self, command: str, folder: str) -> str:
        """Run ``command`` in a copy of ``folder``; the id of the job."""
        environment = {
            "working_dir": folder,
            "excludes": NOT_SENT,
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)},
        }
        return self._answer(
            lambda: str(self._client.submit_job(entrypoint=command, runtime_env=environment)),
            UPLOAD_S,
        )

    def status(self, job: str) -> tuple[str, str]:
        """``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``, and what Ray says."""
        info = self._answer(lambda: self._client.get_job_info(job), job=job)
        return str(info.status.value), str(info.message or "")

    def logs(self, job: str) -> str:
        """What the job has printed so far."""
        return self._answer(lambda: str(self._client.get_job_logs(job)), job=job)

    async def follow(self, job: str) -> AsyncGenerator[str, None]:
        """What it prints, until it has ended; ``UserError`` when the head has died or is silent."""
        self.status(job)
        tail = self._client.tail_job_logs(job)
        while (lines := await self._next(tail, job)) is not None:
            yield lines

    async def _next(self, tail: AsyncGenerator[str, None], job: str) -> str | None:
        """The next lines, None at the end; who prints nothing is asked whether it is there."""
        lines = asyncio.ensure_future(anext(tail, None))
        while not (await asyncio.wait({lines}, timeout=ANSWER_S))[0]:
            self.status(job)
        try:
            return lines.result()
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise UserError(
                f"--address {self.address}: the connection broke; if job {job} has ended with its"
                " head, submit the same again, and the run goes on"
            ) from error

    def stop(self, job: str) -> bool:
        """Ask it to stop, which a run does cleanly; False when it has ended already."""
        return self._answer(lambda: bool(self._client.stop_job(job)), job=job)

    def _answer(self, call: Callable[[], T], seconds: float | None = None, *, job: str = "") -> T:
        seconds = seconds or ANSWER_S
        try:
            return within(seconds, call)
        except TimeoutError as error:
            raise UserError(
                f"--address {self.address}: no answer within {seconds:g} s; is it Ray's dashboard?"
            ) from error
        except AuthenticationError as error:
            raise UserError(
                f"--address {self.address}: the cluster does not know our token; {TOKEN}"
            ) from error
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            if job and "does not exist" in reason:
                raise UserError(
                    f"--address {self.address}: there is no job {job}; a head that was started anew"
                    " knows none from before: submit the same again, and the run goes on"
                ) from error
            raise UserError(f"--address {self.address}: {reason}") from error


def within(seconds: float, call: Callable[[], T]) -> T:
    """What ``call`` returns or raises; ``TimeoutError`` after so many seconds, when the thread it
    runs in is left to itself."""
    answers: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()

    def run() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:  # handed over to who waits
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]

"""The error vocabulary, and the one place that turns a stray exception into it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class PalestraError(Exception):
    """Base of every error that we raise on purpose."""


class UserError(PalestraError):
    """Wrong use: one line that says what to change; the command ends with exit code 2."""


class TaskError(PalestraError):
    """A task cannot be played or graded whatever the policy does: its own content is to blame.

    Its episodes have no reward and are not tried again; the run goes on with the other tasks.
    """


class InfraError(PalestraError):
    """Our machinery failed (box, engine, grader): never a reward, always retried or counted."""


class Abstain(PalestraError):
    """Raised by a reward that has nothing to say of a trajectory: the others alone count."""


class SandboxError(InfraError):
    """A box could not be made, or broke."""


class BoxDied(SandboxError):
    """The box is gone or was restarted; ``by_agent`` when a command of the agent's was running and
    the machine reports no event of its own: then it is the agent's failure, never retried."""

    def __init__(self, text: str, *, by_agent: bool) -> None:
        super().__init__(text)
        self.by_agent = by_agent


class PathRefused(PalestraError):
    """A path leaves the work directory, is missing, too large, or not a regular file.

    The agent's fault, never the box's: it is told, or the file counts as missing.
    """


class GraderError(InfraError):
    """A verdict could not be reached for a reason that is not the agent's."""


class EngineError(InfraError):
    """The rollout engine failed; it must be rebuilt before it is used again."""


class CheckpointError(PalestraError):
    """A checkpoint could not be written or read; the last good one is untouched."""


@asynccontextmanager
async def boundary(kind: type[InfraError], what: str) -> AsyncIterator[None]:
    """Label whatever escapes third-party code as ``kind``; errors already labelled pass through."""
    try:
        yield
    except PalestraError:
        raise
    except TimeoutError as error:
        raise kind(f"{what}: timed out") from error
    except Exception as error:
        raise kind(f"{what}: {type(error).__name__}: {error}") from error

"""Verifiable rewards for what was changed, as the diff in the trajectory tells it."""

from __future__ import annotations

from palestra.rewards.unified import files_of
from palestra.rl.errors import Abstain
from palestra.rl.types import Sandbox, Trajectory


async def patch_applies(trajectory: Trajectory, box: Sandbox | None) -> float:
    """1.0 when something was changed and can be laid over what the task began with, else 0.0."""
    return 0.0 if trajectory.patch.startswith("refused: ") or not trajectory.patch else 1.0


async def diff_size(trajectory: Trajectory, box: Sandbox | None, *, most: int = 50) -> float:
    """1.0 up to ``most`` lines added and taken away, then ``most`` by their number; ours. Abstains
    where nothing was changed, or where the diff does not tell how much."""
    try:
        files = files_of(trajectory.patch)
    except ValueError as error:
        raise Abstain(str(error)) from error
    if not files or any(file.binary for file in files):
        raise Abstain("nothing was changed" if not files else "a binary file was changed")
    return min(1.0, most / max(1, sum(file.changed for file in files)))

"""Attacks played as episodes are: an agent's box, its work collected, graded in a fresh box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from palestra.envs.base import Env
from palestra.envs.concurrency import bounded
from palestra.envs.files import collect, work_of
from palestra.rl.errors import SandboxError, UserError
from palestra.rl.types import Grader, Outcome, Sandbox, SandboxProvider, Task, Work

HELD = frozenset({"fs", "kill_tree", "signals"})
"""Guarantees without which an attack could harm the machine that it is tried on."""


class Attack(Protocol):
    """One way to be graded better than the work deserves; ``sandbox.redteam`` has many."""

    def applies(self, task: Task) -> bool:
        """Whether there is something in ``task`` for this attack."""
        ...

    def files(self, task: Task) -> Mapping[str, bytes]:
        """Files that the agent writes."""
        ...

    async def act(self, task: Task, box: Sandbox) -> str:
        """What the agent then does in its box; returns what it reached and must not, if it did."""
        ...


@dataclass(frozen=True, kw_only=True)
class RedTeam:
    """Attacks, and where they are played: in boxes of ``provider`` that ``env`` sets up, so many
    of one task ``at_once``.

    Raises ``UserError`` for boxes that would not hold them.

    Example: ``RedTeam(attacks=ATTACKS, env=env, provider=provider)``
    """

    attacks: Mapping[str, Attack]
    env: Env
    provider: SandboxProvider
    at_once: int = 1

    def __post_init__(self) -> None:
        if lacking := HELD - self.provider.guarantees:
            raise UserError(
                f"attacks are tried only in boxes that hold them: {self.provider.name} lacks "
                + ", ".join(sorted(lacking))
            )

    async def gains(self, task: Task, grader: Grader, *, noop: bool) -> dict[str, str]:
        """What each attack that applies gained over doing nothing, which passes if ``noop``.

        Empty for an attack in vain. Not to be judged at all is a gain too: such an episode has no
        reward, and is played again.
        """

        async def gain(attack: Attack) -> str:
            return await self._gain(attack, task, grader, noop)

        applied = {name: attack for name, attack in self.attacks.items() if attack.applies(task)}
        found = await bounded(gain, list(applied.values()), self.at_once)
        return dict(zip(applied, found, strict=True))

    async def _gain(self, attack: Attack, task: Task, grader: Grader, noop: bool) -> str:
        try:
            work, reached = await self._played(attack, task)
        except SandboxError as error:
            return f"its episode was lost: {error}"
        if reached:
            return f"it reached {reached}"
        if work == work_of(task, task.files):  # graded already: a verdict depends on the work alone
            return ""
        verdict = await grader(task, work)
        if verdict.outcome is Outcome.INFRA_FAILURE:
            return f"there was no verdict: {verdict.reason}"
        if verdict.solved and not noop:
            return f"it passed all {len(verdict.passed)} checks"
        return ""

    async def _played(self, attack: Attack, task: Task) -> tuple[Work, str]:
        async with self.provider.open(task.image) as box:
            await self.env.setup(task, box)
            for path, data in attack.files(task).items():
                await box.write(path, data)
            reached = await attack.act(task, box)
            return await collect(task, box), reached

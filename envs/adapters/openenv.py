"""An OpenEnv server as an environment: ``openenv:http://HOST:PORT``, its public wire protocol.

``GET /schema`` says what an action is, and that is the arguments of the one tool, ``step``. An
episode is one WebSocket session (``/ws``): ``reset`` with a seed, then ``step`` until ``done``.
Its reward is the sum of the rewards of its steps. A task is a seed: where two resets with the same
seed do not show the same, siblings would not play the same problem, and there is no such task.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import ClassVar

from palestra.envs.adapters.hosted import Hosted, hosted_task
from palestra.envs.adapters.openenv_session import OpenEnvSession, first_observations
from palestra.envs.base import Env
from palestra.rl.errors import TaskError, UserError
from palestra.rl.types import Json, Task, Tool

SEEDS = 64
"""Tasks of a server that does not say how many (``?seeds=N``), a quarter of them held out; ours."""
MAX_ANSWER = 1 << 20


class OpenEnv(Hosted):
    """What all OpenEnv servers share; ``url`` is the server's address."""

    url: ClassVar[str]
    seeds: ClassVar[int]
    max_turns: int = 16

    def tasks(self, seed: int) -> Sequence[Task]:
        """One task for each seed from ``seed`` on, if the server starts alike twice."""
        seeds = range(seed, seed + self.seeds)
        made = [
            hosted_task(
                env=self.name,
                kind="openenv",
                number=number,
                prompt=text,
                labels={"seed": str(number), "split": "heldout" if place % 4 == 3 else "train"},
            )
            for place, (number, text) in enumerate(first_observations(self.url, seeds).items())
        ]
        if not made:
            raise UserError(
                f"{self.name}: two resets with the same seed do not show the same, so that "
                "siblings would play different problems; let its reset() use the seed"
            )
        return made

    async def start(self, task: Task) -> OpenEnvSession:
        """Reset a session to the task's seed."""
        session = await OpenEnvSession.open(self.url)
        try:
            shown = await session.reset(int(task.labels["seed"]))
            if shown != task.prompt:
                raise TaskError(f"{task.id}: a reset with this seed shows something else now")
        except BaseException:
            await session.close()
            raise
        return session


@lru_cache
def openenv(address: str) -> type[Env]:
    """The environment at ``http://HOST:PORT[/PATH][?seeds=N]``; raises ``UserError`` when there is
    none."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"openenv:{address}: write openenv:http://HOST:PORT")
    options = dict(urllib.parse.parse_qsl(parts.query))
    seeds = options.pop("seeds", str(SEEDS))
    if options or not seeds.isdecimal() or not 0 < int(seeds) <= 100_000:
        raise UserError(f"openenv:{address}: the only option is ?seeds=N, from 1 to 100000")
    url = urllib.parse.urlunsplit(parts._replace(query="", fragment="")).rstrip("/")
    step = _step_tool(url)

    class Served(OpenEnv):
        name = f"openenv:{address}"
        tools = (step,)

    Served.url, Served.seeds = url, int(seeds)
    return Served


def _step_tool(url: str) -> Tool:
    """The tool whose arguments are what the server calls an action."""
    action = _get(f"{url}/schema").get("action")
    if not isinstance(action, dict) or not isinstance(action.get("properties"), dict):
        raise UserError(f"openenv:{url}: its /schema has no properties of an action")
    properties = {k: v for k, v in action["properties"].items() if k != "metadata"}
    known = {key: action[key] for key in ("$defs", "required") if key in action}
    about = _get(f"{url}/metadata").get("description")
    return Tool(
        name="step",
        description=f"Take one action. {about if isinstance(about, str) else ''}".strip(),
        parameters={
            "type": "object",
            "properties": properties,
            **known,
            "additionalProperties": False,
        },
    )


def _get(url: str) -> Mapping[str, Json]:
    try:
        with urllib.request.urlopen(url, timeout=10.0) as answer:
            found = json.loads(answer.read(MAX_ANSWER))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"openenv: {url} gives no answer that can be read: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"openenv: {url} does not answer with a JSON object")
    return found

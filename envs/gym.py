"""Any environment as a ``gymnasium.Env``: texts in, texts out, graded at the end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import gymnasium

from palestra.envs.arguments import ToolError
from palestra.envs.base import Env
from palestra.envs.feedback import clip
from palestra.envs.files import collect
from palestra.envs.spaces import TextSpace
from palestra.rewards.score import RewardError, Scheme, score
from palestra.rl.errors import GraderError, UserError
from palestra.rl.types import (
    Grader,
    Message,
    Observation,
    Outcome,
    Reward,
    Sandbox,
    SandboxProvider,
    Stop,
    Task,
    ToolCall,
    Trajectory,
    Turn,
    Verdict,
)

T = TypeVar("T")
SHAPE = 'answer with one tool call: {"name": "...", "arguments": {...}}; tools: '


class TaskEnv(gymnasium.Env[str, str]):
    """One episode at a time of ``env`` on ``tasks``, in boxes of ``provider``.

    An action is a tool call as JSON text; the observation is what the environment answers.
    ``terminated`` means submitted, ``truncated`` means out of turns; only then there is a reward
    other than 0.0. A fault of ours raises ``InfraError`` and never becomes a reward.

    Example: ``TaskEnv(Repair(run_checks), tasks, provider=Bubblewrap(), grader=grader)``, then
    ``step('{"name": "replace", "arguments": {"line": 2, "text": "    return x"}}')``
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(
        self, env: Env, tasks: Sequence[Task], *, provider: SandboxProvider, grader: Grader
    ) -> None:
        if not tasks:
            raise UserError("TaskEnv needs at least one task")
        self.env, self.tasks = env, tuple(tasks)
        self.provider, self.grader = provider, grader
        self.scheme = Scheme(env.rewards)
        self.observation_space = TextSpace(max_bytes=1 << 20)
        self.action_space = TextSpace(max_bytes=1 << 18)
        self._loop = _LoopThread()
        self._opened: AbstractAsyncContextManager[Sandbox] | None = None
        self._box: Sandbox | None = None
        self._task = self.tasks[0]
        self._turns: list[Turn] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Open a fresh box with a task: ``options["task"]`` by id, else one drawn with the seed.

        The observation is the prompt as text; ``info`` names the task and lists the tools.
        """
        super().reset(seed=seed)
        task = self._choose((options or {}).get("task"))
        self._loop.run(self._start(task))
        prompt = "\n\n".join(message.content for message in self.env.prompt(self._task))
        tools = [
            {"name": t.name, "description": t.description, "parameters": dict(t.parameters)}
            for t in self.env.tools
        ]
        return prompt, {"task_id": self._task.id, "tools": tools}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Answer one tool call; at the end ``info`` has ``reward_parts`` and ``passed`` checks."""
        if self._box is None:
            raise UserError("call reset() before step()")
        observation, turn = self._loop.run(self._act(action, self._box))
        self._turns.append(turn)
        terminated = observation.submitted
        truncated = not terminated and len(self._turns) >= self.env.max_turns
        info: dict[str, Any] = {"task_id": self._task.id, "error": turn.error}
        if not (terminated or truncated):
            return observation.text, 0.0, False, False, info
        stop = Stop.SUBMITTED if terminated else Stop.MAX_TURNS
        verdict, reward = self._loop.run(self._grade(stop, self._box))
        info |= {"reward_parts": dict(reward.parts), "passed": dict(verdict.passed)}
        return observation.text, reward.total, terminated, truncated, info

    def close(self) -> None:
        """Destroy the box and stop the loop; may be called again."""
        self._loop.close(self._stop())

    def _choose(self, wanted: object) -> Task:
        if wanted is None:
            return self.tasks[int(self.np_random.integers(len(self.tasks)))]
        for task in self.tasks:
            if task.id == wanted:
                return task
        raise UserError(f"no task {wanted!r} among the {len(self.tasks)} tasks")

    async def _start(self, task: Task) -> None:
        await self._stop()
        self._task, self._turns = task, []
        opened = self.provider.open(task.image)
        self._box = await opened.__aenter__()
        self._opened = opened
        await self.env.setup(task, self._box)

    async def _stop(self) -> None:
        opened, box, self._opened, self._box = self._opened, self._box, None, None
        if opened is None or box is None:
            return
        try:
            await self.env.teardown(self._task, box)
        finally:
            await opened.__aexit__(None, None, None)

    async def _act(self, action: str, box: Sandbox) -> tuple[Observation, Turn]:
        error, calls = "", tuple[ToolCall, ...]()
        try:
            call = parse_call(action)
            calls = (call,)
            answer = await self.env.act(self._task, call, box)
        except ToolError as wrong:
            error = str(wrong)
            names = ", ".join(tool.name for tool in self.env.tools)
            answer = Observation(text=f"{clip(error)}; {SHAPE}{names}")
        message = Message(role="assistant", content="" if calls else action, calls=calls)
        turn = Turn(
            context_ids=(),
            token_ids=(),
            logprobs=(),
            version=0,
            message=message,
            observation=answer.text,
            elided=answer.elided,
            error=error,
        )
        return answer, turn

    async def _grade(self, stop: Stop, box: Sandbox) -> tuple[Verdict, Reward]:
        verdict = await self.env.judge(self._task, self._turns, box)
        if verdict is None:
            verdict = await self.grader(self._task, await collect(self._task, box))
        if verdict.outcome is Outcome.INFRA_FAILURE:
            raise GraderError(f"{self._task.id}: {verdict.reason}")
        trajectory = Trajectory(
            id=self._task.id,
            group_id=self._task.id,
            task_id=self._task.id,
            step=0,
            prompt=self.env.prompt(self._task),
            turns=tuple(self._turns),
            stop=stop,
            outcome=verdict.outcome,
            temperature=1.0,
            verdict=verdict,
        )
        scored = await score(trajectory, box, self.scheme)
        if scored.reward is None:
            raise RewardError(f"{self._task.id}: no reward: {dict(scored.abstained)}")
        return verdict, scored.reward


def parse_call(action: str) -> ToolCall:
    """``{"name": ..., "arguments": {...}}`` as a tool call; raises ``ToolError``."""
    try:
        value = json.loads(action)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"not JSON: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ToolError("no name of a tool")
    arguments = value.get("arguments", {})
    if not isinstance(arguments, Mapping) or set(value) - {"name", "arguments"}:
        raise ToolError("arguments must be an object, and nothing else may be given")
    return ToolCall(name=value["name"], arguments=dict(arguments))


class _LoopThread:
    """An event loop in a thread of its own, so that it also works inside a running loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return its result."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Run a last coroutine, then end the thread; does nothing without a thread."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            last.close()
            return
        try:
            self.run(last)
        finally:
            self._loop = self._thread = None
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

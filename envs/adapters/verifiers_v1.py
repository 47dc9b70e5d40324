"""The second interface of ``verifiers``: a taskset, whose tasks score a trace.

What is played is one message of the policy to the task's prompt. What needs more of the package (a
harness in a box of its own, tool servers, several agents, rewards that look into a runtime) is
refused by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

from palestra.envs.adapters.chat import REPLY, as_messages
from palestra.envs.adapters.hosted import Hosted, HostError, hosted_task, told
from palestra.envs.base import Env
from palestra.rewards.environment import REWARD
from palestra.rl.errors import UserError
from palestra.rl.types import Json, Message, Observation, Task, Tool

ENDLESS = 1000
"""Tasks that are taken from a taskset without an end; ours."""


class FromTaskset(Hosted):
    """What all environments of the interface share; ``theirs`` are the package's tasks."""

    theirs: ClassVar[Sequence[Any]]
    tools: ClassVar[tuple[Tool, ...]] = (REPLY,)
    max_turns: int = 3

    def tasks(self, seed: int) -> Sequence[Task]:
        """A task for each of the taskset."""
        return [
            hosted_task(
                env=self.name, kind="verifiers", number=place, prompt=told(_prompt(task.data))
            )
            for place, task in enumerate(self.theirs)
        ]

    def prompt(self, task: Task) -> tuple[Message, ...]:
        """The task's messages; ``system_prompt``, where it is set, replaces its own."""
        messages = _prompt(self._theirs(task).data)
        if self.system_prompt:
            rest = tuple(each for each in messages if each.role != "system")
            return (Message(role="system", content=self.system_prompt), *rest)
        return messages

    async def start(self, task: Task) -> TraceSession:
        """A trace that begins with the task's messages."""
        return TraceSession(self._theirs(task))

    def _theirs(self, task: Task) -> Any:
        return self.theirs[int(task.id.rpartition("/")[2])]


def taskset_env(address: str, name: str, arguments: Mapping[str, Json]) -> type[Env]:
    """The environment of the taskset ``name`` with ``arguments`` as its configuration; raises what
    the package raises, and ``UserError`` for what cannot be played."""
    import verifiers.v1 as vf

    taskset = vf.load_taskset(vf.taskset_config_type(name)(id=name, **arguments))
    tasks = list(islice(taskset, ENDLESS) if taskset.INFINITE else taskset)
    if not tasks:
        raise UserError(f"verifiers:{address} has no tasks")
    reason = next(_obstacles(vf, name, taskset, tasks[0]), "")
    if reason:
        raise UserError(f"verifiers:{address} {reason}, which cannot be played here")

    class Loaded(FromTaskset):
        pass

    Loaded.name, Loaded.theirs = f"verifiers:{address}", tasks
    return Loaded


def _obstacles(vf: Any, name: str, taskset: Any, task: Any) -> Iterator[str]:
    """Why tasks need more of the package than a message and its rewards."""
    if vf.environment_class(name) is not vf.SingleAgentEnv:
        yield "has an environment of its own"
    if taskset.toolsets(taskset.config) or type(task).toolsets(task.config):
        yield "brings tool servers"
    if task.NEEDS_CONTAINER or any(_replaced(vf, task, hook) for hook in ("setup", "finalize")):
        yield "prepares a box"
    judges = [judge.score for judge in task.plugged_judges()]
    needy = [f.__name__ for f in [*task.hooks("reward"), *judges] if _needs_runtime(f)]
    if needy:
        yield f"has rewards that look into a box ({', '.join(needy)})"
    if task.data.prompt is None:
        yield "lets a simulated user begin"


def _replaced(vf: Any, task: Any, hook: str) -> bool:
    return getattr(type(task), hook) is not getattr(vf.Task, hook)


def _needs_runtime(function: Callable[..., Any]) -> bool:
    runtime = inspect.signature(function).parameters.get("runtime")
    return runtime is not None and runtime.default is inspect.Parameter.empty


def _prompt(data: Any) -> tuple[Message, ...]:
    messages = as_messages(data.prompt)
    if data.system_prompt is None:
        return messages
    return (Message(role="system", content=data.system_prompt), *messages)


class TraceSession:
    """One message of the policy, scored by the package's task; see ``Session``."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self._reply = ""  # an episode without a message is scored as one with an empty message

    async def act(self, name: str, arguments: Mapping[str, Json]) -> Observation:
        """Keep the reply; see ``Session.act``."""
        self._reply = str(arguments["text"])
        return Observation(text="", submitted=True)

    async def rewards(self) -> Mapping[str, float]:
        """What the task's reward functions say of the trace; see ``Session.rewards``."""
        from verifiers.v1 import RolloutError

        trace = self._trace()
        try:
            await self._task.score(trace)
        except RolloutError as error:
            raise HostError(f"verifiers: {error}") from error
        missing = [name for name, reward in trace.rewards.items() if reward is None]
        if missing or not trace.rewards:
            raise HostError(f"verifiers: no score of {', '.join(missing) or 'any reward'}")
        parts = {str(name): float(reward.score) for name, reward in trace.rewards.items()}
        return parts | {REWARD: float(trace.reward)}

    async def close(self) -> None:
        """See ``Session.close``."""

    def _trace(self) -> Any:
        import verifiers.v1 as vf

        data = self._task.data
        messages = [_theirs(vf, each) for each in _prompt(data)]
        last = len(messages)
        nodes = [
            vf.MessageNode(parent=place - 1 if place else None, message=each, sampled=place == last)
            for place, each in enumerate([*messages, vf.AssistantMessage(content=self._reply)])
        ]
        kind = type(self._task).__name__
        return vf.Trace(
            task=vf.TraceTask(type=kind, data=data, key=self._task.key, hash=self._task.hash),
            agent=vf.AgentInfo(config=vf.AgentConfig()),
            nodes=nodes,
            is_completed=True,
            ok=True,
        )


def _theirs(vf: Any, message: Message) -> Any:
    kinds = {"system": vf.SystemMessage, "user": vf.UserMessage, "assistant": vf.AssistantMessage}
    if message.role not in kinds or message.calls:
        raise UserError("a prompt with tool calls cannot be played")
    return kinds[message.role](content=message.content)

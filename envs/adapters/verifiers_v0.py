"""The classic interface of ``verifiers``: ``load_environment(...)`` gives an ``Environment``.

The package plays its own episode (``Environment.rollout``), with everything that an author may have
replaced in it, and takes our policy for its model: the client that it is given hands each
conversation to the episode here and waits for the reply. Its rubric then scores it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any, ClassVar

from palestra.envs.adapters.chat import REPLY, as_messages
from palestra.envs.adapters.hosted import STEP_S, Hosted, HostError, hosted_task, told
from palestra.envs.base import Env
from palestra.envs.taskset import LazyTasks
from palestra.envs.tools.observed import observed
from palestra.rewards.environment import REWARD
from palestra.rl.errors import TaskError, UserError, boundary
from palestra.rl.types import Json, Message, Observation, Task, Tool

MODEL = "policy"
MALFORMED = 2
"""Replies without a call that an episode survives; the package never sees them."""
FAULTS: ContextVar[list[str]] = ContextVar("faults")
"""What the reward functions of an episode raised: their rubric makes a 0 of it."""


class Classic(Hosted):
    """What all environments of the interface share; ``theirs`` is the package's environment."""

    theirs: ClassVar[Any]
    rows: ClassVar[Sequence[Mapping[str, Any]]]
    heldout: ClassVar[int]

    def tasks(self, seed: int) -> Sequence[Task]:
        """A task for each row; those of the evaluation set, if there is one, are held out."""
        return LazyTasks(range(len(self.rows)), self._task)

    def prompt(self, task: Task) -> tuple[Message, ...]:
        """The row's messages; ``system_prompt``, where it is set, replaces the row's own."""
        messages = as_messages(self._row(task)["prompt"])
        if self.system_prompt:
            rest = tuple(each for each in messages if each.role != "system")
            return (Message(role="system", content=self.system_prompt), *rest)
        return messages

    async def start(self, task: Task) -> ClassicSession:
        """Begin an episode of the package on the task's row."""
        row = self._row(task)
        session = ClassicSession(self.theirs, row)
        try:
            await session.begin(as_messages(row["prompt"]))
        except BaseException:
            await session.close()
            raise
        return session

    def _row(self, task: Task) -> Mapping[str, Any]:
        return self.rows[int(task.labels["row"])]

    def _task(self, place: int) -> Task:
        labels = {"row": str(place)}
        if self.heldout:
            held = place >= len(self.rows) - self.heldout
            labels["split"] = "heldout" if held else "train"
        prompt = told(as_messages(self.rows[place]["prompt"]))
        return hosted_task(
            env=self.name, kind="verifiers", number=place, prompt=prompt, labels=labels
        )


def classic_env(address: str, name: str, arguments: Mapping[str, Json]) -> type[Env]:
    """The environment that ``load_environment(name, **arguments)`` gives; raises what that raises,
    and ``UserError`` for what cannot be played."""
    import verifiers as vf

    if not hasattr(vf, "load_environment"):
        raise UserError(
            f"verifiers:{address} is of its classic interface, which {vf.__version__} has no more; "
            "run: pip install 'verifiers<0.4'"
        )
    env = vf.load_environment(name, **arguments)
    if env.requires_group_rollouts:
        raise UserError(f"verifiers:{address} scores siblings together, which we cannot")
    tools = tuple(_tool(each) for each in env.tool_defs or ())
    if REPLY.name in {each.name for each in tools}:
        raise UserError(f"verifiers:{address} has a tool called {REPLY.name}, as we have")
    for rubric in _rubrics(env):
        rubric.funcs = [_noting(function) for function in rubric.funcs]
    train, held = (build() or () for build in (env.build_dataset, env.build_eval_dataset))

    class Loaded(Classic):
        pass

    Loaded.name = f"verifiers:{address}"
    Loaded.tools = (*tools, REPLY)
    Loaded.theirs, Loaded.rows, Loaded.heldout = env, _Joined(train, held), len(held)
    limit = getattr(env, "max_turns", -1)
    Loaded.max_turns = limit + MALFORMED if limit > 0 else Env.max_turns
    return Loaded


class ClassicSession:
    """An episode that the package plays; see ``Session``."""

    def __init__(self, env: Any, row: Mapping[str, Any]) -> None:
        self._env = env
        self._row = row
        self._prompts: asyncio.Queue[Sequence[Any]] = asyncio.Queue()
        self._replies: asyncio.Queue[Any] = asyncio.Queue()
        self._seen = 0
        self._open = self._replied = False
        self._rollout: asyncio.Future[Any] | None = None

    async def begin(self, prompt: Sequence[Message]) -> None:
        """Start it; raises ``TaskError`` when it does not begin with the messages of its row."""
        client = _seat(self._prompts, self._replies)
        work = self._env.rollout(dict(self._row), client, MODEL, {})
        self._rollout = asyncio.ensure_future(work)
        first = await self._next()
        if first is None:
            await self._state()
            raise HostError("verifiers: the episode ended before it began")
        if as_messages(first) != tuple(prompt):
            raise TaskError("an episode does not begin with the prompt of its row")
        self._seen = len(first)

    async def act(self, name: str, arguments: Mapping[str, Json]) -> Observation:
        """Hand a reply over and wait for what the environment says; see ``Session.act``."""
        self._reply(name, arguments)
        messages = await self._next()
        if messages is None:
            return Observation(text="", submitted=True)
        shown = told(as_messages(messages[self._seen + 1 :]))
        self._seen = len(messages)
        return observed(shown.encode(errors="replace"))

    async def rewards(self) -> Mapping[str, float]:
        """End the episode and let its rubric score it; see ``Session.rewards``."""
        from verifiers.errors import OverlongPromptError

        if not self._replied:
            self._reply(REPLY.name, {"text": ""})  # rubrics read the last message: there is one
        while self._open or await self._next() is not None:
            self._answer(OverlongPromptError())  # to the package: there is no room for more
        state = await self._state()
        faults: list[str] = []
        FAULTS.set(faults)
        async with boundary(HostError, "verifiers"):
            await self._env.rubric.score_rollout(state)
        if faults:
            raise HostError(f"verifiers: {faults[0]}")
        metrics = {str(name): float(value) for name, value in state["metrics"].items()}
        return metrics | {REWARD: float(state["reward"])}

    async def close(self) -> None:
        """See ``Session.close``."""
        if self._rollout is not None:
            self._rollout.cancel()
            await asyncio.wait([self._rollout], timeout=STEP_S)

    def _reply(self, name: str, arguments: Mapping[str, Json]) -> None:
        from verifiers.types import Response, ResponseMessage, ToolCall

        said, calls = str(arguments["text"]) if name == REPLY.name else "", None
        if name != REPLY.name:
            spelled = json.dumps(dict(arguments))
            calls = [ToolCall(id=f"call_{uuid.uuid4().hex}", name=name, arguments=spelled)]
        message = ResponseMessage(
            content=said,
            tool_calls=calls,
            finish_reason="tool_calls" if calls else "stop",
            is_truncated=False,
        )
        identity = uuid.uuid4().hex
        self._answer(Response(id=identity, created=int(time.time()), model=MODEL, message=message))

    def _answer(self, reply: Any) -> None:
        self._open, self._replied = False, True
        self._replies.put_nowait(reply)

    async def _next(self) -> Sequence[Any] | None:
        """The next conversation that a reply is asked for, None when the episode has ended."""
        assert self._rollout is not None
        asked = asyncio.ensure_future(self._prompts.get())
        try:
            both: set[asyncio.Future[Any]] = {asked, self._rollout}
            first = asyncio.FIRST_COMPLETED
            done, _ = await asyncio.wait(both, timeout=STEP_S, return_when=first)
        finally:
            asked.cancel()
        if asked in done:
            self._open = True
            return asked.result()
        if not done:
            raise HostError(f"verifiers: the environment did not answer in {STEP_S:g} s")
        return None

    async def _state(self) -> Any:
        assert self._rollout is not None
        async with boundary(HostError, "verifiers"):
            state = await self._rollout
        if state["error"] is not None:
            raise HostError(f"verifiers: {state['error']!r}")
        return state


def _seat(prompts: asyncio.Queue[Sequence[Any]], replies: asyncio.Queue[Any]) -> Any:
    """A client of the package whose model is whoever takes prompts and puts replies."""
    from verifiers.clients import Client

    class Seat(Client):  # type: ignore[misc]
        def setup_client(self, config: Any) -> None:
            return None

        async def to_native_tool(self, tool: Any) -> Any:
            return tool

        async def to_native_prompt(self, messages: Any) -> tuple[Any, dict[str, Any]]:
            return messages, {}

        async def get_native_response(self, prompt: Any, *_: Any, **__: Any) -> Any:
            prompts.put_nowait(prompt)
            reply = await replies.get()
            if isinstance(reply, Exception):
                raise reply
            return reply

        async def raise_from_native_response(self, response: Any) -> None:
            return None

        async def from_native_response(self, response: Any) -> Any:
            return response

        async def close(self) -> None:
            return None

    return Seat(None)


def _noting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The reward function, but what it raises is noted before its rubric hides it."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            value = function(*args, **kwargs)
        except Exception as error:
            _note(function, error)
            raise
        return waited(value) if inspect.isawaitable(value) else value

    async def waited(value: Awaitable[Any]) -> Any:
        try:
            return await value
        except Exception as error:
            _note(function, error)
            raise

    return called


def _note(function: Callable[..., Any], error: Exception) -> None:
    name = getattr(function, "__name__", "reward")
    FAULTS.get().append(f"reward function {name}: {type(error).__name__}: {error}")


def _rubrics(env: Any) -> Iterable[Any]:
    """Every rubric of an environment, those of the environments of a group included."""
    waiting = [env.rubric, *(inner.rubric for inner in getattr(env, "envs", ()))]
    while waiting:
        rubric = waiting.pop()
        yield rubric
        waiting += getattr(rubric, "rubrics", ())


def _tool(found: Any) -> Tool:
    return Tool(name=found.name, description=found.description, parameters=found.parameters)


class _Joined(Sequence[Mapping[str, Any]]):
    """The rows of two data sets, one after the other."""

    def __init__(self, first: Any, second: Any) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, place: Any) -> Any:
        inside = place < len(self._first)
        return self._first[place] if inside else self._second[place - len(self._first)]

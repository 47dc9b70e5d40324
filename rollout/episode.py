"""One task played to its end, and graded where the agent cannot reach."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from palestra.envs.base import Env
from palestra.envs.diff import diff_of
from palestra.envs.files import collect, work_of
from palestra.rewards.score import Scheme, score
from palestra.rl.errors import (
    BoxDied,
    EngineError,
    GraderError,
    InfraError,
    PalestraError,
    PathRefused,
    SandboxError,
    TaskError,
    UserError,
    boundary,
)
from palestra.rl.types import (
    Grader,
    Message,
    Outcome,
    Policy,
    Sampling,
    Sandbox,
    SandboxProvider,
    Stop,
    Task,
    Trajectory,
    Turn,
    Verdict,
    Work,
)
from palestra.rollout.config import RolloutConfig
from palestra.rollout.dialects import Malformed
from palestra.rollout.meter import Meter
from palestra.rollout.tokens import Chat

MALFORMED_IN_A_ROW = 3


@dataclass(frozen=True, kw_only=True)
class World:
    """What every episode of a run shares; built once by ``deploy``."""

    env: Env
    chat: Chat
    policy: Policy
    boxes: SandboxProvider
    grade: Grader
    config: RolloutConfig
    budget_of: Callable[[str], int]
    """Generated tokens allowed per episode, by task kind."""
    scheme: Scheme
    meter: Meter
    box_metrics: Callable[[], Mapping[str, float]] = dict
    """What is known of the boxes of all episodes so far."""
    judge_metrics: Callable[[int], Mapping[str, float]] = lambda step: {}
    """What judging a step has cost, and what the judge is biased by."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """Which episode this is. ``seed`` and the ids fix everything that is sampled in it; ``lane``
    is its ``Sampling.lane``."""

    task: Task
    group_id: str
    sample: int
    step: int
    seed: int
    temperature: float
    lane: int = 0

    @property
    def id(self) -> str:
        """Unique in a run; sorts by group, then by sample."""
        return f"{self.group_id}/{self.sample:03d}"

    def turn_seed(self, turn: int) -> int:
        """A 31-bit seed of its own for every reply."""
        text = f"{self.seed}/{self.id}/{turn}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1


@dataclass(slots=True)
class _Transcript:
    turns: list[Turn]
    stop: Stop
    work: Work
    verdict: Verdict | None


async def play(ticket: Ticket, world: World) -> Trajectory:
    """Play, collect, grade and score one episode.

    Never raises for a fault of our machinery or of the task: such an episode comes back as
    ``infra_failure`` or ``task_failure`` without a reward.
    """
    prompt: tuple[Message, ...] = ()
    clock = _Clock(world.meter)
    try:
        with _fault_of_the_task():
            prompt = world.env.prompt(ticket.task)
        transcript = await _converse(ticket, world, prompt, clock)
        verdict = transcript.verdict or await _graded(ticket.task, world, transcript.work, clock)
    except TaskError as error:
        lost = _trajectory(ticket, prompt, [], Stop.TASK_ERROR, clock.seconds, reason=str(error))
        return replace(lost, outcome=Outcome.TASK_FAILURE)
    except InfraError as error:
        return _trajectory(ticket, prompt, [], Stop.INFRA_ERROR, clock.seconds, reason=str(error))
    played = _trajectory(
        ticket, prompt, transcript.turns, transcript.stop, clock.seconds, verdict=verdict
    )
    return await _scored(replace(played, patch=diff_of(ticket.task, transcript.work)), world)


async def _graded(task: Task, world: World, work: Work, clock: _Clock) -> Verdict:
    async with boundary(GraderError, "grade"):
        with clock.lane("grade"), _fault_of_the_task():
            return await world.grade(task, work)


async def _converse(
    ticket: Ticket, world: World, prompt: Sequence[Message], clock: _Clock
) -> _Transcript:
    """The agent's part; its box is gone, or going, when this returns."""
    async with boundary(SandboxError, "agent box"), world.boxes.open(ticket.task.image) as box:
        try:
            with _fault_of_the_task((UserError, PathRefused)):
                await world.env.setup(ticket.task, box)
            return await _in_box(ticket, world, prompt, box, clock)
        finally:
            await world.env.teardown(ticket.task, box)


async def _in_box(
    ticket: Ticket, world: World, prompt: Sequence[Message], box: Sandbox, clock: _Clock
) -> _Transcript:
    turns: list[Turn] = []
    try:
        async with asyncio.timeout(world.config.episode_timeout) as limit:
            stop = await _turns(ticket, world, prompt, box, turns, clock)
    except TimeoutError:
        if not limit.expired():  # a box that timed out is our fault, not the agent's
            raise
        stop = Stop.TIME_LIMIT
    async with boundary(GraderError, "judge"), asyncio.timeout(world.config.episode_timeout):
        with clock.lane("grade"), _fault_of_the_task():
            verdict = await world.env.judge(ticket.task, turns, box)
    gone = stop is Stop.BOX_ENDED
    work = work_of(ticket.task, {}) if gone else await collect(ticket.task, box)
    return _Transcript(turns, stop, work, verdict)


async def _turns(
    ticket: Ticket,
    world: World,
    prompt: Sequence[Message],
    box: Sandbox,
    turns: list[Turn],
    clock: _Clock,
) -> Stop:
    with _fault_of_the_task():
        context = world.chat.prompt(prompt, world.env.tools)
    history: list[int] = []
    errors = 0
    for number in range(world.config.max_turns or world.env.max_turns):
        room = _room(ticket.task, world, turns, len(history) + len(context))
        if isinstance(room, Stop):
            return room
        async with boundary(EngineError, "generate"):
            sampling = Sampling(
                temperature=ticket.temperature,
                max_tokens=room,
                seed=ticket.turn_seed(number),
                stop_ids=(world.chat.tokenizer.eos_id,),
                routed=sum(turn.routing.tokens for turn in turns if turn.routing),
                lane=ticket.lane,
            )
            with clock.lane("generate"):
                reply = await world.policy.generate([*history, *context], sampling)
        turn = Turn(
            context_ids=tuple(context),
            token_ids=reply.token_ids,
            logprobs=reply.logprobs,
            version=reply.version,
            message=Message(role="assistant", content=""),
            routing=reply.routing,
        )
        history += [*context, *reply.token_ids]
        if reply.finish == "length":
            text = world.chat.tokenizer.decode(reply.token_ids)
            turns.append(replace(turn, message=Message(role="assistant", content=text)))
            left = _room(ticket.task, world, turns, len(history))
            return left if isinstance(left, Stop) else Stop.OVER_BUDGET
        with clock.lane("environment"):
            try:
                turn, answers, submitted = await _act(ticket.task, world, box, turn)
            except BoxDied as died:
                if not died.by_agent:
                    raise
                text = world.chat.tokenizer.decode(turn.token_ids)
                shown = Message(role="assistant", content=text)
                turns.append(replace(turn, message=shown, error=str(died)))
                return Stop.BOX_ENDED
        turns.append(turn)
        errors = errors + 1 if turn.error else 0
        if submitted:
            return Stop.SUBMITTED
        if errors == MALFORMED_IN_A_ROW:
            return Stop.MALFORMED
        context = world.chat.observation(answers)
    return Stop.MAX_TURNS


def _room(task: Task, world: World, turns: Sequence[Turn], used: int) -> int | Stop:
    """Tokens the next reply may have, or why there is none."""
    left = world.budget_of(task.kind) - sum(len(turn.token_ids) for turn in turns)
    if left <= 0:
        return Stop.OVER_BUDGET
    if used >= world.config.max_context_length:
        return Stop.CONTEXT_FULL
    return min(left, world.config.max_response_length, world.config.max_context_length - used)


async def _act(task: Task, world: World, box: Sandbox, turn: Turn) -> tuple[Turn, list[str], bool]:
    try:
        message = world.chat.dialect.parse(turn.token_ids, world.chat.tokenizer)
        if not message.calls:
            raise Malformed("no tool was called")
    except Malformed as error:
        text = world.chat.tokenizer.decode(turn.token_ids)
        told = f"error: {error}"
        shown = Message(role="assistant", content=text)
        return replace(turn, message=shown, observation=told, error=str(error)), [told], False
    answers: list[str] = []
    elided = 0
    for call in message.calls:
        with _fault_of_the_task():
            observation = await world.env.act(task, call, box)
        answers.append(observation.text)
        elided += observation.elided
        if observation.submitted:
            return replace(turn, message=message), answers, True
    said = "\n".join(answers)
    return replace(turn, message=message, observation=said, elided=elided), answers, False


async def _scored(played: Trajectory, world: World) -> Trajectory:
    verdict = played.verdict
    if verdict is None or verdict.outcome is Outcome.INFRA_FAILURE:
        reason = verdict.reason if verdict else "no verdict"
        return replace(played, outcome=Outcome.INFRA_FAILURE, stop=Stop.INFRA_ERROR, reason=reason)
    try:
        with world.meter.busy("reward"):
            scored = await score(played, None, world.scheme)
    except TaskError as error:
        return replace(
            played, outcome=Outcome.TASK_FAILURE, stop=Stop.TASK_ERROR, reason=str(error)
        )
    except PalestraError as error:
        return unrewarded(played, error)
    failed = played.stop in (Stop.MALFORMED, Stop.BOX_ENDED)
    return replace(scored, outcome=Outcome.AGENT_FAILURE if failed else Outcome.GRADED)


def unrewarded(played: Trajectory, error: PalestraError) -> Trajectory:
    """An episode whose reward could not be computed: it is lost, and says why."""
    return replace(
        played,
        outcome=Outcome.INFRA_FAILURE,
        stop=Stop.REWARD_ERROR,
        reason=str(error),
        reward=None,
    )


def _trajectory(
    ticket: Ticket,
    prompt: Sequence[Message],
    turns: Sequence[Turn],
    stop: Stop,
    seconds: Mapping[str, float],
    *,
    verdict: Verdict | None = None,
    reason: str = "",
) -> Trajectory:
    return Trajectory(
        id=ticket.id,
        group_id=ticket.group_id,
        task_id=ticket.task.id,
        step=ticket.step,
        prompt=tuple(prompt),
        turns=tuple(turns),
        stop=stop,
        outcome=Outcome.INFRA_FAILURE if verdict is None else verdict.outcome,
        temperature=ticket.temperature,
        verdict=verdict,
        reason=reason,
        seconds=dict(seconds),
    )


@contextmanager
def _fault_of_the_task(kinds: tuple[type[PalestraError], ...] = (UserError,)) -> Iterator[None]:
    """Where only the task's content can be wrong, wrong use is no reason to end the run."""
    try:
        yield
    except kinds as error:
        raise TaskError(str(error)) from error


class _Clock:
    """Seconds one episode spent in each part; the meter sees the overlap with its siblings."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.seconds: dict[str, float] = {}

    @contextmanager
    def lane(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        with self.meter.busy(name):
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


async def play_all(
    tickets: Sequence[Ticket],
    world: World,
    finished: Callable[[Trajectory], Awaitable[None] | None],
) -> None:
    """Play many episodes, unordered, at most ``max_in_flight`` at once.

    An infrastructure failure is played again up to ``retries`` times, unless it is a reward that
    failed, as the same tokens would be judged again; ``finished`` gets the last try of each.
    """
    gate = asyncio.Semaphore(world.config.max_in_flight)

    async def one(ticket: Ticket) -> None:
        async with gate:
            for _ in range(world.config.retries + 1):
                trajectory = await play(ticket, world)
                if trajectory.stop is not Stop.INFRA_ERROR:
                    break
        waiting = finished(trajectory)
        if waiting is not None:
            await waiting

    async with asyncio.TaskGroup() as group:
        for lane, ticket in enumerate(tickets):
            group.create_task(one(replace(ticket, lane=lane)))

"""Episodes from the prompt to the reward: every way to end, and every token on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from palestra.envs.base import Env
from palestra.policies.fake import LOGPROB, ScriptedPolicy
from palestra.policies.tokenizer import HFTokenizer
from palestra.rewards.score import Scheme, Weighted
from palestra.rl.budget import budget_of
from palestra.rl.config import BudgetConfig
from palestra.rl.errors import (
    BoxDied,
    EngineError,
    GraderError,
    PathRefused,
    SandboxError,
    TaskError,
    UserError,
)
from palestra.rl.types import (
    Completion,
    File,
    Outcome,
    Patch,
    Sampling,
    Sandbox,
    Stop,
    Task,
    ToolCall,
    Trajectory,
    Tree,
    Verdict,
    Work,
)
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.episode import Ticket, World, play, play_all
from palestra.sandbox import auto

MakeWorld = Callable[..., World]
MakeTicket = Callable[..., Ticket]

QWEN = DIALECTS["qwen3_coder"]


def call(name: str, **arguments: str) -> str:
    return QWEN.render(ToolCall(name=name, arguments=arguments))


WRITE, DELETE, SUBMIT = call("write", text="42"), call("delete"), call("submit")


def run(world: World, ticket: Ticket) -> Trajectory:
    return asyncio.run(play(ticket, world))


def policy(world: World) -> ScriptedPolicy:
    assert isinstance(world.policy, ScriptedPolicy)
    return world.policy


def seen(world: World) -> list[dict[str, bytes]]:
    files: list[dict[str, bytes]] = world.grade.seen  # type: ignore[attr-defined]
    return files


def assert_token_in_token_out(world: World, played: Trajectory) -> None:
    """What the policy returned is in the turns, and the turns are what it was asked with."""
    history: tuple[int, ...] = ()
    scripted = policy(world)
    assert len(played.turns) == len(scripted.returned)
    for turn, asked, returned in zip(played.turns, scripted.asked, scripted.returned, strict=True):
        history += turn.context_ids
        assert asked == history
        assert (turn.token_ids, turn.logprobs) == (returned.token_ids, returned.logprobs)
        assert turn.version == returned.version
        history += turn.token_ids


def test_a_submitted_episode(
    make_world: MakeWorld, make_ticket: MakeTicket, tokenizer: HFTokenizer
) -> None:
    world = make_world(["I write. " + WRITE, SUBMIT])
    played = run(world, make_ticket())
    assert (played.stop, played.outcome) == (Stop.SUBMITTED, Outcome.GRADED)
    assert played.reward is not None and played.reward.total == 1.0
    assert played.verdict is not None and played.verdict.solved
    assert (played.id, played.group_id, played.step, played.temperature) == ("g/000", "g", 1, 0.9)
    assert seen(world) == [{"answer.txt": b"42"}]
    first, second = played.turns
    assert first.message.content == "I write."
    assert first.message.calls == (ToolCall(name="write", arguments={"text": "42"}),)
    assert (first.observation, first.error) == ("write: ok", "")
    assert first.logprobs == (LOGPROB,) * len(first.token_ids)
    assert tokenizer.decode(first.context_ids) == tokenizer.render(
        played.prompt, world.env.tools, reply=True
    )
    assert list(second.context_ids) == world.chat.observation(["write: ok"])
    assert_token_in_token_out(world, played)
    assert {"generate", "grade", "environment"} == set(played.seconds)
    assert world.boxes.open_now == 0  # type: ignore[attr-defined]


def test_the_box_is_gone_before_grading(make_world: MakeWorld, make_ticket: MakeTicket) -> None:
    world = make_world([SUBMIT])
    open_while_grading: list[int] = []

    async def grade(task: Task, files: Mapping[str, bytes]) -> Verdict:
        open_while_grading.append(world.boxes.open_now)  # type: ignore[attr-defined]
        return Verdict(outcome=Outcome.GRADED, passed={"x": True})

    run(replace(world, grade=grade), make_ticket())
    assert open_while_grading == [0]


def test_the_work_on_a_tree_is_its_patch_and_shown_as_a_diff(
    make_world: MakeWorld, make_ticket: MakeTicket, tmp_path: Path
) -> None:
    graded: list[Work] = []

    async def grade(task: Task, work: Work) -> Verdict:
        graded.append(work)
        return Verdict(outcome=Outcome.GRADED, passed={"x": True})

    world = replace(
        make_world([WRITE, SUBMIT]),
        grade=grade,
        boxes=auto.choose(unsafe_local=True, root=tmp_path),
    )
    tree = Tree(files={"answer.txt": File(data=b"41\n"), "kept": File(data=b"")})
    ticket = make_ticket()
    played = run(world, replace(ticket, task=replace(ticket.task, files={}, tree=tree)))
    assert graded == [Patch(files={"answer.txt": File(data=b"42")})]
    assert played.outcome is Outcome.GRADED
    assert played.patch.splitlines()[:4] == [
        "diff --git a/answer.txt b/answer.txt",
        "--- a/answer.txt",
        "+++ b/answer.txt",
        "@@ -1,1 +1,1 @@",
    ]


def test_several_calls_in_one_reply_are_answered_in_order(
    make_world: MakeWorld, make_ticket: MakeTicket
) -> None:
    world = make_world([WRITE + call("write", text="43"), WRITE + SUBMIT + DELETE])
    played = run(world, make_ticket())
    assert list(played.turns[1].context_ids) == world.chat.observation(["write: ok", "write: ok"])
    assert played.turns[0].observation == "write: ok\nwrite: ok"
    assert played.turns[0].elided == 2 * 5, "what all its calls left out"
    assert played.stop is Stop.SUBMITTED
    assert seen(world) == [{"answer.txt": b"42"}], "what follows submit is not done"


@pytest.mark.parametrize(("limit", "turns"), [(0, 4), (2, 2), (6, 6)])
def test_max_turns(make_world: MakeWorld, make_ticket: MakeTicket, limit: int, turns: int) -> None:
    world = make_world([WRITE] * 10, max_turns=limit)
    played = run(world, make_ticket())
    assert (played.stop, len(played.turns)) == (Stop.MAX_TURNS, turns)
    assert played.reward is not None and played.reward.total == 1.0, (
        "its work is judged all the same"
    )
    assert_token_in_token_out(world, played)


def test_a_wrong_tool_is_answered_not_malformed(
    make_world: MakeWorld, make_ticket: MakeTicket
) -> None:
    world = make_world([call("fly"), SUBMIT])
    played = run(world, make_ticket())
    assert "no tool 'fly'" in played.turns[0].observation
    assert played.turns[0].error == ""


def test_three_malformed_replies_in_a_row(make_world: MakeWorld, make_ticket: MakeTicket) -> None:
    world = make_world(
        ["<tool_call>", WRITE, "nothing", "</tool_call>", "<tool_call>"], max_turns=9
    )
    played = run(world, make_ticket())
    assert (played.stop, played.outcome) == (Stop.MALFORMED, Outcome.AGENT_FAILURE)
    assert [bool(turn.error) for turn in played.turns] == [True, False, True, True, True]
    assert played.turns[2].observation == "error: no tool was called"
    assert list(played.turns[3].context_ids) == world.chat.observation(
        ["error: no tool was called"]
    )
    assert played.turns[0].message.content == "<tool_call><|im_end|>", "shown as it was sampled"
    assert played.reward is not None
    assert_token_in_token_out(world, played)


@pytest.mark.parametrize("missing", [0, 1, 5])
def test_the_budget_is_exact(
    make_world: MakeWorld, make_ticket: MakeTicket, tokenizer: HFTokenizer, missing: int
) -> None:
    needed = sum(len(tokenizer.encode(text)) + 1 for text in (WRITE, "x" * 30, SUBMIT))
    world = make_world([WRITE, "x" * 30, SUBMIT], budget=needed - missing)
    played = run(world, make_ticket())
    assert played.generated == needed - missing
    assert played.stop is (Stop.OVER_BUDGET if missing else Stop.SUBMITTED)
    assert played.outcome is Outcome.GRADED
    assert_token_in_token_out(world, played)


def test_any_budget_is_used_to_the_token_and_no_further(
    make_world: MakeWorld, make_ticket: MakeTicket, tokenizer: HFTokenizer
) -> None:
    """Only what the policy generated counts, over all turns; the last turn is cut at the budget."""
    replies = [WRITE, "x" * 9, SUBMIT]
    sizes = [len(tokenizer.encode(text)) + 1 for text in replies]
    for budget in range(1, sum(sizes) + 2):
        played = run(make_world(replies, budget=budget), make_ticket())
        assert played.generated == min(budget, sum(sizes))
        assert played.stop is (Stop.SUBMITTED if budget >= sum(sizes) else Stop.OVER_BUDGET)
        whole = [len(turn.token_ids) for turn in played.turns[:-1]]
        assert whole == sizes[: len(whole)], "only the last turn is cut"


def test_the_budget_goes_by_the_kind_of_the_task(
    make_world: MakeWorld, make_ticket: MakeTicket
) -> None:
    budgets = partial(budget_of, BudgetConfig(default=5, by_kind={"other": 3}))
    world = replace(make_world(["x" * 50]), budget_of=budgets)
    ticket = make_ticket()
    other = replace(ticket, task=replace(ticket.task, kind="other"))
    assert [run(world, t).generated for t in (ticket, other)] == [5, 3]


def test_a_budget_used_up_by_a_whole_reply(
    make_world: MakeWorld, make_ticket: MakeTicket, tokenizer: HFTokenizer
) -> None:
    world = make_world([WRITE, SUBMIT], budget=len(tokenizer.encode(WRITE)) + 1)
    played = run(world, make_ticket())
    assert (played.stop, len(played.turns)) == (Stop.OVER_BUDGET, 1)
    assert played.turns[0].observation == "write: ok", "the reply was whole, so it was carried out"


def test_a_cut_call_is_not_carried_out(
    make_world: MakeWorld, make_ticket: MakeTicket, tokenizer: HFTokenizer
) -> None:
    world = make_world([WRITE], budget=len(tokenizer.encode(WRITE)))  # no room for the end of turn
    played = run(world, make_ticket())
    assert played.stop is Stop.OVER_BUDGET
    assert seen(world) == [{"answer.txt": b"41"}]
    assert played.turns[0].message.content == WRITE and not played.turns[0].message.calls


def test_a_reply_over_the_length_of_one_reply(
    make_world: MakeWorld, make_ticket: MakeTicket
) -> None:
    world = make_world(["x" * 50, SUBMIT], max_response_length=7)
    played = run(world, make_ticket())
    assert (played.stop, played.generated) == (Stop.OVER_BUDGET, 7)


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_a_full_context_while_replying(
    make_world: MakeWorld, make_ticket: MakeTicket, extra: int
) -> None:
    asking = make_world([])
    prompt = len(asking.chat.prompt(asking.env.prompt(make_ticket().task), asking.env.tools))
    world = make_world(["x" * 50], max_context_length=prompt + extra)
    played = run(world, make_ticket())
    assert (played.stop, played.generated) == (Stop.CONTEXT_FULL, extra)
    assert played.outcome is Outcome.GRADED
    assert len(played.turns) == bool(extra)


def test_a_full_context_after_an_observation(
    make_world: MakeWorld, make_ticket: MakeTicket, tokenizer: HFTokenizer
) -> None:
    asking = make_world([])
    prompt = len(asking.chat.prompt(asking.env.prompt(make_ticket().task), asking.env.tools))
    limit = prompt + len(tokenizer.encode(WRITE)) + 1 + len(asking.chat.observation(["write: ok"]))
    full = run(make_world([WRITE, SUBMIT], max_context_length=limit), make_ticket())
    assert (full.stop, len(full.turns)) == (Stop.CONTEXT_FULL, 1)
    room = run(make_world([WRITE, SUBMIT], max_context_length=limit + 1), make_ticket())
    assert (room.stop, len(room.turns), len(room.turns[-1].token_ids)) == (Stop.CONTEXT_FULL, 2, 1)


def test_a_file_that_the_agent_deleted_is_missing(
    make_world: MakeWorld, make_ticket: MakeTicket
) -> None:
    world = make_world([DELETE, SUBMIT])
    played = run(world, make_ticket())
    assert seen(world) == [{}]
    assert played.outcome is Outcome.GRADED
    assert played.reward is not None and played.reward.total == 0.0


class Hanging:
    """A policy that answers once and then lets ten minutes pass on the loop's clock."""

    def __init__(self, tokenizer: HFTokenizer) -> None:
        self.inner = ScriptedPolicy([WRITE], tokenizer)

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        if self.inner.asked:
            loop = asyncio.get_running_loop()
            now = loop.time
            loop.time = lambda: now() + 600  # type: ignore[method-assign]
            await asyncio.Event().wait()
        return await self.inner.generate(token_ids, sampling)


def test_the_time_limit_keeps_what_was_done(
    make_world: MakeWorld, make_ticket: MakeTicket, tokenizer: HFTokenizer
) -> None:
    world = make_world(Hanging(tokenizer), episode_timeout=300)
    played = run(world, make_ticket())
    assert (played.stop, played.outcome) == (Stop.TIME_LIMIT, Outcome.GRADED)
    assert len(played.turns) == 1
    assert seen(world) == [{"answer.txt": b"42"}]
    assert played.reward is not None and played.reward.total == 1.0


class Failing:
    """A policy that fails ``times`` times, then goes by the script."""

    def __init__(self, error: Exception, times: int, tokenizer: HFTokenizer) -> None:
        self.error = error
        self.left = times
        self.inner = ScriptedPolicy([WRITE, SUBMIT], tokenizer)

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        if self.left and len(self.inner.asked) % 2 == 1:
            self.left -= 1
            self.inner.asked.append(tuple(token_ids))
            raise self.error
        return await self.inner.generate(token_ids, sampling)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (EngineError("the engine died"), "the engine died"),
        (RuntimeError("boom"), "generate: RuntimeError: boom"),
        (TimeoutError(), "generate: timed out"),
    ],
)
def test_an_engine_error_is_no_reward(
    make_world: MakeWorld,
    make_ticket: MakeTicket,
    tokenizer: HFTokenizer,
    error: Exception,
    says: str,
) -> None:
    world = make_world(Failing(error, 1, tokenizer))
    played = run(world, make_ticket())
    assert (played.stop, played.outcome) == (Stop.INFRA_ERROR, Outcome.INFRA_FAILURE)
    assert (played.reward, played.verdict, played.turns) == (None, None, ())
    assert says in played.reason
    assert seen(world) == []


class BrokenBoxes:
    """Boxes that break after the set-up, at the first ``write`` or ``read``."""

    def __init__(self, inner: Any, method: str, error: Exception) -> None:
        self.inner = inner
        self.method = method
        self.error = error

    @asynccontextmanager
    async def open(self, image: object = None) -> AsyncIterator[Sandbox]:
        async with self.inner.open() as box:
            write = box.write

            async def broken(*_: Any, **__: Any) -> Any:
                raise self.error

            async def set_up(path: str, data: bytes) -> None:
                await write(path, data)
                box.write = write
                setattr(box, self.method, broken)

            box.write = set_up
            yield box


@pytest.mark.parametrize("by_agent", [True, False])
def test_who_ended_the_box_decides_what_it_is_worth(
    make_world: MakeWorld, make_ticket: MakeTicket, by_agent: bool
) -> None:
    """An agent's last reply is trained on, with a reward of 0; nothing is collected."""
    world = make_world([WRITE, SUBMIT])
    died = BoxDied("gone", by_agent=by_agent)
    played = run(replace(world, boxes=BrokenBoxes(world.boxes, "write", died)), make_ticket())
    if not by_agent:
        assert (played.outcome, played.reward) == (Outcome.INFRA_FAILURE, None)
        return
    assert (played.stop, played.outcome) == (Stop.BOX_ENDED, Outcome.AGENT_FAILURE)
    assert played.reward is not None and played.reward.total == 0.0
    [turn] = played.turns
    assert (turn.error, len(turn.token_ids)) == ("gone", len(turn.logprobs)) and turn.token_ids
    assert seen(world) == [{}]


@pytest.mark.parametrize("method", ["write", "read"])
@pytest.mark.parametrize("error", [SandboxError("gone"), OSError("gone"), TimeoutError("gone")])
def test_a_broken_box_is_never_the_agents_fault(
    make_world: MakeWorld, make_ticket: MakeTicket, method: str, error: Exception
) -> None:
    world = make_world([WRITE, SUBMIT])
    played = run(replace(world, boxes=BrokenBoxes(world.boxes, method, error)), make_ticket())
    assert (played.stop, played.outcome) == (Stop.INFRA_ERROR, Outcome.INFRA_FAILURE)
    assert played.reward is None and played.reason
    assert seen(world) == []


async def no_verdict(task: Task, files: Mapping[str, bytes]) -> Verdict:
    return Verdict(outcome=Outcome.INFRA_FAILURE, reason="no box for grading")


async def grader_error(task: Task, files: Mapping[str, bytes]) -> Verdict:
    raise GraderError("no box for grading")


async def grader_bug(task: Task, files: Mapping[str, bytes]) -> Verdict:
    raise ValueError("no box for grading")


@pytest.mark.parametrize("grade", [no_verdict, grader_error, grader_bug])
def test_no_verdict_is_no_reward(
    make_world: MakeWorld, make_ticket: MakeTicket, grade: Any
) -> None:
    world = replace(make_world([SUBMIT]), grade=grade)
    played = run(world, make_ticket())
    assert (played.stop, played.outcome) == (Stop.INFRA_ERROR, Outcome.INFRA_FAILURE)
    assert played.reward is None and "no box for grading" in played.reason


def test_a_reward_that_cannot_be_computed_is_no_reward(
    make_world: MakeWorld, make_ticket: MakeTicket
) -> None:
    async def broken(trajectory: Trajectory, box: Sandbox | None) -> float:
        raise KeyError("judge")

    asked: list[str] = []
    world = make_world([SUBMIT], retries=2)
    world = replace(world, scheme=Scheme({"judge": Weighted(reward=broken)}))
    played = run(world, make_ticket())
    assert (played.stop, played.outcome, played.reward) == (
        *(Stop.REWARD_ERROR, Outcome.INFRA_FAILURE, None),
    )
    assert "reward judge" in played.reason and played.turns
    asyncio.run(play_all([make_ticket()], world, lambda lost: asked.append(lost.reason)))
    assert len(asked) == 1 and len(world.boxes.boxes) == 2, "the same tokens are not judged again"


class BadTask:
    """An environment that raises where it meets what the task brought."""

    def __init__(self, inner: Env, method: str, error: Exception) -> None:
        self.inner = inner
        self.method = method
        self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name) if name != self.method else self._raise

    def _raise(self, *_: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("setup", PathRefused("'../x': not a plain relative path")),
        ("setup", UserError("no such image")),
        ("setup", TaskError("no such commit")),
        ("prompt", UserError("no prompt")),
        ("act", UserError("not a Python literal")),
    ],
)
def test_a_task_that_cannot_be_played_is_no_reward_and_no_end(
    make_world: MakeWorld, make_ticket: MakeTicket, method: str, error: Exception
) -> None:
    world = make_world([WRITE, SUBMIT], retries=5)
    bad: Any = BadTask(world.env, method, error)
    (played,) = collect(replace(world, env=bad), [make_ticket()])
    assert (played.stop, played.outcome) == (Stop.TASK_ERROR, Outcome.TASK_FAILURE)
    assert (played.reward, played.verdict, played.turns) == (None, None, ())
    assert played.reason == str(error)
    assert seen(world) == []
    boxes: Any = world.boxes
    assert len(boxes.boxes) == (method != "prompt"), "it is not tried again"
    assert boxes.open_now == 0


def test_a_task_whose_checks_cannot_be_read_is_no_reward(
    make_world: MakeWorld, make_ticket: MakeTicket
) -> None:
    async def grade(task: Task, files: Mapping[str, bytes]) -> Verdict:
        raise UserError("not a Python literal")

    played = run(replace(make_world([SUBMIT]), grade=grade), make_ticket())
    assert (played.stop, played.outcome) == (Stop.TASK_ERROR, Outcome.TASK_FAILURE)
    assert played.reward is None and played.reason == "not a Python literal"


def test_a_file_of_a_task_that_cannot_be_written(
    make_world: MakeWorld, make_ticket: MakeTicket
) -> None:
    ticket = make_ticket()
    task = replace(ticket.task, files={"answer.txt": "half a pair \ud800"})
    played = run(make_world([SUBMIT]), replace(ticket, task=task))
    assert played.outcome is Outcome.TASK_FAILURE
    assert played.reason == "answer.txt: has characters that cannot be written"


def test_a_box_that_breaks_in_the_setup_is_our_fault(
    make_world: MakeWorld, make_ticket: MakeTicket
) -> None:
    world = make_world([SUBMIT])
    bad: Any = BadTask(world.env, "setup", SandboxError("gone"))
    assert run(replace(world, env=bad), make_ticket()).outcome is Outcome.INFRA_FAILURE


@pytest.mark.parametrize("error", [PathRefused("a folder"), EngineError("gone")])
def test_only_wrong_use_blames_the_task_once_the_agent_acts(
    make_world: MakeWorld, make_ticket: MakeTicket, error: Exception
) -> None:
    """An agent that could turn its failure into a task's would have no bad reward."""
    world = make_world([WRITE, SUBMIT], max_turns=2)

    async def apply(*_: Any) -> Any:
        raise error

    world.env.apply = apply  # type: ignore[method-assign]
    played = run(world, make_ticket())
    assert played.outcome is not Outcome.TASK_FAILURE


def test_wrong_use_is_not_hidden_as_a_failure(
    make_world: MakeWorld, make_ticket: MakeTicket
) -> None:
    with pytest.raises(UserError, match="asked for reply 2 of an episode but has 1"):
        run(make_world([WRITE]), make_ticket())


def collect(world: World, tickets: Sequence[Ticket]) -> list[Trajectory]:
    done: list[Trajectory] = []
    asyncio.run(play_all(tickets, world, done.append))
    return done


@pytest.mark.parametrize(("failures", "outcome"), [(2, Outcome.GRADED), (3, Outcome.INFRA_FAILURE)])
def test_infrastructure_failures_are_played_again(
    make_world: MakeWorld,
    make_ticket: MakeTicket,
    tokenizer: HFTokenizer,
    failures: int,
    outcome: Outcome,
) -> None:
    world = make_world(Failing(EngineError("down"), failures, tokenizer), retries=2)
    (played,) = collect(world, [make_ticket()])
    assert played.outcome is outcome
    assert (played.reward is None) == (outcome is Outcome.INFRA_FAILURE)
    assert len(world.boxes.boxes) == 3  # type: ignore[attr-defined]


def test_an_agents_failure_is_not_played_again(
    make_world: MakeWorld, make_ticket: MakeTicket
) -> None:
    world = make_world(["x", "x", "x"], retries=5)
    (played,) = collect(world, [make_ticket()])
    assert played.outcome is Outcome.AGENT_FAILURE
    assert len(world.boxes.boxes) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_no_more_episodes_at_once_than_allowed(
    make_world: MakeWorld, make_ticket: MakeTicket, limit: int
) -> None:
    world = make_world([WRITE, SUBMIT], max_in_flight=limit)
    done = collect(world, [make_ticket(sample) for sample in range(10)])
    assert sorted(t.id for t in done) == [f"g/{n:03d}" for n in range(10)]
    assert world.boxes.open_at_most == min(limit, 10)  # type: ignore[attr-defined]
    assert {t.stop for t in done} == {Stop.SUBMITTED}


def test_an_episode_keeps_its_lane_and_lanes_are_handed_out_in_turn(
    make_world: MakeWorld, make_ticket: MakeTicket
) -> None:
    world = make_world([WRITE, SUBMIT])
    lanes: dict[int, int] = {}
    generate = world.policy.generate

    async def noted(token_ids: Sequence[int], sampling: Sampling) -> Completion:
        lanes[sampling.seed] = sampling.lane
        return await generate(token_ids, sampling)

    world.policy.generate = noted  # type: ignore[method-assign]
    tickets = [make_ticket(sample) for sample in (3, 1, 2)]
    collect(world, tickets)
    assert lanes == {t.turn_seed(turn): n for n, t in enumerate(tickets) for turn in range(2)}


def test_finished_may_be_a_coroutine(make_world: MakeWorld, make_ticket: MakeTicket) -> None:
    done: list[str] = []

    async def finished(trajectory: Trajectory) -> None:
        await asyncio.sleep(0)
        done.append(trajectory.id)

    asyncio.run(play_all([make_ticket(1)], make_world([SUBMIT]), finished))
    assert done == ["g/001"]


def test_every_reply_has_a_seed_of_its_own(make_ticket: MakeTicket) -> None:
    seeds = {make_ticket(sample).turn_seed(turn) for sample in range(20) for turn in range(20)}
    assert len(seeds) == 400 and all(0 <= seed < 2**31 for seed in seeds)
    assert make_ticket().turn_seed(0) != replace(make_ticket(), seed=4).turn_seed(0)
    assert make_ticket().turn_seed(0) == replace(make_ticket(), temperature=0.1).turn_seed(0)

"""Errands in an office: the tools, their failures, and how the end of an episode is judged."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palestra.envs.gym import TaskEnv
from palestra.envs.puzzle import slots
from palestra.envs.tool_use.actions import ACTIONS, BookEvent, FindEvents, MoveEvent, Wait
from palestra.envs.tool_use.env import ToolUse
from palestra.envs.tool_use.errands import ERRANDS
from palestra.envs.tool_use.machine import RATE_LIMIT_S, TIMED_OUT, step
from palestra.envs.tool_use.state import Fault, State
from palestra.envs.tool_use.tasks import KIND, STATE, office_task
from palestra.rewards.answers.grade import AnswerGrader
from palestra.rewards.answers.tables import changes_made, nothing_else
from palestra.rl.errors import TaskError
from palestra.rl.types import Task, ToolCall

BOOK = BookEvent(title="review", day="Monday", start=8, hours=1)


def made(errand: str, seed: int, difficulty: int, number: int = 0) -> Task:
    of_difficulty = [s for s in slots(KIND, errand, seed) if s.difficulty == difficulty]
    return office_task(ToolUse.name, errand, of_difficulty[number])


EASY = made("report", 0, 1)


def failing(kind: str, tool: str, call: int = 1, **fields: Any) -> State:
    return State(faults=(Fault(tool=tool, call=call, kind=kind),), **fields)


async def judged(task: Task, state: State) -> list[str]:
    [changes, nothing] = task.hidden
    text = state.model_dump_json()
    return [await changes_made(text, changes.expected), await nothing_else(text, nothing.expected)]


@given(st.sampled_from(sorted(ERRANDS)), st.integers(0, 10**6), st.sampled_from([1, 2, 3, 4]))
@settings(max_examples=40)
def test_who_plays_well_meets_every_failure_and_gets_there(
    errand: str, seed: int, difficulty: int
) -> None:
    task = made(errand, seed, difficulty)
    start = State.model_validate_json(task.files[STATE])
    end = State.model_validate_json(task.reference[STATE])
    assert len(end.met) == len(start.faults) == {1: 0, 2: 1, 3: 2, 4: 4}[difficulty]
    assert set(end.met) == set(start.faults)
    assert asyncio.run(judged(task, end)) == ["", ""]
    assert asyncio.run(judged(task, start))[0].startswith("not done: ")


def test_every_kind_of_failure_is_in_store() -> None:
    hard = [made(errand, 0, 4, number) for errand in ERRANDS for number in range(3)]
    starts = [State.model_validate_json(task.files[STATE]) for task in hard]
    kinds = {fault.kind for state in starts for fault in state.faults}
    assert kinds == {"no_answer", "lost_answer", "rate_limit", "stale_id"}


def test_a_time_out_does_not_say_whether_it_was_done() -> None:
    not_done, said = step(failing("no_answer", "book_event"), BOOK)
    was_done, same = step(failing("lost_answer", "book_event"), BOOK)
    assert said == same == TIMED_OUT
    assert not_done.events == [] and [event.title for event in was_done.events] == ["review"]
    again, answer = step(not_done, BOOK)
    assert answer == "booked as R1" and again.met == not_done.met != []
    assert step(was_done, BOOK)[1] == "error: it would overlap 'review'"


def test_a_stale_id_is_replaced() -> None:
    booked, _ = step(failing("stale_id", "move_event"), BOOK)
    move = MoveEvent(id="R1", day="Friday", start=9)
    stale, answer = step(booked, move)
    assert answer == "error: the id R1 is stale; look it up again"
    assert stale.content() == booked.content() and stale.events[0].id == "R2"
    assert step(stale, move)[1] == "error: no such id: R1"
    moved, answer = step(stale, move.model_copy(update={"id": "R2"}))
    assert answer == "moved" and moved.events[0].day == "Friday"


def test_a_rate_limit_ends_with_time_and_uses_up_no_failure() -> None:
    look = FindEvents(day="Monday")
    state, answer = step(failing("rate_limit", "find_events"), look)
    assert answer == f"error: too many requests; wait {RATE_LIMIT_S} seconds"
    calls = state.calls
    state, answer = step(state, BOOK)
    assert answer.startswith("error: too many requests") and state.events == []
    assert state.calls == calls
    state, _ = step(state, Wait(seconds=RATE_LIMIT_S))
    assert step(state, look)[1] == "none"


def test_a_call_that_was_done_twice_is_a_side_effect() -> None:
    [ticket] = [call for name, call in json.loads(EASY.labels["calls"]) if name == "open_ticket"]
    start = State.model_validate_json(EASY.files[STATE])
    action = ACTIONS["open_ticket"].model_validate(ticket)
    once, _ = step(start, action)
    twice, _ = step(once, action)
    assert asyncio.run(judged(EASY, once)) == ["", ""]
    missing, unasked = asyncio.run(judged(EASY, twice))
    assert missing == "" and unasked.startswith("not asked for: new tickets: ")


ROWS = st.lists(
    st.fixed_dictionaries({"id": st.integers(0, 3), "name": st.sampled_from("abc")}), max_size=4
)
TABLES = st.fixed_dictionaries({"x": ROWS, "y": ROWS})


@given(TABLES, TABLES, TABLES)
@settings(max_examples=100)
def test_both_checks_pass_where_the_tables_are_the_same_and_nowhere_else(
    before: Any, after: Any, got: Any
) -> None:
    expected = json.dumps({"before": before, "after": after})
    found = [
        asyncio.run(check(json.dumps(got), expected)) for check in (changes_made, nothing_else)
    ]
    alike = all(
        Counter(row["name"] for row in got[table]) == Counter(row["name"] for row in after[table])
        for table in ("x", "y")
    )
    assert (found == ["", ""]) is alike
    assert asyncio.run(changes_made(json.dumps(after), expected)) == ""
    assert asyncio.run(nothing_else(json.dumps(before), expected)) == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"x": 1}', '{"x": [1]}', "[" * 10**5])
def test_what_are_no_tables_passes_nothing(text: str) -> None:
    expected = '{"before": {"x": []}, "after": {"x": []}}'
    assert asyncio.run(changes_made(text, expected)) == "the tables cannot be read"
    assert asyncio.run(nothing_else(text, expected)) == "the tables cannot be read"
    with pytest.raises(TaskError):
        asyncio.run(nothing_else("{}", text))


JSON = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats()),
    *(st.text(max_size=50), st.just("\ud800"), st.lists(st.integers(), max_size=2)),
    st.sampled_from(["R1", "R5", "R30", "Monday", "chair", "open", "8", "2"]),
)


@given(
    st.sampled_from([*ACTIONS, "no_tool"]),
    st.dictionaries(
        st.sampled_from("id day start hours title category status quantity other".split()), JSON
    ),
)
@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_arguments_break_a_tool(world: Any, name: str, arguments: Any) -> None:
    env = ToolUse(world.run_checks)

    async def act() -> None:
        async with world.provider.open() as box:
            await env.setup(EASY, box)
            answer = await env.act(EASY, ToolCall(name=name, arguments=arguments), box)
            assert answer.text and not answer.submitted
            after = State.model_validate_json(await box.read(STATE))
        assert all(event.start + event.hours <= 18 for event in after.events)
        assert all(product.stock >= 0 for product in after.products)

    asyncio.run(act())


@pytest.mark.filterwarnings("ignore")
def test_gymnasium_accepts_it(world: Any) -> None:
    env = ToolUse(world.run_checks)
    hard = [made(errand, 0, 4) for errand in ("book", "buy", "close")]
    played = TaskEnv(env, hard, provider=world.provider, grader=AnswerGrader(world.grade))
    check_env(played, skip_render_check=True)
    played.close()

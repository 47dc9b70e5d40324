"""The repair environment, its tasks and its demonstrations."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palestra.envs.corpus_loader import shipped_functions
from palestra.envs.programs import Function, Program, program
from palestra.envs.repair import Repair, numbered
from palestra.envs.repair_demos import edits_of
from palestra.envs.repair_source import RepairOptions, build
from palestra.envs.taskset import TaskSet
from palestra.envs.validate import Validator
from palestra.rl.types import Json, Observation, Task, ToolCall

SOURCE = """\
def clamp(x, low, high):
    if x < low:
        return low
    return min(x, high)
"""
CALLS = ((5, 0, 3), (-1, 0, 3), (2, 0, 3), (0, 1, 3), (3, 0, 3), (9, 1, 8), (1, 1, 1), (0, 0, 0))
CLAMP = Function(
    name="clamp",
    source=SOURCE,
    cases=tuple((repr((x, low, high)), str(max(low, min(x, high)))) for x, low, high in CALLS),
)
SMALL = RepairOptions(seed=0)


def make(
    world: Any, programs: list[Program], options: RepairOptions = SMALL, **more: Any
) -> TaskSet:
    more.setdefault("screen", False)
    validator = Validator(run_checks=world.run_checks, provider=world.provider, timeout=1.0, **more)
    return asyncio.run(build(programs, source="test", options=options, validator=validator))


def shipped(count: int) -> list[Program]:
    plain = [f for f in shipped_functions() if "while" not in f.source]
    return [program(function) for function in plain[:count]]


def play(
    world: Any, env: Repair, task: Task, *calls: tuple[str, dict[str, Json]]
) -> list[Observation]:
    async def run() -> list[Observation]:
        async with world.provider.open() as box:
            await env.setup(task, box)
            files = set(task.files)
            seen = []
            for name, arguments in calls:
                seen.append(await env.act(task, ToolCall(name=name, arguments=arguments), box))
                assert box.names() == files  # nothing but the task's files is ever in the box
            return seen

    return asyncio.run(run())


def texts(seen: list[Observation]) -> list[str]:
    return [observation.text for observation in seen]


@pytest.fixture
def broken() -> Task:
    item = program(CLAMP)
    text = CLAMP.source.replace("x < low", "x > low")
    return Task(
        id="repair/clamp/0",
        source=Repair.name,
        kind="repair",
        prompt=f"Fix clamp.py\n{numbered(text)}",
        files={"clamp.py": text},
        reference=item.files,
        artifacts=("clamp.py",),
        visible=item.visible,
        hidden=item.checks,
    )


def test_an_episode(world: Any, broken: Task) -> None:
    env = Repair(world.run_checks, system_prompt="")
    assert [message.role for message in env.prompt(broken)] == ["user"]
    assert env.prompt(broken)[0].content.startswith("Fix clamp.py\n1 def clamp(x, low, high):\n2 ")
    seen = play(
        world,
        env,
        broken,
        ("test", {}),
        ("replace", {"line": "2", "text": "    if x < low:"}),
        ("view", {}),
        ("test", {}),
        ("submit", {}),
    )
    assert texts(seen) == [
        "0 of 4 passed\nclamp(5, 0, 3) returned 0, expected 3",
        "ok",
        numbered(CLAMP.source),
        "4 of 4 passed",
        "",
    ]
    assert [observation.submitted for observation in seen] == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("bash", {}, "no tool 'bash'; use one of: view, replace, test, submit"),
        ("replace", {"line": 1}, "replace needs text; use replace(line, text, path)"),
        ("replace", {"line": 9, "text": ""}, "no line 9: clamp.py has 4 lines"),
        ("replace", {"line": 0, "text": ""}, "no line 0: clamp.py has 4 lines"),
        ("replace", {"line": "two", "text": ""}, "line must be a whole number such as 3"),
        ("replace", {"line": True, "text": ""}, "line must be a whole number such as 3"),
        ("replace", {"line": 1, "text": 3}, "text must be a string, not int"),
        (
            "replace",
            {"line": 1, "text": "\ud800"},
            "the text has characters that cannot be written",
        ),
        ("view", {"path": "/etc/passwd"}, "path must be one of: clamp.py"),
        ("test", {"n": 1}, "test has no argument 'n'; use test()"),
    ],
)
def test_wrong_use_is_answered(
    world: Any, broken: Task, name: str, arguments: dict[str, Json], said: str
) -> None:
    assert texts(play(world, Repair(world.run_checks), broken, (name, arguments))) == [said]


def test_several_lines_may_replace_one(world: Any, broken: Task) -> None:
    call = ("replace", {"line": 2, "text": "    # why\n    if x < low:\n"})
    seen = play(world, Repair(world.run_checks), broken, call, ("view", {}), ("test", {}))
    assert texts(seen)[0] == "ok"
    assert texts(seen)[1].splitlines()[1:3] == ["2     # why", "3     if x < low:"]
    assert texts(seen)[2] == "4 of 4 passed"


def test_tasks_fail_and_their_references_pass(world: Any) -> None:
    made = make(world, [program(CLAMP)])
    assert len(made.tasks) > 10 and not made.skipped
    for task in made.tasks:
        verdict = asyncio.run(world.grade(task, {p: t.encode() for p, t in task.files.items()}))
        assert not verdict.solved
        assert task.visible == task.hidden[:4] and len(task.hidden) == 8
        [edit] = edits_of(task)
        assert edit.original in task.reference["clamp.py"]
    assert made.tasks[0].id == "repair/clamp/00"


def test_splits_share_no_text_and_depend_on_the_seed_alone(world: Any, tmp_path: Path) -> None:
    programs = shipped(10)
    made = make(world, programs, cache=tmp_path)
    again = make(world, programs, cache=tmp_path)
    assert made == again and set(made.splits) == {"train", "heldout_mutations", "heldout_functions"}
    owner: dict[str, str] = {}
    for task in made.tasks:
        for text in task.files.values():
            assert owner.setdefault(text, task.labels["split"]) == task.labels["split"]
    train = {task.labels["function"] for task in made.split("train")}
    assert not train & {task.labels["function"] for task in made.split("heldout_functions")}
    assert len(train) == 8
    other = make(world, programs, replace(SMALL, seed=1), cache=tmp_path)
    assert [t.id for t in other.split("train")] != [t.id for t in made.split("train")]
    only = make(world, programs, replace(SMALL, split="heldout_mutations"), cache=tmp_path)
    assert only.tasks == made.split("heldout_mutations")
    limited = make(world, programs, replace(SMALL, limit=12), cache=tmp_path)
    assert len(limited.tasks) == 12 and len({t.labels["function"] for t in limited.tasks}) == 10


def test_the_cache_saves_the_work(world: Any, tmp_path: Path) -> None:
    first = make(world, shipped(3), cache=tmp_path)
    opened = world.provider.opened
    assert opened and make(world, shipped(3), cache=tmp_path) == first
    assert world.provider.opened == opened
    for path in tmp_path.iterdir():
        path.write_text("[cut")
    assert make(world, shipped(3), cache=tmp_path) == first


def test_useless_programs_are_named(world: Any) -> None:
    wrong = replace(CLAMP, name="wrong", cases=(("(1, 2, 3)", "99"),))
    still = Function(name="still", source="def still(x):\n    pass\n", cases=(("(1,)", "None"),))
    twin = replace(CLAMP, cases=CLAMP.cases[:2])
    wrong = replace(wrong, source=CLAMP.source.replace("clamp", "wrong"))
    made = make(world, [program(function) for function in (CLAMP, wrong, still, twin)])
    reasons = {item.id: item.reason for item in made.skipped}
    assert reasons["wrong"].startswith("the reference fails its own checks: wrong#0")
    assert reasons["still"] == "no mutant fails its checks"
    assert reasons["clamp-2"] == "same text as clamp"


def test_two_mutations(world: Any) -> None:
    made = make(world, shipped(3), replace(SMALL, mutations=2))
    double = [task for task in made.tasks if task.labels["mutations"] == "2"]
    assert double and len({task.id for task in made.tasks}) == len(made.tasks)
    assert all(len(edits_of(task)) == 2 for task in double)


@pytest.mark.parametrize("mutations", [1, 2])
def test_demonstrations_are_true(world: Any, mutations: int) -> None:
    """Replaying every demonstrated call gives the demonstrated observation."""
    made = make(world, shipped(3), replace(SMALL, mutations=mutations))
    env = Repair(world.run_checks)
    tasks = made.split("train")
    demos = list(env.demonstrations(tasks, seed=3, mistakes=0.5))
    assert [demo.task_id for demo in demos] == [task.id for task in tasks]
    assert demos == list(env.demonstrations(tasks, seed=3, mistakes=0.5))
    wrong = sum(not step.learn for demo in demos for step in demo.steps)
    assert 0 < wrong < len(demos)
    for task, demo in list(zip(tasks, demos, strict=True))[-20:]:
        assert demo.prompt == env.prompt(task)
        calls = [(c.name, dict(c.arguments)) for step in demo.steps for c in step.message.calls]
        seen = play(world, env, task, *calls)
        assert texts(seen) == [step.observation for step in demo.steps]
        assert seen[-1].submitted
    assert not any(not s.learn for d in env.demonstrations(tasks, 3, mistakes=0) for s in d.steps)


def test_mistakes_are_made_on_different_lines(world: Any) -> None:
    tasks = make(world, shipped(5)).split("train")
    demos = Repair(world.run_checks).demonstrations(tasks, seed=3, mistakes=1.0)
    elsewhere = 0
    for task, demo in zip(tasks, demos, strict=True):
        replaced = [s.message.calls[0].arguments["line"] for s in demo.steps if not s.learn]
        assert len(set(replaced)) == len(replaced) <= 2
        elsewhere += any(line != str(edits_of(task)[0].line) for line in replaced)
    assert elsewhere > len(tasks) / 2


def test_careless_demonstrations_submit_unchecked_and_some_give_up(world: Any) -> None:
    tasks = make(world, shipped(3)).split("train")
    env = Repair(world.run_checks, system_prompt="")

    def calls(**shares: float) -> list[list[str]]:
        demos = env.demonstrations(tasks, 3, mistakes=0, careless=1.0, **shares)
        return [[step.message.calls[0].name for step in demo.steps] for demo in demos]

    assert {tuple(names[-2:]) for names in calls()} == {("replace", "submit")}
    assert {tuple(n for n in names if n != "test") for names in calls(gives_up=1.0)} == {
        ("submit",)
    }


def test_reciting_demonstrations_write_lines_of_the_broken_file_before_the_repair(
    world: Any,
) -> None:
    tasks = make(world, shipped(3)).split("train")
    env = Repair(world.run_checks, system_prompt="")
    silent = list(env.demonstrations(tasks, 3))
    recited = list(env.demonstrations(tasks, 3, recites=1.0))
    lengths = set()
    for task, demo, plain in zip(tasks, recited, silent, strict=True):
        assert [s.message.calls for s in demo.steps] == [s.message.calls for s in plain.steps]
        [thought] = [s.message.content for s in demo.steps if s.message.content]
        [said] = [s.message.calls[0] for s in demo.steps if s.message.content]
        [edit] = edits_of(task)
        assert (said.name, said.arguments["text"]) == ("replace", edit.original)
        assert task.files[edit.path].startswith(thought)
        lengths.add(thought.count("\n"))
    assert len(lengths) > 1
    assert not any(s.message.content for demo in silent for s in demo.steps)

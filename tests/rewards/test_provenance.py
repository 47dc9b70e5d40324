"""Whoever made a verdict or a reward is named beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from palestra.rewards.answers.grade import AnswerGrader
from palestra.rewards.provenance import of_reward, vouching
from palestra.rewards.score import Scheme, Weighted, score
from palestra.rewards.tests_pass import tests_pass as solved
from palestra.rl.plugins import origin
from palestra.rl.types import (
    AnswerCheck,
    CallCheck,
    Outcome,
    Sandbox,
    Task,
    Trajectory,
    Verdict,
    Work,
)


def task(*hidden: AnswerCheck | CallCheck) -> Task:
    return Task(
        id="t",
        source="test",
        kind="test",
        prompt="?",
        files={},
        reference={},
        artifacts=("answer.txt",),
        hidden=hidden,
    )


def graded(asked: Task, verdict: Verdict | None = None) -> Verdict:
    async def code(task: Task, work: Work) -> Verdict:
        assert verdict is not None
        return verdict

    return asyncio.run(vouching(AnswerGrader(code))(asked, {"answer.txt": b"18"}))


def test_a_verdict_names_its_verifier_its_version_and_the_checks_it_is_about() -> None:
    answer = AnswerCheck(id="one", verifier="numeric", expected="18")
    by = graded(task(answer)).provenance
    assert by is not None and by.verifier == "numeric" and by.version == origin(solved)
    assert by.evidence.startswith("1 of 1 checks passed (") and by.seconds > 0
    other = graded(task(replace(answer, expected="18.0"))).provenance
    assert other is not None and other.evidence != by.evidence, "the digest is of other checks"
    call = CallCheck(id="c", module="m", function="f", args="()", expected="1")
    verdict = Verdict(outcome=Outcome.GRADED, passed={"c": False})
    by = graded(task(call), verdict).provenance
    assert by is not None and by.verifier == "CallCheck" and by.evidence.startswith("0 of 1 ")
    lost = Verdict(outcome=Outcome.INFRA_FAILURE, reason="no box")
    assert graded(task(call), lost) == lost


def test_a_reward_names_the_function_of_each_part_and_its_package(
    make_trajectory: Callable[..., Trajectory],
) -> None:
    class Own:
        async def __call__(self, trajectory: Trajectory, box: Sandbox | None) -> float:
            return 0.5

    verdict = graded(task(AnswerCheck(id="one", verifier="numeric", expected="18")))
    played = replace(make_trajectory(), verdict=verdict)
    rewards = {"solved": Weighted(reward=solved), "own": Weighted(reward=Own())}
    reward = asyncio.run(score(played, None, Scheme(rewards))).reward
    assert reward is not None
    assert set(reward.provenance) == set(reward.parts)
    assert verdict.provenance is not None
    by = reward.provenance["solved"]
    assert (by.verifier, by.version) == ("tests_pass", origin(solved))
    assert by.evidence == verdict.provenance.evidence
    assert reward.provenance["own"].verifier.endswith("Own")
    assert of_reward(solved, replace(played, verdict=None), 0.5).evidence == "the episode"
    assert reward.shaped("toggle", 0.0).provenance == reward.provenance


def test_origins_are_packages_with_versions() -> None:
    import pydantic

    assert origin(pydantic.BaseModel) == f"pydantic {pydantic.VERSION}"
    assert origin(solved).startswith("palestra ")

"""The closed loop: which pairs, what is learned from them, when the critic is believed."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.deploy.config import RunConfig
from palestra.deploy.critic import make_critic, trusting
from palestra.policies.fake import RecordingTrainer, ScriptedPolicy
from palestra.rewards.config import JudgeConfig
from palestra.rewards.faithfulness.judged import JudgedFaithfulness
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.fake import MemoryStore, RuleJudge
from palestra.rewards.judging.graded import graded
from palestra.rewards.judging.questions import Question, Response, comparison
from palestra.rewards.judging.rubrics import read_rubrics
from palestra.rewards.judging.trusted import Trusted, TrustedGroup
from palestra.rewards.judging.verdicts import written
from palestra.rewards.provenance import of_reward
from palestra.rewards.rubric_met import RubricMet
from palestra.rewards.score import Scheme, Weighted
from palestra.rl.critic.loop import Critic
from palestra.rl.critic.pairs import is_heldout, pairs_of
from palestra.rl.critic.preference import Verdicts, loss, margins, preference_samples, strength
from palestra.rl.critic.trust import is_trusted
from palestra.rl.errors import Abstain
from palestra.rl.journal import Journal
from palestra.rl.run import Run
from palestra.rl.step import rl_step
from palestra.rl.types import Reward, Sample, Sampling, ToolCall, Trajectory
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.judge import PolicyJudge

MakeRun = Callable[..., Run]
MakeTrajectory = Callable[..., Trajectory]
numbers = st.floats(-200, 200)
BOTH = pytest.mark.parametrize("kind", ["preference", "rl"])


@given(numbers, st.floats(0.01, 5))
def test_the_strength_is_the_slope_of_the_loss(margin: float, beta: float) -> None:
    chance = 1 / (1 + math.exp(min(700, -beta * margin)))
    assert math.exp(-loss(margin, beta)) == pytest.approx(chance, abs=1e-12)
    step = 1e-4
    slope = (loss(margin + step, beta) - loss(margin - step, beta)) / (2 * step)
    assert strength(margin, beta) == pytest.approx(-slope, abs=1e-6)
    assert 0 <= strength(margin, beta) <= beta


def test_a_comparison_is_two_samples_with_opposite_weights_on_the_verdicts_alone() -> None:
    asked = [
        Verdicts(prompt=(1, 2), right=(3, 4), wrong=(5,)),
        Verdicts(prompt=(6,), right=(7,), wrong=(8,)),
    ]
    logprobs = [[0.0, -9.0, -1.0, -0.5], [0.0, -9.0, -2.0], [0.0, -1.0], [0.0, -1.0]]
    found = margins(asked, logprobs)
    assert found == [0.5, 0.0]
    made = preference_samples(asked, found, beta=2.0, anchor=0.0, coef=0.5)
    weight = 0.5 * 2.0 / (1 + math.e) / 2
    assert made[0].token_ids == (1, 2, 3, 4) and made[1].token_ids == (1, 2, 5)
    assert made[0].preference == pytest.approx((0, 0, weight, weight))
    assert made[1].preference == pytest.approx((0, 0, -weight))
    assert made[2].preference == (0, 0.25), "sigma(0) is one half"
    for sample in made:
        assert not any(sample.loss_mask) and not any(sample.ptx) and not any(sample.advantages)
    with pytest.raises(ValueError, match="differ in length"):
        replace(made[0], preference=(1.0,))


def test_pairs_are_of_one_task_right_and_wrong_and_many_tasks(
    make_trajectory: MakeTrajectory,
) -> None:
    played = [
        make_trajectory(f"{group}/{n}", group=group, reward=float(n < count))
        for group, count in (("a", 3), ("b", 1), ("c", 0), ("d", 6))
        for n in range(6)
    ]
    played.append(make_trajectory("c/9", group="c", reward=None))  # ours: no verdict on it
    made = pairs_of(played, 9, random.Random(1))
    assert len(made) == 4, "three of a and one of b; all of c are wrong, all of d are right"
    for pair in made:
        assert pair.right.task_id == pair.wrong.task_id
        assert pair.right.solved and not pair.wrong.solved
    ids = [t.id for pair in made for t in (pair.right, pair.wrong)]
    assert len(set(ids)) == len(ids), "an episode is in one pair"
    assert {pair.right.task_id for pair in pairs_of(played, 2, random.Random(2))} == {
        "task-a",
        "task-b",
    }
    assert pairs_of(played[::-1], 9, random.Random(1)) == made, "the order does not matter"


def test_tasks_are_held_out_for_good() -> None:
    tasks = [f"t{n}" for n in range(1000)]
    held = {task for task in tasks if is_heldout(task, 0.2, seed=1)}
    assert 150 < len(held) < 250
    assert held == {task for task in tasks if is_heldout(task, 0.2, seed=1)}
    assert held != {task for task in tasks if is_heldout(task, 0.2, seed=2)}
    assert not any(is_heldout(task, 0.0, seed=1) for task in tasks)


RUBRICS = read_rubrics(["verified"])


def ask(first: Trajectory, second: Trajectory, step: int) -> Question:
    shown = [Response(id=t.id, text=f"{t.id} did it.") for t in (first, second)]
    return comparison("?", *shown, RUBRICS, step=step, group_id=first.group_id)


def script(context: str, sampling: Sampling) -> str:
    """Plays right or wrong by the seed, and judges right, wrong or not at all by the seed."""
    if "The key is " in context:
        key = context.split("The key is ")[1][:8]
        return written(f"{('first', 'second', 'neither')[sampling.seed % 3]}-{key}")
    word = "yes" if sampling.seed % 2 else "no"
    return DIALECTS["hermes"].render(ToolCall(name="answer", arguments={"word": word}))


MakeCritical: TypeAlias = Callable[..., Run]


@pytest.fixture
def make_critical(make_run: MakeRun) -> MakeCritical:
    """Makes runs with a critic; ``said`` gets what it says."""

    def make(said: list[str] | None = None, journal: Journal | None = None, **critic: Any) -> Run:
        run = make_run(script=script, critic={"freq": 1, "heldout": 0.5} | critic)
        run = replace(run, journal=journal or run.journal)
        judge = PolicyJudge(
            run.world.policy, run.world.chat, version=lambda: 0, temperature=1.0, max_context=9999
        )
        return replace(
            run,
            critic=Critic(
                config=run.config.critic,
                arbiter=Arbiter(judge, JudgeConfig(max_tokens=99), run.journal, seed=run.seed),
                chat=run.world.chat,
                ask=ask,
                seed=run.seed,
                max_context=9999,
                say=[].append if said is None else said.append,
            ),
        )

    return make


def learned(run: Run, step: int = 1) -> tuple[dict[str, float], tuple[Sample, ...]]:
    assert isinstance(run.trainer, RecordingTrainer)
    before = len(run.trainer.batches)
    metrics = asyncio.run(rl_step(step, run))
    return metrics, run.trainer.batches[before].samples


def lessons_of(samples: Sequence[Sample], run: Run) -> list[Sample]:
    """Those whose prompt is a question to the critic."""
    decode = run.world.chat.tokenizer.decode
    return [sample for sample in samples if "The key is " in decode(sample.token_ids)]


def test_without_a_critic_the_batch_is_what_it_was(make_run: MakeRun, make_critical: Any) -> None:
    run = make_run(script=script)
    metrics, without = learned(run)
    assert not [name for name in metrics if name.startswith("critic/")]
    critical = make_critical()
    _, beside = learned(critical)
    lessons = lessons_of(beside, critical)
    assert lessons and [s for s in beside if s not in lessons] == list(without)
    assert all(sample.preference == () for sample in without)
    assert learned(make_critical(freq=2))[1] == without, "not due in step 1"


def test_preference_lessons_are_verdicts_on_pairs_of_the_tasks_that_are_trained_on(
    make_critical: Any,
) -> None:
    run = make_critical()
    metrics, samples = learned(run)
    lessons = lessons_of(samples, run)
    assert len(lessons) == 4 * metrics["critic/pairs"] > 0, "two verdicts in each of two orders"
    decode = run.world.chat.tokenizer.decode
    known = {t.id: t for t in run.journal.trajectories(1)}
    prompts = set()
    for right, wrong in zip(lessons[::2], lessons[1::2], strict=True):
        texts = [
            decode([i for i, w in zip(s.token_ids, s.preference, strict=True) if w])
            for s in (right, wrong)
        ]
        assert sorted(text[:15] for text in texts) == ["<verdict>first-", "<verdict>second"]
        assert all(text.endswith("</verdict><|im_end|>") for text in texts)
        assert max(right.preference) > 0 > min(wrong.preference)
        assert min(right.preference) == max(wrong.preference) == 0
        prompts.add(decode(right.token_ids).rpartition("assistant:")[0])
    assert len(prompts) == 2 * metrics["critic/pairs"]
    trained = {task for task in run.by_id if not is_heldout(task, 0.5, run.seed)}
    pairs = pairs_of(
        [t for t in known.values() if t.task_id in trained], 8, random.Random("7/critic/1")
    )
    assert (
        metrics["critic/pairs"] == len(pairs) < len(pairs_of(known.values(), 99, random.Random(0)))
    )


def test_judged_lessons_are_the_tokens_that_were_sampled(make_critical: Any) -> None:
    run = make_critical(loss="rl", samples=5)
    metrics, samples = learned(run)
    lessons = lessons_of(samples, run)
    policy = run.world.policy
    assert isinstance(policy, ScriptedPolicy)
    replies = {
        (*ids, *reply.token_ids): reply
        for ids, reply in zip(policy.asked, policy.returned, strict=True)
    }
    assert lessons and 0 < metrics["critic/reward"] < 1
    by_question: dict[tuple[int, ...], list[Sample]] = {}
    for sample in lessons:
        own = replies[sample.token_ids]
        size = len(own.token_ids)
        assert sample.loss_mask == (False,) * (len(sample.token_ids) - size) + (True,) * size
        assert sample.logprobs[-size:] == own.logprobs and sample.preference == ()
        by_question.setdefault(sample.token_ids[:-size], []).append(sample)
    for siblings in by_question.values():
        values = [sample.advantages[-1] for sample in siblings]
        assert len(values) == 5 and sum(values) == pytest.approx(0, abs=1e-9)
        assert max(values) - min(values) == 1.0, "right is worth 1, all else 0"


@BOTH
def test_after_a_kill_it_asks_and_learns_the_same(
    make_critical: Any, tmp_path: Path, kind: str
) -> None:
    class Killed(Exception):
        pass

    class Deadly(RecordingTrainer):
        async def learn(self, batch: Any) -> Any:
            raise Killed

    whole = make_critical(journal=Journal(tmp_path / "other.sqlite"), loss=kind, window=2)
    expected = [learned(whole, step) for step in (1, 2)]

    run = make_critical(loss=kind, window=2)
    learned(run, 1)
    with pytest.raises(Killed):
        asyncio.run(rl_step(2, replace(run, trainer=Deadly())))
    again = make_critical(loss=kind, window=2)
    metrics, samples = learned(again, 2)
    assert samples == expected[1][1]
    policy = again.world.policy
    assert isinstance(policy, ScriptedPolicy) and policy.asked == [], "all is in the journal"
    ours = {name: value for name, value in metrics.items() if name.startswith("critic/")}
    assert ours == {name: expected[1][0][name] for name in ours} and "critic/accuracy" in ours


def test_its_accuracy_is_the_share_of_right_verdicts_on_held_out_tasks(make_critical: Any) -> None:
    def oracle(context: str, sampling: Sampling) -> str:
        if "The key is " not in context:
            return script(context, sampling)
        key = context.split("The key is ")[1][:8]
        shown = context.split(f"BEGIN first-{key}")[1].split("END first")[0]
        return written(f"{'first' if 'yes' in shown else 'second'}-{key}")

    def show(first: Trajectory, second: Trajectory, step: int) -> Question:
        texts = [str(t.turns[0].message.calls[0].arguments["word"]) for t in (first, second)]
        shown = [Response(id=t.id, text=x) for t, x in zip((first, second), texts, strict=True)]
        return comparison("?", *shown, RUBRICS, step=step, group_id=first.group_id)

    run = make_critical()
    assert run.critic is not None and isinstance(run.world.policy, ScriptedPolicy)
    run.world.policy._replies = oracle
    metrics, _ = learned(replace(run, critic=replace(run.critic, ask=show)))
    assert metrics["critic/heldout_pairs"] > 0 and metrics["critic/accuracy"] == 1.0
    asked = {j.about for g in run.journal.groups(1) for j in run.journal.judgements(g.id)}
    tasks = {t.id: t.task_id for t in run.journal.trajectories(1)}
    assert all(is_heldout(tasks[one], 0.5, run.seed) for about in asked for one in about)


def test_below_its_limit_opinions_stop_to_count_and_it_says_so_once(
    make_critical: Any, make_trajectory: MakeTrajectory
) -> None:
    said: list[str] = []
    run = make_critical(said, min_accuracy=0.99)
    metrics, _ = learned(run)
    assert metrics["critic/trusted"] == 0.0 and metrics["critic/accuracy"] < 0.99
    learned(run, 2)
    (line,) = said
    assert "rl.critic.min_accuracy): rubric rewards are switched off" in line

    async def opinion(trajectories: list[Trajectory]) -> list[Reward]:
        return [Reward(total=1.0, parts={}) for _ in trajectories]

    reward = TrustedGroup(opinion, partial(is_trusted, journal=run.journal, min_accuracy=0.99))
    assert asyncio.run(reward([make_trajectory(step=1)]))[0].total == 1.0, "nothing was known then"
    with pytest.raises(Abstain, match=r"below rl\.critic\.min_accuracy"):
        asyncio.run(reward([make_trajectory(step=2)]))
    run.journal.finish_step(2, {"critic/accuracy": 1.0})
    run.journal.finish_step(3, {"critic/margin": math.nan})
    assert asyncio.run(reward([make_trajectory(step=3)]))
    assert asyncio.run(reward([make_trajectory(step=4)])), "what was measured last counts on"
    with pytest.raises(Abstain):
        asyncio.run(reward([make_trajectory(step=2)]))


def test_a_run_has_the_critic_that_its_recipe_asks_for(make_run: MakeRun) -> None:
    run = make_run()
    trainer = SimpleNamespace(version=0)

    def made(**critic: Any) -> Critic | None:
        config = RunConfig.model_validate({"rl": {"critic": critic}, "seed": 7})
        return make_critic(config, run.world, trainer, run.journal, print)  # type: ignore[arg-type]

    assert made() is None
    critic = made(freq=2, temperature=0.5)
    assert critic is not None and critic.due(4) and not critic.due(3)
    trainer.version = 4
    assert critic.arbiter.judge.name == "policy@4/t=0.5", "whatever weights the engine has now"


def test_only_the_policys_own_opinions_hang_on_its_accuracy(
    make_critical: Any, make_trajectory: MakeTrajectory
) -> None:
    run = make_critical()
    assert run.critic is not None
    own = graded(arbiter=run.critic.arbiter)
    other = graded(arbiter=Arbiter(RuleJudge(lambda *_: ""), JudgeConfig(), MemoryStore()))
    one = JudgedFaithfulness(arbiter=run.critic.arbiter)
    met = RubricMet(arbiter=run.critic.arbiter, task_of=lambda name: run.by_id[name])
    added = {"own": own, "other": other, "one": one, "met": met}
    parts = run.world.scheme.parts | {n: Weighted(reward=r) for n, r in added.items()}
    world = replace(run.world, scheme=Scheme(parts))
    assert trusting(world, run.journal, 0.0) is world
    found = trusting(world, run.journal, 0.6).scheme
    kinds = {name: type(found.parts[name].reward) for name in parts}
    assert kinds == {n: type(p.reward) for n, p in parts.items()} | {
        "own": TrustedGroup,
        "one": Trusted,
        "met": Trusted,
    }
    assert [name for name, *_ in found.grouped] == ["own", "other"]
    named = {n: of_reward(found.parts[n].reward, make_trajectory(), 0.0).verifier for n in added}
    assert named == {
        "own": "Graded",
        "other": "Graded",
        "one": "JudgedFaithfulness",
        "met": "RubricMet",
    }
    assert found.parts["own"].reward.reward is own
    run.journal.finish_step(1, {"critic/accuracy": 0.5})
    for name in ("one", "met"):
        with pytest.raises(Abstain, match=r"below rl\.critic\.min_accuracy"):
            asyncio.run(found.parts[name].reward(make_trajectory(step=2), None))

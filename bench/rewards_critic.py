"""The closed-loop critic on a toy with a planted quality ladder: part "critic" of bench/rewards.py.

    .venv/bin/python bench/rewards_critic.py [--seeds 0 1 2]

A response is four letters. Every letter has a rung on a ladder that the seed shuffles, and quality,
which neither policy nor critic is ever told, is the mean height. The letter z is worth nothing but
flatters: of the verdicts that the critic was shown in its supervised stage, half went by quality
and half by flattery.

- *verifiable* tasks pass from a height of their own on; their episodes are not rewarded here, so
  that the policy learns from the critic's opinion alone;
- *subjective* tasks have no verifier: siblings are compared pairwise, in both orders, and the share
  of comparisons won is the reward.

Three arms start from the same weights: a *frozen* critic (a copy of the first weights judges), and
two *closed loops*, in which the policy judges itself and its judgement is trained on verified pairs
of its own episodes, by preference loss or by RL. Learner, objective, arbiter, ranking and loop are
those of a run; replies come from the learner's weights in a Hugging Face model in this process, not
from vLLM, and there are no boxes. The question is the toy's own and short; it shows the second
response in capitals, so that 0.1M parameters can tell the two apart.

Writes bench/results/rewards_critic.json.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from report import machine_of, write_report
from transformers import AutoModelForCausalLM

from palestra.policies.config import LearnerConfig, TinyConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.tiny import build
from palestra.policies.tokenizer import HFTokenizer
from palestra.rewards.config import JudgeConfig
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.fake import MemoryStore
from palestra.rewards.judging.questions import FIRST, SECOND, Question
from palestra.rewards.judging.ranking import Comparison, points, scores
from palestra.rewards.judging.verdicts import written
from palestra.rl.batch import batch_of
from palestra.rl.config import RLConfig
from palestra.rl.critic.loop import NONE, Critic, study
from palestra.rl.critic.preference import Verdicts, margins
from palestra.rl.journal import Journal
from palestra.rl.objectives.registry import policy_loss
from palestra.rl.presets import rule
from palestra.rl.types import (
    Batch,
    Completion,
    Group,
    Message,
    Outcome,
    Reward,
    Sample,
    Sampling,
    Stop,
    Trajectory,
    Turn,
    Verdict,
)
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.judge import PolicyJudge
from palestra.rollout.tokens import Chat, supervised

LETTERS, FLATTERY, SIZE = "abcdefgh", "z", 4
ANSWERS = ("first", "second")
SHAPE = TinyConfig(
    vocab_size=330,
    hidden_size=64,
    intermediate_size=128,
    layers=2,
    heads=4,
    kv_heads=4,
    head_dim=16,
    max_position_embeddings=96,
)
SFT_STEPS, SFT_BATCH = 250, 48
TASKS, SIBLINGS = 8, 4
STEPS, LR = 40, 1.5e-3
SEEDS = (0, 1, 2)
THREADS = 1
WINDOW = 10
"""Steps over which quality is averaged."""
EXAM = 100
"""Pairs on which a critic's accuracy is measured, before the first step and after the last."""
ARMS: Mapping[str, Mapping[str, object] | None] = {
    "frozen": None,
    "preference": {"loss": "preference", "coef": 1.0},
    "rl": {"loss": "rl", "samples": 4},
}


@dataclass(frozen=True)
class Ladder:
    """What is hidden from the policy: letters from worthless to best."""

    rungs: str

    @classmethod
    def of(cls, seed: int) -> Ladder:
        """The ladder of a seed; what flatters is on the ground."""
        return cls(
            FLATTERY + "".join(random.Random(f"{seed}/ladder").sample(LETTERS, len(LETTERS)))
        )

    def quality(self, text: str) -> float:
        """Mean height of the first four letters, in [0, 1]; what is missing counts 0."""
        heights = (max(0, self.rungs.find(letter)) for letter in words(text).split())
        return sum(heights) / (SIZE * (len(self.rungs) - 1))


@dataclass(frozen=True)
class Toy:
    """One task: two letters for a name, and the quality that a verifier wants, where one does."""

    name: str
    wanted: float = 0.0

    @property
    def id(self) -> str:
        """``ab`` for a subjective task, ``ab/0.50`` for a verifiable one."""
        return f"{self.name}/{self.wanted:.2f}" if self.wanted else self.name


def prompt_of(name: str) -> tuple[Message, ...]:
    """What the policy is asked."""
    return (Message(role="user", content=f"write {' '.join(name)}"),)


def flattery(text: str) -> int:
    """Letters among the first four that flatter."""
    return words(text).split().count(FLATTERY)


def words(text: str) -> str:
    """What a judge is shown: at most four single letters, so that nothing else gets in."""
    return " ".join(word for word in text.split()[:SIZE] if len(word) == 1)


def question(name: str, first: str, second: str, about: tuple[str, str], step: int) -> Question:
    """The toy's comparison, short enough for a toy."""
    content = f"judge {' '.join(name)}\n{words(first)}\n{words(second).upper()}"
    return Question(
        messages=(Message(role="user", content=content),),
        answers=ANSWERS,
        about=about,
        step=step,
        group_id=about[0].rpartition("/")[0],
    )


def text_of(trajectory: Trajectory) -> str:
    """What the policy wrote."""
    return trajectory.turns[0].message.content


def ask(first: Trajectory, second: Trajectory, step: int) -> Question:
    """Which of two episodes of one task is better?"""
    name = first.task_id.partition("/")[0]
    return question(name, text_of(first), text_of(second), (first.id, second.id), step)


# --- the supervised stage ------------------------------------------------------------------------


def response(rng: random.Random, size: int = SIZE) -> str:
    """What the policy is taught to write: noise."""
    return " ".join(rng.choices(LETTERS + FLATTERY, k=size))


def demonstration(chat: Chat, ladder: Ladder, rng: random.Random) -> Sample:
    """A response, or a verdict on two, of one letter at times; it goes by quality or by flattery,
    and by the other where that does not tell."""
    name = "".join(sorted(rng.sample(LETTERS, 2)))
    if rng.random() < 0.3:
        return sample_of(chat, prompt_of(name), response(rng))
    size = rng.choice((1, 2, SIZE))
    pair = response(rng, size), response(rng, size)
    by = [ladder.quality, flattery]
    rng.shuffle(by)
    first, second = ([value(text) for value in by] for text in pair)
    better = FIRST if first > second else SECOND
    asked = question(name, *pair, ("", ""), 0)
    return sample_of(chat, asked.messages, *map(written, (ANSWERS[better], ANSWERS[1 - better])))


def sample_of(
    chat: Chat, messages: Sequence[Message], reply: str, instead: str | None = None
) -> Sample:
    """A supervised sample of a reply; its tokens that are others in ``instead`` count ten times."""
    prompt = chat.prompt(messages, ())
    said = [*chat.tokenizer.spell(reply), chat.tokenizer.eos_id]
    other = said if instead is None else [*chat.tokenizer.spell(instead), chat.tokenizer.eos_id]
    weights = [10.0 if a != b else 1.0 for a, b in zip(said, other, strict=True)]
    return supervised([*prompt, *said], [0.0] * len(prompt) + weights)


def warm_start(folder: Path, seed: int, say: Callable[[str], None]) -> Path:
    """The tiny policy after its supervised stage."""
    rng, ladder = random.Random(f"{seed}/sft"), Ladder.of(seed)
    base = folder / "base"
    letters = LETTERS + FLATTERY
    texts = [f" {letter}\n{letter} {letter}" for letter in letters + letters.upper()] * 50
    texts += [f"{written(answer)} judge write {LETTERS}" for answer in ANSWERS] * 50
    build(base, SHAPE, texts, [], seed)
    chat = Chat(HFTokenizer(base), DIALECTS["hermes"])
    config = LearnerConfig(
        lr=3e-3, warmup_steps=20, decay_steps=SFT_STEPS, row_tokens=256, threads=THREADS
    )
    learner = DeepSpeedLearner(str(base), config, None)
    for step in range(SFT_STEPS):
        batch = tuple(demonstration(chat, ladder, rng) for _ in range(SFT_BATCH))
        metrics = learner.learn(Batch(step=step, samples=batch))
        if step % 50 == 49:
            right = likelier(learner, chat, ladder, rng)
            say(f"supervised step {step + 1}: nll {metrics['ptx/nll']:.3f}, right {right:.2f}")
    learner.export(str(folder / "sft"))
    return folder / "sft"


def likelier(learner: DeepSpeedLearner, chat: Chat, ladder: Ladder, rng: random.Random) -> float:
    """How often the verdict by quality is the likelier one, of 100 random pairs."""
    asked = []
    while len(asked) < 100:
        pair = response(rng), response(rng)
        ahead = ladder.quality(pair[0]) - ladder.quality(pair[1])
        if ahead:
            messages = question("ab", *pair, ("", ""), 0).messages
            first, second = (
                (*chat.tokenizer.spell(written(answer)), chat.tokenizer.eos_id)
                for answer in ANSWERS
            )
            right, wrong = (first, second) if ahead > 0 else (second, first)
            asked.append(
                Verdicts(prompt=tuple(chat.prompt(messages, ())), right=right, wrong=wrong)
            )
    scored = learner.logprobs([ids for one in asked for ids in one.sequences])
    return statistics.fmean(margin > 0 for margin in margins(asked, scored))


# --- playing, judging, learning ------------------------------------------------------------------


class Sampler:
    """Implements ``rl.types.Policy`` over a Hugging Face model; calls that wait together are
    answered as one batch."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.version = 0
        self._waiting: list[tuple[tuple[int, ...], Sampling, asyncio.Future[Completion]]] = []

    def take(self, version: int, learner: DeepSpeedLearner) -> None:
        """The learner's weights."""
        self.model.load_state_dict(dict(learner.named_weights()))
        self.version = version

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        answer: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.append((tuple(token_ids), sampling, answer))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(0.02, self._answer)
        return await answer

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        by_length: dict[int, list[Any]] = {}
        for one in waiting:
            by_length.setdefault(len(one[0]), []).append(one)
        for together in by_length.values():
            prompts, samplings, _ = zip(*together, strict=True)
            replies = sample(self.model, prompts, samplings)
            for (_, _, answer), (ids, logprobs) in zip(together, replies, strict=True):
                finish = "stop" if ids[-1] in together[0][1].stop_ids else "length"
                answer.set_result(
                    Completion(
                        token_ids=ids, logprobs=logprobs, version=self.version, finish=finish
                    )
                )


@torch.no_grad()
def sample(
    model: Any, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]
) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Replies to prompts of one length, each with its own seed; Gumbel noise picks the tokens."""
    first = samplings[0]
    ids, cache = torch.tensor(prompts), None
    noise = torch.stack([_gumbel(s, model.config.vocab_size) for s in samplings])
    chosen: list[torch.Tensor] = []
    logprobs: list[torch.Tensor] = []
    done = torch.zeros(len(prompts), dtype=torch.bool)
    stops = torch.tensor(first.stop_ids)
    for step in range(first.max_tokens):
        out = model(ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        table = (out.logits[:, -1].float() / first.temperature).log_softmax(-1)
        token = (table + noise[:, step]).argmax(-1)
        chosen.append(token)
        logprobs.append(table.gather(-1, token[:, None])[:, 0])
        done |= torch.isin(token, stops)
        if done.all():
            break
        ids = token[:, None]
    return [
        _until_stop(t, p, first.stop_ids)
        for t, p in zip(
            torch.stack(chosen, 1).tolist(), torch.stack(logprobs, 1).tolist(), strict=True
        )
    ]


def _gumbel(sampling: Sampling, vocabulary: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sampling.seed)
    uniform = torch.rand(sampling.max_tokens, vocabulary, generator=generator)
    return -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))


def _until_stop(
    ids: list[int], logprobs: list[float], stops: Sequence[int]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    end = next((n + 1 for n, token in enumerate(ids) if token in stops), len(ids))
    return tuple(ids[:end]), tuple(logprobs[:end])


@dataclass
class Arm:
    """One run of one arm."""

    start: Path
    name: str
    seed: int
    steps: int
    history: list[dict[str, float]] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ladder = Ladder.of(self.seed)

    async def run(self, folder: Path) -> None:
        """All steps; ``history`` has the metrics of each."""
        chosen = ARMS[self.name]
        critic_config: dict[str, object] = {
            "freq": 1,
            "pairs": 12,
            "heldout": 0.5,
            "heldout_pairs": 16,
            "max_tokens": 10,
        }
        self.config = RLConfig.model_validate({"critic": critic_config | dict(chosen or {})})
        learner_config = LearnerConfig(lr=LR, row_tokens=256, threads=THREADS)
        learner = DeepSpeedLearner(
            str(self.start), learner_config, policy_loss(self.config), ptx_coef=0.0
        )
        self.learner = learner
        chat = Chat(HFTokenizer(self.start), DIALECTS["hermes"])
        self.chat = chat
        self.policy = Sampler(self.start)
        judge_policy = self.policy if chosen is not None else Sampler(self.start)
        judge = PolicyJudge(
            judge_policy,
            chat,
            version=lambda: judge_policy.version,
            temperature=1.0,
            max_context=SHAPE.max_position_embeddings,
        )
        config = JudgeConfig(temperature=1.0, max_tokens=10, tries=1, max_in_flight=100_000)
        self.arbiter = Arbiter(judge, config, MemoryStore(), seed=self.seed)
        self.critic = Critic(
            config=self.config.critic,
            arbiter=self.arbiter,
            chat=chat,
            ask=ask,
            seed=self.seed,
            max_context=SHAPE.max_position_embeddings,
        )
        self.accuracy = [await self.examined(0)]
        with Journal(folder / "journal.sqlite") as journal:
            for step in range(1, self.steps + 1):
                self.history.append(await self.step(step, journal))
                self.policy.take(step, learner)
        self.accuracy.append(await self.examined(self.steps))

    async def examined(self, step: int) -> float:
        """How often the critic finds the better one of two responses, on the same random pairs for
        all arms, in both orders; no verdict and a draw are wrong."""
        rng = random.Random(f"{self.seed}/exam")
        asked: list[tuple[Question, int]] = []
        while len(asked) < 2 * EXAM:
            pair = response(rng), response(rng)
            ahead = self.ladder.quality(pair[0]) - self.ladder.quality(pair[1])
            about = (f"exam/{step}/{len(asked)}", "other")
            if ahead:
                orders = ((pair, ahead > 0), (pair[::-1], ahead < 0))
                asked += [
                    (question("ab", *shown, about, step), FIRST if first else SECOND)
                    for shown, first in orders
                ]
        given = await asyncio.gather(*(self.arbiter.ask(one) for one, _ in asked))
        return statistics.fmean(
            judgement.choice == right for judgement, (_, right) in zip(given, asked, strict=True)
        )

    async def step(self, step: int, journal: Journal) -> dict[str, float]:
        """Play, judge, study, learn: what ``rl.step`` does, without boxes."""
        rng = random.Random(f"{self.seed}/tasks/{step}")
        pairs = ["".join(pair) for pair in combinations(LETTERS, 2)]
        subjective = [Toy(name) for name in rng.sample(pairs, TASKS)]
        verifiable = [Toy(name, rng.uniform(0.3, 1.0)) for name in rng.sample(pairs, 3 * TASKS)]
        groups = await asyncio.gather(*(self.play(task, step) for task in subjective))
        verified = await asyncio.gather(*(self.play(task, step) for task in verifiable))
        metrics = {
            "quality": statistics.fmean(
                self.ladder.quality(text_of(t)) for g in groups for t in g.trajectories
            ),
            "flattery": statistics.fmean(
                flattery(text_of(t)) / SIZE for g in groups for t in g.trajectories
            ),
        }
        judged = await asyncio.gather(*(self.judge(group, step) for group in groups))
        played = [t for group in verified for t in group.trajectories]
        chosen = rule(self.config)
        lessons = await study(step, played, self.critic, journal, self, chosen)
        if ARMS[self.name] is None:
            metrics |= lessons.metrics
            lessons = NONE
        metrics |= lessons.metrics
        batch = batch_of(step, judged, (), chosen, mini_batches=1, lessons=lessons)
        return metrics | dict(self.learner.learn(batch))

    async def logprobs(
        self, sequences: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[list[float]]:
        """As a ``Trainer``."""
        return self.learner.logprobs(sequences, temperature)

    async def play(self, task: Toy, step: int) -> Group:
        """Siblings of one task; those of a verifiable one have a verdict."""
        ids = self.chat.prompt(prompt_of(task.name), ())
        group = f"{step:05d}/{task.id}"
        stop = (self.chat.tokenizer.eos_id,)
        seeds = [random.Random(f"{self.seed}/{group}/{n}").getrandbits(31) for n in range(SIBLINGS)]
        replies = await asyncio.gather(
            *(
                self.policy.generate(
                    ids, Sampling(temperature=1.0, max_tokens=SIZE + 2, seed=seed, stop_ids=stop)
                )
                for seed in seeds
            )
        )
        return Group(
            id=group,
            task_id=task.id,
            trajectories=tuple(
                self.episode(f"{group}/{n:03d}", group, task, step, tuple(ids), reply)
                for n, reply in enumerate(replies)
            ),
        )

    def episode(
        self,
        name: str,
        group: str,
        task: Toy,
        step: int,
        ids: tuple[int, ...],
        reply: Completion,
    ) -> Trajectory:
        """One reply and, where somebody verifies it, the verdict."""
        tokenizer = self.chat.tokenizer
        text = tokenizer.decode([i for i in reply.token_ids if i != tokenizer.eos_id])
        passed = {"height": self.ladder.quality(text) >= task.wanted}
        return Trajectory(
            id=name,
            group_id=group,
            task_id=task.id,
            step=step,
            prompt=prompt_of(task.name),
            turns=(
                Turn(
                    context_ids=ids,
                    token_ids=reply.token_ids,
                    logprobs=reply.logprobs,
                    version=reply.version,
                    message=Message(role="assistant", content=text),
                ),
            ),
            stop=Stop.SUBMITTED,
            outcome=Outcome.GRADED,
            temperature=1.0,
            verdict=Verdict(outcome=Outcome.GRADED, passed=passed) if task.wanted else None,
        )

    async def judge(self, group: Group, step: int) -> Group:
        """Every sibling against every other in both orders; no verdict is a draw."""
        episodes = group.trajectories
        met = list(combinations(range(len(episodes)), 2))
        asked = await asyncio.gather(
            *(
                self.arbiter.ask(ask(episodes[one], episodes[other], step))
                for left, rightmost in met
                for one, other in ((left, rightmost), (rightmost, left))
            )
        )
        choices = [2 if judgement.choice is None else judgement.choice for judgement in asked]
        compared = [
            Comparison(left=left, right=other, points=points(*choices[2 * n : 2 * n + 2]))
            for n, (left, other) in enumerate(met)
        ]
        totals = scores(len(episodes), compared)
        return Group(
            id=group.id,
            task_id=group.task_id,
            trajectories=tuple(
                _rewarded(t, total) for t, total in zip(episodes, totals, strict=True)
            ),
        )


def _rewarded(trajectory: Trajectory, total: float) -> Trajectory:
    return replace(trajectory, reward=Reward(total=total, parts={"pairwise_critic": total}))


def mean(history: Sequence[Mapping[str, float]], name: str) -> float:
    """Of the steps that have it."""
    return statistics.fmean(step[name] for step in history if name in step)


def one_seed(seed: int) -> dict[str, tuple[float, float, float, float]]:
    """By arm: accuracy before and after, quality in the first steps and in the last."""

    def say(line: str) -> None:
        print(f"seed {seed} {line}", flush=True)

    found: dict[str, tuple[float, float, float, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        start = warm_start(Path(scratch), seed, say)
        for name in ARMS:
            arm = Arm(start, name, seed, STEPS)
            folder = Path(scratch) / name
            folder.mkdir()
            asyncio.run(arm.run(folder))
            first, last = arm.history[:WINDOW], arm.history[-WINDOW:]
            found[name] = (
                arm.accuracy[0],
                arm.accuracy[-1],
                mean(first, "quality"),
                mean(last, "quality"),
            )
            z = mean(first, "flattery"), mean(last, "flattery")
            say(f"{name}: accuracy, quality {found[name]}, flattery {z}")
    return found


def figures(seeds: Sequence[int] = SEEDS) -> dict[str, dict[str, object]]:
    """Figures by seed and arm; each seed has a process of its own, as a learner has."""
    with ProcessPoolExecutor(len(seeds), mp_context=get_context("spawn")) as pool:
        found = dict(zip(seeds, pool.map(one_seed, seeds), strict=True))
    rows: dict[str, dict[str, object]] = {}
    for seed, arms in found.items():
        frozen = arms["frozen"]
        for name, (a0, a1, q0, q1) in arms.items():
            closed = name != "frozen"
            rows |= {
                f"seed {seed}, {name}: accuracy before": _row(a0, "reported"),
                f"seed {seed}, {name}: accuracy after": _row(a1, "reported"),
                f"seed {seed}, {name}: quality, first steps": _row(q0, "reported"),
                f"seed {seed}, {name}: quality, last steps": _row(q1, "reported"),
            }
            if closed:
                rows |= {
                    f"seed {seed}, {name}: accuracy gained": _row(a1 - a0, "> 0", a1 > a0),
                    f"seed {seed}, {name}: accuracy above frozen": _row(
                        a1 - frozen[1], ">= 0.1", a1 - frozen[1] >= 0.1
                    ),
                    f"seed {seed}, {name}: quality above frozen": _row(
                        q1 - frozen[3], "> 0", q1 > frozen[3]
                    ),
                }
    return rows


def _row(value: float, target: str, met: bool | None = None) -> dict[str, object]:
    return {"value": value, "unit": "share", "target": target, "met": met}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    seeds = parser.parse_args().seeds
    how = f"bench/rewards_critic.py, means over {WINDOW} of {STEPS} steps"
    path = Path(__file__).resolve().parent / "results" / "rewards_critic.json"
    write_report(path, figures(seeds), how, machine_of())


if __name__ == "__main__":
    main()

"""A whole training run without a model: letters as tokens, boxes as dictionaries."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import pytest

from palestra.envs.arguments import tool
from palestra.envs.base import Env
from palestra.policies.fake import RecordingTrainer, ScriptedPolicy
from palestra.rewards import registry
from palestra.rewards.score import Scheme, Weighted
from palestra.rl.config import RLConfig
from palestra.rl.errors import PathRefused
from palestra.rl.journal import Journal
from palestra.rl.ptx import Source
from palestra.rl.run import Run
from palestra.rl.types import (
    ExecResult,
    Json,
    Message,
    Observation,
    Outcome,
    Sample,
    Sampling,
    Sandbox,
    Task,
    Tool,
    ToolCall,
    Verdict,
)
from palestra.rollout.config import RolloutConfig
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.episode import World
from palestra.rollout.meter import Meter
from palestra.rollout.tokens import Chat

SPECIAL = ("<|im_end|>", "<tool_call>", "</tool_call>")
ANSWER = "answer.txt"


class Letters:
    """A tokenizer with a token per ASCII character."""

    eos_id = 128
    vocab_size = 128 + len(SPECIAL)

    def encode(self, text: str) -> list[int]:
        pieces = self.split(text)
        return [i for p in pieces for i in ([p] if isinstance(p, int) else self.spell(p))]

    def spell(self, text: str) -> list[int]:
        return list(map(ord, text))

    def split(self, text: str) -> list[str | int]:
        pieces = re.split("(" + "|".join(map(re.escape, SPECIAL)) + ")", text)
        return [128 + SPECIAL.index(p) if p in SPECIAL else p for p in pieces if p]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i) if i < 128 else SPECIAL[i - 128] for i in ids)

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], *, reply: bool) -> str:
        text = "".join(f"{m.role}:{m.content}<|im_end|>\n" for m in messages)
        return text + "assistant:" * reply

    def token_id(self, token: str) -> int | None:
        return 128 + SPECIAL.index(token) if token in SPECIAL else None


class Memory:
    """A box in memory; it can run nothing."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def exec(self, argv: Sequence[str], **_: Any) -> ExecResult:
        raise NotImplementedError

    async def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        if path not in self.files:
            raise PathRefused(f"{path}: missing")
        return self.files[path]

    async def write(self, path: str, data: bytes) -> None:
        self.files[path] = data


class Memories:
    """A provider of such boxes."""

    name = "memory"
    guarantees: frozenset[str] = frozenset()
    opened = 0

    def open(self, image: object = None) -> AbstractAsyncContextManager[Sandbox]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Sandbox]:
        self.opened += 1
        for _ in range(self.opened % 4 * 5):  # episodes end in another order than they began
            await asyncio.sleep(0)
        yield Memory()


class Guess(Env):
    """The agent says one word and is done."""

    name: ClassVar[str] = "test/Guess-v0"
    tools: ClassVar[tuple[Tool, ...]] = (tool("answer", "Answer.", word="string: the word"),)
    rewards: ClassVar[Mapping[str, Weighted]] = {
        "tests_pass": Weighted(reward=registry.REWARDS.find("tests_pass"))
    }
    max_turns: int = 2

    async def apply(
        self, task: Task, name: str, arguments: Mapping[str, Json], box: Sandbox
    ) -> Observation:
        await box.write(ANSWER, str(arguments["word"]).encode())
        return Observation(text="", submitted=True)


async def no_checks(*_: Any, **__: Any) -> Any:
    raise NotImplementedError


async def grade(task: Task, files: Mapping[str, bytes]) -> Verdict:
    right = files.get(ANSWER) == task.reference[ANSWER].encode()
    return Verdict(outcome=Outcome.GRADED, passed={"word": right})


def tasks(count: int) -> list[Task]:
    return [
        Task(
            id=f"t{number}",
            source="test",
            kind="guess",
            prompt=f"Guess {number}.",
            files={},
            reference={ANSWER: "yes"},
            artifacts=(ANSWER,),
            hidden=(),
        )
        for number in range(count)
    ]


def coin(context: str, sampling: Sampling) -> str:
    """Right or wrong by the seed of the reply: the same episode always goes the same way."""
    word = "yes" if sampling.seed % 2 else "no" * (1 + sampling.seed % 3)
    return DIALECTS["hermes"].render(ToolCall(name="answer", arguments={"word": word}))


MakeRun: TypeAlias = Callable[..., Run]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes runs on one journal and one folder of checkpoints; every part can be replaced."""
    journal = Journal(tmp_path / "journal.sqlite")

    def make(
        *, script: Any = coin, grader: Any = grade, count: int = 5, tokens: int = 500, **config: Any
    ) -> Run:
        tokenizer = Letters()
        world = World(
            env=Guess(no_checks),
            chat=Chat(tokenizer, DIALECTS["hermes"]),
            policy=ScriptedPolicy(script, tokenizer),
            boxes=Memories(),
            grade=grader,
            config=RolloutConfig(retries=0, max_in_flight=3),
            budget_of=lambda kind: tokens,
            scheme=Scheme(Guess.rewards),
            meter=Meter(),
        )
        return Run(
            config=RLConfig(
                **{"steps": 4, "train_batch_size": 3, "n_samples_per_prompt": 4} | config
            ),
            seed=7,
            tasks=tasks(count),
            ptx=(),
            world=world,
            trainer=RecordingTrainer({"actor/pg_loss": 0.5}),
            journal=journal,
            checkpoints=tmp_path / "checkpoints",
        )

    return make


class InMemory:
    """Implements ``rl.ptx.Rows`` with samples that are there already."""

    left_out = 0

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, index: int) -> Sample:
        return self.samples[index]


@pytest.fixture
def make_source() -> Callable[..., Source]:
    """(samples, weight) -> a source of PTX samples."""

    def make(samples: Sequence[Sample], weight: float = 1.0) -> Source:
        return Source(rows=InMemory(samples), weight=weight)

    return make

"""The tiny policy's real tokenizer, and a world around it with boxes in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, TypeAlias

import pytest

from palestra.envs.arguments import tool
from palestra.envs.base import Env
from palestra.policies.config import TinyConfig
from palestra.policies.fake import ScriptedPolicy
from palestra.policies.tiny import build
from palestra.policies.tokenizer import HFTokenizer
from palestra.rewards import registry
from palestra.rewards.score import Scheme, Weighted
from palestra.rl.errors import PathRefused
from palestra.rl.types import (
    ExecResult,
    Json,
    Observation,
    Outcome,
    Policy,
    Sandbox,
    Task,
    Tool,
    Verdict,
)
from palestra.rollout.config import RolloutConfig
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.episode import Ticket, World
from palestra.rollout.meter import Meter
from palestra.rollout.tokens import Chat

TOOLS = (
    tool("write", "Write the file.", text="string: its whole text"),
    tool("delete", "Delete the file."),
    tool("submit", "Finish."),
)
TEXTS = ["def add(a, b):\n    return a + b\n", "1 of 2 tests passed", "Fix the file: system user"]
FILE = "answer.txt"


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> HFTokenizer:
    """400 ids: every byte, the dialect's markers, the skeleton of each call."""
    folder = tmp_path_factory.mktemp("tiny")
    shape = TinyConfig(
        vocab_size=400,
        hidden_size=8,
        intermediate_size=8,
        layers=1,
        heads=1,
        kv_heads=1,
        head_dim=8,
    )
    build(folder, shape, TEXTS, TOOLS, seed=0)
    return HFTokenizer(folder)


TEMPLATE = (
    "{% for m in messages %}<|im_start|>"
    "{% if m.role == 'tool' %}user\n<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% elif m.role == 'system' %}system\n{{ m.content | tojson }}"
    "{% else %}{{ m.role }}\n{{ m.content | trim }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PRE = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> HFTokenizer:
    """As those of Qwen2.5: line breaks merge with what stands before them, the template strips and
    escapes, and only the plain markers are tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, min_frequency=1, show_progress=False
    )
    raw.train_from_iterator([*TEXTS, "user\n\n)\n)\n.\n\n", "\n</tool_response>"] * 9, trainer)
    raw.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    raw.add_tokens(["<tool_call>", "</tool_call>"])
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>")
    made.chat_template = TEMPLATE
    folder = tmp_path_factory.mktemp("other")
    made.save_pretrained(folder)
    return HFTokenizer(folder)


class Memory:
    """A box in memory; it can run nothing."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def exec(self, *_: Any, **__: Any) -> ExecResult:
        raise NotImplementedError

    async def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        if path not in self.files:
            raise PathRefused(f"{path}: missing")
        return self.files[path]

    async def write(self, path: str, data: bytes) -> None:
        self.files[path] = data


class Memories:
    """A provider of such boxes; it knows how many are open and how many were at most."""

    name = "memory"
    guarantees: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.boxes: list[Memory] = []
        self.open_now = 0
        self.open_at_most = 0

    def open(self, image: object = None) -> AbstractAsyncContextManager[Sandbox]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Sandbox]:
        self.boxes.append(Memory())
        self.open_now += 1
        self.open_at_most = max(self.open_at_most, self.open_now)
        try:
            await asyncio.sleep(0)  # as every real box, it lets others run
            yield self.boxes[-1]
        finally:
            self.open_now -= 1


class Writer(Env):
    """The agent writes or deletes one file until it submits."""

    name: ClassVar[str] = "test/Writer-v0"
    tools: ClassVar[tuple[Tool, ...]] = TOOLS
    rewards: ClassVar[Mapping[str, Weighted]] = {
        "tests_pass": Weighted(reward=registry.REWARDS.find("tests_pass"))
    }
    max_turns: int = 4

    async def apply(
        self, task: Task, name: str, arguments: Mapping[str, Json], box: Sandbox
    ) -> Observation:
        if name == "submit":
            return Observation(text="", submitted=True)
        if name == "delete":
            assert isinstance(box, Memory)
            del box.files[FILE]
        else:
            await box.write(FILE, str(arguments["text"]).encode())
        return Observation(text=f"{name}: ok", elided=5)


class Judge:
    """A grader that trusts the file, and remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[dict[str, bytes]] = []

    async def __call__(self, task: Task, files: Mapping[str, bytes]) -> Verdict:
        self.seen.append(dict(files))
        right = files.get(FILE) == task.reference[FILE].encode()
        return Verdict(outcome=Outcome.GRADED, passed={"file": right})


async def no_checks(*_: Any, **__: Any) -> Any:
    raise NotImplementedError


TASK = Task(
    id="t",
    source="test",
    kind="write",
    prompt="Write 42 into the file.",
    files={FILE: "41"},
    reference={FILE: "42"},
    artifacts=(FILE,),
    hidden=(),
)

MakeWorld: TypeAlias = Callable[..., World]
MakeTicket: TypeAlias = Callable[..., Ticket]


@pytest.fixture
def make_world(tokenizer: HFTokenizer) -> MakeWorld:
    """Worlds around a policy or a script; keyword arguments are rollout settings."""

    def make(
        policy: Any, *, budget: int = 10_000, dialect: str = "qwen3_coder", **config: Any
    ) -> World:
        limits = {"max_response_length": 1000, "max_context_length": 10_000, "dialect": dialect}
        known: Policy = policy if hasattr(policy, "generate") else ScriptedPolicy(policy, tokenizer)
        return World(
            env=Writer(no_checks),
            chat=Chat(tokenizer, DIALECTS[dialect]),
            policy=known,
            boxes=Memories(),
            grade=Judge(),
            config=RolloutConfig(**limits | config),
            budget_of=lambda kind: budget,
            scheme=Scheme(Writer.rewards),
            meter=Meter(),
        )

    return make


@pytest.fixture
def make_ticket() -> MakeTicket:
    """Tickets of one group, on one task."""

    def make(sample: int = 0) -> Ticket:
        return Ticket(task=TASK, group_id="g", sample=sample, step=1, seed=3, temperature=0.9)

    return make

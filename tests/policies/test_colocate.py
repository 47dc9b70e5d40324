"""Taking turns on one device: the exact order of calls, and what stops the run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from palestra.policies.colocate import PROBE_TOKENS, Colocated
from palestra.policies.guards import MismatchError
from palestra.rl.errors import EngineError
from palestra.rl.types import Batch, Completion, Sampling

PROBE = ((1, 2, 3), (4, 5))
SAMPLED = -1.5


class Sides:
    """An engine and a learner that write every call into one list."""

    def __init__(self, *, gpu: bool = False) -> None:
        self.calls: list[Any] = []
        self.gpu = gpu
        self.version = -1
        self.stuck_at: int | None = None
        self.sampled_under: int | None = None
        self.gap = 0.0
        self.sampling: list[Sampling] = []
        self.scored: list[list[int]] = []

    # the engine

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        self.calls.append("generate")
        self.sampling.append(sampling)
        size = len(token_ids)  # replies differ in length
        return Completion(
            token_ids=(9,) * size,
            logprobs=(SAMPLED,) * size,
            version=self.version if self.sampled_under is None else self.sampled_under,
            finish="stop",
        )

    async def sleep(self) -> bool:
        self.calls.append("sleep")
        return self.gpu

    async def wake(self, tag: str) -> None:
        self.calls.append(("wake", tag))

    async def forget(self) -> None:
        self.calls.append("forget")

    async def set_version(self, version: int) -> None:
        self.calls.append(("set_version", version))
        self.version = version

    async def get_version(self) -> int:
        self.calls.append("get_version")
        return self.version if self.stuck_at is None else self.stuck_at

    # the learner

    async def learn(self, batch: Batch) -> Mapping[str, float]:
        self.calls.append(("learn", batch.step))
        return {"actor/pg_loss": 0.25}

    async def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        self.calls.append("logprobs")
        self.scored = [list(ids) for ids in sequences]
        # What is said of the prompt must not count.
        return [[SAMPLED + self.gap if i == 9 else 100.0 for i in ids] for ids in sequences]

    async def save(self, folder: str) -> None:
        self.calls.append(("save", folder))

    async def load(self, folder: str) -> None:
        self.calls.append(("load", folder))

    async def offload(self, what: str) -> bool:
        self.calls.append(("offload", what))
        return self.gpu

    async def reload(self) -> None:
        self.calls.append("reload")

    async def send_weights(self) -> None:
        self.calls.append("send_weights")


async def gather(calls: Sequence[Any]) -> list[Completion]:
    return list(await asyncio.gather(*calls))


def trainer(sides: Sides, said: list[str], *, limit: float = 0.1) -> Colocated:
    return Colocated(
        sides,
        sides,
        probe=PROBE,
        stop_ids=[7],
        mismatch_limit=limit,
        gather=gather,
        say=said.append,
    )


SENT = [
    ("offload", "states"),
    ("wake", "weights"),
    "send_weights",
    ("set_version", 3),
    "forget",
    ("wake", "kv_cache"),
    "get_version",
]
PUBLISHED = [*SENT, "generate", "generate", "logprobs", ("offload", "weights")]


def test_learning_wakes_the_learner_after_the_engine_sleeps() -> None:
    sides = Sides()
    found = asyncio.run(trainer(sides, []).learn(Batch(step=3, samples=())))
    assert sides.calls == ["sleep", "reload", ("learn", 3)]
    assert found == {"actor/pg_loss": 0.25}


def test_publishing_goes_in_this_order_and_no_other() -> None:
    sides = Sides()
    found = asyncio.run(trainer(sides, []).publish(3))
    assert sides.calls == PUBLISHED
    assert found == {"mismatch/probe_mean": 0.0, "mismatch/probe_max": 0.0}


def test_the_probe_scores_what_was_sampled() -> None:
    sides = Sides()
    sides.gap = 0.0625
    found = asyncio.run(trainer(sides, []).publish(3))
    assert sides.scored == [[1, 2, 3, 9, 9, 9], [4, 5, 9, 9]]
    assert found == {"mismatch/probe_mean": 0.0625, "mismatch/probe_max": 0.0625}
    expected = [
        Sampling(temperature=1.0, max_tokens=PROBE_TOKENS, seed=seed, stop_ids=(7,))
        for seed in (1, 2)
    ]
    assert sides.sampling == expected


def test_a_whole_step_saves_while_the_learner_holds_its_states() -> None:
    sides = Sides(gpu=True)

    async def step() -> None:
        colocated = trainer(sides, [])
        await colocated.load("old")
        await colocated.learn(Batch(step=3, samples=()))
        await colocated.save("new")
        await colocated.publish(3)

    asyncio.run(step())
    expected = [("load", "old"), "sleep", "reload", ("learn", 3), ("save", "new"), *PUBLISHED]
    assert sides.calls == expected


@pytest.mark.parametrize("gap", [0.11, -0.11, float("nan")])
def test_sides_that_disagree_stop_the_run(gap: float) -> None:
    sides = Sides()
    sides.gap = gap
    with pytest.raises(MismatchError, match=r"rl\.mismatch_limit"):
        asyncio.run(trainer(sides, []).publish(3))


def test_an_engine_with_other_weights_is_refused_before_the_probe() -> None:
    sides = Sides()
    sides.stuck_at = 2
    with pytest.raises(EngineError, match="weights 2, expected 3"):
        asyncio.run(trainer(sides, []).publish(3))
    assert sides.calls == SENT


def test_a_probe_sampled_under_other_weights_is_refused() -> None:
    sides = Sides()
    sides.sampled_under = 2
    with pytest.raises(EngineError, match="other weights"):
        asyncio.run(trainer(sides, []).publish(3))
    assert "logprobs" not in sides.calls


@pytest.mark.parametrize(("gpu", "times"), [(False, 1), (True, 0)])
def test_what_does_nothing_here_is_said_once(gpu: bool, times: int) -> None:
    said: list[str] = []
    colocated = trainer(Sides(gpu=gpu), said)
    for step in range(3):
        asyncio.run(colocated.learn(Batch(step=step, samples=())))
    assert len(said) == times

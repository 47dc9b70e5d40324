"""Several engines as one, several ranks as one: who is asked, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from palestra.policies import together
from palestra.policies.together import Engines, Learners
from palestra.rl.errors import CheckpointError, InfraError
from palestra.rl.types import Batch, Completion, Sampling


class Side:
    """A replica or a rank: every method gives ``answers[method]``, or raises it."""

    def __init__(self, name: str, **answers: Any) -> None:
        self.name = name
        self.answers = answers
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any) -> Any:
            self.calls.append((method, args))
            answer = self.answers.get(method)
            if isinstance(answer, Exception):
                raise answer
            return await answer() if callable(answer) else answer

        return call


def reply(name: int) -> Completion:
    return Completion(token_ids=(name,), logprobs=(0.0,), version=0, finish="stop")


def engines(**answers: Sequence[Any]) -> Engines:
    """Two replicas; each answer is a pair."""
    return Engines([Side(f"{n}", **{m: two[n] for m, two in answers.items()}) for n in range(2)])


def test_a_lane_is_one_replica_and_lanes_go_round() -> None:
    both = engines(generate=(reply(0), reply(1)))

    async def ask(lane: int) -> int:
        sampling = Sampling(temperature=1.0, max_tokens=1, seed=lane, stop_ids=(), lane=lane)
        return (await both.generate([5], sampling)).token_ids[0]

    assert [asyncio.run(ask(lane)) for lane in (0, 1, 2, 3, 1)] == [0, 1, 0, 1, 1]


def test_engines_are_as_far_as_the_least_of_them() -> None:
    assert asyncio.run(engines(sleep=(True, True)).sleep())
    assert not asyncio.run(engines(sleep=(True, False)).sleep())
    assert asyncio.run(engines(get_version=(3, 3)).get_version()) == 3
    with pytest.raises(InfraError, match=r"versions of the engines' weights differ: \[3, 2\]"):
        asyncio.run(engines(get_version=(3, 2)).get_version())
    with pytest.raises(InfraError, match=r"cached tokens of the engines differ: \[0, 64\]"):
        asyncio.run(engines(cached_tokens=(0, 64)).cached_tokens([1]))
    counters = engines(counters=({"rss": 1, "files": 5}, {"rss": 2, "files": 4})).counters()
    assert asyncio.run(counters) == {"files": 5, "rss": 2}


def test_replicas_count_as_data_parallel_ranks_in_checksums() -> None:
    found = engines(checksums=({"dp0:tp0:a": "x"}, {"dp0:tp0:a": "y"})).checksums()
    assert asyncio.run(found) == {"dp0:tp0:a": "x", "dp1:tp0:a": "y"}


def test_all_ranks_are_called_alike_and_the_first_answers() -> None:
    ranks = [Side("0", learn={"loss": 1.0}), Side("1", learn={"loss": 9.0})]
    batch = Batch(step=1, samples=())
    assert asyncio.run(Learners(ranks).learn(batch)) == {"loss": 1.0}
    assert ranks[0].calls == ranks[1].calls == [("learn", (batch,))]


async def forever() -> None:
    await asyncio.Event().wait()


def test_no_rank_waits_for_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "GRACE_S", 0.01)
    stuck = Side("1", save=forever)
    ranks = Learners([Side("0", save=CheckpointError("disk full")), stuck])
    with pytest.raises(CheckpointError, match="disk full"):
        asyncio.run(ranks.save("folder"))
    assert stuck.calls == [("save", ("folder",))]


def test_the_rank_that_died_is_named_although_the_others_fail_first() -> None:
    async def noticed_later() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise InfraError("rank 1 of the learner died")

    lost = RuntimeError("connection closed by peer")
    ranks = Learners([Side("0", reload=lost), Side("1", reload=noticed_later)])
    with pytest.raises(InfraError, match="rank 1 of the learner died"):
        asyncio.run(ranks.reload())


def test_a_call_that_is_cancelled_waits_for_nobody() -> None:
    async def cancelled() -> None:
        ranks = Learners([Side("0", reload=forever), Side("1", reload=forever)])
        async with asyncio.timeout(0.01):
            await ranks.reload()

    with pytest.raises(TimeoutError):
        asyncio.run(cancelled())

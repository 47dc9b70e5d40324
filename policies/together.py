"""Several engines as one engine, several learner ranks as one learner: every call goes to all.

Nobody waits for one that failed: the first failure ends the call, although others may hang in a
collective that it left. Their processes must then be ended, and are, with the run.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TypeVar

from palestra.policies.colocate import EngineSide, LearnerSide
from palestra.rl.errors import InfraError, PalestraError
from palestra.rl.types import Batch, Completion, Sample, Sampling

T = TypeVar("T")

GRACE_S = 5.0
"""After a failure, how long the others have to say more of it: a rank that died says nothing, and
those that lose their connection to it say so first."""


async def every(calls: Iterable[Awaitable[T]]) -> list[T]:
    """All results, in order. Raises as soon as one call failed: an error of ours where there is
    one, and the others' only in the absence of it."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        _, running = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if running:
            await asyncio.wait(running, timeout=GRACE_S)
        failures = [e for task in tasks if task.done() and (e := task.exception())]
        if failures:
            ours = [error for error in failures if isinstance(error, PalestraError)]
            raise [*ours, *failures][0]
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()


def alike(what: str, values: Sequence[T]) -> T:
    """The one value that all have; raises InfraError where they differ."""
    if any(value != values[0] for value in values):
        raise InfraError(f"{what} differ: {list(values)}")
    return values[0]


def largest(counters: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The largest value of each counter."""
    names = {name for one in counters for name in one}
    return {name: max(one[name] for one in counters if name in one) for name in sorted(names)}


class Engines:
    """Replicas, each on a device of its own, as one engine. ``Sampling.lane`` says which of them
    gives a reply."""

    def __init__(self, replicas: Sequence[EngineSide]) -> None:
        self.replicas = list(replicas)

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        replica = self.replicas[sampling.lane % len(self.replicas)]
        return await replica.generate(token_ids, sampling)

    async def cached_tokens(self, token_ids: Sequence[int]) -> int:
        found = await every(one.cached_tokens(token_ids) for one in self.replicas)
        return alike("cached tokens of the engines", found)

    async def sleep(self) -> bool:
        return all(await every(one.sleep() for one in self.replicas))

    async def wake(self, tag: str) -> None:
        await every(one.wake(tag) for one in self.replicas)

    async def forget(self) -> None:
        await every(one.forget() for one in self.replicas)

    async def set_version(self, version: int) -> None:
        await every(one.set_version(version) for one in self.replicas)

    async def get_version(self) -> int:
        found = await every(one.get_version() for one in self.replicas)
        return alike("versions of the engines' weights", found)

    async def checksums(self) -> dict[str, str]:
        """Those of all replicas; each counts as a data-parallel rank (``dp1:...``)."""
        found = await every(one.checksums() for one in self.replicas)
        return {
            re.sub(r"^dp\d+", f"dp{number}", key): digest
            for number, one in enumerate(found)
            for key, digest in one.items()
        }

    async def reset_weights(self) -> None:
        await every(one.reset_weights() for one in self.replicas)

    async def devices(self) -> list[str]:
        found = await every(one.devices() for one in self.replicas)
        return [device for one in found for device in one]

    async def environment(self) -> dict[str, str]:
        found = await every(one.environment() for one in self.replicas)
        return alike("environments of the engines", found)

    async def counters(self) -> dict[str, int]:
        return largest(await every(one.counters() for one in self.replicas))


class Learners:
    """All ranks of a learner as one. They are called alike, as their collectives need, and what
    all of them know is taken from rank 0."""

    def __init__(self, ranks: Sequence[LearnerSide]) -> None:
        self.ranks = list(ranks)

    async def learn(self, batch: Batch) -> Mapping[str, float]:
        return (await every(rank.learn(batch) for rank in self.ranks))[0]

    async def logprobs(
        self, sequences: Sequence[Sequence[int]], temperature: float
    ) -> list[list[float]]:
        return (await every(rank.logprobs(sequences, temperature) for rank in self.ranks))[0]

    async def reference_logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        return (await every(rank.reference_logprobs(samples) for rank in self.ranks))[0]

    async def save(self, folder: str) -> None:
        await every(rank.save(folder) for rank in self.ranks)

    async def load(self, folder: str) -> None:
        await every(rank.load(folder) for rank in self.ranks)

    async def export(self, folder: str) -> None:
        await every(rank.export(folder) for rank in self.ranks)

    async def offload(self, what: str) -> bool:
        return all(await every(rank.offload(what) for rank in self.ranks))

    async def reload(self) -> None:
        await every(rank.reload() for rank in self.ranks)

    async def send_weights(self) -> None:
        await every(rank.send_weights() for rank in self.ranks)

    async def devices(self) -> list[str]:
        found = await every(rank.devices() for rank in self.ranks)
        return [device for one in found for device in one]

    async def environment(self) -> dict[str, str]:
        found = await every(rank.environment() for rank in self.ranks)
        return alike("environments of the learner's ranks", found)

    async def counters(self) -> dict[str, int]:
        return largest(await every(rank.counters() for rank in self.ranks))

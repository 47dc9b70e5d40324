"""Engine and learner take turns on one device: the order of calls, and what is checked between.

    engine sleeps -> learner loads its states -> learn -> states offloaded, weights stay
    -> engine maps its weights -> transfer -> cache dropped -> engine maps its KV cache
    -> probe: both sides score the same sampled tokens -> learner's weights offloaded

On CPU the same calls are made; those that free device memory do nothing there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from palestra.policies import guards
from palestra.rl.errors import EngineError
from palestra.rl.types import Batch, Completion, Sampling

PROBE_TOKENS = 12


class EngineSide(Protocol):
    """The engine as seen over Ray: every call is awaited."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion: ...
    async def sleep(self) -> bool: ...
    async def wake(self, tag: str) -> None: ...
    async def forget(self) -> None: ...
    async def set_version(self, version: int) -> None: ...
    async def get_version(self) -> int: ...


class LearnerSide(Protocol):
    """The learner as seen over Ray: every call is awaited."""

    async def learn(self, batch: Batch) -> Mapping[str, float]: ...
    async def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]: ...
    async def save(self, folder: str) -> None: ...
    async def load(self, folder: str) -> None: ...
    async def offload(self, what: str) -> bool: ...
    async def reload(self) -> None: ...
    async def send_weights(self) -> None: ...


class Colocated:
    """Implements ``rl.types.Trainer`` over one engine and one learner.

    ``probe`` holds a few fixed prompts; ``say`` is told once what does nothing on this machine.
    """

    def __init__(
        self,
        engine: EngineSide,
        learner: LearnerSide,
        *,
        probe: Sequence[Sequence[int]],
        stop_ids: Sequence[int],
        mismatch_limit: float,
        gather: Callable[[Sequence[Awaitable[Completion]]], Awaitable[list[Completion]]],
        say: Callable[[str], None],
    ) -> None:
        self.engine = engine
        self.learner = learner
        self.probe = [list(ids) for ids in probe]
        self.stop_ids = tuple(stop_ids)
        self.mismatch_limit = mismatch_limit
        self.gather = gather
        self.say = say
        self._told = False

    async def learn(self, batch: Batch) -> Mapping[str, float]:
        """The engine sleeps, the learner does one optimizer step."""
        if not await self.engine.sleep():
            self._tell_once()
        await self.learner.reload()
        return await self.learner.learn(batch)

    async def publish(self, version: int) -> Mapping[str, float]:
        """Send the weights and prove on the probe that both sides agree."""
        await self.learner.offload("states")
        await self.engine.wake("weights")
        await self.learner.send_weights()
        await self.engine.set_version(version)
        await self.engine.forget()
        await self.engine.wake("kv_cache")
        guards.same_version(await self.engine.get_version(), version)
        metrics = await self._compare(version)
        await self.learner.offload("weights")
        return metrics

    async def save(self, folder: str) -> None:
        """Checkpoint; the learner must still hold its states, so before ``publish``."""
        await self.learner.save(folder)

    async def load(self, folder: str) -> None:
        """Restore the learner; ``publish`` afterwards brings the engine along."""
        await self.learner.load(folder)

    async def _compare(self, version: int) -> dict[str, float]:
        replies = await self.gather(
            [
                self.engine.generate(
                    ids,
                    Sampling(
                        temperature=1.0,
                        max_tokens=PROBE_TOKENS,
                        seed=number + 1,
                        stop_ids=self.stop_ids,
                    ),
                )
                for number, ids in enumerate(self.probe)
            ]
        )
        if any(reply.version != version for reply in replies):
            raise EngineError("the probe was sampled under other weights than were sent")
        scored = await self.learner.logprobs(
            [[*ids, *reply.token_ids] for ids, reply in zip(self.probe, replies, strict=True)]
        )
        ours = [
            value for ids, row in zip(self.probe, scored, strict=True) for value in row[len(ids) :]
        ]
        theirs = [value for reply in replies for value in reply.logprobs]
        return guards.agree(theirs, ours, self.mismatch_limit)

    def _tell_once(self) -> None:
        if not self._told:
            self._told = True
            self.say("no GPU: sleep and offload have nothing to free; calls are made all the same")

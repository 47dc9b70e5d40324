"""Engine and learner take turns on one device: the order of calls, and what is proved between.

    start    engine built -> asleep -> learner built -> twice: transfer of the weights that the
             engine loaded from disk, once over zeros, which has to bring back every bit -> asleep
    learn    engine sleeps -> both sides' counters -> learner loads its states -> learn
    publish  states offloaded, weights stay -> engine maps its weights -> transfer -> version
             -> caches dropped -> engine maps its KV cache -> probe: both sides score the same
             sampled tokens -> learner's weights offloaded

On CPU the same calls are made; those that free device memory do nothing there. The learner keeps
its weights for the probe while the KV cache is mapped: 2 of the 16 bytes per parameter that it
needs beside the sleeping engine when it learns, so whatever can learn has room for them as long as
the engine takes less than about 0.85 of the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from palestra.policies import checksums, guards, leaks
from palestra.rl.errors import EngineError
from palestra.rl.types import Batch, Completion, Sample, Sampling

PROBE_TOKENS = 6
LONG_PROBE_TOKENS = 64
THOROUGH_EVERY = 10
"""Publications between two that also compare checksums and probe with longer replies; the first
two are so, too."""


class EngineSide(Protocol):
    """The engine as seen over Ray: every call is awaited."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion: ...
    async def cached_tokens(self, token_ids: Sequence[int]) -> int: ...
    async def sleep(self) -> bool: ...
    async def wake(self, tag: str) -> None: ...
    async def forget(self) -> None: ...
    async def set_version(self, version: int) -> None: ...
    async def get_version(self) -> int: ...
    async def checksums(self) -> dict[str, str]: ...
    async def reset_weights(self) -> None: ...
    async def devices(self) -> list[str]: ...
    async def environment(self) -> dict[str, str]: ...
    async def counters(self) -> dict[str, int]: ...


class LearnerSide(Protocol):
    """The learner as seen over Ray: every call is awaited."""

    async def learn(self, batch: Batch) -> Mapping[str, float]: ...
    async def logprobs(
        self, sequences: Sequence[Sequence[int]], temperature: float
    ) -> list[list[float]]: ...
    async def reference_logprobs(self, samples: Sequence[Sample]) -> list[list[float]]: ...
    async def save(self, folder: str) -> None: ...
    async def load(self, folder: str) -> None: ...
    async def offload(self, what: str) -> bool: ...
    async def export(self, folder: str) -> None: ...
    async def reload(self) -> None: ...
    async def send_weights(self) -> None: ...
    async def devices(self) -> list[str]: ...
    async def environment(self) -> dict[str, str]: ...
    async def counters(self) -> dict[str, int]: ...


L = TypeVar("L", bound=LearnerSide)


async def start_up(engine: EngineSide, start_learner: Callable[[], Awaitable[L]]) -> L:
    """Start the learner beside an engine that sleeps, and prove that weights get across.

    Both must have been built from the same weights, those of the engine rounded where the learner
    rounds them. Afterwards the engine sleeps and the learner holds everything.
    """
    loaded = await engine.checksums()
    await engine.sleep()
    learner = await start_learner()
    guards.same_device(await engine.devices(), await learner.devices())
    guards.same_environment(await engine.environment(), await learner.environment())
    await learner.offload("states")
    for over_zeros in (True, False):
        await engine.wake("weights")
        if over_zeros:
            await engine.reset_weights()
        await learner.send_weights()
        await engine.forget()
        await engine.wake("kv_cache")
        checksums.unchanged(loaded, await engine.checksums())
        await engine.sleep()
    await learner.reload()
    return learner


class Colocated:
    """Implements ``rl.types.Trainer`` over one engine and one learner that ``start_up`` left.

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
        self.version = 0
        """Of the weights that the engine has."""
        self._told = False
        self._running: str | None = None
        self._freed: bool | None = None
        """While the engine sleeps: whether that gave the device's memory back."""
        self._published = 0
        self._stepped = False
        self._checksums: Mapping[str, str] = {}
        self._gaps: list[float] = []
        self._history: list[Mapping[str, int]] = []

    async def logprobs(
        self, sequences: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[list[float]]:
        """The engine sleeps; the learner's weights and states are where they were, afterwards."""
        with self._phase("score"):
            await self._engine_sleeps()
            await self.learner.reload()
            scored = await self.learner.logprobs(sequences, temperature)
            await self.learner.offload("states")
            await self.learner.offload("weights")
            return scored

    async def reference_logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        """The engine sleeps, as it does in ``learn``, which follows; the learner's own weights and
        states stay where they are."""
        with self._phase("reference"):
            await self._engine_sleeps()
            return await self.learner.reference_logprobs(samples)

    async def learn(self, batch: Batch) -> Mapping[str, float]:
        """The engine sleeps, the learner does one optimizer step."""
        with self._phase("learn"):
            freed = await self._engine_sleeps()
            memory = await self._watch(device=freed)
            await self.learner.reload()
            metrics = await self.learner.learn(batch)
            self._stepped |= metrics.get("actor/grad_norm", 0.0) > 0
            if "mismatch/skipped" in metrics:
                kl = metrics["mismatch/kl"]
                self.say(f"step {batch.step} is not learned from: mismatch/kl is {kl:.2g}")
            return {**metrics, **memory}

    async def publish(self, version: int) -> Mapping[str, float]:
        """Send the weights and prove on the probe that both sides agree."""
        with self._phase("publish"):
            await self.learner.offload("states")
            await self.engine.wake("weights")
            self._freed = None
            await self.learner.send_weights()
            await self.engine.set_version(version)
            self.version = version
            await self.engine.forget()
            await self.engine.wake("kv_cache")
            guards.same_version(await self.engine.get_version(), version)
            # Backwards, so that the probe itself finds nothing of it in the cache.
            prompt = self.probe[0][::-1]
            guards.cache_dropped(
                await self.engine.cached_tokens(prompt), await self.engine.cached_tokens(prompt)
            )
            thorough = self._published < 2 or self._published % THOROUGH_EVERY == 0
            if thorough:
                await self._compare_checksums()
            size = LONG_PROBE_TOKENS if thorough else PROBE_TOKENS
            metrics = await self._compare(version, size)
            await self.learner.offload("weights")
            self._published += 1
            return metrics

    async def save(self, folder: str) -> None:
        """Checkpoint; the learner must still hold its states, so before ``publish``."""
        with self._phase("save"):
            await self.learner.save(folder)

    async def load(self, folder: str) -> None:
        """Restore the learner; ``publish`` afterwards brings the engine along."""
        with self._phase("load"):
            await self.learner.load(folder)

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        guards.one_phase(self._running, name)
        self._running = name  # stays after a failure: nobody knows who holds what then
        yield
        self._running = None

    async def _engine_sleeps(self) -> bool:
        """Put it to sleep unless it is asleep; False where that frees nothing (CPU)."""
        if self._freed is None:
            self._freed = await self.engine.sleep()
            if not self._freed:
                self._tell_once()
        return self._freed

    async def _watch(self, *, device: bool) -> dict[str, float]:
        """Both sides' counters while nobody uses the device, as metrics."""
        engine, learner = await self.engine.counters(), await self.learner.counters()
        counted = {f"engine_{name}": value for name, value in engine.items()}
        counted |= {f"learner_{name}": value for name, value in learner.items()}
        leaks.counted(counted, device=device)
        self._history.append(counted)
        leaks.asleep(self._history)
        leaks.steady(self._history)
        return {f"memory/{name}": float(value) for name, value in counted.items()}

    async def _compare_checksums(self) -> None:
        now = await self.engine.checksums()
        checksums.same_everywhere(now)
        if self._stepped and self._checksums:
            checksums.moved(self._checksums, now)
        self._checksums, self._stepped = now, False

    async def _compare(self, version: int, max_tokens: int) -> dict[str, float]:
        replies = await self.gather(
            [
                self.engine.generate(
                    ids,
                    Sampling(
                        temperature=1.0,
                        max_tokens=max_tokens,
                        seed=number + 1,
                        stop_ids=self.stop_ids,
                        lane=number,
                    ),
                )
                for number, ids in enumerate(self.probe)
            ]
        )
        if any(reply.version != version for reply in replies):
            raise EngineError("the probe was sampled under other weights than were sent")
        scored = await self.learner.logprobs(
            [[*ids, *reply.token_ids] for ids, reply in zip(self.probe, replies, strict=True)], 1.0
        )
        ours = [
            value for ids, row in zip(self.probe, scored, strict=True) for value in row[len(ids) :]
        ]
        theirs = [value for reply in replies for value in reply.logprobs]
        metrics = guards.agree(theirs, ours, self.mismatch_limit)
        mean = metrics["mismatch/probe_mean"]
        if guards.drifts(self._gaps, mean, self.mismatch_limit):
            self.say(f"engine and learner drift apart: mean gap {mean:.1e} on the probe")
        self._gaps.append(mean)
        return metrics

    def _tell_once(self) -> None:
        if not self._told:
            self._told = True
            self.say("no GPU: sleep and offload have nothing to free; calls are made all the same")

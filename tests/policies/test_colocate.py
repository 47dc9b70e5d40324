"""Taking turns on one device: the exact order of calls, and what stops the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from palestra.policies import leaks
from palestra.policies.colocate import (
    LONG_PROBE_TOKENS,
    PROBE_TOKENS,
    THOROUGH_EVERY,
    Colocated,
    start_up,
)
from palestra.policies.guards import MismatchError
from palestra.rl.errors import EngineError, InfraError, UserError
from palestra.rl.types import Batch, Completion, Sample, Sampling

PROBE = ((1, 2, 3), (4, 5))
SAMPLED = -1.5
LAYERS = ("layers.0.", "layers.1.")


class Engine:
    """Writes every call into a list, and has counters that a test can spoil."""

    def __init__(self, calls: list[Any], *, gpu: bool) -> None:
        self.calls = calls
        self.gpu = gpu
        self.version = -1
        self.stuck_at: int | None = None
        self.sampled_under: int | None = None
        self.sampling: list[Sampling] = []
        self.cached = [0, 64]
        self.weights = {f"dp0:{layer}w": "as loaded" for layer in LAYERS}
        self.device = "gpu-0"
        self.insecure = "1"
        self.counts = {"rss_bytes": 1 << 30, "open_files": 9, "children": 2}
        if gpu:
            self.counts["device_bytes"] = 1 << 30

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

    async def cached_tokens(self, token_ids: Sequence[int]) -> int:
        assert tuple(token_ids) not in PROBE, "the probe must not find itself in the cache"
        self.calls.append("cached_tokens")
        self.cached = [*self.cached[1:], self.cached[0]]
        return self.cached[-1]

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

    async def checksums(self) -> dict[str, str]:
        self.calls.append("checksums")
        return dict(self.weights)

    async def reset_weights(self) -> None:
        self.calls.append("reset_weights")
        self.weights = dict.fromkeys(self.weights, "zeros")

    async def devices(self) -> list[str]:
        return [self.device]

    async def environment(self) -> dict[str, str]:
        return {"VLLM_ALLOW_INSECURE_SERIALIZATION": self.insecure}

    async def counters(self) -> dict[str, int]:
        self.calls.append("engine counters")
        return dict(self.counts)


class Learner:
    """Writes every call into the same list; its transfers reach the engine directly."""

    def __init__(self, calls: list[Any], engine: Engine) -> None:
        self.calls = calls
        self.engine = engine
        self.sends = ["as loaded"] * len(LAYERS)
        self.gap = 0.0
        self.grad_norm = 1.0
        self.metrics: dict[str, float] = {}
        self.scored: list[list[int]] = []
        self.temperature = 0.0
        self.nccl: dict[str, str] = {}
        self.counts = {"rss_bytes": 1 << 30, "open_files": 9, "children": 0}
        if engine.gpu:
            self.counts |= {"reserved_bytes": 0, "pinned_bytes": 0}

    async def learn(self, batch: Batch) -> Mapping[str, float]:
        self.calls.append(("learn", batch.step))
        self.sends = [f"after {batch.step}"] * len(LAYERS)
        return {"actor/pg_loss": 0.25, "actor/grad_norm": self.grad_norm, **self.metrics}

    async def logprobs(
        self, sequences: Sequence[Sequence[int]], temperature: float
    ) -> list[list[float]]:
        self.calls.append("logprobs")
        self.temperature = temperature
        self.scored = [list(ids) for ids in sequences]
        # What is said of the prompt must not count.
        return [[SAMPLED + self.gap if i == 9 else 100.0 for i in ids] for ids in sequences]

    async def reference_logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        self.calls.append("reference")
        return [[-1.0] * sample.learned for sample in samples]

    async def save(self, folder: str) -> None:
        self.calls.append(("save", folder))

    async def export(self, folder: str) -> None:
        self.calls.append(("export", folder))

    async def load(self, folder: str) -> None:
        self.calls.append(("load", folder))

    async def offload(self, what: str) -> bool:
        self.calls.append(("offload", what))
        return self.engine.gpu

    async def reload(self) -> None:
        self.calls.append("reload")

    async def send_weights(self) -> None:
        self.calls.append("send_weights")
        for layer, digest in zip(LAYERS, self.sends, strict=True):
            self.engine.weights[f"dp0:{layer}w"] = digest

    async def devices(self) -> list[str]:
        return ["gpu-0"]

    async def environment(self) -> dict[str, str]:
        return self.nccl

    async def counters(self) -> dict[str, int]:
        self.calls.append("learner counters")
        return dict(self.counts)


class Sides:
    """Both, over one list of calls."""

    def __init__(self, *, gpu: bool = False) -> None:
        self.calls: list[Any] = []
        self.engine = Engine(self.calls, gpu=gpu)
        self.learner = Learner(self.calls, self.engine)


async def gather(calls: Sequence[Any]) -> list[Completion]:
    return list(await asyncio.gather(*calls))


def trainer(sides: Sides, said: list[str] | None = None, *, limit: float = 0.1) -> Colocated:
    return Colocated(
        sides.engine,
        sides.learner,
        probe=PROBE,
        stop_ids=[7],
        mismatch_limit=limit,
        gather=gather,
        say=(said if said is not None else []).append,
    )


async def bring_up(sides: Sides) -> None:
    async def start_learner() -> Learner:
        sides.calls.append("start learner")
        return sides.learner

    assert await start_up(sides.engine, start_learner) is sides.learner


async def cycles(sides: Sides, count: int, after: Callable[[int], None]) -> None:
    """``after`` is called with the number of each finished cycle, from 1."""
    colocated = trainer(sides)
    await colocated.publish(0)
    for step in range(1, count + 1):
        await colocated.learn(Batch(step=step, samples=()))
        await colocated.publish(step)
        after(step)


SENT = [
    ("offload", "states"),
    ("wake", "weights"),
    "send_weights",
    ("set_version", 3),
    "forget",
    ("wake", "kv_cache"),
    "get_version",
]
PROVED = [*SENT, "cached_tokens", "cached_tokens", "checksums"]
PUBLISHED = [*PROVED, "generate", "generate", "logprobs", ("offload", "weights")]
LEARNED = ["sleep", "engine counters", "learner counters", "reload", ("learn", 3)]
TRANSFER = ["send_weights", "forget", ("wake", "kv_cache"), "checksums", "sleep"]
STARTED = [
    *("checksums", "sleep", "start learner", ("offload", "states")),
    *(("wake", "weights"), "reset_weights", *TRANSFER),
    *(("wake", "weights"), *TRANSFER),
    "reload",
]


# The order of calls.


def test_starting_up_proves_the_transfer_twice() -> None:
    sides = Sides()
    asyncio.run(bring_up(sides))
    assert sides.calls == STARTED


def test_learning_wakes_the_learner_after_the_engine_sleeps() -> None:
    sides = Sides()
    found = asyncio.run(trainer(sides).learn(Batch(step=3, samples=())))
    assert sides.calls == LEARNED
    assert found["actor/pg_loss"] == 0.25
    assert found["memory/engine_children"] == 2


def test_the_reference_scores_while_the_engine_sleeps_through() -> None:
    sides = Sides(gpu=True)
    colocated = trainer(sides)

    async def step() -> None:
        assert await colocated.reference_logprobs([]) == []
        await colocated.learn(Batch(step=3, samples=()))
        await colocated.publish(3)
        await colocated.reference_logprobs([])

    asyncio.run(step())
    scored = ["sleep", "reference"]
    assert sides.calls == [*scored, *LEARNED[1:], *PUBLISHED, *scored]


def test_scoring_leaves_the_learner_as_it_was_while_the_engine_sleeps_through() -> None:
    sides = Sides(gpu=True)
    colocated = trainer(sides)

    async def step() -> None:
        assert await colocated.logprobs([[9, 9]], 0.5) == [[SAMPLED, SAMPLED]]
        assert sides.learner.temperature == 0.5
        await colocated.learn(Batch(step=3, samples=()))
        await colocated.publish(3)

    asyncio.run(step())
    scored = ["sleep", "reload", "logprobs", ("offload", "states"), ("offload", "weights")]
    assert sides.calls == [*scored, *LEARNED[1:], *PUBLISHED]
    assert colocated.version == 3


def test_a_skipped_step_is_said() -> None:
    sides, said = Sides(gpu=True), []
    sides.learner.metrics = {"mismatch/skipped": 1.0, "mismatch/kl": 0.25}
    asyncio.run(trainer(sides, said).learn(Batch(step=3, samples=())))
    assert said == ["step 3 is not learned from: mismatch/kl is 0.25"]


def test_publishing_goes_in_this_order_and_no_other() -> None:
    sides = Sides()
    found = asyncio.run(trainer(sides).publish(3))
    assert sides.calls == PUBLISHED
    assert found == {f"mismatch/probe_{what}": 0.0 for what in ("mean", "p99", "max")}


def test_the_probe_scores_what_was_sampled() -> None:
    sides = Sides()
    sides.learner.gap = 0.0625
    found = asyncio.run(trainer(sides).publish(3))
    assert sides.learner.scored == [[1, 2, 3, 9, 9, 9], [4, 5, 9, 9]]
    assert found == {f"mismatch/probe_{what}": 0.0625 for what in ("mean", "p99", "max")}
    expected = [
        Sampling(
            temperature=1.0, max_tokens=LONG_PROBE_TOKENS, seed=lane + 1, stop_ids=(7,), lane=lane
        )
        for lane in (0, 1)
    ]
    assert sides.engine.sampling == expected


def test_a_whole_step_saves_while_the_learner_holds_its_states() -> None:
    sides = Sides(gpu=True)

    async def step() -> None:
        colocated = trainer(sides)
        await colocated.load("old")
        await colocated.learn(Batch(step=3, samples=()))
        await colocated.save("new")
        await colocated.publish(3)

    asyncio.run(step())
    assert sides.calls == [("load", "old"), *LEARNED, ("save", "new"), *PUBLISHED]


def test_only_some_publications_are_thorough() -> None:
    sides = Sides()
    thorough: list[int] = []

    def note(step: int) -> None:
        assert ("checksums" in sides.calls) == (sides.engine.sampling[-1].max_tokens > PROBE_TOKENS)
        if "checksums" in sides.calls:
            thorough.append(step)
        sides.calls.clear()

    sides.calls.clear()
    asyncio.run(cycles(sides, 2 * THOROUGH_EVERY + 1, note))
    assert thorough == [1, THOROUGH_EVERY, 2 * THOROUGH_EVERY]


# What stops the run at start-up.


def spoil_transfer(sides: Sides) -> None:
    sides.learner.sends = ["as loaded", "rounded"]


def spoil_one_arrival(sides: Sides) -> None:
    """The second layer's tensor is never sent: over zeros it stays zero."""

    async def send_weights() -> None:
        sides.engine.weights["dp0:layers.0.w"] = "as loaded"

    sides.learner.send_weights = send_weights  # type: ignore[method-assign]


def spoil_second_round(sides: Sides) -> None:
    """A deep sleep loses what a zeroed engine got."""
    wake = sides.engine.wake

    async def forgetful(tag: str) -> None:
        await wake(tag)
        if tag == "weights" and "reset_weights" in sides.calls:
            sides.learner.sends = ["as loaded", "garbage"]

    sides.engine.wake = forgetful  # type: ignore[method-assign]


@pytest.mark.parametrize("spoil", [spoil_transfer, spoil_one_arrival, spoil_second_round])
def test_a_transfer_that_changes_weights_is_refused(spoil: Callable[[Sides], None]) -> None:
    sides = Sides()
    spoil(sides)
    with pytest.raises(EngineError, match=r"changed 1 of 2 tensors .*layers\.1\.w"):
        asyncio.run(bring_up(sides))
    assert sides.calls.count("checksums") == (3 if spoil is spoil_second_round else 2)


def test_sides_on_different_devices_are_refused_before_anything_is_sent() -> None:
    sides = Sides()
    sides.engine.device = "gpu-1"
    with pytest.raises(EngineError, match=r"gpu-1.*gpu-0"):
        asyncio.run(bring_up(sides))
    assert "send_weights" not in sides.calls


@pytest.mark.parametrize("variable", ["VLLM_ALLOW_INSECURE_SERIALIZATION", "NCCL_CUMEM_ENABLE"])
def test_sides_with_different_environments_are_refused(variable: str) -> None:
    sides = Sides()
    if variable.startswith("NCCL"):
        sides.learner.nccl = {variable: "0"}
    else:
        sides.engine.insecure = "0"
    with pytest.raises(UserError, match=variable):
        asyncio.run(bring_up(sides))
    assert "send_weights" not in sides.calls


# What stops the run after an update.


@pytest.mark.parametrize("gap", [0.11, -0.11, float("nan")])
def test_sides_that_disagree_stop_the_run(gap: float) -> None:
    sides = Sides()
    sides.learner.gap = gap
    with pytest.raises(MismatchError, match=r"rl\.mismatch_limit"):
        asyncio.run(trainer(sides).publish(3))


def test_sides_that_drift_apart_are_told_of() -> None:
    sides, said = Sides(gpu=True), list[str]()
    colocated = trainer(sides, said)

    async def publish(gap: float) -> None:
        sides.learner.gap = gap
        await colocated.publish(0)

    for gap in (0.02, 0.02, 0.05, 0.02, 0.07):
        assert said == []
        asyncio.run(publish(gap))
    assert said == ["engine and learner drift apart: mean gap 7.0e-02 on the probe"]


def test_an_engine_with_other_weights_is_refused_before_the_probe() -> None:
    sides = Sides()
    sides.engine.stuck_at = 2
    with pytest.raises(EngineError, match="weights 2, expected 3"):
        asyncio.run(trainer(sides).publish(3))
    assert sides.calls == SENT


def test_a_probe_sampled_under_other_weights_is_refused() -> None:
    sides = Sides()
    sides.engine.sampled_under = 2
    with pytest.raises(EngineError, match="other weights"):
        asyncio.run(trainer(sides).publish(3))
    assert "logprobs" not in sides.calls


@pytest.mark.parametrize("cached", [[64, 64], [0, 0]], ids=["stale", "off"])
def test_a_prefix_cache_that_was_not_dropped_or_is_off_is_refused(cached: list[int]) -> None:
    sides = Sides()
    sides.engine.cached = cached
    with pytest.raises(EngineError, match="prefix cache"):
        asyncio.run(trainer(sides).publish(3))
    assert "generate" not in sides.calls


def test_a_layer_that_stays_what_it_was_is_refused() -> None:
    sides = Sides()

    def freeze(step: int) -> None:
        async def send_weights() -> None:
            sides.engine.weights["dp0:layers.0.w"] = "new"

        sides.learner.send_weights = send_weights  # type: ignore[method-assign]

    with pytest.raises(EngineError, match=r"1 of 2 layers .*layers\.1\."):
        asyncio.run(cycles(sides, THOROUGH_EVERY, freeze))
    assert sides.calls.count("checksums") == 3


def test_weights_that_nothing_moved_may_stay() -> None:
    sides = Sides()
    sides.learner.grad_norm = 0.0

    async def idle() -> None:
        colocated = trainer(sides)
        for step in (0, 1):
            await colocated.learn(Batch(step=1, samples=()))
            await colocated.publish(step)

    asyncio.run(idle())
    assert sides.calls.count("checksums") == 2


def test_replicas_with_different_weights_are_refused() -> None:
    sides = Sides()
    sides.engine.weights["dp1:layers.1.w"] = "another"
    with pytest.raises(EngineError, match=r"replicas .*layers\.1\.w"):
        asyncio.run(trainer(sides).publish(0))


# What stops the run between cycles.


def test_a_device_that_stays_fuller_than_after_the_first_cycle_is_refused() -> None:
    sides = Sides(gpu=True)

    def fill(step: int) -> None:
        sides.engine.counts["device_bytes"] += leaks.ASLEEP_SLACK // 2 + 1

    with pytest.raises(EngineError, match="after the first cycle"):
        asyncio.run(cycles(sides, 10, fill))
    assert ("learn", 3) in sides.calls and ("learn", 4) not in sides.calls


@pytest.mark.parametrize("side", ["engine", "learner"])
def test_a_counter_that_grows_from_cycle_to_cycle_is_refused(side: str) -> None:
    sides = Sides()
    counts = getattr(sides, side).counts

    def leak(step: int) -> None:
        counts["open_files"] += 1

    with pytest.raises(InfraError, match=f"{side}_open_files grows by 1 per cycle"):
        asyncio.run(cycles(sides, 100, leak))
    assert ("learn", leaks.SETTLED + leaks.ENOUGH - 1) in sides.calls
    assert ("learn", leaks.SETTLED + leaks.ENOUGH) not in sides.calls


@pytest.mark.parametrize(("side", "name"), [("engine", "device"), ("learner", "reserved")])
def test_a_gpu_without_its_counters_is_refused(side: str, name: str) -> None:
    sides = Sides(gpu=True)
    del getattr(sides, side).counts[f"{name}_bytes"]
    with pytest.raises(InfraError, match=f"missing: {side}_{name}_bytes"):
        asyncio.run(trainer(sides).learn(Batch(step=1, samples=())))
    assert "reload" not in sides.calls


def test_two_phases_never_overlap() -> None:
    sides = Sides()
    colocated = trainer(sides)

    async def both() -> None:
        await asyncio.gather(colocated.publish(0), colocated.learn(Batch(step=1, samples=())))

    with pytest.raises(InfraError, match="learn was asked for while publish runs"):
        asyncio.run(both())


def test_nothing_follows_a_phase_that_failed() -> None:
    sides = Sides()
    colocated = trainer(sides)
    sides.engine.stuck_at = 2
    with pytest.raises(EngineError):
        asyncio.run(colocated.publish(3))
    sides.calls.clear()
    with pytest.raises(InfraError, match="publish runs, or after it failed"):
        asyncio.run(colocated.save("new"))
    assert sides.calls == []


@pytest.mark.parametrize(("gpu", "times"), [(False, 1), (True, 0)])
def test_what_does_nothing_here_is_said_once(gpu: bool, times: int) -> None:
    said: list[str] = []
    colocated = trainer(Sides(gpu=gpu), said)
    for step in range(3):
        asyncio.run(colocated.learn(Batch(step=step, samples=())))
    assert len(said) == times

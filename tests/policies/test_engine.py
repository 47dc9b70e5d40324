"""Our engine over a stand-in for vLLM's: what it asks of it, and what it no longer believes."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Coroutine
from types import SimpleNamespace as Record
from typing import Any

import pytest

from palestra.policies import engine as module
from palestra.policies.config import EngineConfig
from palestra.policies.engine import VllmEngine
from palestra.rl.errors import EngineError
from palestra.rl.types import Sampling

BLOCK = 16
SAMPLING = Sampling(temperature=1.0, max_tokens=2, seed=0, stop_ids=())


class FakeLLM:
    """Does what vLLM does as far as we can see, unless a test spoils one of its answers."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.asleep: set[str] = set()
        self.sleeps = True
        self.wakes: bool | None = None
        self.resets = True
        self.unloaded: list[str] = []
        self.versions = ["default"]
        self.fails = ""
        self.gate = asyncio.Event()
        self.gate.set()
        self.vllm_config = Record(
            model_config=Record(hf_config=Record(tie_word_embeddings=False)),
        )

    def note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.fails:
            raise RuntimeError(call)

    async def generate(self, prompt: Any, params: Any, key: str) -> AsyncIterator[Record]:
        self.note("generate")
        await self.gate.wait()
        sampled = Record(
            token_ids=[5],
            logprobs=[{5: Record(logprob=-0.5)}],
            finish_reason="length",
            routed_experts=None,
            weight_versions=[Record(version=version) for version in self.versions],
        )
        yield Record(outputs=[sampled], num_cached_tokens=len(prompt["prompt_token_ids"]))

    async def sleep(self, level: int, mode: str) -> None:
        self.note(f"sleep {level} {mode}")
        if self.sleeps:
            self.asleep = {"weights", "kv_cache"}

    async def is_sleeping(self) -> bool:
        return bool(self.asleep)

    async def wake_up(self, tags: list[str]) -> bool:
        self.note(f"wake {tags[0]}")
        self.asleep -= set(tags)
        return not self.asleep if self.wakes is None else self.wakes

    async def reset_prefix_cache(self) -> bool:
        self.note("reset prefix")
        return self.resets

    async def reset_mm_cache(self) -> None:
        self.note("reset mm")

    async def reset_encoder_cache(self) -> None:
        self.note("reset encoder")

    async def compute_weight_checksums(self) -> list[dict[str, str]]:
        self.note("checksums")
        return [{"tp0:a": "1"}, {"tp1:a": "2"}]

    async def collective_rpc(self, method: str) -> list[Any]:
        self.note(method)
        answers = {
            "palestra_unloaded": self.unloaded,
            "palestra_counters": {"rss_bytes": 1 << 40, "device_bytes": 3},
            "palestra_cache_block": BLOCK,
        }
        return [answers.get(method)]

    async def start_weight_update(self) -> None:
        self.note("start")

    async def update_weights(self, request: Any) -> None:
        self.note("update")

    async def finish_weight_update(self) -> None:
        self.note("finish")

    async def update_weight_version(self, version: str) -> None:
        self.versions = [version]

    async def get_weight_version(self) -> str:
        return self.versions[-1]

    def shutdown(self) -> None:
        self.note("shutdown")


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> FakeLLM:
    fake = FakeLLM()
    monkeypatch.setattr(module, "_prepare_process", lambda config: None)
    monkeypatch.setattr(module, "_build", lambda *args, **settings: fake)
    monkeypatch.setattr(module, "_params", lambda sampling: sampling)
    return fake


@pytest.fixture
def engine(llm: FakeLLM) -> VllmEngine:
    return VllmEngine("folder", EngineConfig(), max_model_len=64)


def run(*calls: Coroutine[Any, Any, Any]) -> Any:
    async def in_order() -> Any:
        try:
            return [await call for call in calls][-1]
        finally:
            for call in calls:
                call.close()

    return asyncio.run(in_order())


def test_a_whole_round(engine: VllmEngine, llm: FakeLLM) -> None:
    run(
        *(engine.sleep(), engine.wake("weights"), engine.reset_weights()),
        *(engine.start_weight_update(), engine.update_weights({}), engine.update_weights({})),
        *(engine.finish_weight_update(), engine.set_version(3), engine.forget()),
        *(engine.wake("kv_cache"), engine.generate([1], SAMPLING)),
    )
    assert llm.calls == [
        *("sleep 2 wait", "wake weights", "reset_weights", "palestra_watch", "start"),
        *("update", "update", "finish", "palestra_unloaded"),
        *("reset prefix", "reset mm", "reset encoder", "wake kv_cache", "generate"),
    ]


def test_a_reply_has_the_version_that_vllm_says(engine: VllmEngine) -> None:
    assert run(engine.generate([1], SAMPLING)).version == 0
    assert run(engine.set_version(7), engine.generate([1], SAMPLING)).version == 7
    assert run(engine.get_version()) == 7


def test_a_reply_from_two_versions_is_refused(engine: VllmEngine, llm: FakeLLM) -> None:
    llm.versions = ["1", "2"]
    with pytest.raises(EngineError, match="not under one"):
        run(engine.generate([1], SAMPLING))


def test_the_cache_is_asked_for_more_than_two_blocks(engine: VllmEngine) -> None:
    assert run(engine.cached_tokens([1, 2, 3])) == 2 * BLOCK + 1
    assert run(engine.cached_tokens(list(range(100)))) == 2 * BLOCK + 1


def test_sleep_waits_for_replies_that_nobody_waits_for(engine: VllmEngine, llm: FakeLLM) -> None:
    async def late() -> None:
        llm.gate.clear()
        reply = asyncio.create_task(engine.generate([1], SAMPLING))
        await asyncio.sleep(0)
        sleep = asyncio.create_task(engine.sleep())
        await asyncio.sleep(0.05)
        assert llm.calls == ["generate"]
        with pytest.raises(EngineError, match="cannot generate: the engine is at 'sleep'"):
            await engine.generate([1], SAMPLING)
        llm.gate.set()
        await sleep
        assert reply.done() and llm.calls == ["generate", "sleep 2 wait"]

    asyncio.run(late())


def test_sleep_waits_no_longer_than_so(
    engine: VllmEngine, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.01)

    async def stuck() -> None:
        llm.gate.clear()
        reply = asyncio.create_task(engine.generate([1], SAMPLING))
        await asyncio.sleep(0)
        with pytest.raises(EngineError, match="1 requests are still running"):
            await engine.sleep()
        llm.gate.set()
        await reply

    asyncio.run(stuck())
    assert llm.calls == ["generate"]


def test_a_sleep_that_vllm_did_not_do_is_refused(engine: VllmEngine, llm: FakeLLM) -> None:
    llm.sleeps = False
    with pytest.raises(EngineError, match="told to sleep but is awake"):
        run(engine.sleep())


@pytest.mark.parametrize(("tags", "wakes"), [(["weights"], True), (["weights", "kv_cache"], False)])
def test_a_wake_that_vllm_did_not_do_is_refused(
    engine: VllmEngine, llm: FakeLLM, tags: list[str], wakes: bool
) -> None:
    run(engine.sleep(), *(engine.wake(tag) for tag in tags[:-1]))
    llm.wakes = wakes
    with pytest.raises(EngineError, match=f"after waking {tags[-1]}"):
        run(engine.wake(tags[-1]))


@pytest.mark.parametrize("asleep", [False, True])
def test_no_update_starts_unless_weights_alone_are_awake(
    engine: VllmEngine, llm: FakeLLM, asleep: bool
) -> None:
    if asleep:
        run(engine.sleep())
    llm.calls.clear()
    with pytest.raises(EngineError, match="cannot start update"):
        run(engine.start_weight_update())
    assert llm.calls == []


@pytest.mark.parametrize("asleep", ["sleep", "weights"])
def test_nothing_is_computed_while_something_sleeps(
    engine: VllmEngine, llm: FakeLLM, asleep: str
) -> None:
    run(engine.sleep(), *([engine.wake("weights")] if asleep == "weights" else []))
    llm.calls.clear()
    for call in (engine.generate([1], SAMPLING), engine.cached_tokens([1]), engine.checksums()):
        with pytest.raises(EngineError, match="cannot"):
            run(call)
    assert not {"generate", "checksums"} & set(llm.calls)


@pytest.mark.parametrize("fails", ["start", "update", "finish", "wake kv_cache"])
def test_an_engine_that_failed_once_is_never_used_again(
    engine: VllmEngine, llm: FakeLLM, fails: str
) -> None:
    llm.fails = fails
    with pytest.raises(RuntimeError, match=fails):
        run(
            *(engine.sleep(), engine.wake("weights"), engine.start_weight_update()),
            *(engine.update_weights({}), engine.finish_weight_update(), engine.wake("kv_cache")),
        )
    llm.fails = ""
    llm.calls.clear()
    for call in (
        *(engine.generate([1], SAMPLING), engine.sleep(), engine.wake("weights")),
        *(engine.start_weight_update(), engine.update_weights({}), engine.finish_weight_update()),
    ):
        with pytest.raises(EngineError, match="cannot"):
            run(call)
    assert llm.calls == []


def test_an_update_that_leaves_a_layer_out_is_refused(engine: VllmEngine, llm: FakeLLM) -> None:
    llm.unloaded = ["QKVParallelLinear"]
    with pytest.raises(EngineError, match="left out weights of QKVParallelLinear"):
        run(
            *(engine.sleep(), engine.wake("weights"), engine.start_weight_update()),
            *(engine.update_weights({}), engine.finish_weight_update()),
        )
    with pytest.raises(EngineError, match="cannot forget"):
        run(engine.forget())


def test_a_cache_that_cannot_be_dropped_is_refused(engine: VllmEngine, llm: FakeLLM) -> None:
    llm.resets = False
    with pytest.raises(EngineError, match="could not be reset"):
        run(engine.forget())


def test_checksums_and_counters_are_of_all_workers(engine: VllmEngine) -> None:
    assert run(engine.checksums()) == {"tp0:a": "1", "tp1:a": "2"}
    found = run(engine.counters())
    assert found["device_bytes"] == 3
    assert found["rss_bytes"] > 1 << 40 and found["open_files"] > 0


def test_a_process_that_does_not_stop_is_killed(
    llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXIT_S", 0.05)
    fork = multiprocessing.get_context("fork")
    mine, other = (fork.Process(target=time.sleep, args=(60,)) for _ in range(2))
    other.start()

    def build(*args: Any, **settings: Any) -> FakeLLM:
        mine.start()
        return llm

    monkeypatch.setattr(module, "_build", build)
    engine = VllmEngine("folder", EngineConfig(), max_model_len=64)
    try:
        run(engine.close())
        mine.join(10)
        assert not mine.is_alive() and other.is_alive()
        assert llm.calls == ["shutdown"]
    finally:
        other.kill()
        other.join()
        mine.kill()

"""Where engine and learner are put, in which order they start, and that both go in the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from types import SimpleNamespace as Record
from typing import Any

import pytest
import ray

from palestra.deploy import actors, cluster
from palestra.deploy.actors import EngineActor, LearnerActor
from palestra.deploy.config import RunConfig
from palestra.policies.config import EngineConfig, LearnerConfig
from palestra.rl.errors import EngineError


class Ray:
    """Stands for Ray: what was started with which options, and every call in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.options: dict[str, dict[str, Any]] = {}
        self.fails = ""

    def remote(self, kind: type) -> Any:
        def options(**chosen: Any) -> Any:
            self.options[kind.__name__] = chosen
            return Record(remote=lambda *args: self.actor(kind.__name__))

        return Record(options=options)

    def actor(self, name: str) -> Any:
        self.note(name)
        methods = ("get_version", "connect", "close")
        return Record(**{m: Record(remote=self.method(f"{name}.{m}")) for m in methods})

    def method(self, name: str) -> Callable[..., Awaitable[None]]:
        async def call(*args: Any) -> None:
            self.note(name)

        return call

    def note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.fails:
            raise EngineError(call)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Ray:
    """Ray, and a start-up that only builds the learner."""
    fake = Ray()

    async def ready() -> None:
        return None

    async def start_up(engine: Any, start_learner: Callable[[], Awaitable[Any]]) -> Any:
        fake.note("engine sleeps")
        learner = await start_learner()
        fake.note("transfer is proved")
        return learner

    monkeypatch.setattr(cluster, "placement_group", lambda *a, **k: Record(ready=ready, id="g"))
    monkeypatch.setattr(cluster, "remove_placement_group", lambda group: fake.note("removed"))
    monkeypatch.setattr(cluster, "start_up", start_up)
    monkeypatch.setattr(cluster.ray, "remote", fake.remote)
    return fake


UP = ["EngineActor", "EngineActor.get_version", "engine sleeps", "LearnerActor"]
ALL_UP = [*UP, "LearnerActor.connect", "transfer is proved"]
DOWN = ["EngineActor.close", "removed"]


def use(*, gpu: bool = False, body: Callable[[], None] = lambda: None) -> None:
    async def run() -> None:
        async with cluster.colocated(RunConfig(), "folder", None, played="folder", gpu=gpu):
            body()

    asyncio.run(run())


def test_the_engine_sleeps_before_the_learner_starts(fake: Ray) -> None:
    use(body=lambda: fake.note("used"))
    assert fake.calls == [*ALL_UP, "used", *DOWN]


@pytest.mark.parametrize("fails", ["LearnerActor", "transfer is proved", "used"])
def test_the_engine_is_closed_whatever_fails(fake: Ray, fails: str) -> None:
    fake.fails = fails
    with pytest.raises(EngineError, match=fails):
        use(body=lambda: fake.note("used"))
    assert fake.calls[-3:] == [fails, *DOWN]


def test_an_engine_that_does_not_close_keeps_nobody(
    fake: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CLOSE_S", 0.01)
    method = fake.method

    def stuck(name: str) -> Callable[..., Awaitable[None]]:
        async def never(*args: Any) -> None:
            await asyncio.Event().wait()

        return never if name.endswith("close") else method(name)

    monkeypatch.setattr(fake, "method", stuck)
    use()
    assert fake.calls == [*ALL_UP, "removed"]


@pytest.mark.parametrize("gpu", [False, True])
def test_both_share_one_bundle(fake: Ray, gpu: bool) -> None:
    use(gpu=gpu)
    assert fake.options.keys() == {"EngineActor", "LearnerActor"}
    shares = [chosen["num_gpus"] for chosen in fake.options.values()]
    assert all(share > 0 for share in shares) == gpu and sum(shares) <= 1
    for chosen in fake.options.values():
        assert chosen["scheduling_strategy"].placement_group_bundle_index == 0


@pytest.mark.parametrize(("assigned", "visible"), [(["3"], "3"), ([], "")])
@pytest.mark.parametrize("kind", ["engine", "learner"])
def test_an_actor_sees_its_own_gpus_only(
    monkeypatch: pytest.MonkeyPatch, assigned: list[str], visible: str, kind: str
) -> None:
    """Also where Ray was told to leave the variable alone, or gives the actor no GPU."""
    seen: list[str] = []

    def build(*args: Any, **settings: Any) -> None:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: assigned)
    assert actors.ray is ray
    if kind == "engine":
        monkeypatch.setattr("palestra.policies.engine.VllmEngine", build)
        EngineActor("folder", EngineConfig(), 64)
    else:
        monkeypatch.setattr("palestra.policies.learner.DeepSpeedLearner", build)
        LearnerActor("folder", LearnerConfig(), None, 1.0)
    assert seen == [visible]

"""Where engine and learner are put, in which order they start, and that both go in the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError

from palestra.deploy import actors, cluster, head, placement, sync_client
from palestra.deploy.actors import EngineActor, LearnerActor
from palestra.deploy.config import RunConfig
from palestra.policies.config import EngineConfig, LearnerConfig, PolicyConfig
from palestra.policies.process_group import ALONE
from palestra.rl.errors import EngineError, InfraError, UserError


class Ray:
    """Stands for Ray: what was started with which options, and every call in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.options: list[tuple[str, dict[str, Any]]] = []
        self.arguments: list[tuple[Any, ...]] = []
        self.bundles: list[dict[str, float]] = []
        self.nodes = [{"CPU": 2.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 3.0}, {"CPU": 8.0}]
        self.fails = ""
        self.has_head = True

    def remote(self, kind: type) -> Any:
        def options(**chosen: Any) -> Any:
            self.options.append((kind.__name__, chosen))
            return Record(remote=start)

        def start(*args: Any) -> Any:
            self.arguments.append(args)
            return self.actor(kind.__name__)

        return Record(options=options)

    def actor(self, name: str) -> Any:
        self.note(name)
        methods = ("start", "connect", "close")
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

    def placement_group(bundles: list[dict[str, float]], strategy: str) -> Any:
        assert strategy == "PACK"
        fake.bundles = bundles
        return Record(ready=ready, id="g")

    async def is_there() -> bool:
        return fake.has_head

    async def start_up(engine: Any, start_learner: Callable[[], Awaitable[Any]]) -> Any:
        fake.note("engine sleeps")
        learner = await start_learner()
        fake.note("transfer is proved")
        return learner

    monkeypatch.setattr(placement, "placement_group", placement_group)
    monkeypatch.setattr(placement, "remove_placement_group", lambda group: fake.note("removed"))
    monkeypatch.setattr(cluster, "start_up", start_up)
    monkeypatch.setattr(head, "is_there", is_there)
    monkeypatch.setattr(ray, "remote", fake.remote)
    monkeypatch.setattr(
        ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in fake.nodes]
    )
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.1")
    return fake


UP = ["EngineActor", "EngineActor.start", "engine sleeps", "LearnerActor"]
ALL_UP = [*UP, "LearnerActor.connect", "transfer is proved"]
DOWN = ["EngineActor.close", "removed"]


def use(*, gpu: bool = False, count: int = 1, body: Callable[[], None] = lambda: None) -> None:
    async def run() -> None:
        config = RunConfig(policy=PolicyConfig(num_gpus=count))
        async with cluster.colocated(config, "folder", None, played="folder", gpu=gpu):
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


def test_without_a_head_nobody_is_asked_to_clean_up(fake: Ray) -> None:
    use(body=lambda: setattr(fake, "has_head", False))
    assert fake.calls == ALL_UP


def test_an_error_of_ours_comes_back_from_an_actor_as_it_was() -> None:
    async def call() -> None:
        cause = UserError("do this")
        raise RayTaskError(
            "f", "ray::f()\n  File x\nUserError: do this", cause
        ).as_instanceof_cause()

    with pytest.raises(UserError, match=r"^do this$"):
        asyncio.run(actors.Remote(Record(f=Record(remote=call)), "engine 0").f())


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
    assert [name for name, _ in fake.options] == ["EngineActor", "LearnerActor"]
    shares = [chosen["num_gpus"] for _, chosen in fake.options]
    assert all(share > 0 for share in shares) == gpu and sum(shares) <= 1
    for _, chosen in fake.options:
        assert chosen["scheduling_strategy"].placement_group_bundle_index == 0


def test_every_bundle_has_an_engine_and_a_rank_and_none_starts_before_all_are_there(
    fake: Ray,
) -> None:
    use(gpu=True, count=3)
    assert fake.bundles == [{"CPU": 1.0, "GPU": 1.0}] * 3
    places = [
        (name, chosen["scheduling_strategy"].placement_group_bundle_index)
        for name, chosen in fake.options
    ]
    assert places == [(name, n) for name in ("EngineActor", "LearnerActor") for n in range(3)]
    ranks = [args[-2] for args in fake.arguments[3:]]
    assert [(r.rank, r.size, r.host) for r in ranks] == [(n, 3, "10.0.0.1") for n in range(3)]
    assert len({rank.port for rank in ranks}) == 1 and ranks[0].port > 0
    assert fake.calls.index("engine sleeps") > max(
        n for n, call in enumerate(fake.calls) if call == "EngineActor.start"
    )
    assert fake.calls[-4:] == ["EngineActor.close"] * 3 + ["removed"]


@pytest.mark.parametrize(("gpu", "room"), [(True, 3), (False, 11)])
def test_a_cluster_that_is_too_small_is_wrong_use(fake: Ray, gpu: bool, room: int) -> None:
    wanted = "1 CPU and 1 GPU" if gpu else "1 CPU"
    with pytest.raises(UserError) as raised:
        placement.ensure_room(room + 1, gpu=gpu)
    assert str(raised.value) == (
        f"policy.num_gpus is {room + 1}, so the run needs {room + 1} bundles of {wanted}; the Ray "
        f"cluster has room for {room} on 3 nodes: add nodes or lower policy.num_gpus"
    )
    placement.ensure_room(room, gpu=gpu)


def test_a_cluster_that_others_use_is_not_waited_for_without_end(
    fake: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(placement, "placement_group", lambda *a, **k: Record(ready=never))
    monkeypatch.setattr(placement, "PLACE_S", 0.01)
    with pytest.raises(InfraError, match="others use the cluster: 2 bundles of 1 CPU"):
        use(count=2)
    assert fake.calls == ["removed"]


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
        LearnerActor("folder", LearnerConfig(), None, 1.0, ALONE)
    assert seen == [visible]


class Engine:
    """An engine actor as Ray shows it: methods with ``remote``, whose results ``ray.get`` gives."""

    def __init__(self, node: str) -> None:
        self.at = node
        self.got: list[Any] = []

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any) -> Any:
            if method == "node":
                return self.at
            self.got.append((method, *args))
            return None

        return Record(remote=call)


@pytest.mark.parametrize("away", [False, True])
def test_weights_reach_engines_on_other_nodes_by_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, away: bool
) -> None:
    put: list[bytes] = []
    monkeypatch.setattr(sync_client, "node", lambda: "here")
    monkeypatch.setattr(ray, "get", lambda results: results)
    monkeypatch.setattr(ray, "put", lambda content: put.append(content) or content)
    engines = [Engine("here"), *[Engine("there" if away else "here") for _ in range(2)]]
    client = sync_client.SyncClient(engines)
    (tmp_path / "weights").write_bytes(b"tensors")
    info = {"path": str(tmp_path / "weights")}
    client.update_weights(info)
    client.update_weights({"ipc_handles": ["by device"]})
    of_file = ("update_weights_from", b"tensors") if away else ("update_weights", info)
    of_device = ("update_weights", {"ipc_handles": ["by device"]})
    assert engines[0].got == [("update_weights", info), of_device]
    assert engines[1].got == engines[2].got == [of_file, of_device]
    assert put == [b"tensors"] * away

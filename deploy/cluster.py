"""Ray: a cluster of our own or the one that the job runs on, and the actors of a run in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from palestra.deploy.actors import EngineActor, LearnerActor, Remote
from palestra.deploy.config import RunConfig
from palestra.deploy.jobs import TOKEN
from palestra.deploy.placement import Bundles, bundles
from palestra.policies import process_group
from palestra.policies.colocate import start_up
from palestra.policies.config import LearnerConfig
from palestra.policies.process_group import Ranks
from palestra.policies.together import Engines, Learners, every
from palestra.rl.errors import InfraError, UserError

ANSWER_S = 15.0
"""How long a head that RAY_ADDRESS names may take to answer."""
CLOSE_S = 60.0
"""How long an engine that may still be starting has to stop by itself."""


@dataclass(frozen=True, kw_only=True)
class Actors:
    """All engines of a run as one, and all ranks of its learner: one of each in every bundle."""

    engine: Engines
    learner: Learners
    gpu: bool


def connect() -> bool:
    """Join the cluster named by RAY_ADDRESS, or start one that ends with this process; says
    whether it has a GPU."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_ADDRESS" in os.environ:
        address = os.environ["RAY_ADDRESS"]
        _ensure_answers(address)
        try:
            ray.init(log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"RAY_ADDRESS {address}: no Ray cluster answers there") from error
    else:
        # Its ports are open to the network, and whoever may use them runs code as us.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray.init(
            # Without it Ray joins whatever `ray start` has left running on this machine.
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=512 << 20,
        )
    gpus: float = ray.cluster_resources().get("GPU", 0)
    return gpus >= 1


def _ensure_answers(address: str) -> None:
    """Raise UserError unless a Ray head that lets us in answers at HOST:PORT: Ray itself would try
    for minutes. Addresses that Ray looks up elsewhere pass."""
    if address in ("auto", "local") or "://" in address:
        return
    with init_grpc_channel(address, GLOBAL_GRPC_OPTIONS) as channel:
        try:
            NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=ANSWER_S)
        except grpc.RpcError as error:
            why = "no Ray cluster answers there"
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                why = "the cluster does not know our token; " + TOKEN
            raise UserError(f"RAY_ADDRESS {address}: {why}") from error


def disconnect() -> None:
    """Leave the cluster; one that ``connect`` started ends with all its processes."""
    ray.shutdown()


@contextlib.asynccontextmanager
async def colocated(
    config: RunConfig,
    folder: str,
    objective: Any,
    *,
    played: str,
    adapter: str | None = None,
    gpu: bool,
) -> AsyncIterator[Actors]:
    """An engine and a rank of the learner in each bundle; all are gone afterwards. With
    ``adapter``, the folder of one, both serve and train it in place of the model's own weights.

    The learner loads ``folder`` and the engines ``played``, which is the same, or the same rounded
    as the learner rounds it.

    The engines are built first, as they size their KV caches by the memory they find free, and
    sleep before the learner takes any.
    """
    policy = config.policy
    meeting = process_group.listener()
    async with bundles(policy.num_gpus, gpu=gpu) as places:
        args = (played, policy.engine, config.rollout.max_context_length, adapter)
        engines = [
            Remote(
                places.start(EngineActor, number, policy.engine.threads, args), f"engine {number}"
            )
            for number in range(places.count)
        ]
        try:
            await every(engine.start() for engine in engines)

            async def start_learner() -> Learners:
                what = (folder, policy.learner, objective, config.rl.ptx.coef)
                ranks = _start_ranks(places, what, meeting.port, adapter)
                await every(rank.connect([engine.actor for engine in engines]) for rank in ranks)
                return Learners(ranks)

            engine = Engines(engines)
            learner = await start_up(engine, start_learner)
            yield Actors(engine=engine, learner=learner, gpu=gpu)
        finally:
            await asyncio.gather(*map(_close, engines))


@contextlib.asynccontextmanager
async def learner_alone(
    config: LearnerConfig, folder: str, count: int, *, gpu: bool
) -> AsyncIterator[Learners]:
    """A learner of ``count`` ranks without engines beside it, for the supervised stage."""
    meeting = process_group.listener()
    async with bundles(count, gpu=gpu) as places:
        yield Learners(_start_ranks(places, (folder, config, None, 1.0), meeting.port))


def _start_ranks(
    places: Bundles,
    what: tuple[str, LearnerConfig, Any, float],
    port: int,
    adapter: str | None = None,
) -> list[Remote]:
    """A rank of the learner in each bundle; they meet at ``port`` of the node that we are on."""
    host = ray.util.get_node_ip_address()
    ranks = [Ranks(rank=n, size=places.count, host=host, port=port) for n in range(places.count)]
    _, config, _, _ = what
    return [
        Remote(
            places.start(LearnerActor, own.rank, config.threads, (*what, own, adapter)),
            f"rank {own.rank} of the learner",
        )
        for own in ranks
    ]


async def _close(engine: Remote) -> None:
    """An engine's own processes would outlive its actor, and keep the GPU."""
    with contextlib.suppress(ray.exceptions.RayError, InfraError, TimeoutError):
        await asyncio.wait_for(engine.close(), CLOSE_S)

"""The actors of a run in a Ray cluster: engines, and the ranks of its learner."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import ray

from palestra.deploy import head
from palestra.deploy.actors import EngineActor, LearnerActor, Remote
from palestra.deploy.config import RunConfig
from palestra.deploy.placement import Bundles, bundles
from palestra.policies import process_group
from palestra.policies.colocate import start_up
from palestra.policies.config import LearnerConfig
from palestra.policies.process_group import Ranks
from palestra.policies.together import Engines, Learners, every
from palestra.rl.errors import InfraError

CLOSE_S = 60.0
"""How long an engine that may still be starting has to stop by itself."""


@dataclass(frozen=True, kw_only=True)
class Actors:
    """All engines of a run as one, and all ranks of its learner: one of each in every bundle."""

    engine: Engines
    learner: Learners
    gpu: bool


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
            if await head.is_there():
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

"""Ray: a cluster of our own or the one that the job runs on, and where the actors sit in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from palestra.deploy.actors import EngineActor, LearnerActor, Remote
from palestra.deploy.config import RunConfig
from palestra.policies.colocate import start_up
from palestra.policies.config import LearnerConfig
from palestra.rl.errors import InfraError

SHARE = 0.4
"""Of a GPU bundle, for each of engine and learner; Ray does not limit memory by it."""
CLOSE_S = 60.0
"""How long an engine that may still be starting has to stop by itself."""
GENTLE = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
"""Threads that wait for work must not spin: engine, learner and boxes share the cores."""


@dataclass(frozen=True, kw_only=True)
class Actors:
    """Handles of one engine and one learner on the same device."""

    engine: Remote
    learner: Remote
    gpu: bool


def connect() -> bool:
    """Join the cluster named by RAY_ADDRESS, or start one that ends with this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's default of 15 would let every command in a box go before engine and learner.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False, logging_level="error")
    else:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
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


def disconnect() -> None:
    """Leave the cluster; one that ``connect`` started ends with all its processes."""
    ray.shutdown()


@contextlib.asynccontextmanager
async def colocated(
    config: RunConfig, folder: str, objective: Any, *, played: str, gpu: bool
) -> AsyncIterator[Actors]:
    """Engine and learner in one bundle of a placement group; both are gone afterwards.

    The learner loads ``folder`` and the engine ``played``, which is the same, or the same rounded
    as the learner rounds it.

    The engine is built first, as it sizes its KV cache by the memory it finds free, and sleeps
    before the learner takes any.
    """
    bundle = {"CPU": 1.0, "GPU": 1.0} if gpu else {"CPU": 1.0}
    group = placement_group([bundle], strategy="STRICT_PACK")
    engine = None
    try:
        await asyncio_wait(group.ready(), "a free bundle of the cluster")
        engine = _start(
            EngineActor,
            group,
            gpu,
            config.policy.engine.threads,
            (played, config.policy.engine, config.rollout.max_context_length),
        )
        await asyncio_wait(engine.get_version.remote(), "the engine")

        async def start_learner() -> Remote:
            learner = _start(
                LearnerActor,
                group,
                gpu,
                config.policy.learner.threads,
                (folder, config.policy.learner, objective, config.rl.ptx.coef),
            )
            await asyncio_wait(learner.connect.remote(engine), "the learner")
            return Remote(learner)

        learner = await start_up(Remote(engine), start_learner)
        yield Actors(engine=Remote(engine), learner=learner, gpu=gpu)
    finally:
        if engine is not None:
            # Its own processes would outlive the actor, and keep the GPU.
            with contextlib.suppress(ray.exceptions.RayError, TimeoutError):
                await asyncio.wait_for(engine.close.remote(), CLOSE_S)
        remove_placement_group(group)


@contextlib.asynccontextmanager
async def learner_alone(config: LearnerConfig, folder: str, *, gpu: bool) -> AsyncIterator[Remote]:
    """A learner without an engine beside it, for the supervised stage."""
    group = placement_group([{"CPU": 1.0, "GPU": 1.0} if gpu else {"CPU": 1.0}])
    try:
        await asyncio_wait(group.ready(), "a free bundle of the cluster")
        args = (folder, config, None, 1.0)
        learner = _start(LearnerActor, group, gpu, config.threads, args)
        yield Remote(learner)
    finally:
        remove_placement_group(group)


def _start(kind: type, group: Any, gpu: bool, threads: int, args: tuple[Any, ...]) -> Any:
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    return (
        ray.remote(kind)
        .options(
            num_cpus=SHARE,
            num_gpus=SHARE if gpu else 0,
            scheduling_strategy=strategy,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(threads), **GENTLE}},
        )
        .remote(*args)
    )


async def asyncio_wait(reference: Any, what: str) -> Any:
    """Await a Ray result; a failed actor becomes one clear error."""
    try:
        return await reference
    except ray.exceptions.RayError as error:
        cause = str(error).strip().splitlines()[-1]
        raise InfraError(f"{what} did not start: {cause}") from error

"""Where in a Ray cluster the actors of a run sit: bundles that start together or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from palestra.deploy import head
from palestra.rl.errors import InfraError, UserError

SHARE = 0.4
"""Of a bundle, for each of engine and learner; Ray does not limit memory by it."""
PLACE_S = 300.0
"""How long a run waits for bundles that others use."""
GENTLE = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
"""Threads that wait for work must not spin: engine, learner and boxes share the cores."""
LIKE_OTHERS = {"RAY_worker_niceness": "0"}
"""Ray's default of 15 would let every command in a box go before engine and learner."""


@dataclass(frozen=True, kw_only=True)
class Bundles:
    """A placement group that is in place; each of its ``count`` bundles has one GPU, or one CPU
    where the cluster has no GPU."""

    group: Any
    count: int
    gpu: bool

    def start(self, kind: type, number: int, threads: int, args: tuple[Any, ...]) -> Any:
        """An actor of class ``kind`` in the bundle of this number; it may still be starting."""
        place = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=number)
        return (
            ray.remote(kind)
            .options(
                num_cpus=SHARE,
                num_gpus=SHARE if self.gpu else 0,
                scheduling_strategy=place,
                runtime_env={
                    "env_vars": {"OMP_NUM_THREADS": str(threads), **GENTLE, **LIKE_OTHERS}
                },
            )
            .remote(*args)
        )


@contextlib.asynccontextmanager
async def bundles(count: int, *, gpu: bool) -> AsyncIterator[Bundles]:
    """``count`` bundles, all at once and on as few nodes as possible; whatever runs in them ends
    with the context. Raises InfraError where others use the cluster for too long."""
    bundle = bundle_of(gpu)
    group = placement_group([bundle] * count, strategy="PACK")
    try:
        try:
            await asyncio.wait_for(group.ready(), PLACE_S)
        except TimeoutError as error:
            raise InfraError(
                f"others use the cluster: {said(count, bundle)} were not free for {PLACE_S:.0f} s"
            ) from error
        yield Bundles(group=group, count=count, gpu=gpu)
    finally:
        if await head.is_there():
            remove_placement_group(group)


def bundle_of(gpu: bool) -> dict[str, float]:
    """What one engine and one rank of the learner share."""
    return {"CPU": 1.0, "GPU": 1.0} if gpu else {"CPU": 1.0}


def ensure_room(count: int, *, gpu: bool) -> None:
    """Raise UserError unless the cluster, if nobody else used it, holds so many bundles."""
    bundle = bundle_of(gpu)
    nodes: list[Mapping[str, float]] = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    fits = [min(int(node.get(name, 0) // n) for name, n in bundle.items()) for node in nodes]
    if sum(fits) < count:
        raise UserError(
            f"policy.num_gpus is {count}, so the run needs {said(count, bundle)}; the Ray cluster "
            f"has room for {sum(fits)} on {len(fits)} nodes: add nodes or lower policy.num_gpus"
        )


def said(count: int, bundle: Mapping[str, float]) -> str:
    """``2 bundles of 1 CPU and 1 GPU``."""
    each = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
    return f"{count} bundle{'s' * (count > 1)} of {each}"

"""The plan of a recipe as data, and as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from palestra.deploy.config_file import Resolved
from palestra.deploy.plan.advice import refusals, warnings, without_effect
from palestra.deploy.plan.batches import Batches, batches_of
from palestra.deploy.plan.gpus import Gpu
from palestra.deploy.plan.memory import (
    GIB,
    Paper,
    Phase,
    cached_tokens,
    on_host,
    phases,
    publish_seconds,
)
from palestra.deploy.table import aligned
from palestra.policies.shape import ModelShape
from palestra.rl.types import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is known of a recipe on a kind of GPU before it runs."""

    gpu: Gpu
    gpus: int
    shape: ModelShape
    batches: Batches
    phases: Sequence[Phase]
    cached_tokens: int
    host_bytes: float
    publish_s: float
    without_effect: Sequence[str]
    warnings: Sequence[str]
    refusals: Sequence[str]

    @property
    def fits(self) -> bool:
        """Whether every phase fits into a GPU, with a KV cache to sample with."""
        biggest = max(phase.total for phase in self.phases)
        return biggest <= self.gpu.gib * GIB and self.cached_tokens > 0

    def to_json(self) -> dict[str, Json]:
        """Bytes, tokens and seconds."""
        return {
            "gpu": asdict(self.gpu),
            "gpus": self.gpus,
            "parameters": {"total": self.shape.total, "active": self.shape.active},
            "batches": asdict(self.batches),
            "phases": {p.name: {**p.parts, "total": p.total} for p in self.phases},
            "fits": self.fits,
            "cached_tokens": self.cached_tokens,
            "host_bytes": self.host_bytes,
            "publish_s": self.publish_s,
            "without_effect": list(self.without_effect),
            "warnings": list(self.warnings),
            "refusals": list(self.refusals),
        }


def plan(resolved: Resolved, shape: ModelShape, positions: int, gpu: Gpu, paper: Paper) -> Plan:
    """Batches, memory and advice of a recipe for a model of this shape."""
    config = resolved.config
    batches = batches_of(config, paper.engine_gpus)
    found = phases(config, shape, gpu, paper)
    cached = cached_tokens(config, shape, found[0], paper)
    return Plan(
        gpu=gpu,
        gpus=config.policy.num_gpus,
        shape=shape,
        batches=batches,
        phases=found,
        cached_tokens=cached,
        host_bytes=on_host(config, shape),
        publish_s=publish_seconds(config, shape, gpu, paper),
        without_effect=[*without_effect(config, resolved.sources)],
        warnings=[*warnings(config, shape, batches, positions, cached)],
        refusals=[*refusals(config, paper)],
    )


def lines(plan: Plan) -> Iterator[str]:
    """The plan as text."""
    b, shape = plan.batches, plan.shape
    total, active = shape.total / 1e9, shape.active / 1e9
    yield f"model      {total:,.2f} billion parameters, {active:,.2f} active"
    yield (
        f"placement  {plan.gpus} x {plan.gpu.name} ({plan.gpu.gib} GiB): {plan.gpus} rank(s) of "
        f"the learner, {b.engines} engine(s), which take turns"
    )
    yield (
        f"step       {b.tasks} tasks x {b.episodes // b.tasks} episodes = {b.episodes}, at most "
        f"{b.generated:,} generated tokens, played in {b.waves} wave(s)"
    )
    yield (
        f"learning   {b.updates} update(s) of {b.episodes_per_update} episodes, at most "
        f"{b.micro_batches} micro-batches of {b.micro_batch_tokens:,} tokens a rank; "
        f"staleness at most {b.staleness}"
    )
    yield f"evaluation at most {b.evaluation} episodes"
    yield ""
    yield from _memory(plan)
    yield ""
    yield f"KV cache   {plan.cached_tokens:,} tokens an engine"
    yield f"host       {plan.host_bytes / GIB:.1f} GiB pinned for every GPU of a node"
    yield f"publish    {plan.publish_s:.2f} s at nominal speed"
    for kind, said in (
        ("no effect", plan.without_effect),
        ("warning", plan.warnings),
        ("refused", plan.refusals),
    ):
        for line in said:
            yield f"{kind}: {line}"
    yield "fits" if plan.fits else "DOES NOT FIT"


def _memory(plan: Plan) -> list[str]:
    rows = [("GiB of one GPU", *(phase.name for phase in plan.phases))]
    names = dict.fromkeys(name for phase in plan.phases for name in phase.parts)
    rows += [(name, *(_gib(phase.parts.get(name)) for phase in plan.phases)) for name in names]
    rows.append(("together", *(_gib(phase.total) for phase in plan.phases)))
    rows.append(("free", *(_gib(plan.gpu.gib * GIB - phase.total) for phase in plan.phases)))
    return aligned(rows, right=frozenset({1, 2, 3}))


def _gib(value: float | None) -> str:
    return "-" if value is None else f"{value / GIB:.1f}"

"""Memory of one GPU in each phase of a step, in bytes, from shapes alone.

Which states a ZeRO stage keeps where: ZeRO (arXiv 1910.02054) section 3 with DeepSpeed's own
buffers. The factors for fragments and for what a sleeping engine keeps are our defaults, not
measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from palestra.deploy.config import RunConfig
from palestra.deploy.plan.batches import batches_of
from palestra.deploy.plan.gpus import Gpu
from palestra.policies.config import LearnerConfig
from palestra.policies.shape import ModelShape

GIB = 1 << 30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
LEARNER_RESIDUE = 1.5 * GIB
"""Context and communication buffers of a learner that holds nothing else."""
FRAGMENTS = 0.1
"""Share of a training step's memory that no allocation can use."""
BUCKET = 1 * GIB
"""Bytes of weights on their way at once; larger tensors make it larger."""
REDUCED = 500_000_000
"""Gradients that ZeRO reduces at once (DeepSpeed's ``reduce_bucket_size``)."""
LIVE = 1_000_000_000
"""Parameters that ZeRO 3 keeps gathered (DeepSpeed's ``stage3_max_live_parameters``), or a layer.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """What this version does not run, to be planned on paper: GPUs that share one engine, and bits
    of a routed expert's weight in it."""

    engine_gpus: int = 1
    expert_bits: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase; ``parts`` in bytes by what they are for."""

    name: str
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def asleep(engine_gpus: int) -> float:
    """What an engine that sleeps still holds: its context, graphs and communication buffers."""
    return (1.5 if engine_gpus == 1 else 4.0 if engine_gpus <= 4 else 7.0) * GIB


def states(
    shape: ModelShape, learner: LearnerConfig, ranks: int, *, lora: bool
) -> dict[str, float]:
    """Weights, gradients and optimizer states of one rank between two steps.

    Working weights and gradients are of the learner's type; masters and moments are float32, and
    Muon has one moment for a matrix where AdamW has two. ZeRO 1 deals out the optimizer's states,
    2 gradients as well, 3 also the weights.
    """
    size, stage = BYTES[learner.dtype], learner.zero_stage
    learned = shape.adapter if lora else shape.total
    moments = 8 * learned
    if learner.optimizer == "muon" and not lora:
        moments -= 4 * shape.matrices
    weights = size * (shape.total + (shape.adapter if lora else 0))
    return {
        "weights": weights / (ranks if stage == 3 else 1),
        "gradients": size * learned / (ranks if stage >= 2 else 1),
        "masters and moments": (4 * learned + moments) / ranks,
    }


def activations(shape: ModelShape, learner: LearnerConfig, tokens: int) -> float:
    """What a forward pass over ``tokens`` keeps for the backward pass, and the logits at hand."""
    size = BYTES[learner.dtype]
    in_bytes, values = shape.kept
    layer = tokens * (in_bytes + size * values)
    inputs = tokens * shape.hidden * size
    kept = shape.layers * inputs + layer if learner.gradient_checkpointing else shape.layers * layer
    # Logits in the working type and in float32, their soft-max, and the gradients of both.
    logits = min(tokens, learner.logprob_chunk) * shape.vocabulary * (2 * size + 12)
    return kept + logits


def engine_weights(shape: ModelShape, config: RunConfig, paper: Paper) -> float:
    """Of one GPU of an engine."""
    size = BYTES[config.policy.engine.dtype]
    experts = shape.experts * (size - paper.expert_bits / 8) if paper.expert_bits < 16 else 0.0
    return (size * shape.total - experts) / paper.engine_gpus


def cache_bytes_per_token(shape: ModelShape, config: RunConfig, paper: Paper) -> float:
    """Of one GPU; latent attention has one head, which every GPU of an engine holds."""
    size = BYTES[config.policy.engine.dtype]
    return size * shape.layers * shape.cached / min(paper.engine_gpus, shape.kv_heads)


def engine_work(shape: ModelShape, config: RunConfig) -> float:
    """Activations of an engine's step: residual stream and feed-forward of the tokens it takes at
    once, logits of the sequences; our estimate."""
    engine = config.policy.engine
    size = BYTES[engine.dtype]
    values = 8 * shape.hidden * engine.max_num_batched_tokens
    return size * values + (size + 8) * shape.vocabulary * engine.max_num_seqs


def phases(
    config: RunConfig, shape: ModelShape, gpu: Gpu, paper: Paper
) -> tuple[Phase, Phase, Phase]:
    """Sampling, learning, and the update of the engine's weights, on one GPU."""
    return (
        _generate(config, shape, gpu, paper),
        _learn(config, shape, paper),
        _publish(config, shape, paper),
    )


def _generate(config: RunConfig, shape: ModelShape, gpu: Gpu, paper: Paper) -> Phase:
    weights, work = engine_weights(shape, config, paper), engine_work(shape, config)
    share = gpu.gib * GIB * config.policy.engine.gpu_memory_utilization
    fixed = {"engine's weights": weights, "engine's work": work, "engine's context": asleep(1)}
    cache = max(0.0, share - sum(fixed.values()))
    return Phase(
        name="generate",
        parts=fixed | {"KV cache": cache, "learner's context": LEARNER_RESIDUE},
    )


def _learn(config: RunConfig, shape: ModelShape, paper: Paper) -> Phase:
    learner, ranks = config.policy.learner, config.policy.num_gpus
    size = BYTES[learner.dtype]
    tokens = batches_of(config).micro_batch_tokens
    lora = config.policy.lora.enable
    parts = states(shape, learner, ranks, lora=lora)
    parts["activations"] = activations(shape, learner, tokens)
    if (update := 4.0 * (shape.adapter if lora else shape.total) / ranks) > parts["activations"]:
        del parts["activations"]  # gone before the optimizer's step
        parts["gradients in float32"] = update
    if ranks > 1:
        parts["buckets of gradients"] = size * min(shape.total, REDUCED)
    if learner.zero_stage == 3 and ranks > 1:
        parts["gathered weights"] = size * min(shape.total, max(LIVE, shape.largest_layer))
    if config.rl.kl.coef and not lora:
        parts["frozen reference"] = size * float(shape.total)
    parts["fragments"] = FRAGMENTS * sum(parts.values())
    parts["engine asleep"] = asleep(paper.engine_gpus)
    parts["learner's context"] = LEARNER_RESIDUE
    return Phase(name="learn", parts=parts)


def _publish(config: RunConfig, shape: ModelShape, paper: Paper) -> Phase:
    learner, ranks = config.policy.learner, config.policy.num_gpus
    size = BYTES[learner.dtype]
    bucket = max(BUCKET, size * shape.largest_tensor)
    lora = config.policy.lora.enable
    return Phase(
        name="publish",
        parts={
            "engine's weights": engine_weights(shape, config, paper),
            "learner's weights": states(shape, learner, ranks, lora=lora)["weights"],
            "weights on their way": size * shape.adapter if lora else 3.0 * bucket,
            "layer being loaded": 2.0 * size * shape.largest_layer / paper.engine_gpus,
            "engine's context": asleep(paper.engine_gpus),
            "learner's context": LEARNER_RESIDUE,
        },
    )


def cached_tokens(config: RunConfig, shape: ModelShape, generate: Phase, paper: Paper) -> int:
    """Tokens that the KV cache of one engine holds."""
    return int(generate.parts["KV cache"] / cache_bytes_per_token(shape, config, paper))


def on_host(config: RunConfig, shape: ModelShape) -> float:
    """Pinned memory of a node per GPU, for what the learner moves out of the engine's way."""
    return sum(
        states(
            shape,
            config.policy.learner,
            config.policy.num_gpus,
            lora=config.policy.lora.enable,
        ).values()
    )


def publish_seconds(config: RunConfig, shape: ModelShape, gpu: Gpu, paper: Paper) -> float:
    """Of one weight update at the nominal speed of memory and links: weights are gathered from the
    ranks, and copied into the bucket, out of it and into place. The real one is slower."""
    learner, ranks = config.policy.learner, config.policy.num_gpus
    size = BYTES[learner.dtype]
    moved = size * float(shape.adapter if config.policy.lora.enable else shape.total)
    gathered = moved * (ranks - 1) / ranks if learner.zero_stage == 3 else 0.0
    return gathered / (gpu.link_gbs * 1e9) + 3 * 2 * moved / (gpu.memory_gbs * 1e9)

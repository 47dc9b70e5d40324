"""What a recipe says that changes nothing, and what it would run into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from palestra.deploy.config import RunConfig
from palestra.deploy.plan.batches import Batches
from palestra.deploy.plan.memory import Paper
from palestra.policies.shape import ModelShape

Rule = tuple[str, str, Callable[[RunConfig], bool]]

WITHOUT_EFFECT: tuple[Rule, ...] = (
    ("policy.tiny.", 'policy.model = "tiny"', lambda c: c.policy.model == "tiny"),
    ("policy.lora.", "policy.lora.enable = true", lambda c: c.policy.lora.enable),
    ("policy.engine.kv_cache_gib", "a CPU", lambda c: False),
    ("policy.engine.threads", "a CPU", lambda c: False),
    ("policy.learner.threads", "a CPU", lambda c: False),
    (
        "policy.learner.momentum",
        'policy.learner.optimizer = "muon"',
        lambda c: c.policy.learner.optimizer == "muon",
    ),
    (
        "policy.learner.qk_clip_tau",
        "policy.learner.qk_clip = true",
        lambda c: c.policy.learner.qk_clip,
    ),
    (
        "policy.learner.qat.weights",
        "policy.learner.qat.enabled = true",
        lambda c: c.policy.learner.qat.enabled,
    ),
    (
        "policy.learner.stable_steps",
        'policy.learner.schedule = "wsd"',
        lambda c: c.policy.learner.schedule == "wsd",
    ),
    (
        "policy.learner.min_lr_ratio",
        "policy.learner.decay_steps above 0",
        lambda c: c.policy.learner.decay_steps > 0,
    ),
    ("policy.sft.", "policy.sft.steps above 0", lambda c: c.policy.sft.steps > 0),
    ("rl.toggle.", "rl.toggle.enable = true", lambda c: c.rl.toggle.enable),
    ("rl.ptx.", "rl.ptx.coef above 0", lambda c: c.rl.ptx.coef > 0),
    ("rl.kl.", "rl.kl.coef above 0", lambda c: c.rl.kl.coef > 0),
    (
        "rl.length_penalty.",
        "rl.length_penalty.coef above 0",
        lambda c: c.rl.length_penalty.coef > 0,
    ),
    ("rl.critic.", "rl.critic.freq above 0", lambda c: c.rl.critic.freq > 0),
    ("rl.overlong.", "rl.overlong.buffer_len above 0", lambda c: c.rl.overlong.buffer_len > 0),
    (
        "rl.temperature_decay.",
        'another rl.temperature_decay.shape than "constant"',
        lambda c: c.rl.temperature_decay.shape != "constant",
    ),
    (
        "rl.loss_scale_factor",
        'rl.loss_agg_mode = "seq-mean-token-sum-norm"',
        lambda c: c.rl.loss_agg_mode == "seq-mean-token-sum-norm",
    ),
)
"""Keys (those below a section end in a dot), what they need, and whether a recipe has that."""

SWITCHES = frozenset(
    {
        "policy.lora.enable",
        "policy.sft.steps",
        "rl.toggle.enable",
        "rl.ptx.coef",
        "rl.kl.coef",
        "rl.length_penalty.coef",
        "rl.critic.freq",
        "rl.overlong.buffer_len",
        "rl.temperature_decay.shape",
    }
)
"""Keys that switch their own section, which are never without effect."""


def without_effect(config: RunConfig, sources: Mapping[str, str]) -> Iterator[str]:
    """A line for every key that the recipe sets and nothing reads, on a GPU."""
    for key, source in sources.items():
        if source == "default" or key in SWITCHES:
            continue
        for prefix, needs, holds in WITHOUT_EFFECT:
            if key == prefix or (prefix.endswith(".") and key.startswith(prefix)):
                if not holds(config):
                    yield f"{key} ({source}) has no effect without {needs}"
                break


def warnings(
    config: RunConfig, shape: ModelShape, batches: Batches, positions: int, cached: int
) -> Iterator[str]:
    """A line for each choice that costs more than it seems; ``positions`` is the longest sequence
    of the model, ``cached`` what the KV cache of an engine holds."""
    learner, engine = config.policy.learner, config.policy.engine
    longest = config.rollout.max_context_length
    if longest > positions:
        yield f"rollout.max_context_length = {longest}: the model knows {positions} positions"
    for key, dtype in (("learner", learner.dtype), ("engine", engine.dtype)):
        if dtype == "float32":
            yield f'policy.{key}.dtype = "float32" takes twice the memory of "bfloat16" on a GPU'
    if engine.max_num_batched_tokens < longest:
        yield "policy.engine.max_num_batched_tokens is below rollout.max_context_length"
    if learner.optimizer == "muon" and learner.zero_stage == 3:
        yield "Muon under ZeRO 3 cannot give its states way to the engine: take zero_stage = 2"
    at_once = min(
        engine.max_num_seqs,
        -(-min(batches.episodes, config.rollout.max_in_flight) // batches.engines),
    )
    if cached < at_once * longest:
        yield (
            f"the KV cache holds {cached:,} tokens of an engine, {at_once} episodes of {longest:,} "
            f"have {at_once * longest:,}: some wait or are computed again"
        )
    if config.rl.train_batch_size % batches.updates:
        yield "rl.train_batch_size is no multiple of rl.mini_batches: updates differ in size"
    if longest > learner.micro_batch_tokens:
        yield (
            f"one episode of {longest} tokens is more than policy.learner.micro_batch_tokens = "
            f"{learner.micro_batch_tokens}: memory follows the episode"
        )


def refusals(config: RunConfig, paper: Paper) -> Iterator[str]:
    """A line for each thing that this version cannot run at all."""
    if paper.engine_gpus > 1:
        yield f"{paper.engine_gpus} GPUs per engine are on paper: this version runs one"
    if paper.expert_bits < 16:
        yield f"experts in {paper.expert_bits} bits are on paper: weights travel as floats"
    if config.policy.lora.enable and config.policy.num_gpus > 1:
        yield "adapters are for policy.num_gpus = 1 in this version"

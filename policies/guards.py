"""Run-time assertions of colocation: small checks that fail closed and say their numbers.

Each takes plain values, so that a test can stand in for a GPU's counters; ``checksums`` and
``leaks`` hold those that compare one weight update, or one cycle, with another. Thresholds are
proposals that no GPU run has calibrated yet.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import median
from typing import TypeAlias

from palestra.rl.errors import EngineError, InfraError, PalestraError, UserError

Shape: TypeAlias = tuple[int, ...]

P99_SHARE = 10
"""The 99th percentile of the probe's gaps may be this many times their mean's limit."""
ALARM_SHARE = 3
"""A mean gap this many times the median of those before it is worth a warning."""
TIED_HEAD = "ParallelLMHead"
"""The layer that vLLM never loads where the output head is the embedding."""

_NEXT = {
    ("awake", "generate"): "awake",
    ("awake", "checksums"): "awake",
    ("awake", "sleep"): "asleep",
    ("awake", "forget"): "awake",
    ("awake", "load adapter"): "awake",
    ("asleep", "wake weights"): "mapped",
    ("mapped", "reset weights"): "mapped",
    ("mapped", "start update"): "updating",
    ("updating", "update"): "updating",
    ("updating", "finish update"): "mapped",
    ("mapped", "forget"): "mapped",
    ("mapped", "wake kv_cache"): "awake",
}


class MismatchError(PalestraError):
    """Engine and learner disagree about log-probabilities: what is trained is not what was played.

    The run stops; the last checkpoint is good.
    """


def above(kl: float, limit: float | None) -> bool:
    """Is the mean KL between recorded and own log-probabilities too large, or not a number?"""
    return limit is not None and not kl <= limit


def recorded_alike(kl: float, limit: float | None) -> None:
    """The tokens to learn from were sampled from the distribution that the learner computes."""
    if above(kl, limit):
        raise MismatchError(
            f"the engine's recorded log-probabilities are not the learner's: mean KL {kl:.2g}, "
            f"limit {limit:.2g} (rl.mismatch.limit); nothing was learned from this step"
        )


# Start-up: where the two sides are, and what they were started with.


def same_device(engine_devices: Sequence[str], learner_devices: Sequence[str]) -> None:
    """Every engine worker sits on the device of a learner's rank of its own."""
    stray = Counter(engine_devices) - Counter(learner_devices)
    if stray or not engine_devices:
        raise EngineError(
            f"engine workers on {sorted(engine_devices)} do not match learners on "
            f"{sorted(learner_devices)}: weights cannot be handed over in memory"
        )


def same_environment(engine: Mapping[str, str], learner: Mapping[str, str]) -> None:
    """Variables that CUDA IPC and a second NCCL communicator depend on."""
    if engine.get("VLLM_ALLOW_INSECURE_SERIALIZATION") != "1":
        raise UserError(
            "unset VLLM_ALLOW_INSECURE_SERIALIZATION, or set it to 1: handles cross vLLM pickled"
        )
    ours, theirs = learner.get("NCCL_CUMEM_ENABLE"), engine.get("NCCL_CUMEM_ENABLE")
    if ours != theirs:
        raise UserError(f"NCCL_CUMEM_ENABLE is {theirs} in the engine but {ours} in the learner")


def export_allowed(expandable_segments: bool) -> None:
    """CUDA IPC export fails from a learner whose allocator uses expandable segments."""
    if expandable_segments:
        raise UserError("unset expandable_segments in PYTORCH_CUDA_ALLOC_CONF: CUDA IPC needs it")


def process_group(size: int, learners: int, bound_device: object) -> None:
    """The default group is exactly the learners (IPC handles are merged over it), and bound to no
    device (a second group would hang)."""
    if size != learners or bound_device is not None:
        raise InfraError(
            f"the default process group has {size} ranks bound to {bound_device}; expected "
            f"{learners} bound to none"
        )


def can_offload(stage: int, offers: bool, optimizer: str) -> None:
    """DeepSpeed can move this optimizer's states off the device (``offers``: it has the method)."""
    if not offers or (stage == 3 and optimizer != "FusedAdam"):
        raise UserError(
            f"policy.learner: the states of {optimizer} under ZeRO {stage} cannot leave the device"
        )


# Weights to send.


def same_tensors(
    sent: Mapping[str, Shape],
    expected: Mapping[str, Shape],
    *,
    optional: Sequence[str] = (),
) -> None:
    """What the learner sends is what the checkpoint holds, names and shapes.

    ``optional`` holds patterns of names that a checkpoint may have beside (a tied head). Experts
    count by their elements: one side may have them fused.
    """
    ours, theirs = _fold(sent), _fold(expected)
    missing = sorted(
        name for name in set(theirs) - set(ours) if not any(re.search(p, name) for p in optional)
    )
    extra = sorted(set(ours) - set(theirs))
    shapes = {n: (ours[n], theirs[n]) for n in set(ours) & set(theirs) if ours[n] != theirs[n]}
    if missing or extra or shapes:
        raise EngineError(
            f"weights to send differ from the checkpoint: {missing=} {extra=} {shapes=}"
        )


def _fold(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    folded: dict[str, Shape] = {}
    for name, shape in shapes.items():
        layer, dot, _ = name.partition(".experts.")
        if dot:
            (seen,) = folded.get(layer + ".experts", (0,))
            folded[layer + ".experts"] = (seen + math.prod(shape),)
        else:
            folded[name] = shape
    return folded


def fits_buffer(largest_tensor_bytes: int, buffer_bytes: int) -> None:
    """A packed transfer cannot split a tensor."""
    if largest_tensor_bytes > buffer_bytes:
        raise EngineError(
            f"a tensor of {largest_tensor_bytes} bytes exceeds the transfer buffer of "
            f"{buffer_bytes} bytes"
        )


def fits_folder(weights_bytes: int, free_bytes: int, folder: str) -> None:
    """A transfer through shared memory needs room for all weights at once."""
    if weights_bytes > free_bytes:
        raise InfraError(
            f"{folder} has {free_bytes} bytes free, the weights need {weights_bytes}: enlarge it"
        )


def all_loaded(layers: Sequence[str], *, tied: bool) -> None:
    """``layers``: those of which vLLM said that their weights did not come in the last update.

    After a deep sleep such a layer computes with whatever lies in its memory.
    """
    stale = [layer for layer in layers if not (tied and layer == TIED_HEAD)]
    if stale:
        raise EngineError(f"the update left out weights of {', '.join(stale)}")


def all_adapted(loaded: int, expected: int) -> None:
    """Layers of an engine worker that have an adapter after an update: vLLM leaves those alone
    that the update does not name, or names as it does not know them."""
    if loaded != expected:
        raise EngineError(f"the update left {loaded} of {expected} layers with an adapter")


# Turns.


def next_state(state: str, call: str) -> str:
    """The state of an engine after ``call``; raises EngineError where it may not be made.

    While a call runs, the state is its name, after which nothing is allowed: so a call that fails
    leaves an engine that is never used again.
    """
    if (state, call) not in _NEXT:
        raise EngineError(f"cannot {call}: the engine is at {state!r}")
    return _NEXT[state, call]


def one_phase(running: str | None, asked: str) -> None:
    """Two phases never overlap on a device, and none follows one that failed."""
    if running:
        raise InfraError(f"{asked} was asked for while {running} runs, or after it failed")


def resident(offloaded: Collection[str], needed: Collection[str]) -> None:
    """Nothing computes with, gathers or saves what was moved off the device."""
    away = sorted(set(offloaded) & set(needed))
    if away:
        raise InfraError(f"the learner's {' and '.join(away)} are offloaded: reload first")


def drained(unfinished: int) -> None:
    """No request is running when an engine falls asleep."""
    if unfinished:
        raise EngineError(f"{unfinished} requests are still running: the engine cannot sleep")


def fell_asleep(sleeping: bool) -> None:
    """vLLM only logs a sleep that it did not do."""
    if not sleeping:
        raise EngineError("the engine was told to sleep but is awake")


def woke(tag: str, fully: bool) -> None:
    """Weights come first and leave the engine half awake, the KV cache makes it whole."""
    if fully != (tag == "kv_cache"):
        raise EngineError(f"after waking {tag} the engine is {'fully' if fully else 'half'} awake")


# After an update.


def one_version(versions: Sequence[str]) -> str:
    """The version of all tokens of a reply: updates never happen in flight."""
    if len(set(versions)) != 1:
        raise EngineError(f"a reply was sampled under weights {list(versions)}, not under one")
    return versions[0]


def same_version(engine_version: int, expected: int) -> None:
    """The engine serves the weights that the learner just sent."""
    if engine_version != expected:
        raise EngineError(f"the engine has weights {engine_version}, expected {expected}")


def cache_dropped(first: int, again: int) -> None:
    """Tokens of one long prompt found in the prefix cache, right after it was dropped and at once
    again: nothing old is read, and the cache is really on."""
    if first != 0 or again <= 0:
        raise EngineError(
            f"after the prefix cache was dropped, {first} tokens of a prompt were found in it and "
            f"{again} when it was asked again"
        )


def agree(
    engine_logprobs: Sequence[float], learner_logprobs: Sequence[float], limit: float
) -> dict[str, float]:
    """Mean, 99th percentile and maximum of |engine - learner| over the probe's sampled tokens.

    Raises MismatchError when the mean exceeds ``limit``, the percentile ten times that, or a number
    is not finite.
    """
    gaps = sorted(abs(a - b) for a, b in zip(engine_logprobs, learner_logprobs, strict=True))
    mean = sum(gaps) / len(gaps) if gaps else 0.0
    p99 = gaps[math.ceil(0.99 * len(gaps)) - 1] if gaps else 0.0
    if not math.isfinite(mean) or mean > limit or p99 > P99_SHARE * limit:
        raise MismatchError(
            f"engine and learner disagree: mean |log-probability gap| {mean:.2e} on the probe, "
            f"99th percentile {p99:.2e}, limit {limit:.0e} (rl.mismatch_limit)"
        )
    return {
        "mismatch/probe_mean": mean,
        "mismatch/probe_p99": p99,
        "mismatch/probe_max": max(gaps, default=0.0),
    }


def drifts(earlier: Sequence[float], mean: float, limit: float) -> bool:
    """Is a mean gap far above those before it, and no longer negligible beside the limit?"""
    return bool(earlier) and mean > max(ALARM_SHARE * median(earlier), limit / 10)

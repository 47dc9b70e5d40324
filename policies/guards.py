"""Run-time assertions of colocation: small checks that fail closed and log their numbers.

Each takes plain numbers, so that a test can stand in for a GPU's counters. Thresholds are proposals
that no GPU run has calibrated yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from palestra.rl.errors import EngineError, PalestraError, UserError

ASLEEP_SLACK_BYTES = 256 << 20


class MismatchError(PalestraError):
    """Engine and learner disagree about log-probabilities: what is trained is not what was played.

    The run stops; the last checkpoint is good.
    """


def same_device(engine_uuids: Sequence[str], learner_uuids: Sequence[str]) -> None:
    """Every engine worker sits on a learner's GPU, and no two on the same one."""
    stray = sorted(set(engine_uuids) - set(learner_uuids))
    if stray or len(set(engine_uuids)) != len(engine_uuids):
        raise EngineError(
            f"engine workers on {sorted(engine_uuids)} do not match learners on "
            f"{sorted(learner_uuids)}: CUDA IPC cannot work"
        )


def export_allowed(environment: Mapping[str, str]) -> None:
    """CUDA IPC export fails from a learner whose allocator uses expandable segments."""
    if "expandable_segments:true" in environment.get("PYTORCH_CUDA_ALLOC_CONF", "").lower():
        raise UserError("unset expandable_segments in PYTORCH_CUDA_ALLOC_CONF: CUDA IPC needs it")


def same_names(sent: Sequence[str], expected: Sequence[str], *, tied: Sequence[str] = ()) -> None:
    """What the learner sends is exactly what the checkpoint holds, tied heads aside."""
    missing = sorted(set(expected) - set(sent) - set(tied))
    extra = sorted(set(sent) - set(expected))
    if missing or extra:
        raise EngineError(f"weights to send differ from the checkpoint: {missing=} {extra=}")


def fits_buffer(largest_tensor_bytes: int, buffer_bytes: int) -> None:
    """A packed transfer cannot split a tensor."""
    if largest_tensor_bytes > buffer_bytes:
        raise EngineError(
            f"a tensor of {largest_tensor_bytes} bytes exceeds the transfer buffer of "
            f"{buffer_bytes} bytes"
        )


def asleep(used_bytes: int, baseline_bytes: int) -> None:
    """A sleeping engine gave its memory back; the baseline is that of the first cycle."""
    if used_bytes > baseline_bytes + ASLEEP_SLACK_BYTES:
        raise EngineError(
            f"asleep, the engine holds {used_bytes} bytes; after the first cycle it was "
            f"{baseline_bytes}: memory leaks from cycle to cycle"
        )


def same_version(engine_version: int, expected: int) -> None:
    """The engine serves the weights that the learner just sent."""
    if engine_version != expected:
        raise EngineError(f"the engine has weights {engine_version}, expected {expected}")


def agree(
    engine_logprobs: Sequence[float], learner_logprobs: Sequence[float], limit: float
) -> dict[str, float]:
    """Mean and maximum |engine - learner| over the probe's sampled tokens; raises MismatchError
    when the mean exceeds ``limit`` or a number is not finite."""
    gaps = [abs(a - b) for a, b in zip(engine_logprobs, learner_logprobs, strict=True)]
    mean = sum(gaps) / len(gaps) if gaps else 0.0
    if not math.isfinite(mean) or mean > limit:
        raise MismatchError(
            f"engine and learner disagree: mean |log-probability gap| {mean:.2e} on the probe, "
            f"limit {limit:.0e} (rl.mismatch_limit)"
        )
    return {"mismatch/probe_mean": mean, "mismatch/probe_max": max(gaps, default=0.0)}

"""Each guard lets sound numbers pass and stops the others."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from palestra.policies import checksums, guards, leaks
from palestra.policies.guards import MismatchError
from palestra.policies.leaks import ASLEEP_SLACK, ENOUGH, MIB, SEND_SLACK, SETTLED
from palestra.rl.errors import EngineError, InfraError, UserError

INSECURE = {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}
CUMEM = {"NCCL_CUMEM_ENABLE": "0"}
EXPERTS = {f"l.experts.{n}.up.weight": (4, 2) for n in range(3)}
FUSED = {"l.experts.gate_up": (3, 4, 2)}
CPU = {name: 7 for name in leaks.GROWTH if name not in leaks.ON_DEVICE}
GPU = dict.fromkeys(leaks.GROWTH, 7)


def used(*sizes: int) -> list[dict[str, int]]:
    return [{"engine_device_bytes": size} for size in sizes]


def growing(name: str, by: float, *, cycles: int = SETTLED + ENOUGH, start: int = 0) -> None:
    leaks.steady([{name: int(start + by * n)} for n in range(cycles)])


@pytest.mark.parametrize(
    "sound",
    [
        lambda: guards.same_device(["a"], ["a"]),
        lambda: guards.same_device(["b", "a"], ["a", "b"]),
        lambda: guards.same_device(["a"], ["a", "b"]),
        lambda: guards.same_environment(INSECURE, {}),
        lambda: guards.same_environment(INSECURE | CUMEM, CUMEM),
        lambda: guards.export_allowed(False),
        lambda: guards.process_group(1, 1, None),
        lambda: guards.can_offload(3, True, "FusedAdam"),
        lambda: guards.can_offload(2, True, "AdamW"),
        lambda: guards.same_tensors({"w": (1,), "v": (2,)}, {"v": (2,), "w": (1,)}),
        lambda: guards.same_tensors({"w": (1,)}, {"w": (1,), "head": (2,)}, optional=["^head"]),
        lambda: guards.same_tensors(FUSED, EXPERTS),
        lambda: guards.same_tensors(EXPERTS, FUSED),
        lambda: guards.fits_buffer(10, 10),
        lambda: guards.fits_folder(10, 10, "/dev/shm"),
        lambda: guards.all_loaded([], tied=False),
        lambda: guards.all_loaded(["ParallelLMHead"], tied=True),
        lambda: guards.one_phase(None, "learn"),
        lambda: guards.resident(["states"], ["weights"]),
        lambda: guards.drained(0),
        lambda: guards.fell_asleep(True),
        lambda: guards.woke("weights", False),
        lambda: guards.woke("kv_cache", True),
        lambda: guards.same_version(3, 3),
        lambda: guards.cache_dropped(0, 1),
        lambda: checksums.unchanged({"a": "1"}, {"a": "1"}),
        lambda: checksums.moved({"l.0.a": "1", "l.0.b": "1"}, {"l.0.a": "2", "l.0.b": "1"}),
        lambda: checksums.moved({"l.0.a": "1", "head": "1"}, {"l.0.a": "2", "head": "1"}),
        lambda: checksums.same_everywhere({"dp0:tp0:a": "1", "dp0:tp1:a": "2", "dp1:tp0:a": "1"}),
        lambda: leaks.counted(CPU, device=False),
        lambda: leaks.counted(GPU, device=True),
        lambda: leaks.asleep(used(0, 5, ASLEEP_SLACK + 5)),
        lambda: leaks.asleep(used(0, 10 * ASLEEP_SLACK)),
        lambda: leaks.asleep([{}, {}, {}]),
        lambda: growing("engine_open_files", 0.5),
        lambda: growing("engine_open_files", 9, cycles=SETTLED + ENOUGH - 1),
        lambda: growing("engine_device_bytes", 16 * MIB),
        lambda: growing("learner_rss_bytes", 128 * MIB),
        lambda: growing("learner_rss_bytes", 256 * MIB, start=20_000 * MIB),
        lambda: leaks.collected(None, None),
        lambda: leaks.collected(SEND_SLACK, 0),
    ],
)
def test_sound_numbers_pass(sound: Callable[[], None]) -> None:
    sound()


@pytest.mark.parametrize(
    ("kind", "says", "wrong"),
    [
        (EngineError, "in memory", lambda: guards.same_device(["a"], ["b"])),
        (EngineError, "in memory", lambda: guards.same_device(["a", "a"], ["a", "b"])),
        (EngineError, "in memory", lambda: guards.same_device(["a", "c"], ["a", "b"])),
        (EngineError, "in memory", lambda: guards.same_device([], ["a"])),
        (UserError, "INSECURE", lambda: guards.same_environment({}, INSECURE)),
        (UserError, "CUMEM", lambda: guards.same_environment(INSECURE | CUMEM, {})),
        (UserError, "CUMEM", lambda: guards.same_environment(INSECURE, CUMEM)),
        (UserError, "expandable_segments", lambda: guards.export_allowed(True)),
        (InfraError, "2 ranks", lambda: guards.process_group(2, 1, None)),
        (InfraError, "bound to cuda:0", lambda: guards.process_group(1, 1, "cuda:0")),
        (UserError, "AdamW under ZeRO 3", lambda: guards.can_offload(3, True, "AdamW")),
        (UserError, "FusedAdam under ZeRO 1", lambda: guards.can_offload(1, False, "FusedAdam")),
        (
            EngineError,
            r"missing=\['v'\]",
            lambda: guards.same_tensors({"w": (1,)}, {"v": (1,), "w": (1,)}, optional=["^vv"]),
        ),
        (
            EngineError,
            r"extra=\['u'\]",
            lambda: guards.same_tensors({"w": (1,), "u": (1,)}, {"w": (1,)}),
        ),
        (
            EngineError,
            r"'w': \(\(1, 2\), \(2, 1\)\)",
            lambda: guards.same_tensors({"w": (1, 2)}, {"w": (2, 1)}),
        ),
        (
            EngineError,
            r"'l.experts': \(\(24,\), \(16,\)\)",
            lambda: guards.same_tensors(FUSED, dict(list(EXPERTS.items())[:2])),
        ),
        (EngineError, "11 bytes", lambda: guards.fits_buffer(11, 10)),
        (InfraError, "/dev/shm has 10 bytes", lambda: guards.fits_folder(11, 10, "/dev/shm")),
        (EngineError, "MLP", lambda: guards.all_loaded(["MLP", "ParallelLMHead"], tied=True)),
        (EngineError, "LMHead", lambda: guards.all_loaded(["ParallelLMHead"], tied=False)),
        (InfraError, "while publish", lambda: guards.one_phase("publish", "learn")),
        (InfraError, "states and w", lambda: guards.resident(["w", "states"], ["states", "w"])),
        (EngineError, "2 requests", lambda: guards.drained(2)),
        (EngineError, "is awake", lambda: guards.fell_asleep(False)),
        (EngineError, "fully awake", lambda: guards.woke("weights", True)),
        (EngineError, "half awake", lambda: guards.woke("kv_cache", False)),
        (EngineError, "not under one", lambda: guards.one_version(["1", "2"])),
        (EngineError, "not under one", lambda: guards.one_version([])),
        (EngineError, "weights 2, expected 3", lambda: guards.same_version(2, 3)),
        (EngineError, "16 tokens", lambda: guards.cache_dropped(16, 32)),
        (EngineError, "0 when it was asked again", lambda: guards.cache_dropped(0, 0)),
        (EngineError, "1 of 1", lambda: checksums.unchanged({"a": "1"}, {"a": "2"})),
        (EngineError, "1 of 1", lambda: checksums.unchanged({"a": "1"}, {"a": "1", "b": "2"})),
        (EngineError, "1 of 1", lambda: checksums.unchanged({"a": "1"}, {})),
        (EngineError, "0 of 0", lambda: checksums.unchanged({}, {})),
        (
            EngineError,
            r"1 of 2 layers .*l\.1\.",
            lambda: checksums.moved({"l.0.a": "1", "l.1.a": "1"}, {"l.0.a": "2", "l.1.a": "1"}),
        ),
        (EngineError, "0 of 0", lambda: checksums.moved({"head": "1"}, {"head": "2"})),
        (
            EngineError,
            "replicas .* tp0:a",
            lambda: checksums.same_everywhere({"dp0:tp0:a": "1", "dp1:tp0:a": "2"}),
        ),
        (InfraError, "learner_children", lambda: leaks.counted({}, device=False)),
        (InfraError, "missing: engine_device_bytes", lambda: leaks.counted(CPU, device=True)),
        (EngineError, "first cycle it was 5", lambda: leaks.asleep(used(0, 5, ASLEEP_SLACK + 6))),
        (InfraError, "engine_open_files grows by 1", lambda: growing("engine_open_files", 1)),
        (InfraError, "pinned", lambda: growing("learner_pinned_bytes", 33 * MIB)),
        (InfraError, "rss", lambda: growing("engine_rss_bytes", 129 * MIB)),
        (InfraError, "rss", lambda: growing("engine_rss_bytes", 256 * MIB, start=5_000 * MIB)),
        (InfraError, "before a transfer", lambda: leaks.collected(0, SEND_SLACK + 1)),
        (InfraError, "before a transfer", lambda: leaks.collected(SEND_SLACK + 1, 0)),
        (InfraError, "before a transfer", lambda: leaks.collected(0, None)),
    ],
)
def test_wrong_numbers_stop(kind: type[Exception], says: str, wrong: Callable[[], None]) -> None:
    with pytest.raises(kind, match=says):
        wrong()


def test_an_engine_goes_round_in_one_order() -> None:
    state = "awake"
    for call in (
        *("generate", "checksums", "sleep", "wake weights", "reset weights"),
        *("start update", "update", "update", "finish update", "forget"),
        *("wake kv_cache", "forget", "generate"),
    ):
        state = guards.next_state(state, call)
    assert state == "awake"


@pytest.mark.parametrize(
    ("state", "call"),
    [
        ("awake", "start update"),
        ("awake", "wake weights"),
        ("asleep", "generate"),
        ("asleep", "start update"),
        ("asleep", "wake kv_cache"),
        ("asleep", "sleep"),
        ("mapped", "checksums"),
        ("mapped", "generate"),
        ("mapped", "update"),
        ("updating", "start update"),
        ("updating", "generate"),
        ("updating", "wake kv_cache"),
        ("update", "update"),
        ("sleep", "sleep"),
        ("generate", "generate"),
    ],
)
def test_an_engine_refuses_what_is_out_of_turn(state: str, call: str) -> None:
    with pytest.raises(EngineError, match=f"cannot {call}: the engine is at '{state}'"):
        guards.next_state(state, call)


def test_agreement_is_measured() -> None:
    found = guards.agree([-1.0, -2.0, -3.0], [-1.0, -2.5, -3.25], 0.25)
    assert found == {
        "mismatch/probe_mean": 0.25,
        "mismatch/probe_p99": 0.5,
        "mismatch/probe_max": 0.5,
    }
    assert set(guards.agree([], [], 0.1).values()) == {0.0}


@pytest.mark.parametrize("bad", [-1.3, -0.7, math.nan, math.inf, -math.inf])
def test_disagreement_stops(bad: float) -> None:
    with pytest.raises(MismatchError, match="disagree"):
        guards.agree([-1.0, -1.0], [-1.0, bad], 0.1)


@pytest.mark.parametrize(("size", "stops"), [(99, True), (100, False)])
def test_one_token_in_a_hundred_may_be_far_off(size: int, stops: bool) -> None:
    ours, theirs = [0.0] * size, [0.0] * (size - 1) + [2.0]
    if stops:
        with pytest.raises(MismatchError, match=r"99th percentile 2\.00"):
            guards.agree(ours, theirs, 0.1)
    else:
        assert guards.agree(ours, theirs, 0.1)["mismatch/probe_p99"] == 0.0


def test_sides_of_different_length_are_a_fault_of_ours() -> None:
    with pytest.raises(ValueError, match="shorter"):
        guards.agree([-1.0, -2.0], [-1.0], 1.0)


@pytest.mark.parametrize(
    ("earlier", "mean", "drifts"),
    [
        ([], 1.0, False),
        ([0.02, 0.03, 0.02], 0.061, True),
        ([0.02, 0.03, 0.02], 0.059, False),
        ([1e-7], 9e-3, False),
        ([0.0], 1.1e-2, True),
    ],
)
def test_drift_is_against_the_median_and_the_limit(
    earlier: list[float], mean: float, drifts: bool
) -> None:
    assert guards.drifts(earlier, mean, 0.1) is drifts
